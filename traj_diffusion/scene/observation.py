"""What passes between a simulator and its traffic at one tick: `Observation` goes in, `Step` comes out.

Metres, seconds, radians counter-clockwise from +x (east), y north, z up; right-handed. A position is the centre of the
box, not its rear axle and not its front bumper. A host that counts otherwise translates before it asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from traj_diffusion.errors import BadInput
from traj_diffusion.scene.arrays import fit_array
from traj_diffusion.scene.invariants import MAX_COORDINATE
from traj_diffusion.scene.kinds import AgentKind, LightState
from traj_diffusion.scene.policy import Plan
from traj_diffusion.scene.scene import Routes, Scene

MAX_SPEED = 120.0  # m/s; faster than anything on a road
MAX_SIZE = 100.0  # m
LEAP = 5.0  # m that a given future may be off beyond what the fastest explains


@dataclass(frozen=True)
class GivenFuture:
    """What one agent is going to do: the ego's planned path, a log, a script. The others are sampled to fit it.

    Moments are on the host's clock, any distance apart; those up to the observation's time are not read. A controlled
    agent is put exactly there; after the last moment it is the traffic's again.
    """

    agent_id: int
    time: Float64[np.ndarray, " P"]
    position: Float64[np.ndarray, "P 3"]  # box centre
    heading: Float32[np.ndarray, " P"]

    @classmethod
    def from_arrays(cls, agent_id: int, time: Any, position: Any, heading: Any) -> "GivenFuture":
        """Return the path of what numpy reads as [P], [P, 2 or 3] and [P]. Raises BadInput naming the field."""
        where = f"given future of agent {agent_id}"
        moments = fit_array(where, "time", time, np.float64, (-1,), BadInput)
        count = len(moments)
        place = fit_array(where, "position", _with_height(position), np.float64, (count, 3), BadInput)
        return cls(int(agent_id), moments, place, fit_array(where, "heading", heading, np.float32, (count,), BadInput))

    @classmethod
    def from_scene(cls, scene: Scene, agent_id: int, index: int | None = None) -> "GivenFuture":
        """Return what an agent of a scene did after that step (the current one), until it was not seen any more.

        Moments are those of `Observation.from_scene`.
        """
        at = scene.current_index if index is None else index
        rows = np.flatnonzero(scene.agents.id == agent_id)
        if not len(rows):
            raise BadInput(f"scene {scene.id} has no agent {agent_id}")
        row = int(rows[0])
        gone = np.flatnonzero(~scene.agents.valid[row, at + 1 :])
        steps = np.arange(at + 1, at + 1 + gone[0] if len(gone) else scene.steps)
        if not len(steps):
            raise BadInput(
                f"scene {scene.id}: agent {agent_id} is not seen after step {at}, so it has no future to give"
            )
        return cls(agent_id, steps * scene.dt, scene.agents.position[row, steps], scene.agents.heading[row, steps])


@dataclass(frozen=True)
class Observation:
    """Everyone who is there at one moment, and what the signals show. Whoever is not listed is not there.

    `is_controlled` marks the agents that the traffic drives; all others (the ego, the host's own) it only reacts to.
    A signal that is not listed is not seen. `given` are the futures that are settled, at most one for each agent.
    `routes` are where these agents mean to go, on the map of the reset; where it says nothing of an agent, what the
    scene of the reset said holds.
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
    given: tuple[GivenFuture, ...] = ()
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
        given: Sequence[GivenFuture] = (),
        routes: Routes | None = None,
    ) -> "Observation":
        """Return an observation of anything that numpy reads as arrays of those shapes, copied.

        Positions may be [A, 2] (z is 0 then); `kind`, `size` and `is_controlled` may be one value for all.
        Raises BadInput naming the field, or the agent, that does not fit.
        """
        where = f"observation at {time!r} s"
        ids = fit_array(where, "agent_id", agent_id, np.int64, (-1,), BadInput)
        count = len(ids)
        lanes = fit_array(where, "light_lane", light_lane, np.int64, (-1,), BadInput)
        lights = len(lanes)
        place = _with_height(position)
        return check_observation(
            cls(
                time=float(time),
                agent_id=ids,
                kind=fit_array(where, "kind", kind, np.uint8, (count,), BadInput),
                position=fit_array(where, "position", place, np.float64, (count, 3), BadInput),
                heading=fit_array(where, "heading", heading, np.float32, (count,), BadInput),
                velocity=fit_array(where, "velocity", velocity, np.float32, (count, 2), BadInput),
                size=fit_array(where, "size", size, np.float32, (count, 3), BadInput),
                is_controlled=fit_array(where, "is_controlled", is_controlled, np.bool_, (count,), BadInput),
                light_lane=lanes,
                light_stop=fit_array(where, "light_stop", light_stop, np.float64, (lights, 3), BadInput),
                light_state=fit_array(where, "light_state", light_state, np.uint8, (lights,), BadInput),
                given=tuple(given),
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


class Latency(NamedTuple):
    """How long `step` took [ms]: percentiles over the last `steps` steps."""

    p50: float
    p95: float
    p99: float
    steps: int


UNTIMED = Latency(0.0, 0.0, 0.0, 0)


@dataclass(frozen=True)
class Step:
    """Where the controlled agents are at `time`, in the order of the observation, and what may come after.

    `futures` holds the K joint futures (its R is 1) of the agents `futures_id`, sampled at `futures_time`; step i of
    it lies (i + 1) * futures.dt later. The agents follow future number `chosen`. None while there is nobody to plan
    for. `warnings` tell what a host may want to know: agents that are not where they were put, a budget that was short.
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
    latency: Latency = UNTIMED  # of the last steps, this one included


def check_observation(observation: Observation, where: str = "") -> Observation:
    """Return the observation itself, or raise BadInput naming what is wrong, with which agent, and when."""
    where = where or f"observation at {observation.time} s"
    if not np.isfinite(observation.time):
        raise BadInput(f"{where}: its time is {observation.time}; it must be finite")
    for name, ids in (("agent id", observation.agent_id), ("light at lane", observation.light_lane)):
        if len(set(ids.tolist())) < len(ids):
            unique, counts = np.unique(ids, return_counts=True)
            raise BadInput(f"{where}: {name} {unique[counts > 1][0]} is listed more than once")
    kind, known = observation.kind, [int(kind) for kind in AgentKind]  # which are the numbers from 1 on
    _agent(where, observation, (kind < known[0]) | (kind > known[-1]), "kind", kind, f"known kinds: {known}")
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
    _check_given(where, observation)
    routes = observation.routes
    if routes is not None and not len(routes.lanes) == len(routes.origin) == len(observation):
        raise BadInput(f"{where}: {len(routes.lanes)} routes for {len(observation)} agents")
    return observation


def _check_given(where: str, observation: Observation) -> None:
    """Raise BadInput unless every given future is of somebody who is there, finite, ahead, and no leap."""
    done: set[int] = set()
    for one in observation.given:
        who = f"{where}: the given future of agent {one.agent_id}"
        rows = np.flatnonzero(observation.agent_id == one.agent_id)
        if not len(rows):
            raise BadInput(f"{who} is of somebody who is not in the observation")
        if one.agent_id in done:
            raise BadInput(f"{who} is listed more than once")
        done.add(one.agent_id)
        if not (len(one.time) == len(one.position) == len(one.heading)):
            raise BadInput(
                f"{who} has {len(one.time)} moments, {len(one.position)} places, {len(one.heading)} headings"
            )
        fine = np.isfinite(one.time).all() and (np.diff(one.time) > 0).all()
        if not fine or not len(one.time) or one.time[-1] <= observation.time:
            raise BadInput(f"{who} must have finite, growing moments that reach beyond {observation.time} s")
        if not (np.abs(one.position) <= MAX_COORDINATE).all() or not (np.abs(one.heading) <= 1e4).all():
            raise BadInput(f"{who} has a pose that is not finite, or too large")
        ahead = one.time > observation.time
        places = np.concatenate([observation.position[rows[:1], :2], one.position[ahead, :2]])
        seconds = np.diff(np.concatenate([[observation.time], one.time[ahead]]))
        went = np.linalg.norm(np.diff(places, axis=0), axis=-1)
        leaps = np.flatnonzero(went > LEAP + MAX_SPEED * seconds)
        if len(leaps):
            raise BadInput(f"{who} leaps {went[leaps[0]]:.1f} m in {seconds[leaps[0]]:.3f} s")


def _agent(where: str, seen: Observation, bad: Any, name: str, value: np.ndarray, wanted: str) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise BadInput(f"{where}: agent {seen.agent_id[row]}: {name} is {value[row].tolist()}; {wanted}")


def _with_height(position: Any) -> np.ndarray:
    """Return positions with z = 0 where they have none; whatever does not fit is left for `fit_array` to name."""
    place = np.asarray(position)
    return np.hstack([place, np.zeros_like(place[:, :1])]) if place.ndim == 2 and place.shape[1] == 2 else place
