"""SUMO as a host: translation both ways, taking over, giving back, signals, ends, refusals. Against the real SUMO."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets.synthesis.record import STATES
from traj_diffusion.datasets.synthesis.signals import ARROWS
from traj_diffusion.datasets.synthesis.tools import sumo_home
from traj_diffusion.errors import HostError, MissingExtra
from traj_diffusion.policies import ConstantVelocity, IdmFollower
from traj_diffusion.scene import AgentKind, Observation, Plan, PlanRequest
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.sim_adapter.hosts.sumo import SumoTraffic
from traj_diffusion.sim_adapter.hosts.sumo_view import agent_id

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "sumo_traffic.py"
libsumo = pytest.importorskip("libsumo", reason="needs the extra [sumo]")
traci = pytest.importorskip("traci", reason="needs the extra [sumo]")
both = pytest.mark.parametrize("start", ["libsumo", "traci"], indirect=True)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four crossings with signals; roads of one lane each way, left0A0 leading east into the first one."""
    return grid(tmp_path_factory.mktemp("sumo"), "--grid.number 2 --grid.length 100 --grid.attach-length 60")


@pytest.fixture
def start(net: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Start SUMO with an eastbound route `east` and a northbound one `north`; a process of its own under traci."""
    running: list[Any] = []

    def begin(*options: str, step: str = "0.1") -> Any:
        quiet = ("--no-step-log", "true", "--no-warnings", "true", "--collision.action", "none")
        timing = ("--step-length", step, *(() if "--time-to-teleport" in options else ("--time-to-teleport", "-1")))
        if getattr(request, "param", "libsumo") == "traci":
            traci.start([str(sumo_home() / "bin" / "sumo"), "-n", str(net), *timing, *quiet, *options], label="test")
            running.append(traci.getConnection("test"))
        else:
            libsumo.start(["sumo", "-n", str(net), *timing, *quiet, *options])
            running.append(libsumo)
        running[0].route.add("east", ["left0A0", "A0B0", "B0right0"])
        running[0].route.add("north", ["bottom0A0", "A0A1", "A1top0"])
        return running[0]

    yield begin
    for sumo in running:
        sumo.close()


def grid(folder: Path, size: str) -> Path:
    path = folder / "town.net.xml"
    options = f"--grid {size} --default-junction-type traffic_light --sidewalks.guess --crossings.guess"
    program = str(sumo_home() / "bin" / "netgenerate")
    subprocess.run([program, *options.split(), "-o", str(path)], check=True, capture_output=True)
    return path


def row(seen: Observation, name: str) -> int:
    return seen.agent_id.tolist().index(agent_id(name))


def walk(sumo: Any, edges: list[str], to: float, steps: int) -> None:
    """Have `p` walk along edges from 20 m on the first to that many metres on the last, and take so many steps."""
    sumo.person.add("p", edges[0], 20)
    sumo.person.appendWalkingStage("p", edges, to)
    for _ in range(steps):
        sumo.simulationStep()


@both
def test_front_bumpers_and_angles_become_centres_and_headings_and_back(start: Any, net: Path) -> None:
    sumo = start()
    sumo.vehicle.add("e", "east", departSpeed="10")
    sumo.vehicle.add("n", "north", departSpeed="10")
    sumo.simulationStep()
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["e"]) as town:
        seen = town.observe()
        for name, heading in (("e", 0.0), ("n", np.pi / 2)):
            front = np.array(sumo.vehicle.getPosition(name))
            facing = np.array([np.cos(heading), np.sin(heading)])
            assert seen.heading[row(seen, name)] == pytest.approx(heading, abs=1e-6)
            assert seen.position[row(seen, name), :2] == pytest.approx(front - 2.5 * facing)
            assert seen.velocity[row(seen, name)] == pytest.approx(10 * facing, abs=1e-5)
        assert seen.is_controlled[row(seen, "e")]
        assert not seen.is_controlled[row(seen, "n")]
        before = sumo.vehicle.getPosition("e")
        step = town.step()
        assert step.warnings == ()
        assert sumo.vehicle.getPosition("e") == pytest.approx((before[0] + 1.0, before[1]), abs=1e-6)
        assert sumo.vehicle.getAngle("e") == pytest.approx(90.0)


@both
def test_bicycles_and_pedestrians_are_driven_too(start: Any, net: Path) -> None:
    sumo = start()
    sumo.vehicle.add("b", "east", typeID="DEFAULT_BIKETYPE", departSpeed="4")
    sumo.person.add("p", "A0B0", 20)
    sumo.person.appendWalkingStage("p", ["A0B0", "B0right0"], 30)
    for _ in range(10):
        sumo.simulationStep()
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, lambda name: True) as town:
        seen = town.observe()
        kinds = dict(zip(seen.agent_id.tolist(), seen.kind.tolist(), strict=True))
        assert kinds == {agent_id("b"): AgentKind.CYCLIST, agent_id("p", walks=True): AgentKind.PEDESTRIAN}
        place, pace = np.array(sumo.person.getPosition("p")), sumo.person.getSpeed("p")
        assert pace > 0.5
        for _ in range(10):
            town.step()
        assert np.linalg.norm(np.array(sumo.person.getPosition("p")) - place) == pytest.approx(pace, rel=0.01)


@both
def test_signals_reach_the_model_on_the_connectors_they_control(start: Any, net: Path) -> None:
    sumo = start()
    sumo.vehicle.add("e", "east")
    town = SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["e"])
    round_light = {int(arrow): int(state) for state, arrow in ARROWS.items()}
    for _ in range(3):
        town.step()
        seen = town.observe()
        shown: dict[str, list[int]] = {"wanted": [], "seen": []}
        for light, state in zip(town.view.signals, seen.light_state.tolist(), strict=True):
            connector = town.view.roads.lane_of[light.row]
            controlled = sumo.trafficlight.getControlledLinks(light.program)[light.index]
            assert connector in [link[2] for link in controlled]
            letter = sumo.trafficlight.getRedYellowGreenState(light.program)[light.index]
            shown["wanted"].append(int(STATES[letter]))
            shown["seen"].append(round_light.get(state, state))
        assert shown["seen"] == shown["wanted"]
    assert len(seen.light_lane) >= 16
    town.close()


@both
def test_who_is_released_drives_on_by_itself_and_arrives(start: Any, net: Path) -> None:
    sumo = start()
    sumo.vehicle.add("e", "east", departSpeed="10")
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["e"]) as town:
        for _ in range(20):
            town.step()
        assert town.driven == {"e"}
        town.release("e")
        placed = sumo.vehicle.getPosition("e")
        for _ in range(700):
            step = town.step()
            assert not len(step.agent_id)
        assert "e" not in sumo.vehicle.getIDList()
        assert placed[0] < 30
        with pytest.raises(ValueError, match="'e' is not driven"):
            town.release("e")


@both
def test_a_vehicle_leaves_where_its_route_ends(start: Any, net: Path) -> None:
    sumo = start()
    sumo.vehicle.add("e", "east", departSpeed="13")
    farthest = 0.0
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["e"]) as town:
        for _ in range(250):
            town.step()
            if "e" in sumo.vehicle.getIDList():
                farthest = max(farthest, sumo.vehicle.getPosition("e")[0])
        assert town.driven == frozenset()
        assert sumo.vehicle.getIDList() == ()
    assert farthest == pytest.approx(60 + 100 + 60, abs=3)


class Astray(ConstantVelocity):
    """Drives everybody south, across the fields."""

    def plan(self, request: PlanRequest) -> Plan:
        south = np.zeros_like(request.state.velocity) + np.array([0, -12], np.float32)
        return super().plan(replace(request, state=replace(request.state, velocity=south)))


def test_a_vehicle_that_drives_off_the_network_leaves_beyond_its_bounds(start: Any, net: Path) -> None:
    sumo = start()
    sumo.vehicle.add("e", "east", departSpeed="10")
    low = sumo.simulation.getNetBoundary()[0][1]
    south = []
    with SumoTraffic(TrafficModel(Astray()), sumo, net, ["e"]) as town:
        for _ in range(120):
            town.step()
            south += [sumo.vehicle.getPosition(name)[1] for name in sumo.vehicle.getIDList()]
    assert sumo.vehicle.getIDList() == ()
    assert min(south) == pytest.approx(low - 30, abs=1.3)


def test_settings_that_crash_or_disagree_are_refused_in_one_line(start: Any, net: Path) -> None:
    sumo = start("--lateral-resolution", "0.8")
    with pytest.raises(HostError, match="lateral-resolution, under which it crashes") as refused:
        SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, [])
    assert "\n" not in str(refused.value)


def test_pedestrians_are_refused_under_the_model_that_takes_no_notice(start: Any, net: Path) -> None:
    sumo = start("--pedestrian.model", "nonInteracting")
    walk(sumo, ["A0B0"], 80, steps=1)
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["p"]) as town:
        with pytest.raises(HostError, match=r"nonInteracting: SUMO takes no notice.*start SUMO with striping"):
            town.step()
        assert town.driven == frozenset()


def test_another_dt_is_refused_and_the_same_works(start: Any, net: Path) -> None:
    sumo = start(step="0.5")
    with pytest.raises(HostError, match=r"SUMO steps by 0\.5 s and the traffic model by 0\.1 s; use dt=0\.5"):
        SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, [])
    sumo.vehicle.add("e", "east", departSpeed="10")
    with SumoTraffic(TrafficModel(ConstantVelocity(), dt=0.5), sumo, net, ["e"]) as town:
        for _ in range(6):
            town.step()
    assert sumo.vehicle.getSpeed("e") == pytest.approx(10.0, abs=0.01)


def test_a_refused_move_is_a_warning_and_the_rest_goes_on(start: Any, net: Path) -> None:
    sumo = start()
    sumo.vehicle.add("e", "east", departSpeed="10")
    sumo.vehicle.add("n", "north", departSpeed="10")
    sumo.simulationStep()

    class Stubborn:
        def __getattr__(self, name: str) -> Any:
            return getattr(sumo.vehicle, name)

        def moveToXY(self, name: str, *arguments: Any) -> None:
            if name == "e":
                raise sumo.TraCIException("no")
            sumo.vehicle.moveToXY(name, *arguments)

    names = ("simulation", "person", "trafficlight", "lane", "simulationStep", "TraCIException")
    connection = SimpleNamespace(vehicle=Stubborn(), **{name: getattr(sumo, name) for name in names})
    with SumoTraffic(TrafficModel(ConstantVelocity()), connection, net, ["e", "n"]) as town:
        before = sumo.vehicle.getPosition("n")
        step = town.step()
        assert step.warnings == ("SUMO refused to move 'e' at 0.10 s: no",)
        assert sumo.vehicle.getPosition("n")[1] == pytest.approx(before[1] + 1.0)


class Aside(ConstantVelocity):
    """Drives everybody on while drifting to the right at 6 m/s."""

    def plan(self, request: PlanRequest) -> Plan:
        drift = request.state.velocity + np.array([0, -6], np.float32)
        return super().plan(replace(request, state=replace(request.state, velocity=drift)))


@both
def test_pedestrians_go_where_the_model_says_and_not_where_sumo_would_have_them(start: Any, net: Path) -> None:
    sumo = start()
    walk(sumo, ["A0B0", "B0right0"], 30, steps=5)
    x, y = sumo.person.getPosition("p")
    with SumoTraffic(TrafficModel(Aside(), replan_every=80), sumo, net, ["p"]) as town:
        for _ in range(15):
            warnings = town.step().warnings
            assert warnings == ()
        assert sumo.person.getPosition("p")[1] == pytest.approx(y - 9.0, abs=0.01)
        assert sumo.person.getPosition("p")[0] > x + 1


@both
def test_who_is_released_beside_the_network_is_put_back_on_it_and_arrives(start: Any, net: Path) -> None:
    sumo = start()
    sumo.vehicle.add("e", "east", departSpeed="10")
    walk(sumo, ["A0B0"], 80, steps=5)
    with SumoTraffic(TrafficModel(Aside(), replan_every=80), sumo, net, ["e", "p"]) as town:
        for _ in range(12):
            town.step()
        assert sumo.vehicle.getLaneID("e") == ""
        assert town.driven == {"e", "p"}
        for name in ("e", "p"):
            town.release(name)
        for _ in range(800):
            assert not len(town.step().agent_id)
        assert not {*sumo.vehicle.getIDList(), *sumo.person.getIDList()}


def test_who_is_released_where_another_edge_is_nearer_gets_a_way_that_begins_there(tmp_path: Path) -> None:
    net = grid(tmp_path, "--grid.number 3 --grid.length 120 --grid.attach-length 100 --default.lanenumber 2")
    quiet = ("--no-step-log", "true", "--no-warnings", "true", "--step-length", "0.1", "--time-to-teleport", "-1")
    traci.start([str(sumo_home() / "bin" / "sumo"), "-n", str(net), *quiet], label="beside")  # a crash ends it, not us
    sumo = traci.getConnection("beside")
    sumo.route.add("r", ["A1B1", "B1C1", "C1C2"])
    sumo.vehicle.add("c", "r")
    sumo.simulationStep()
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["c"]) as town:
        town.observe()
        sumo.vehicle.moveToXY("c", "", -1, 209.8, 229.2, 156.3, 2, 25.0)
        sumo.simulationStep()
        assert not sumo.vehicle.getLaneID("c")
        town.release("c")
        for _ in range(50):
            town.step()
        assert sumo.vehicle.getRoute("c")[-1] == "C1C2"
    sumo.close()


def test_who_is_on_a_crossing_is_taken_over_when_he_has_crossed(start: Any, net: Path) -> None:
    sumo = start()
    sumo.person.add("p", "A0B0", 85)
    sumo.person.appendWalkingStage("p", sumo.simulation.findIntermodalRoute("A0B0", "B1B0")[0].edges, -1)
    while ":" not in (sumo.person.getRoadID("p") if "p" in sumo.person.getIDList() else ""):
        sumo.simulationStep()
    waited = 0
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["p"]) as town:
        while sumo.person.getRoadID("p").startswith(":"):
            assert town.driven == frozenset()
            town.step()
            waited += 1
        town.step()
        assert town.driven == {"p"}
    assert waited > 10


def test_who_waits_is_taken_over_when_he_walks(start: Any, net: Path) -> None:
    sumo = start()
    sumo.person.add("p", "A0B0", 20)
    sumo.person.appendWaitingStage("p", 2)
    sumo.person.appendWalkingStage("p", ["A0B0"], 80)
    sumo.simulationStep()
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["p"]) as town:
        while sumo.person.getStage("p").type == 1:
            assert not len(town.step().agent_id)
        assert len(town.step().agent_id) == 1
    assert 2.0 < sumo.simulation.getTime() < 2.5


@both
def test_a_released_pedestrian_walks_on_at_its_pace_after_a_step_out_of_sight(start: Any, net: Path) -> None:
    sumo = start()
    walk(sumo, ["A0B0"], 80, steps=5)
    with SumoTraffic(TrafficModel(Aside(), replan_every=80), sumo, net, ["p"]) as town:
        for _ in range(15):
            town.step()
        begin = sumo.person.getPosition("p")
        town.release("p")
        shown = []
        for _ in range(50):
            assert town.step().warnings == ()
            seen = town.observe()
            assert np.linalg.norm(seen.velocity, axis=-1).max(initial=0) < 2.5
            shown.append(len(seen.agent_id))
        assert shown == [0, *[1] * 49]
        assert 3 < sumo.person.getPosition("p")[0] - begin[0] < 10


@both
def test_a_released_pedestrian_keeps_type_goal_and_further_stages(start: Any, net: Path) -> None:
    sumo = start()
    sumo.person.add("p", "A0B0", 20, typeID="DEFAULT_PEDTYPE")
    sumo.person.appendWalkingStage("p", ["A0B0"], 40)
    sumo.person.appendWaitingStage("p", 7)
    sumo.person.appendWalkingStage("p", ["A0B0", "B0right0"], 20)
    sumo.person.setWidth("p", 0.9)  # a type of his own
    for _ in range(5):
        sumo.simulationStep()
    own = sumo.person.getTypeID("p")
    with SumoTraffic(TrafficModel(Aside(), replan_every=80), sumo, net, ["p"]) as town:
        for _ in range(5):
            town.step()
    sumo.simulationStep()
    assert own.startswith(sumo.person.getTypeID("p"))
    stages = [sumo.person.getStage("p", index) for index in range(sumo.person.getRemainingStages("p"))]
    assert [stage.type for stage in stages] == [2, 1, 2]
    assert [stage.arrivalPos for stage in stages if stage.type == 2] == pytest.approx([40, 20])
    waited = 0
    while "p" in sumo.person.getIDList():
        sumo.simulationStep()
        waited += "p" in sumo.person.getIDList() and sumo.person.getStage("p").type == 1
    assert waited == pytest.approx(70, abs=1)


@both
def test_a_pedestrian_who_has_no_way_back_stays_driven(start: Any, net: Path) -> None:
    sumo = start()
    walk(sumo, ["A0B0"], 80, steps=1)
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["p"]) as town:
        town.step()
        sumo.edge.setDisallowed("A0B0", ["pedestrian"])
        with pytest.raises(HostError, match=r"SUMO finds no way for 'p' from '\w+' to 'A0B0'"):
            town.release("p")
        assert town.driven == {"p"}
        assert len(town.step().agent_id) == 1
    assert "p" in sumo.person.getIDList()


def test_pedestrians_leave_where_their_walk_ends(start: Any, net: Path) -> None:
    sumo = start()
    walk(sumo, ["A0B0"], 40, steps=5)
    begin, farthest = sumo.person.getPosition("p")[0], 0.0
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["p"]) as town:
        for _ in range(200):
            town.step()
            if "p" in sumo.person.getIDList():
                farthest = max(farthest, sumo.person.getPosition("p")[0])
        assert town.driven == frozenset()
    assert sumo.person.getIDList() == ()
    assert farthest - begin == pytest.approx(20 - 3, abs=1)


def test_routes_of_driven_vehicles_are_passed_as_linked_lanes_up_to_their_end(start: Any, net: Path) -> None:
    sumo = start()
    sumo.route.add("turns", ["left0A0", "A0A1", "A1B1"])
    sumo.vehicle.add("t", "turns", departSpeed="10")
    sumo.vehicle.add("n", "north", departSpeed="10")
    sumo.simulationStep()
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["t"]) as town:
        seen = town.observe()
        assert seen.routes is not None
        assert not len(seen.routes.lanes[row(seen, "n")])
        way = seen.routes.lanes[row(seen, "t")].tolist()
        links, lane_of = town.view.roads.features.links, town.view.roads.lane_of
        assert all(after in links.successors[before] for before, after in itertools.pairwise(way))
        edges = list(dict.fromkeys(town.view.network.lanes[lane_of[one]].edge for one in way))
        assert [edge for edge in edges if not edge.startswith(":")] == ["left0A0", "A0A1", "A1B1"]
        for _ in range(75):  # straight on over the crossing, where it should have turned left
            town.step()
        assert sumo.vehicle.getRoadID("t") == "A0B0"
        seen = town.observe()
        assert seen.routes is not None
        way = seen.routes.lanes[row(seen, "t")].tolist()
        assert all(after in links.successors[before] for before, after in itertools.pairwise(way))
        ends = [town.view.network.lanes[lane_of[one]].edge for one in (way[0], way[-1])]
        assert ends == ["A0B0", "A1B1"]


def test_who_is_put_elsewhere_by_sumo_is_out_of_sight_for_a_tick(start: Any, net: Path) -> None:
    sumo = start()
    sumo.vehicle.add("e", "east", departSpeed="10")
    sumo.vehicle.add("n", "north", departSpeed="10")
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["e"]) as town:
        for _ in range(5):
            town.step()
        for name, edge in (("e", "A0B0"), ("n", "A0A1")):
            sumo.vehicle.moveTo(name, f"{edge}_1", 30.0)
        step = town.step()
        assert sorted(step.warnings) == ["SUMO has put 'e' elsewhere", "SUMO has put 'n' elsewhere"]
        assert not len(step.agent_id)
        step = town.step()
        assert step.warnings == ()
        assert step.agent_id.tolist() == [agent_id("e")]


def test_a_driver_that_obeys_lights_waits_at_sumos_red_and_goes_at_green(start: Any, net: Path) -> None:
    sumo = start()
    sumo.vehicle.add("e", "east", departSpeed="10")
    program = sumo.trafficlight.getIDList()[0]
    links = sumo.trafficlight.getControlledLinks(program)
    sumo.trafficlight.setRedYellowGreenState(program, "r" * len(links))
    with SumoTraffic(TrafficModel(IdmFollower()), sumo, net, ["e"]) as town:
        for _ in range(150):
            town.step()
        assert sumo.vehicle.getRoadID("e") == "left0A0"
        assert sumo.vehicle.getSpeed("e") < 0.2
        sumo.trafficlight.setRedYellowGreenState(program, "G" * len(links))
        for _ in range(80):
            town.step()
        assert sumo.vehicle.getRoadID("e") in ("A0B0", "A0A1", "A0bottom0")


def test_a_sumo_that_dies_in_mid_episode_is_one_error_and_closing_still_works(start: Any, net: Path) -> None:
    traci.start(
        [str(sumo_home() / "bin" / "sumo"), "-n", str(net), "--step-length", "0.1", "--no-step-log", "true"],
        label="dies",
    )
    sumo = traci.getConnection("dies")
    sumo.route.add("east", ["left0A0", "A0B0", "B0right0"])
    sumo.vehicle.add("e", "east", departSpeed="10")
    town = SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["e"])
    town.step()
    sumo._process.kill()
    sumo._process.wait(10)
    with pytest.raises(HostError, match="SUMO refused or stopped") as stopped:
        town.step()
    assert "\n" not in str(stopped.value)
    town.close()


def test_without_libsumo_the_command_that_installs_it_is_named(
    start: Any, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "libsumo", None)
    with pytest.raises(MissingExtra, match=r"pip install 'traj-diffusion\[sumo\]'"):
        SumoTraffic(TrafficModel(ConstantVelocity()), None, net, [])


def test_ids_depend_on_names_alone() -> None:
    assert agent_id("car1") == agent_id("car1") != agent_id("car1", walks=True)
    assert 0 <= agent_id("car1") < 2**63


def test_the_example_runs_and_is_short(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLE)], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "10.0 s: 4 of 8 vehicles driven by constant_velocity" in done.stdout


def test_a_junction_is_crossed_on_its_connector_with_a_way_ahead_all_the_time(start: Any, net: Path) -> None:
    sumo = start()
    sumo.vehicle.add("n", "north", departSpeed="10")
    inside = 0
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["n"]) as town:
        links, lane_of = town.view.roads.features.links, town.view.roads.lane_of
        for _ in range(120):
            assert town.step().warnings == ()
            if not sumo.vehicle.getRoadID("n").startswith(":"):
                continue
            inside += 1
            seen = town.observe()
            assert seen.routes is not None
            way = seen.routes.lanes[row(seen, "n")].tolist()
            assert lane_of[way[0]] == sumo.vehicle.getLaneID("n")
            assert all(after in links.successors[before] for before, after in itertools.pairwise(way))
    assert inside > 5, "a junction takes a second at 10 m/s"


def test_who_strays_to_another_end_of_the_network_leaves_there(start: Any, net: Path) -> None:
    sumo = start()
    sumo.route.add("turns", ["left0A0", "A0A1", "A1B1"])
    sumo.vehicle.add("t", "turns", departSpeed="13")
    farthest = 0.0
    with SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["t"]) as town:
        for _ in range(250):
            town.step()
            if "t" in sumo.vehicle.getIDList():
                farthest = max(farthest, sumo.vehicle.getPosition("t")[0])
        assert town.driven == frozenset()
    assert sumo.vehicle.getIDList() == ()
    assert farthest == pytest.approx(60 + 100 + 60, abs=3)


@pytest.mark.parametrize("seconds", ["-1", "3"])
def test_a_driven_vehicle_that_waits_is_not_lost_under_either_teleport_setting(
    start: Any, net: Path, seconds: str
) -> None:
    sumo = start("--time-to-teleport", seconds)
    sumo.vehicle.add("e", "east", departSpeed="10")
    sumo.vehicle.add("behind", "east", depart="3", departSpeed="10")
    for program in sumo.trafficlight.getIDList():
        sumo.trafficlight.setRedYellowGreenState(program, "r" * len(sumo.trafficlight.getControlledLinks(program)))
    warnings: list[str] = []
    with SumoTraffic(TrafficModel(IdmFollower()), sumo, net, ["e"]) as town:
        for _ in range(200):
            warnings += town.step().warnings
        assert "e" in sumo.vehicle.getIDList()
        assert town.driven == {"e"}
        assert sumo.vehicle.getSpeed("e") < 0.5
    if seconds == "-1":
        assert warnings == []
    assert all(one.startswith("SUMO has put") for one in warnings)
