"""The gRPC service over a real channel: AlpaSim's wire, sessions, limits, faults; in this process and beside it."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import Plan, PlanRequest
from traj_diffusion.testing import straight_road

pytest.importorskip("grpc", reason="needs the extra [serve]")
pytest.importorskip("google.protobuf", reason="needs the extra [serve]")

import grpc

from traj_diffusion.sim_adapter.hosts.alpasim import Server, TrafficService
from traj_diffusion.sim_adapter.hosts.alpasim_messages import METHODS, message

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "serve_client.py"
SECOND = 1_000_000


class Client:
    """What AlpaSim does, by the names on its wire."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)])

    def begin(self, method: str, request: Any = None, timeout: float = 60.0) -> Any:
        asked, answered = METHODS[method]
        send = self.channel.unary_unary(
            f"/traffic.TrafficService/{method}",
            request_serializer=message(asked).SerializeToString,
            response_deserializer=message(answered).FromString,
        )
        return send.future(request if request is not None else message(asked)(), timeout=timeout)

    def __call__(self, method: str, request: Any = None, timeout: float = 60.0) -> Any:
        return self.begin(method, request, timeout).result()

    def refused(self, method: str, request: Any) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as error:
            self(method, request)
        return error.value.code().name, error.value.details()

    def code(self, method: str, request: Any, timeout: float = 60.0) -> str:
        return str(self.begin(method, request, timeout).code().name)

    def close(self) -> None:
        self.channel.close()


@pytest.fixture
def serve() -> Iterator[Any]:
    """Start a service; return it and a client."""
    running: list[Any] = []

    def begin(policy: Any = None, workers: int = 4, **options: Any) -> tuple[TrafficService, Client]:
        scene = straight_road()
        service = TrafficService(policy or ConstantVelocity(), {"straight": scene}, **options)
        server = Server(service, workers=workers)
        client = Client(server.port)
        running.extend([client, server])
        return service, client

    yield begin
    for one in running:
        one.close()


def add_pose(trajectory: Any, time: float, x: float, y: float, heading: float = 0.0) -> None:
    pose = trajectory.poses.add(timestamp_us=round(time * SECOND)).pose
    pose.vec.x, pose.vec.y, pose.vec.z = x, y, 0.8
    pose.quat.w, pose.quat.z = float(np.cos(heading / 2)), float(np.sin(heading / 2))


def session(name: str = "a", scene: str = "straight", handover: float = 1.0, seconds: float = 2.0) -> Any:
    """An ego at 10 m/s, a car 30 m behind at 8 m/s, one that enters at 1.5 s, and a parked one."""
    request = message("traffic.TrafficSessionRequest")(
        session_uuid=name, scene_id=scene, random_seed=3, handover_time_us=round(handover * SECOND)
    )
    rows = (("EGO", 0.0, 10.0, 0.0, ""), ("car", -30.0, 8.0, 0.0, "automobile"), ("late", 60.0, 5.0, 1.5, "Automobile"))
    for object_id, x, speed, first, label in rows:
        one = request.logged_object_trajectories.add(object_id=object_id, label_class=label)
        one.aabb.size_x, one.aabb.size_y, one.aabb.size_z = 4.5, 2.0, 1.6
        for time in np.arange(first, seconds + 1e-9, 0.1):
            add_pose(one.trajectory, time, x + speed * time, 0.0)
    parked = request.logged_object_trajectories.add(object_id="parked", is_static=True, label_class="heavy_truck")
    parked.aabb.size_x = parked.aabb.size_y = parked.aabb.size_z = 3.0
    add_pose(parked.trajectory, 0.0, 20.0, 9.0, 1.0)
    return request


def query(time: float, name: str = "a", ego: bool = True) -> Any:
    request = message("traffic.TrafficRequest")(session_uuid=name, time_query_us=round(time * SECOND))
    if ego:
        add_pose(request.object_trajectory_updates.add(object_id="EGO").trajectory, time, 10.0 * time, 0.0)
    return request


def places(answer: Any) -> dict[str, tuple[float, float]]:
    """Where everyone is at the time that was asked for."""
    found = {}
    for update in answer.object_trajectory_updates:
        pose = update.trajectory.poses[0].pose
        found[update.object_id] = (pose.vec.x, pose.vec.y)
    return found


