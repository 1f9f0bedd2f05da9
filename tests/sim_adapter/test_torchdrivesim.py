"""TorchDriveSim as a host, against the real package: its release (NPCWrapper), and its repository (NPCController).

Which of the two is tested depends on what is installed; every test holds for both.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from traj_diffusion.errors import BadInput, HostError
from traj_diffusion.policies import ConstantVelocity, IdmFollower
from traj_diffusion.scene import AgentKind, LightState, MapKind, Observation, Policy
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.testing import WitnessedTraffic, host_findings

pytest.importorskip("torchdrivesim", reason="needs the extra [torchdrivesim], in an environment of its own")

from torchdrivesim.kinematic import KinematicBicycle
from torchdrivesim.lanelet2 import find_lanelet_directions
from torchdrivesim.map import find_map_config, traffic_controls_from_map_config
from torchdrivesim.mesh import BirdviewMesh
from torchdrivesim.simulator import Simulator, TorchDriveConfig

from traj_diffusion.sim_adapter.hosts import torchdrivesim as host
from traj_diffusion.sim_adapter.hosts.torchdrivesim_map import lanelet_map

pytestmark = pytest.mark.filterwarnings("ignore")  # of TorchDriveSim's and its packages' own
EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "torchdrivesim_traffic.py"
RELEASE = hasattr(host.simulators, "NPCWrapper")
TYPES = ["vehicle", "pedestrian"]


class Running:
    """A simulator of either kind: one ego that keeps its speed, and NPCs, the last of which is a pedestrian."""

    def __init__(self, traffic: TrafficModel, states: Any, place: Any = None, left: bool = False, **rest: Any) -> None:
        states = torch.as_tensor(np.asarray(states), dtype=torch.float64)
        worlds, agents = states.shape[:2]
        size = torch.tensor([4.5, 2.0], dtype=torch.float64).expand(worlds, agents, 2).clone()
        size[:, -1] = torch.tensor([0.5, 0.6])
        there = torch.ones(worlds, agents, dtype=torch.bool)
        mesh = BirdviewMesh.empty(batch_size=worlds) if place is None else place.road_mesh.expand(worlds)
        left = left if place is None else place.left_handed_coordinates
        shared = {"road_mesh": mesh, "cfg": TorchDriveConfig(left_handed_coordinates=left), **rest}
        if place is not None:
            controls = traffic_controls_from_map_config(place)
            shared["traffic_controls"] = {name: one.extend(worlds) for name, one in controls.items()}
            shared["lanelet_map"] = [place.lanelet_map] * worlds
        if RELEASE:
            cut = {"vehicle": slice(0, agents - 1), "pedestrian": slice(agents - 1, agents)}
            models = {name: self._model(states[:, part], left) for name, part in cut.items()}
            self.inner = Simulator(
                kinematic_model=models,
                agent_size={name: size[:, part] for name, part in cut.items()},
                initial_present_mask={name: there[:, part] for name, part in cut.items()},
                **shared,
            )
            npcs = {"vehicle": torch.arange(agents - 1) > 0, "pedestrian": torch.ones(1, dtype=torch.bool)}
            self.simulator = host.DrivenWrapper(self.inner, traffic, npcs)
        else:
            kinds = torch.zeros(worlds, agents, dtype=torch.long)
            kinds[:, -1] = 1
            npcs = host.DrivenNPCs(traffic, size[:, 1:], states[:, 1:], there[:, 1:], kinds[:, 1:], TYPES)
            self.inner = self.simulator = Simulator(
                kinematic_model=self._model(states[:, :1], left),
                agent_size=size[:, :1],
                initial_present_mask=there[:, :1],
                agent_types=kinds[:, :1],
                agent_type_names=TYPES,
                npc_controller=npcs,
                **shared,
            )

    @staticmethod
    def _model(states: torch.Tensor, left: bool) -> Any:
        model = KinematicBicycle(left_handed=left)
        model.set_params(lr=torch.full(states.shape[:2], 1.4, dtype=torch.float64))
        model.set_state(states)
        return model

    def step(self) -> np.ndarray:
        """Advance; the ego turns a little. Returns all states, [B, A, 4]."""
        action = torch.tensor([0.0, 0.05], dtype=torch.float64).expand(self.simulator.batch_size, 1, 2)
        nobody = torch.zeros(self.simulator.batch_size, 0, 2, dtype=torch.float64)
        self.simulator.step({"vehicle": action, "pedestrian": nobody} if RELEASE else action)
        return self.states()

    def states(self) -> np.ndarray:
        if RELEASE:
            return torch.cat(list(self.simulator.inner_simulator.get_state().values()), 1).numpy().copy()
        return self.simulator.get_all_agent_state().numpy().copy()

    def put(self, states: np.ndarray, present: np.ndarray) -> None:
        """Set the NPCs, as somebody's spawning would."""
        new, there = torch.from_numpy(states), torch.from_numpy(present)
        if RELEASE:
            inner, agents = self.simulator.inner_simulator, states.shape[1]
            inner.set_state({"vehicle": new[:, : agents - 1], "pedestrian": new[:, agents - 1 :]})
            inner.update_present_mask({"vehicle": there[:, : agents - 1], "pedestrian": there[:, agents - 1 :]})
        else:
            self.simulator.npc_controller.npc_state = new[:, 1:]
            self.simulator.npc_controller.npc_present_mask = there[:, 1:]

    def of(self, simulator: Any) -> "Running":
        """Return the same for a copy of the simulator."""
        other = object.__new__(Running)
        other.simulator = simulator
        return other

    @property
    def worlds(self) -> list[Any]:
        return (self.simulator if RELEASE else self.simulator.npc_controller).worlds._worlds

    def seen(self, world: int = 0) -> Observation:
        return self.worlds[world].traffic._episode.seen[-1]


