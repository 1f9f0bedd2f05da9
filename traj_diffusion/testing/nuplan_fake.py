"""Stand-ins for nuplan-devkit 1.2 and NAVSIM v2, which no registry has: **fakes** with their published signatures.

`install(monkeypatch)` puts them in the place of the packages `nuplan` and `navsim`. `FakeScenario(scene)` is a scene as
nuPlan shows a scenario, `simulate` runs an observation the way nuPlan's Simulation does, `metric_cache` is what NAVSIM
hands to a traffic policy.
"""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import shapely

from traj_diffusion.scene import AgentKind, LightState, MapKind, Scene

AXLE = 1.4  # m from the ego's rear axle to its centre
START = 1_600_000_000_000_000  # us


class TrackedObjectType(Enum):
    """`tracked_objects_types.TrackedObjectType`."""

    VEHICLE = 0
    PEDESTRIAN = 1
    BICYCLE = 2
    TRAFFIC_CONE = 3
    BARRIER = 4
    CZONE_SIGN = 5
    GENERIC_OBJECT = 6
    EGO = 7


class SemanticMapLayer(IntEnum):
    """`maps_datatypes.SemanticMapLayer`, those that are asked for."""

    LANE = 0
    CROSSWALK = 4
    LANE_CONNECTOR = 11
    CARPARK_AREA = 15
    ROADBLOCK = 17
    ROADBLOCK_CONNECTOR = 18


@dataclass(frozen=True)
class StateSE2:
    """`state_representation.StateSE2`."""

    x: float
    y: float
    heading: float

    @property
    def point(self) -> Any:
        """Return its Point2D."""
        return SimpleNamespace(x=self.x, y=self.y)


@dataclass(frozen=True)
class StateVector2D:
    """`state_representation.StateVector2D`."""

    x: float
    y: float


@dataclass(frozen=True)
class OrientedBox:
    """`oriented_box.OrientedBox`."""

    center: StateSE2
    length: float
    width: float
    height: float

    @classmethod
    def from_new_pose(cls, box: "OrientedBox", pose: StateSE2) -> "OrientedBox":
        """Return the box elsewhere."""
        return cls(pose, box.length, box.width, box.height)


@dataclass(frozen=True)
class SceneObjectMetadata:
    """`scene_object.SceneObjectMetadata`."""

    timestamp_us: int
    token: str
    track_id: int | None
    track_token: str | None


class Agent:
    """`agent.Agent`."""

    def __init__(
        self,
        tracked_object_type: TrackedObjectType,
        oriented_box: OrientedBox,
        velocity: StateVector2D,
        metadata: SceneObjectMetadata,
        angular_velocity: float | None = None,
    ) -> None:
        self.tracked_object_type, self.box, self.velocity = tracked_object_type, oriented_box, velocity
        self.metadata, self.angular_velocity = metadata, angular_velocity
        self.track_token, self.center = metadata.track_token, oriented_box.center


class TrackedObjects:
    """`tracked_objects.TrackedObjects`."""

    def __init__(self, tracked_objects: list[Any] | None = None) -> None:
        self.tracked_objects = list(tracked_objects or [])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tracked_objects)

    def __len__(self) -> int:
        return len(self.tracked_objects)


@dataclass
class DetectionsTracks:
    """`observation_type.DetectionsTracks`."""

    tracked_objects: TrackedObjects


class AbstractObservation(ABC):
    """`abstract_observation.AbstractObservation`."""

    @abstractmethod
    def reset(self) -> None:
        """Reset."""

    @abstractmethod
    def get_observation(self) -> Any:
        """Return the present observation."""

    @abstractmethod
    def initialize(self) -> None:
        """Initialise."""

    @abstractmethod
    def update_observation(self, iteration: Any, next_iteration: Any, history: Any) -> None:
        """Go on to the next iteration."""


