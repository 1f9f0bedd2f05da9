"""SUMO as a host: translation both ways, taking over, giving back, signals, ends, refusals. Against the real SUMO."""

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
from traj_diffusion.datasets.synthesis.tools import sumo_home
from traj_diffusion.errors import HostError, MissingExtra
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import AgentKind, Observation, Plan, PlanRequest
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.sim_adapter.hosts.sumo import SumoTraffic, agent_id

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "sumo_traffic.py"
libsumo = pytest.importorskip("libsumo")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four crossings with signals; roads of one lane each way, left0A0 leading east into the first one."""
    path = tmp_path_factory.mktemp("sumo") / "town.net.xml"
    options = "--grid --grid.number 2 --grid.length 100 --grid.attach-length 60 --default-junction-type traffic_light"
    program = str(sumo_home() / "bin" / "netgenerate")
    subprocess.run([program, *options.split(), "-o", str(path), "--sidewalks.guess"], check=True, capture_output=True)
    return path


@pytest.fixture
def start(net: Path) -> Iterator[Any]:
    """Start SUMO with an eastbound route `east` and a northbound one `north`."""
    running = []

    def begin(*options: str, step: str = "0.1") -> Any:
        quiet = ("--no-step-log", "true", "--no-warnings", "true", "--collision.action", "none")
        libsumo.start(["sumo", "-n", str(net), "--step-length", step, "--time-to-teleport", "-1", *quiet, *options])
        running.append(True)
        libsumo.route.add("east", ["left0A0", "A0B0", "B0right0"])
        libsumo.route.add("north", ["bottom0A0", "A0A1", "A1top0"])
        return libsumo

    yield begin
    if running:
        libsumo.close()


def row(seen: Observation, name: str) -> int:
    return seen.agent_id.tolist().index(agent_id(name))


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


def test_signals_reach_the_model_on_the_connectors_they_control(start: Any, net: Path) -> None:
    sumo = start()
    sumo.vehicle.add("e", "east")
    town = SumoTraffic(TrafficModel(ConstantVelocity()), sumo, net, ["e"])
    for _ in range(3):
        town.step()
        seen = town.observe()
        shown: dict[str, list[int]] = {"wanted": [], "seen": []}
        for light, state in zip(town._lights, seen.light_state.tolist(), strict=True):
            connector = town._roads.lane_of[light.row]
            controlled = sumo.trafficlight.getControlledLinks(light.program)[light.index]
            assert connector in [link[2] for link in controlled]
            letter = sumo.trafficlight.getRedYellowGreenState(light.program)[light.index]
            shown["wanted"].append(int(STATES[letter]))
            shown["seen"].append(state)
        assert shown["seen"] == shown["wanted"]
    assert len(seen.light_lane) >= 16
    town.close()


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