#          x, y, heading, speed: an ego, two cars, and a pedestrian
CROWD = [[0, 0, 0, 10], [0, 20, np.pi / 2, 8], [40, 0, -2.0, 5], [5, -8, 3.0, 1.2]]


@pytest.mark.parametrize("left", [False, True])
def test_npcs_go_where_they_face_in_both_handednesses(left: bool) -> None:
    running = Running(TrafficModel(ConstantVelocity()), [CROWD], left=left)
    for tick in range(1, 11):
        found = running.step()
        for row, (x, y, heading, speed) in enumerate(CROWD[1:], start=1):
            wanted = [x + 0.1 * tick * speed * np.cos(heading), y + 0.1 * tick * speed * np.sin(heading)]
            assert found[0, row, :2] == pytest.approx(wanted, abs=1e-4)
            assert found[0, row, 2:] == pytest.approx([heading, speed], abs=1e-4)
    seen = running.seen()
    assert seen.kind.tolist() == [AgentKind.VEHICLE] * 3 + [AgentKind.PEDESTRIAN]
    assert seen.is_controlled.tolist() == [False, True, True, True]
    assert seen.position[1, 1] * (-1 if left else 1) > 20


@pytest.fixture(scope="module")
def town() -> Any:
    """A town of CARLA, left-handed, with its Lanelet2 map and its lights."""
    pytest.importorskip("lanelet2", reason="maps of TorchDriveSim need lanelet2")
    return find_map_config("carla_Town02")


def test_lanes_lead_where_torchdrivesim_says_that_lanelets_lead(town: Any) -> None:
    roads = lanelet_map(town.lanelet_map, np.array([1.0, -1.0]), np.zeros(2))
    lanes = roads.rows(MapKind.LANE)
    assert len(lanes) == len(list(town.lanelet_map.laneletLayer))
    for row in lanes.tolist():
        line = roads.polyline(row)[:, :2] * [1, -1]
        middle = len(line) // 2
        ahead = line[middle] - line[middle - 1]
        x, y = (line[middle] + line[middle - 1]) / 2
        says = find_lanelet_directions(town.lanelet_map, x, y, lanelet_dist_tolerance=0.0)
        off = np.array(says) - np.arctan2(ahead[1], ahead[0])
        assert np.abs((off + np.pi) % (2 * np.pi) - np.pi).min() < 0.3
        for after in roads.links.successors[row].tolist():
            assert np.linalg.norm(roads.polyline(after)[0] - roads.polyline(row)[-1]) < 0.5
    assert sum(len(roads.links.successors[row]) for row in lanes.tolist()) >= len(lanes)
    edges = roads.rows(MapKind.ROAD_EDGE)
    assert len(edges) > 3


def on_lanes(town: Any, every: int) -> list[list[float]]:
    states = []
    for lanelet in list(town.lanelet_map.laneletLayer)[::every]:
        (x, y), after = ([point.x, point.y] for point in list(lanelet.centerline)[:2])
        states.append([x, y, float(np.arctan2(after[1] - y, after[0] - x)), 5.0])
    return states


def test_a_town_is_seen_with_its_lights_and_worlds_are_apart(town: Any) -> None:
    states = on_lanes(town, 6)
    running = Running(TrafficModel(IdmFollower()), [states, states], town)
    for _ in range(20):
        found = running.step()
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx(found[1], abs=1e-9), "the same worlds and a driver without chance"
    one, other = running.seen(0), running.seen(1)
    assert not set(one.agent_id.tolist()) & set(other.agent_id.tolist()), "so that their noise differs"
    assert len(one.light_lane) >= 20
    assert set(one.light_state.tolist()) == {LightState.STOP}, "what TorchDriveSim's lights show when nobody sets them"


def test_the_host_keeps_the_contract(town: Any) -> None:
    states = on_lanes(town, 6)

    def run(traffic: WitnessedTraffic) -> WitnessedTraffic:
        running = Running(traffic, [states], town)
        for _ in range(30):
            running.step()
        witness: WitnessedTraffic = running.worlds[0].traffic
        return witness

    found = host_findings(run, lambda: WitnessedTraffic(IdmFollower()))
    # Its states say a speed along the heading; the middle of a car that turns about its rear axle moves sideways too.
    assert [finding for finding in found if not finding.startswith("velocity:")] == []
    sideways = 0.5  # m/s: 1.4 m from axle to middle, at some .35 rad/s
    assert all(float(finding.split(" is ")[1].split(" ")[0]) < sideways for finding in found)