def test_the_log_is_replayed_up_to_the_handover_and_then_the_model_drives(serve: Any) -> None:
    _, client = serve()
    client("start_session", session())
    replayed = places(client("simulate", query(0.95)))
    assert replayed == {"car": pytest.approx((-30 + 8 * 0.95, 0.0)), "parked": pytest.approx((20.0, 9.0))}
    answer = client("simulate", query(1.25))
    assert places(answer)["car"] == pytest.approx((-30 + 8 * 1.25, 0.0), abs=1e-3)
    stamps = [pose.timestamp_us for pose in answer.object_trajectory_updates[0].trajectory.poses]
    assert stamps[0] == 1_250_000
    assert stamps[1:3] == [1_300_000, 1_400_000]
    assert len(stamps) > 70, "the forecast comes along"
    for time in (1.35, 2.0, 3.7):
        answer = client("simulate", query(time))
    assert places(answer)["car"] == pytest.approx((-30 + 8 * 3.7, 0.0), abs=1e-2)
    assert places(answer)["late"] == pytest.approx((60 + 5 * 3.7, 0.0), abs=0.05)
    client("close_session", message("traffic.TrafficSessionCloseRequest")(session_uuid="a"))


def test_who_enters_later_is_driven_once_it_has_been_seen_for_the_history(serve: Any) -> None:
    service, client = serve()
    client("start_session", session(seconds=4.0))
    assert "late" not in places(client("simulate", query(1.4)))
    for time in (2.0, 2.4, 2.8):
        assert places(client("simulate", query(time)))["late"] == pytest.approx((60 + 5 * time, 0.0), abs=0.05)
    driven = service._sessions["a"][0]._driven
    assert set(driven) == {"car", "late"}


def test_metadata_and_scenes(serve: Any) -> None:
    _, client = serve()
    found = client("get_metadata")
    assert found.minimum_history_length_us == (ConstantVelocity().history_steps - 1) * 100_000
    assert found.version_id.version_id.startswith("traj-diffusion ")
    assert list(client("get_available_scenes").scene_ids) == ["straight"]


def test_the_same_seed_and_calls_give_the_same_bytes(serve: Any, random_policy: Any) -> None:
    _, client = serve(random_policy)
    answers = []
    for name in ("a", "b"):
        client("start_session", session(name))
        answers.append([client("simulate", query(time, name)).SerializeToString() for time in (1.2, 1.8)])
    assert answers[0] == answers[1]


def test_wrong_requests_are_refused_by_name(serve: Any) -> None:
    _, client = serve()
    assert client.refused("start_session", session(scene="x")) == ("NOT_FOUND", "scene 'x' is not served here")
    assert client.refused("simulate", query(1.0))[0] == "NOT_FOUND"
    assert client.refused("start_session", session(handover=0.0))[0] == "INVALID_ARGUMENT"
    twice = session()
    twice.logged_object_trajectories[1].object_id = "EGO"
    assert client.refused("start_session", twice)[0] == "INVALID_ARGUMENT"
    client("start_session", session())
    assert client.refused("start_session", session())[0] == "ALREADY_EXISTS"
    bad = query(1.0)
    bad.object_trajectory_updates[0].trajectory.poses[0].pose.vec.x = float("nan")
    assert client.refused("simulate", bad) == ("INVALID_ARGUMENT", "a pose is not finite")
    assert "the ego's pose at 2.100 s is missing" in client.refused("simulate", query(3.0, ego=False))[1]
    client("simulate", query(3.0))
    assert "must not run backwards" in client.refused("simulate", query(1.0))[1]


class Broken(ConstantVelocity):
    def plan(self, request: PlanRequest) -> Plan:
        raise RuntimeError("no\nweights")


def test_a_model_that_fails_is_a_failed_precondition_and_nothing_is_made_up(serve: Any) -> None:
    _, client = serve(Broken())
    client("start_session", session())
    for _ in range(2):
        code, details = client.refused("simulate", query(1.5))
        assert (code, details) == ("FAILED_PRECONDITION", "the model failed: RuntimeError: no weights")


def test_too_many_sessions_and_too_large_messages_are_refused_and_silence_frees_a_session(serve: Any) -> None:
    now = [0.0]
    service, client = serve(max_sessions=2, idle_seconds=60.0, clock=lambda: now[0])
    for name in ("a", "b"):
        client("start_session", session(name))
    assert client.refused("start_session", session("c"))[0] == "RESOURCE_EXHAUSTED"
    now[0] = 50.0
    client("simulate", query(1.0, "b"))
    now[0] = 70.0
    client("start_session", session("c"))
    assert set(service._sessions) == {"b", "c"}
    large = session("d", scene="x" * (65 * 2**20))
    assert client.refused("start_session", large)[0] == "RESOURCE_EXHAUSTED"


class Slow(ConstantVelocity):
    began, go = threading.Event(), threading.Event()

    def plan(self, request: PlanRequest) -> Plan:
        Slow.began.set()
        Slow.go.wait(20)
        return super().plan(request)