class AbstractTrafficAgentsPolicy(ABC):
    """`abstract_traffic_agents_policy.AbstractTrafficAgentsPolicy`; simulate_environment holds its two assertions."""

    @abstractmethod
    def __init__(self, future_trajectory_sampling: Any) -> None: ...

    @abstractmethod
    def get_list_of_simulated_object_types(self) -> list[Any]:
        """Return the types that are simulated."""

    @abstractmethod
    def simulate_traffic_agents(self, simulated_ego_states: np.ndarray, metric_cache: Any) -> list[Any]:
        """Return the simulated objects at each step."""

    def simulate_environment(self, simulated_ego_states: np.ndarray, metric_cache: Any) -> list[Any]:
        """Return the present objects and those at each step."""
        found = self.simulate_traffic_agents(simulated_ego_states, metric_cache)
        types = self.get_list_of_simulated_object_types()
        assert all(one.tracked_object_type in types for tracks in found for one in tracks.tracked_objects)
        assert len(found) + 1 == len(simulated_ego_states)
        return [*metric_cache.current_tracked_objects, *found]


class FakeScenario:
    """A scene as nuPlan's AbstractScenario and AbstractMap at once; iteration 0 is the scene's current index."""

    def __init__(self, scene: Scene) -> None:
        assert scene.ego is not None
        self.scene, self.database_interval, self.map_api = scene, scene.dt, self
        self._ego = scene.ego
        self._lanes = {int(row): f"{scene.map.id[row]}" for row in scene.map.rows(MapKind.LANE)}

    def ego_state(self, iteration: int) -> Any:
        """Return the logged ego."""
        agents, at = self.scene.agents, self.scene.current_index + iteration
        (x, y, _), heading = agents.position[self._ego, at].tolist(), float(agents.heading[self._ego, at])
        length, width, height = agents.size[self._ego, at].tolist()
        speed = float(np.hypot(*agents.velocity[self._ego, at]))
        return SimpleNamespace(
            car_footprint=SimpleNamespace(
                oriented_box=OrientedBox(StateSE2(x, y, heading), length, width, height),
                vehicle_parameters=SimpleNamespace(rear_axle_to_center=AXLE),
            ),
            dynamic_car_state=SimpleNamespace(center_velocity_2d=StateVector2D(speed, 0.0)),
            time_point=SimpleNamespace(time_us=START + round(iteration * self.database_interval * 1e6)),
        )

    def get_tracked_objects_at_iteration(self, iteration: int) -> DetectionsTracks:
        """Return everyone but the ego as logged, and a cone without a velocity."""
        agents, at = self.scene.agents, self.scene.current_index + iteration
        types = {AgentKind.PEDESTRIAN: "PEDESTRIAN", AgentKind.CYCLIST: "BICYCLE"}
        found: list[Any] = []
        for row in np.flatnonzero(agents.valid[:, at]).tolist():
            if row == self._ego:
                continue
            (x, y, _), size = agents.position[row, at].tolist(), agents.size[row, at].tolist()
            name = types.get(AgentKind(int(agents.kind[row])), "VEHICLE")
            token = f"track-{agents.id[row]}"
            box = OrientedBox(StateSE2(x, y, float(agents.heading[row, at])), *size)
            told = SceneObjectMetadata(START + iteration, f"{token}-{iteration}", row, token)
            pace = StateVector2D(*agents.velocity[row, at].tolist())
            found.append(Agent(TrackedObjectType[name], box, pace, told))
        cone = SimpleNamespace(
            tracked_object_type=TrackedObjectType.TRAFFIC_CONE,
            box=OrientedBox(StateSE2(30.0, 30.0, 0.0), 0.4, 0.4, 0.8),
            center=StateSE2(30.0, 30.0, 0.0),
            track_token="cone",
            metadata=SceneObjectMetadata(START, "cone-0", 999, "cone"),
        )
        return DetectionsTracks(TrackedObjects([*found, cone]))

    def get_traffic_light_status_at_iteration(self, iteration: int) -> list[Any]:
        """Return what the lights show."""
        names = {LightState.STOP: "RED", LightState.CAUTION: "YELLOW", LightState.GO: "GREEN"}
        lights, at = self.scene.lights, self.scene.current_index + iteration
        return [
            SimpleNamespace(
                lane_connector_id=int(lane), status=SimpleNamespace(name=names.get(LightState(int(state)), "UNKNOWN"))
            )
            for lane, state in zip(lights.lane_id, lights.state[:, at], strict=True)
        ]

    def get_proximal_map_objects(self, point: Any, radius: float, layers: list[Any]) -> dict[Any, list[Any]]:
        """Return all lanes, and one roadblock around them all."""
        lanes = {row: SimpleNamespace(id=name) for row, name in self._lanes.items()}
        for row, lane in lanes.items():
            line, links = self.scene.map.polyline(row), self.scene.map.links
            lane.baseline_path = SimpleNamespace(discrete_path=[StateSE2(x, y, 0.0) for x, y, _ in line.tolist()])
            limit = float(self.scene.map.speed_limit[row])
            lane.speed_limit_mps = None if math.isnan(limit) else limit
            lane.outgoing_edges = [lanes[int(other)] for other in links.successors[row]]
            lane.incoming_edges = [lanes[int(other)] for other in links.predecessors[row]]
            lane.adjacent_edges = (None, None)
        strips = [shapely.LineString(self.scene.map.polyline(row)[:, :2]).buffer(2.0) for row in lanes]
        hull = shapely.union_all(strips).convex_hull
        return {
            SemanticMapLayer.LANE: list(lanes.values()),
            SemanticMapLayer.ROADBLOCK: [SimpleNamespace(id="block", polygon=hull)],
        }