def test_npcs_wait_at_red_and_go_at_green(town: Any) -> None:
    line = next(one for one in town.stoplines if one.agent_type == "traffic_light")
    ahead = np.array([np.cos(line.orientation), np.sin(line.orientation)])
    x, y = np.array([line.x, line.y]) - 20 * ahead
    states = [[[0, 0, 0, 0], [x, y, line.orientation, 8.0], [0, 50, 0, 0]]]
    went = {}
    for colour in ("red", "green"):
        running = Running(TrafficModel(IdmFollower()), states, town)
        control = running.inner.traffic_controls["traffic_light"]
        control.set_state(torch.full_like(control.state, control.allowed_states.index(colour)))
        for _ in range(60):
            found = running.step()
        went[colour] = float((found[0, 1, :2] - [x, y]) @ ahead)
    assert 10 < went["red"] < 20
    assert went["green"] > 25


def test_copies_extensions_and_choices_go_on_as_the_whole_does() -> None:
    crowd = np.stack([CROWD, np.add(CROWD, [3, 1, 0.1, 1])])
    running = Running(TrafficModel(IdmFollower()), crowd)
    for _ in range(5):
        running.step()
    copied = running.of(running.simulator.copy())
    twice = running.of(running.simulator.copy().extend(2))
    chosen = running.of(running.simulator.copy().select_batch_elements(torch.tensor([1])))
    before = running.states()
    ends = [one.step() for one in (copied, twice, chosen)]
    assert np.array_equal(running.states(), before), "copies do not move the one that they were made of"
    end = running.step()
    assert np.array_equal(ends[0], end)
    assert np.array_equal(ends[1], end[[0, 0, 1, 1]])
    assert np.array_equal(ends[2], end[[1]])


def test_who_is_spawned_anew_is_somebody_else_and_is_driven_from_there() -> None:
    running = Running(TrafficModel(ConstantVelocity()), [CROWD])
    found = running.step()
    there = np.ones(found.shape[:2], bool)
    first = running.seen().agent_id.tolist()
    found[0, 1] = [200, 100, 0.0, 3.0]  # within a tick, as a SpawnController may
    there[0, 2] = False
    running.put(found, there)
    found = running.step()
    second = running.seen().agent_id.tolist()
    assert second[1] not in first
    assert len(second) == 3
    assert found[0, 1, :2] == pytest.approx([200.3, 100])
    there[0, 2] = True
    found[0, 2] = [-50, 0, 1.0, 4.0]
    running.put(found, there)
    found = running.step()
    assert running.seen().agent_id.tolist()[2] not in (*first, *second)
    assert found[0, 2, :2] == pytest.approx([-50 + 0.4 * np.cos(1), 0.4 * np.sin(1)], abs=1e-4)


def test_another_dt_and_states_that_are_not_finite_are_refused_and_change_nothing() -> None:
    with pytest.raises(HostError, match=r"TorchDriveSim steps by 0\.1 s and the traffic model by 0\.2 s; use dt=0\.1"):
        Running(TrafficModel(ConstantVelocity(), dt=0.2), [CROWD]).step()
    running = Running(TrafficModel(ConstantVelocity()), [CROWD, CROWD])
    good = running.step()
    before = running.worlds
    bad = good.copy()
    bad[1, 2, 0] = np.nan
    running.put(bad, np.ones(bad.shape[:2], bool))
    with pytest.raises(BadInput, match="position is"):
        running.step()
    assert running.worlds is before, "nor has the first world moved"


@pytest.mark.parametrize("make", [ConstantVelocity, IdmFollower])
def test_two_runs_are_equal_bit_for_bit(make: Callable[[], Policy]) -> None:
    ends = []
    for _ in range(2):
        running = Running(TrafficModel(make(), seed=3), [CROWD])
        ends.append([running.step() for _ in range(10)])
    assert np.array_equal(ends[0], ends[1])


def test_what_this_torchdrivesim_has_not_is_said_in_one_line() -> None:
    name, instead = ("DrivenNPCs", "DrivenWrapper") if RELEASE else ("DrivenWrapper", "DrivenNPCs")
    with pytest.raises(HostError, match=f"{name} needs NPC\\w+, which this TorchDriveSim has not; take {instead}"):
        getattr(host, name)


@pytest.mark.skipif(not RELEASE, reason="the example is of TorchDriveSim's release, this is its repository")
def test_the_example_runs_and_is_short(tmp_path: Path) -> None:
    pytest.importorskip("lanelet2", reason="maps of TorchDriveSim need lanelet2")
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLE)], capture_output=True, text=True, cwd=tmp_path, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "29 agents in each of 2 worlds, driven by idm" in done.stdout
