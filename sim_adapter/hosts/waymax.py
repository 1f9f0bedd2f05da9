"""Waymax: objects of a simulation are driven by a TrafficModel, as a WaymaxActorCore.

```
actor = TrafficActor(TrafficModel(policy), lambda state: ~state.object_metadata.is_sdc)
env = MultiAgentEnvironment(dynamics_model=StateDynamics(), config=...)
state, memory = env.reset(scenario), actor.init(key, scenario)
while not state.is_done:
    output = actor.select_action({}, state, memory, key)
    state, memory = env.step(state, output.action), output.actor_state
```

Waymax counts as we do (WOMD's frame, box centres, yaw counter-clockwise); its steps are of 0.1 s. No registry has it,
so this file is **tested against a fake** that holds to its published signatures, never against Waymax itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from traj_diffusion.datasets.readers.womd_example import map_of_samples
from traj_diffusion.errors import HostError, MissingSource
from traj_diffusion.scene import AgentKind, Agents, Lights, Map, Observation, Routes, Scene
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

try:
    from waymax import agents, datatypes
except ImportError:
    raise MissingSource("waymax", "github.com/waymo-research/waymax") from None

DT = 0.1  # s
HISTORY = 11  # steps
FIELDS = ("x", "y", "yaw", "vel_x", "vel_y")  # of an action of StateDynamics


class TrafficActor(agents.WaymaxActorCore):
    """Drives the objects that `is_controlled` says of a state, with actions for Waymax's StateDynamics.

    The actor's state is the traffic itself: each call goes on from the one that it is handed and leaves that as it
    was. The seed is the TrafficModel's; Waymax's random keys are not read. It runs outside of `jax.jit`, `vmap` and
    `scan`, on one scenario at a time. Without `roadgraph_points` there is no map.
    """

    def __init__(self, traffic: TrafficModel, is_controlled: Callable[[Any], Any]) -> None:
        if abs(traffic.dt - DT) > 1e-9:
            raise HostError(f"Waymax steps by {DT} s and the traffic model by {traffic.dt} s; use dt={DT}")
        self._traffic, self._is_controlled = traffic, is_controlled

    @property
    def name(self) -> str:
        """Name of the policy."""
        return f"traj_diffusion {self._traffic.metadata['policy']}"

    def init(self, rng: Any, state: Any) -> TrafficModel:
        """Return traffic that has seen the state and up to a second before it."""
        traffic = self._traffic.fork()
        now = int(_array(state.timestep))
        first = max(now - HISTORY + 1, 0)
        traffic.reset(_scene(state, slice(first, now + 1)), self._observe(state))
        return traffic

    def select_action(self, params: Any, state: Any, actor_state: TrafficModel, rng: Any) -> Any:
        """Return where the controlled objects go in this step, as poses and velocities."""
        traffic = actor_state.fork()
        seen = self._observe(state)
        step = traffic.step(seen)
        ids = _array(state.object_metadata.ids).tolist()
        data = np.stack([_now(state, name) for name in FIELDS], -1)
        valid = np.zeros((len(ids), 1), bool)
        row_of = {agent: row for row, agent in enumerate(ids)}
        for agent, place, heading, velocity in zip(
            step.agent_id.tolist(), step.position, step.heading, step.velocity, strict=True
        ):
            data[row_of[agent]] = (place[0], place[1], heading, *velocity)
            valid[row_of[agent]] = True
        return agents.WaymaxActorOutput(
            actor_state=traffic,
            action=datatypes.Action(data=data.astype(np.float32), valid=valid),
            is_controlled=valid[:, 0],
        )

    def _observe(self, state: Any) -> Observation:
        if _array(state.object_metadata.ids).ndim != 1:
            raise HostError(f"Waymax: a batch of shape {tuple(state.shape)}; one scenario at a time would fit")
        now = int(_array(state.timestep))
        there = np.flatnonzero(_now(state, "valid"))
        size = np.stack([_now(state, name) for name in ("length", "width", "height")], -1)
        lights = state.log_traffic_light
        shown = np.flatnonzero(_array(lights.valid)[:, now])
        _, first = np.unique(_array(lights.lane_ids)[shown, now], return_index=True)
        shown = shown[np.sort(first)]  # one signal per lane
        return Observation.from_arrays(
            now * DT,
            agent_id=_array(state.object_metadata.ids)[there],
            kind=_kinds(state)[there],
            position=np.stack([_now(state, name) for name in "xyz"], -1)[there],
            heading=_now(state, "yaw")[there],
            velocity=np.stack([_now(state, "vel_x"), _now(state, "vel_y")], -1)[there],
            size=size[there],
            is_controlled=_array(self._is_controlled(state)).astype(bool)[there],
            light_lane=_array(lights.lane_ids)[shown, now],
            light_stop=np.stack([_array(getattr(lights, axis))[shown, now] for axis in "xyz"], -1),
            light_state=_array(lights.state)[shown, now],
        )


def _scene(state: Any, steps: slice) -> Scene:
    """Return what the simulation was in those steps, on its map.

    Rows that are never valid are left out: Waymax fills its arrays up with objects that all have the id -1.
    """
    there = np.flatnonzero(_array(state.sim_trajectory.valid)[:, steps].any(axis=1))
    past = {name: _array(getattr(state.sim_trajectory, name))[there, steps] for name in (*FIELDS, "z", "valid")}
    size = [_array(getattr(state.sim_trajectory, name))[there, steps] for name in ("length", "width", "height")]
    count, length = past["valid"].shape
    sdc = np.flatnonzero(_array(state.object_metadata.is_sdc)[there])
    return Scene(
        id="waymax",
        source="waymax",
        dt=DT,
        current_index=length - 1,
        ego=int(sdc[0]) if len(sdc) else None,
        agents=Agents(
            id=_array(state.object_metadata.ids)[there].astype(np.int64),
            kind=_kinds(state)[there],
            position=np.stack([past[axis] for axis in "xyz"], -1).astype(np.float64),
            heading=past["yaw"].astype(np.float32),
            velocity=np.stack([past["vel_x"], past["vel_y"]], -1).astype(np.float32),
            size=np.stack(size, -1).astype(np.float32),
            valid=past["valid"].astype(bool),
            to_predict=np.zeros(count, bool),
        ),
        map=_map(state.roadgraph_points),
        lights=Lights.none(length),
        routes=Routes.absent(count),
    )


def _map(points: Any) -> Map:
    if points is None:
        return Map.empty()
    xyz = np.stack([_array(getattr(points, axis)) for axis in "xyz"], -1)
    return map_of_samples(_array(points.types), xyz, _array(points.ids), _array(points.valid).astype(bool), {})


def _kinds(state: Any) -> np.ndarray:
    kinds = _array(state.object_metadata.object_types)
    return np.where((kinds >= 1) & (kinds <= 4), kinds, int(AgentKind.OTHER)).astype(np.uint8)


def _now(state: Any, name: str) -> np.ndarray:
    """Return one field of all objects at the state's own step."""
    return _array(getattr(state.sim_trajectory, name))[..., int(_array(state.timestep))]


def _array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except TypeError as error:  # of jax: a traced array has no values
        raise HostError("Waymax: the traffic runs outside of jax.jit, vmap and scan; call it from Python") from error