def simulate(
    scenario: FakeScenario, observations: Any, iterations: int, each: Callable[[int, Any], None] = lambda *_: None
) -> list[Any]:
    """Return the observations of a simulation whose ego replays the log, in the order in which nuPlan asks."""
    observations.reset()
    observations.initialize()
    found = [observations.get_observation()]
    for index in range(iterations):
        now, after = (
            SimpleNamespace(
                index=at,
                time_us=START + round(at * scenario.database_interval * 1e6),
                time_s=START * 1e-6 + at * scenario.database_interval,
            )
            for at in (index, index + 1)
        )
        history = SimpleNamespace(current_state=(scenario.ego_state(index), found[-1]))
        observations.update_observation(now, after, history)
        found.append(observations.get_observation())
        each(index, found[-1])
    return found


class _OfScenario:
    """What is made of a scenario alone, or of a planner's settings besides."""

    def __init__(self, scenario: FakeScenario, num_poses: int = 0, future_time_horizon: float = 0.0) -> None:
        self.scenario = scenario


class StepSimulationTimeController(_OfScenario):
    """`step_simulation_time_controller.StepSimulationTimeController`."""


class PerfectTrackingController(_OfScenario):
    """`perfect_tracking.PerfectTrackingController`; the ego replays the log whatever was planned."""


class LogFuturePlanner(_OfScenario):
    """`log_future_planner.LogFuturePlanner`."""


@dataclass
class SimulationSetup:
    """`simulation_setup.SimulationSetup`."""

    time_controller: Any
    observations: Any
    ego_controller: Any
    scenario: Any


class Simulation:
    """`simulation.Simulation`: its history has a sample for each iteration."""

    def __init__(self, simulation_setup: SimulationSetup) -> None:
        self.setup, self.history = simulation_setup, SimpleNamespace(data=[])


class SimulationRunner:
    """`simulations_runner.SimulationRunner`."""

    def __init__(self, simulation: Simulation, planner: Any) -> None:
        self.simulation = simulation

    def run(self) -> None:
        """Simulate to the scenario's end."""
        setup, scene = self.simulation.setup, self.simulation.setup.scenario.scene
        found = simulate(setup.scenario, setup.observations, scene.steps - scene.current_index - 1)
        self.simulation.history.data = [SimpleNamespace(observation=one) for one in found]


