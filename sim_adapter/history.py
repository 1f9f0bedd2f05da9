"""The recent past of everyone who is there now, on the policy's 0.1 s grid, from observations at any times."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from traj_diffusion.scene import Agents, Lights, Map, Observation, Routes, Scene, WorldState
from traj_diffusion.sim_adapter.between import Motion, between

GRID = 0.1  # s, what policies plan and look back in
SNAP = 1e-5  # s; times nearer than this are the same (a body at 50 m/s moves half a millimetre)
LONGEST_GAP = 0.5 + SNAP  # s between two observations; what happened in a longer one is not known


def world_state(seen: Sequence[Observation], steps: int) -> WorldState:
    """Return the world at the last observation, with that many steps of history on the grid that ends there.

    A state between two observations comes from the motion that joins them. Where an agent was not there, or the host
    did not look for over half a second, history is marked invalid, never invented.
    """
    now = seen[-1]
    count = len(now)
    position: Float64[np.ndarray, "1 A H 3"] = np.zeros((1, count, steps, 3))
    heading: Float32[np.ndarray, "1 A H"] = np.zeros((1, count, steps), np.float32)
    velocity: Float32[np.ndarray, "1 A H 2"] = np.zeros((1, count, steps, 2), np.float32)
    valid: Bool[np.ndarray, "1 A H"] = np.zeros((1, count, steps), bool)
    times = np.array([one.time for one in seen])
    for step in range(steps):
        rows, motion = _at(seen, times, now.time - (steps - 1 - step) * GRID)
        position[0, rows, step], heading[0, rows, step], velocity[0, rows, step] = motion
        valid[0, rows, step] = True
    return WorldState(
        agent_id=now.agent_id,
        kind=now.kind,
        size=now.size,
        position=position,
        heading=heading,
        velocity=velocity,
        valid=valid,
        light_lane=now.light_lane,
        light_stop=now.light_stop,
        light_state=now.light_state[None],
        light_observed=np.ones((1, len(now.light_lane)), bool),
        dt=GRID,
        routes=now.routes,
    )


def _at(
    seen: Sequence[Observation], times: Float64[np.ndarray, " O"], time: float
) -> tuple[Int64[np.ndarray, " found"], Motion]:
    """Return which rows of the last observation were there at that time, and how they moved.

    The same id with another kind is somebody else.
    """
    now = seen[-1]
    nearest = int(np.abs(times - time).argmin())
    if abs(times[nearest] - time) <= SNAP:
        rows, at = _same(now, seen[nearest])
        return rows, _motion(seen[nearest], at)
    after = int(np.searchsorted(times, time))
    if after == 0 or after == len(seen) or times[after] - times[after - 1] > LONGEST_GAP:
        none = np.zeros(0, np.int64)
        return none, _motion(now, none)
    one, other = seen[after - 1], seen[after]
    in_one, at_one = _same(now, one)
    in_other, at_other = _same(now, other)
    rows, first, second = np.intersect1d(in_one, in_other, assume_unique=True, return_indices=True)
    length = other.time - one.time
    share = float((time - one.time) / length)
    return rows, between(_motion(one, at_one[first]), _motion(other, at_other[second]), length, share)


def _same(now: Observation, other: Observation) -> tuple[Int64[np.ndarray, " both"], Int64[np.ndarray, " both"]]:
    """Return the rows of those who are in both observations."""
    _, rows, at = np.intersect1d(now.agent_id, other.agent_id, assume_unique=True, return_indices=True)
    same = now.kind[rows] == other.kind[at]
    return rows[same], at[same]


def _motion(seen: Observation, rows: Int64[np.ndarray, " rows"]) -> Motion:
    return Motion(seen.position[rows], seen.heading[rows], seen.velocity[rows])


def recorded(scene: Scene, now: float, steps: int) -> tuple[Observation, ...]:
    """Return a scene's history before its current index as observations, the current index being at `now`."""
    first = max(scene.current_index - int(np.ceil(steps * GRID / scene.dt)), 0)
    return tuple(
        Observation.from_scene(scene, index, now - (scene.current_index - index) * scene.dt)
        for index in range(first, scene.current_index)
    )


def scene_of(features: Map, observation: Observation) -> Scene:
    """Return a scene of one step: a map and what was observed on it."""
    count, lights = len(observation), len(observation.light_lane)
    return Scene(
        id="observation",
        source="host",
        dt=GRID,
        current_index=0,
        ego=None,
        agents=Agents(
            id=observation.agent_id,
            kind=observation.kind,
            position=observation.position[:, None],
            heading=observation.heading[:, None],
            velocity=observation.velocity[:, None],
            size=observation.size[:, None],
            valid=np.ones((count, 1), bool),
            to_predict=observation.is_controlled,
        ),
        map=features,
        lights=Lights(
            lane_id=observation.light_lane,
            stop_point=observation.light_stop[:, None],
            state=observation.light_state[:, None],
            observed=np.ones((lights, 1), bool),
        ),
        routes=Routes.absent(count),
    )
