"""What passes between a simulator and its traffic at one tick: `Observation` goes in, `Step` comes out.

Metres, seconds, radians counter-clockwise from +x (east), y north, z up; right-handed. A position is the centre of the
box, not its rear axle and not its front bumper. A host that counts otherwise translates before it asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from traj_diffusion.errors import BadInput
from traj_diffusion.scene.invariants import MAX_COORDINATE
from traj_diffusion.scene.kinds import AgentKind, LightState
from traj_diffusion.scene.policy import Plan
from traj_diffusion.scene.scene import Routes, Scene

MAX_SPEED = 120.0  # m/s; faster than anything on a road
MAX_SIZE = 100.0  # m


@dataclass(frozen=True)
class Observation:
    """Everyone who is there at one moment, and what the signals show. Whoever is not listed is not there.

    `is_controlled` marks the agents that the traffic drives; all others (the ego, the host's own) it only reacts to.
    A signal that is not listed is not seen. `routes` are where these agents mean to go, on the map of the reset; where
    it says nothing of an agent, what the scene of the reset said holds.
    """

    time: float  # s, on the host's clock
    agent_id: Int64[np.ndarray, " A"]
    kind: UInt8[np.ndarray, " A"]  # AgentKind
    position: Float64[np.ndarray, "A 3"]  # box centre
    heading: Float32[np.ndarray, " A"]
    velocity: Float32[np.ndarray, "A 2"]
    size: Float32[np.ndarray, "A 3"]  # length, width, height
    is_controlled: Bool[np.ndarray, " A"]
    light_lane: Int64[np.ndarray, " S"]  # map id of the lane that the signal controls
    light_stop: Float64[np.ndarray, "S 3"]
    light_state: UInt8[np.ndarray, " S"]  # LightState
    routes: Routes | None = None

    def __len__(self) -> int:
        return len(self.agent_id)

    @classmethod
    def from_arrays(
        cls,
        time: float | int,
        *,
        agent_id: Any,
        kind: Any,
        position: Any,
        heading: Any,
        velocity: Any,
        size: Any,
        is_controlled: Any = True,
        light_lane: Any = (),
        light_stop: Any = (),
        light_state: Any = (),
        routes: Routes | None = None,
    ) -> "Observation":
        """Return an observation of anything that numpy reads as arrays of those shapes, copied.

        Positions may be [A, 2] (z is 0 then); `kind`, `size` and `is_controlled` may be one value for all.
        Raises BadInput naming the field, or the agent, that does not fit.
        """
        where = f"observation at {time!r} s"
        ids = _array(where, "agent_id", agent_id, np.int64, (-1,))
        count = len(ids)
        lanes = _array(where, "light_lane", light_lane, np.int64, (-1,))
        lights = len(lanes)
        place = np.asarray(position)
        if place.ndim == 2 and place.shape[1] == 2:
            place = np.pad(place, ((0, 0), (0, 1)))
        return check_observation(
            cls(
                time=float(time),
                agent_id=ids,
                kind=_array(where, "kind", kind, np.uint8, (count,)),
                position=_array(where, "position", place, np.float64, (count, 3)),
                heading=_array(where, "heading", heading, np.float32, (count,)),
                velocity=_array(where, "velocity", velocity, np.float32, (count, 2)),
                size=_array(where, "size", size, np.float32, (count, 3)),
                is_controlled=_array(where, "is_controlled", is_controlled, np.bool_, (count,)),
                light_lane=lanes,
                light_stop=_array(where, "light_stop", light_stop, np.float64, (lights, 3)),
                light_state=_array(where, "light_state", light_state, np.uint8, (lights,)),
                routes=routes,
            )
        )

    @classmethod
    def from_scene(
        cls, scene: Scene, index: int | None = None, time: float | None = None, uncontrolled: Sequence[int] = ()
    ) -> "Observation":
        """Return a scene's agents and lights at one of its steps, by default the current one at `index * dt` seconds.

        All agents are controlled but those whose ids are in `uncontrolled`. Lights show what was last seen.
        """
        at = scene.current_index if index is None else index
        rows = np.flatnonzero(scene.agents.valid[:, at])
        stop, state, seen = scene.lights.last_seen(at)
        agents = scene.agents
        return cls.from_arrays(
            at * scene.dt if time is None else time,
            agent_id=agents.id[rows],
            kind=agents.kind[rows],
            position=agents.position[rows, at],
            heading=agents.heading[rows, at],
            velocity=agents.velocity[rows, at],
            size=agents.size[rows, at],
            is_controlled=~np.isin(agents.id[rows], list(uncontrolled)),
            light_lane=scene.lights.lane_id[seen],
            light_stop=stop[seen],
            light_state=state[seen],
        )


@dataclass(frozen=True)
class Step:
    """Where the controlled agents are at `time`, in the order of the observation, and what may come after.

    `futures` holds the K joint futures (its R is 1) of the agents `futures_id`, sampled at `futures_time`; step i of
    it lies (i + 1) * futures.dt later. The agents follow future number `chosen`. None while there is nobody to plan
    for.
    """

    time: float
    agent_id: Int64[np.ndarray, " C"]
    position: Float64[np.ndarray, "C 3"]
    heading: Float32[np.ndarray, " C"]
    velocity: Float32[np.ndarray, "C 2"]
    futures: Plan | None
    futures_id: Int64[np.ndarray, " A"]
    futures_time: float
    chosen: int
    replanned: bool  # whether the futures were sampled in this call
    latency_ms: float
    warnings: tuple[str, ...]


def check_observation(observation: Observation, where: str = "") -> Observation:
    """Return the observation itself, or raise BadInput naming what is wrong, with which agent, and when."""
    where = where or f"observation at {observation.time} s"
    if not np.isfinite(observation.time):
        raise BadInput(f"{where}: its time is {observation.time}; it must be finite")
    for name, ids in (("agent id", observation.agent_id), ("light at lane", observation.light_lane)):
        unique, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise BadInput(f"{where}: {name} {unique[counts > 1][0]} is listed more than once")
    known = [int(kind) for kind in AgentKind]
    _agent(where, observation, ~np.isin(observation.kind, known), "kind", observation.kind, f"known kinds: {known}")
    for name, limit in (("position", MAX_COORDINATE), ("heading", 1e4), ("velocity", MAX_SPEED), ("size", MAX_SIZE)):
        value = getattr(observation, name)
        fine = (np.abs(value) <= limit).all(axis=tuple(range(1, value.ndim)))  # False for NaN
        _agent(where, observation, ~fine, name, value, f"values must be finite and at most {limit:g}")
    _agent(where, observation, (observation.size < 0).any(-1), "size", observation.size, "it must not be negative")
    strange = observation.light_state > max(LightState)
    if strange.any():
        lane = observation.light_lane[strange][0]
        raise BadInput(f"{where}: light at lane {lane} shows {observation.light_state[strange][0]}, at most 8 is known")
    if not (np.abs(observation.light_stop) <= MAX_COORDINATE).all():
        raise BadInput(f"{where}: a light's stop point is not finite, or beyond {MAX_COORDINATE:.0e} m")
    routes = observation.routes
    if routes is not None and not len(routes.lanes) == len(routes.origin) == len(observation):
        raise BadInput(f"{where}: {len(routes.lanes)} routes for {len(observation)} agents")
    return observation


def _agent(where: str, seen: Observation, bad: Any, name: str, value: np.ndarray, wanted: str) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise BadInput(f"{where}: agent {seen.agent_id[row]}: {name} is {value[row].tolist()}; {wanted}")


def _array(where: str, name: str, value: Any, dtype: type, shape: tuple[int, ...]) -> Any:
    """Return a copy as an array of that type and shape; -1 stands for any length."""
    try:
        raw = np.asarray(value)
        if (raw.size == 0 and 0 in shape) or (shape == (-1,) and raw.size == 0):
            return np.zeros([max(length, 0) for length in shape], dtype)
        if raw.dtype.kind not in "biuf" or (np.issubdtype(dtype, np.integer) and not _whole(raw, dtype)):
            raise ValueError(f"values of type {raw.dtype} do not fit {np.dtype(dtype)}")
        if shape != (-1,) and raw.ndim < len(shape):
            raw = np.broadcast_to(raw, shape)
        if raw.ndim != len(shape) or any(want not in (-1, got) for want, got in zip(shape, raw.shape, strict=True)):
            raise ValueError(f"its shape is {list(raw.shape)}")
        with np.errstate(over="ignore", invalid="ignore"):  # check_observation names what became infinite
            return raw.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        wanted = "A" if shape == (-1,) else " ".join(str(length) for length in shape)
        raise BadInput(f"{where}: {name} does not fit [{wanted}]: {error}") from None


def _whole(raw: np.ndarray, dtype: type) -> bool:
    """Return whether all values are whole numbers that the type holds."""
    if raw.dtype.kind == "f" and not (np.isfinite(raw).all() and (raw == np.floor(raw)).all()):
        return False
    bounds = np.iinfo(dtype)
    return bool((raw >= bounds.min).all() and (raw <= bounds.max).all())
