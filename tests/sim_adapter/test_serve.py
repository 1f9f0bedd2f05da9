"""The gRPC service, asked over a real channel: AlpaSim's wire, sessions, limits, faults."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
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

    def __call__(self, method: str, request: Any = None, timeout: float = 20.0) -> Any:
        asked, answered = METHODS[method]
        send = self.channel.unary_unary(
            f"/traffic.TrafficService/{method}",
            request_serializer=message(asked).SerializeToString,
            response_deserializer=message(answered).FromString,
        )
        return send(request if request is not None else message(asked)(), timeout=timeout)

    def refused(self, method: str, request: Any) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as error:
            self(method, request)
        return error.value.code().name, error.value.details()


@pytest.fixture
def serve() -> Iterator[Any]:
    """Start a service; return it and a client."""
    running: list[Any] = []

    def begin(policy: Any = None, workers: int = 4, **options: Any) -> tuple[TrafficService, Client]:
        scene = straight_road()
        service = TrafficService(policy or ConstantVelocity(), {"straight": scene}, **options)
        server = Server(service, workers=workers)
        client = Client(server.port)
        running.extend([client.channel, server])
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