def test_a_deadline_ends_a_call_between_ticks_and_overload_is_refused(serve: Any) -> None:
    service, client = serve(Slow())
    client("start_session", session())
    with pytest.raises(grpc.RpcError) as late:
        client("simulate", query(1.5), timeout=0.5)
    assert late.value.code().name == "DEADLINE_EXCEEDED"
    assert Slow.began.wait(20)
    assert client.refused("simulate", query(1.5))[0] == "RESOURCE_EXHAUSTED"
    Slow.go.set()
    session_lock = service._sessions["a"][1]
    with session_lock:  # the call before has ended
        pass
    answer = client("simulate", query(1.5))
    assert places(answer)["car"] == pytest.approx((-30 + 8 * 1.5, 0.0), abs=1e-3)


class Process:
    """A `traj-diffusion serve` of its own. Its policy waits while `slow` exists, and fails while `fail` does."""

    PROGRAM = """
import signal, sys, time
from pathlib import Path
import traj_diffusion.policies as policies

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in its background without it

class Hindered(policies.ConstantVelocity):
    def plan(self, request):
        while Path("slow").exists():
            time.sleep(0.01)
        if Path("fail").exists():
            raise RuntimeError("out of memory")
        return super().plan(request)

policies.BASELINES["hindered"] = Hindered
from traj_diffusion.cli import main
main(sys.argv[1:])
"""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        command = [sys.executable, "-P", "-c", self.PROGRAM, "serve", "--policy", "hindered", "--without-maps"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.program = subprocess.Popen([*command, *options], cwd=folder, **pipes)
        assert self.program.stdout is not None
        self.line = self.program.stdout.readline()
        self.port = int(self.line.rsplit(":", 1)[1]) if self.line else 0

    def hinder(self, how: str) -> None:
        (self.folder / how).touch()

    def let_go(self) -> None:
        for how in ("slow", "fail"):
            (self.folder / how).unlink(missing_ok=True)

    def end(self) -> None:
        self.let_go()
        self.program.kill()
        self.program.communicate(timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(tmp_path_factory.mktemp("serve"), "--port", "0", "--max-sessions", "5")
    yield process
    process.end()


@pytest.fixture
def client(server: Process) -> Iterator[Client]:
    """Somebody who talks to the process. Sessions a to e are closed afterwards."""
    one = Client(server.port)
    yield one
    server.let_go()
    for name in "abcde":
        until(lambda name=name: one.code("close_session", closing(name)) == "NOT_FOUND")  # type: ignore[misc]
    one.close()


def until(happens: Callable[[], bool], seconds: float = 60.0) -> None:
    end = monotonic() + seconds
    while not happens():
        assert monotonic() < end, "it never happened"
        sleep(0.02)


def closing(name: str) -> Any:
    return message("traffic.TrafficSessionCloseRequest")(session_uuid=name)


def test_a_flood_of_sessions_and_calls_is_refused_and_what_was_taken_on_is_answered(
    server: Process, client: Client
) -> None:
    for name in "abcde":
        client("start_session", session(name, scene="elsewhere"))
    assert client.refused("start_session", session("f", scene="elsewhere"))[0] == "RESOURCE_EXHAUSTED"
    server.hinder("slow")
    calls = [client.begin("simulate", query(1.5, name)) for name in "abcd"]  # they keep the four workers busy
    calls += [client.begin("get_metadata") for _ in range(20)]
    until(lambda: sum(call.done() for call in calls) == 16)  # eight are taken on at a time
    server.let_go()
    codes = [call.code().name for call in calls]
    assert codes[:4] == ["OK"] * 4
    assert sorted(codes[4:]) == ["OK"] * 4 + ["RESOURCE_EXHAUSTED"] * 16
    assert places(client("simulate", query(1.5, "e")))["car"] == pytest.approx((-30 + 8 * 1.5, 0.0), abs=1e-3)


def test_a_call_past_its_deadline_ends_and_the_next_one_goes_on(server: Process, client: Client) -> None:
    client("start_session", session(scene="elsewhere"))
    client("simulate", query(1.2))
    server.hinder("slow")
    assert client.code("simulate", query(3.0), timeout=0.5) == "DEADLINE_EXCEEDED"
    assert client.code("simulate", query(3.0)) == "RESOURCE_EXHAUSTED", "the session is still at work"
    server.let_go()
    until(lambda: client.code("simulate", query(3.0)) == "OK")
    assert places(client("simulate", query(3.0)))["car"] == pytest.approx((-30 + 8 * 3.0, 0.0), abs=1e-2)


def test_what_cannot_be_is_refused_and_the_session_lives_on(server: Process, client: Client) -> None:
    assert client.refused("simulate", query(1.5))[0] == "NOT_FOUND"
    assert client.refused("close_session", closing("a"))[0] == "NOT_FOUND"
    unfit = session(scene="elsewhere")
    unfit.logged_object_trajectories[1].trajectory.poses[3].pose.quat.z = float("nan")
    assert client.refused("start_session", unfit) == ("INVALID_ARGUMENT", "a pose is not finite")
    client("start_session", session(scene="elsewhere"))
    assert client.refused("start_session", session("b", scene="x" * (65 * 2**20)))[0] == "RESOURCE_EXHAUSTED"
    for wrong, told in ((float("nan"), "a pose is not finite"), (float("inf"), "a pose is not finite")):
        bad = query(1.5)
        bad.object_trajectory_updates[0].trajectory.poses[0].pose.vec.y = wrong
        assert client.refused("simulate", bad) == ("INVALID_ARGUMENT", told)
    client("simulate", query(2.0))
    leap = query(2.1)
    leap.object_trajectory_updates[0].trajectory.poses[0].pose.vec.x += 500.0
    client("simulate", leap)  # it is of the end of this tick, and seen at the beginning of the next one
    code, told = client.refused("simulate", query(2.2))
    assert code == "INVALID_ARGUMENT"
    assert "agent 1: velocity is [5010.0, 0.0]" in told
    both = query(2.2)
    add_pose(both.object_trajectory_updates[0].trajectory, 2.1, 21.0, 0.0)
    assert places(client("simulate", both))["car"] == pytest.approx((-30 + 8 * 2.2, 0.0), abs=1e-2)


def test_inference_that_fails_is_told_and_goes_on_where_it_was_once_it_works(server: Process, client: Client) -> None:
    client("start_session", session(scene="elsewhere"))
    server.hinder("fail")
    for _ in range(2):
        told = client.refused("simulate", query(1.5))
        assert told == ("FAILED_PRECONDITION", "the model failed: RuntimeError: out of memory")
    server.let_go()
    assert places(client("simulate", query(1.5)))["car"] == pytest.approx((-30 + 8 * 1.5, 0.0), abs=1e-3)


def test_a_second_server_on_the_port_is_refused_in_one_line(server: Process, tmp_path: Path) -> None:
    second = Process(tmp_path, "--port", str(server.port))
    said = second.program.communicate(timeout=60)[1]
    assert second.program.returncode == 2
    assert said.splitlines()[-1].startswith(f"traj-diffusion: 127.0.0.1:{server.port} cannot be served: ")
    assert "Traceback" not in said


CLIENT = """
import sys, time
import grpc
channel = grpc.insecure_channel("127.0.0.1:" + sys.argv[1], options=[("grpc.enable_http_proxy", 0)])
for method, request in (("start_session", sys.argv[2]), ("simulate", sys.argv[3])):
    call = channel.unary_unary("/traffic.TrafficService/" + method).future(bytes.fromhex(request))
    if method == "start_session":
        call.result(60)
        print("open", flush=True)
time.sleep(600)
"""


def test_a_client_that_is_killed_loses_its_session_and_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    server = Process(tmp_path, "--port", "0", "--max-sessions", "1", "--idle-seconds", "1")
    server.hinder("slow")
    asked = [one.SerializeToString().hex() for one in (session(scene="elsewhere"), query(1.5))]
    killed = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(server.port), *asked], stdout=subprocess.PIPE, text=True
    )
    try:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "open\n"
        killed.kill()
        killed.communicate()
        server.let_go()
        client = Client(server.port)
        until(lambda: client.code("start_session", session("b", scene="elsewhere")) == "OK")
        server.hinder("slow")
        under_way = client.begin("simulate", query(1.5, "b"))
        server.program.send_signal(signal.SIGINT)
        assert under_way.code().name in ("UNAVAILABLE", "CANCELLED")
        client.close()
        server.let_go()
        said = server.program.communicate(timeout=60)[1]
    finally:
        killed.kill()
        server.end()
    assert server.program.returncode == 130
    assert said.splitlines()[-1] == "traj-diffusion: stopped"
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", server.port))


def test_the_command_listens_on_loopback_and_the_example_talks_to_it(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    program = "from traj_diffusion.cli import main; main(['serve', '--policy', 'idm', '--port', '0'])"
    server = subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("idm serves 6 maps at 127.0.0.1:")
        done = subprocess.run(
            [sys.executable, "-P", str(EXAMPLE), line.rsplit(":", 1)[1].strip()],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
        )
    finally:
        server.terminate()
        server.wait(20)
        server.stdout.close()
    assert done.returncode == 0, done.stderr
    assert "agents driven for 2.0 s" in done.stdout