@dataclass(frozen=True)
class TrajectorySampling:
    """`trajectory_sampling.TrajectorySampling`."""

    num_poses: int
    time_horizon: float | None = None
    interval_length: float | None = None


def metric_cache(scenario: FakeScenario, poses: int) -> tuple[np.ndarray, Any]:
    """Return the logged ego as NAVSIM's state array [poses + 1, 11], and the cache of its scene."""
    states = np.zeros((poses + 1, 11))
    for index in range(poses + 1):
        ego = scenario.ego_state(index)
        centre = ego.car_footprint.oriented_box.center
        states[index, 0] = centre.x - AXLE * math.cos(centre.heading)
        states[index, 1] = centre.y - AXLE * math.sin(centre.heading)
        states[index, 2] = centre.heading
        states[index, 3] = ego.dynamic_car_state.center_velocity_2d.x
    return states, SimpleNamespace(
        ego_state=scenario.ego_state(0),
        current_tracked_objects=[scenario.get_tracked_objects_at_iteration(0)],
        future_tracked_objects=[scenario.get_tracked_objects_at_iteration(index + 1) for index in range(poses)],
        map_parameters=SimpleNamespace(map_root="maps", map_version="nuplan-maps-v1.0", map_name="fake"),
    )


def install(monkeypatch: Any, scenario: FakeScenario | None = None) -> None:
    """Let `import nuplan` and `import navsim` find the fakes until the test ends; their map is the scenario's."""
    content: dict[str, tuple[Any, ...]] = {
        "nuplan.common.actor_state.agent": (Agent,),
        "nuplan.common.actor_state.oriented_box": (OrientedBox,),
        "nuplan.common.actor_state.scene_object": (SceneObjectMetadata,),
        "nuplan.common.actor_state.state_representation": (StateSE2, StateVector2D),
        "nuplan.common.actor_state.tracked_objects": (TrackedObjects,),
        "nuplan.common.actor_state.tracked_objects_types": (TrackedObjectType,),
        "nuplan.common.maps.maps_datatypes": (SemanticMapLayer,),
        "nuplan.planning.simulation.controller.perfect_tracking": (PerfectTrackingController,),
        "nuplan.planning.simulation.observation.abstract_observation": (AbstractObservation,),
        "nuplan.planning.simulation.observation.observation_type": (DetectionsTracks,),
        "nuplan.planning.simulation.planner.log_future_planner": (LogFuturePlanner,),
        "nuplan.planning.simulation.runner.simulations_runner": (SimulationRunner,),
        "nuplan.planning.simulation.simulation": (Simulation,),
        "nuplan.planning.simulation.simulation_setup": (SimulationSetup,),
        "nuplan.planning.simulation.simulation_time_controller.step_simulation_time_controller": (
            StepSimulationTimeController,
        ),
        "nuplan.planning.simulation.trajectory.trajectory_sampling": (TrajectorySampling,),
        "navsim.traffic_agents_policies.abstract_traffic_agents_policy": (AbstractTrafficAgentsPolicy,),
    }
    factory = "nuplan.common.maps.nuplan_map.map_factory"
    for name in (*content, factory):
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            path = ".".join(parts[:depth])
            if path not in sys.modules:
                monkeypatch.setitem(sys.modules, path, ModuleType(path))
        for one in content.get(name, ()):
            setattr(sys.modules[name], one.__name__, one)
    sys.modules[factory].get_maps_api = lambda root, version, name: scenario  # type: ignore[attr-defined]
    for host in ("nuplan", "navsim"):
        monkeypatch.delitem(sys.modules, f"traj_diffusion.sim_adapter.hosts.{host}", raising=False)
