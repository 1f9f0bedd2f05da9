"""A stand-in for Waymax, which no registry has: **a fake** with the names and shapes of its published signatures.

`install(monkeypatch)` puts it in the place of the package `waymax`; `state_of(scene)` is a SimulatorState of a scene,
and `advance` what its environment with StateDynamics does with an action. Arrays are numpy's instead of jax's.
"""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from traj_diffusion.scene import MapKind, Scene

# `MapElementIds`: lanes from 0, lines from 5, edges from 14, each in the order of its enum; then the rest.
_FIRST = {MapKind.LANE: 0, MapKind.ROAD_LINE: 5, MapKind.ROAD_EDGE: 14}
_OTHER = {MapKind.STOP_SIGN: 17, MapKind.CROSSWALK: 18, MapKind.SPEED_BUMP: 19, MapKind.DRIVEWAY: 20}
OBJECTS = 128  # rows of a state as Waymax loads it
FIELDS = ("x", "y", "z", "vel_x", "vel_y", "yaw", "valid", "length", "width", "height")


class WaymaxActorCore(ABC):
    """`waymax.agents.WaymaxActorCore`."""

    @abstractmethod
    def init(self, rng: Any, state: Any) -> Any:
        """Return the actor's state."""

    @abstractmethod
    def select_action(self, params: Any, state: Any, actor_state: Any, rng: Any) -> Any:
        """Return a WaymaxActorOutput."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return its name."""


@dataclass(frozen=True)
class WaymaxActorOutput:
    """`waymax.agents.WaymaxActorOutput`."""

    actor_state: Any
    action: Any
    is_controlled: Any


@dataclass
class Action:
    """`waymax.datatypes.Action`: data [objects, 5], valid [objects, 1]."""

    data: Any
    valid: Any


@dataclass
class SimulatorState:
    """`waymax.datatypes.SimulatorState`, without paths."""

    sim_trajectory: Any
    log_trajectory: Any
    log_traffic_light: Any
    object_metadata: Any
    timestep: Any
    roadgraph_points: Any = None
    shape: tuple[int, ...] = ()

    @property
    def remaining_timesteps(self) -> int:
        """Return how many steps the log still has."""
        return int(self.log_trajectory.x.shape[1]) - 1 - int(self.timestep)


@dataclass(frozen=True)
class EnvironmentConfig:
    """`waymax.config.EnvironmentConfig`, what is looked at here."""

    max_num_objects: int = OBJECTS
    controlled_object: Any = "SDC"


class MultiAgentEnvironment:
    """`waymax.env.MultiAgentEnvironment` with StateDynamics."""

    def __init__(self, dynamics_model: Any, config: EnvironmentConfig) -> None:
        assert isinstance(dynamics_model, StateDynamics)
        assert config.controlled_object == "VALID"
        self.config = config

    def reset(self, state: SimulatorState) -> SimulatorState:
        """Return the state at its current index."""
        assert len(state.object_metadata.ids) == self.config.max_num_objects
        return state

    def step(self, state: SimulatorState, action: Action) -> SimulatorState:
        """Return the next state."""
        return advance(state, WaymaxActorOutput(None, action, action.valid[:, 0]))


class StateDynamics:
    """`waymax.dynamics.StateDynamics`."""


def install(monkeypatch: Any, scene: Scene | None = None) -> None:
    """Let `import waymax` find the fake until the test ends; its data loader knows that scene."""
    content: dict[str, dict[str, Any]] = {
        "agents": {"WaymaxActorCore": WaymaxActorCore, "WaymaxActorOutput": WaymaxActorOutput},
        "config": {
            "EnvironmentConfig": EnvironmentConfig,
            "ObjectType": SimpleNamespace(VALID="VALID"),
            "WOD_1_1_0_VALIDATION": None,
        },
        "dataloader": {"simulator_state_generator": lambda config: iter([] if scene is None else [padded(scene)])},
        "datatypes": {"Action": Action},
        "dynamics": {"StateDynamics": StateDynamics},
        "env": {"MultiAgentEnvironment": MultiAgentEnvironment},
    }
    package = ModuleType("waymax")
    monkeypatch.setitem(sys.modules, "waymax", package)
    for name, things in content.items():
        module = ModuleType(f"waymax.{name}")
        vars(module).update(things)
        setattr(package, name, module)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "traj_diffusion.sim_adapter.hosts.waymax", raising=False)


def state_of(scene: Scene) -> SimulatorState:
    """Return the state of a simulation that has replayed a scene up to its current index."""
    agents, now = scene.agents, scene.current_index
    logged = SimpleNamespace(
        x=agents.position[..., 0].astype(np.float32),
        y=agents.position[..., 1].astype(np.float32),
        z=agents.position[..., 2].astype(np.float32),
        vel_x=agents.velocity[..., 0],
        vel_y=agents.velocity[..., 1],
        yaw=agents.heading,
        valid=agents.valid,
        length=agents.size[..., 0],
        width=agents.size[..., 1],
        height=agents.size[..., 2],
    )
    simulated = SimpleNamespace(**{name: getattr(logged, name).copy() for name in FIELDS})
    simulated.valid[:, now + 1 :] = False
    lights, sdc = scene.lights, np.zeros(len(agents), bool)
    sdc[scene.ego if scene.ego is not None else 0] = True
    return SimulatorState(
        sim_trajectory=simulated,
        log_trajectory=logged,
        log_traffic_light=SimpleNamespace(
            **{axis: lights.stop_point[..., column] for column, axis in enumerate("xyz")},
            state=lights.state.astype(np.int32),
            lane_ids=np.repeat(lights.lane_id[:, None], scene.steps, 1).astype(np.int32),
            valid=lights.observed,
        ),
        object_metadata=SimpleNamespace(
            ids=agents.id.astype(np.int32), object_types=agents.kind.astype(np.int32), is_sdc=sdc
        ),
        timestep=np.int32(now),
        roadgraph_points=_points(scene),
    )


def padded(scene: Scene) -> SimulatorState:
    """Return the state as Waymax loads it: with rows up to 128 objects that are never valid, all of id -1."""
    state = state_of(scene)

    def longer(values: np.ndarray, fill: Any) -> np.ndarray:
        more = [(0, OBJECTS - len(values)), *((0, 0),) * (values.ndim - 1)]
        return np.pad(values, more, constant_values=fill)

    for trajectory in (state.sim_trajectory, state.log_trajectory):
        for name in FIELDS:
            setattr(trajectory, name, longer(getattr(trajectory, name), False if name == "valid" else -1.0))
    told = state.object_metadata
    told.ids, told.object_types = longer(told.ids, -1), longer(told.object_types, -1)
    told.is_sdc = longer(told.is_sdc, False)
    return state


def advance(state: SimulatorState, output: WaymaxActorOutput) -> SimulatorState:
    """Return the state a step later: controlled objects where the action says, all others where the log has them."""
    after = int(state.timestep) + 1
    moved = SimpleNamespace(**{name: getattr(state.sim_trajectory, name).copy() for name in FIELDS})
    for name in FIELDS:
        getattr(moved, name)[:, after] = getattr(state.log_trajectory, name)[:, after]
    rows = np.flatnonzero(output.is_controlled)
    for column, name in enumerate(("x", "y", "yaw", "vel_x", "vel_y")):
        getattr(moved, name)[rows, after] = output.action.data[rows, column]
    for name in ("z", "length", "width", "height"):
        getattr(moved, name)[rows, after] = getattr(state.sim_trajectory, name)[rows, after - 1]
    moved.valid[rows, after] = output.action.valid[rows, 0]
    return replace(state, sim_trajectory=moved, timestep=np.int32(after))


def _points(scene: Scene) -> Any:
    types, ids = [], []
    for row in range(len(scene.map)):
        kind = MapKind(int(scene.map.kind[row]))
        code = _FIRST[kind] + int(scene.map.subtype[row]) if kind in _FIRST else _OTHER[kind]
        count = int(scene.map.start[row + 1] - scene.map.start[row])
        types += [code] * count
        ids += [int(scene.map.id[row])] * count
    xyz = scene.map.points.astype(np.float32)
    return SimpleNamespace(
        x=xyz[:, 0],
        y=xyz[:, 1],
        z=xyz[:, 2],
        types=np.array(types, np.int32),
        ids=np.array(ids, np.int32),
        valid=np.ones(len(xyz), bool),
    )
