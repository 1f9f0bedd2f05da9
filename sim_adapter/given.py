"""Futures that are settled beforehand: as hosts give them, on the plan's grid, and laid over a plan."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int64

from traj_diffusion.errors import BadInput
from traj_diffusion.geometry import rotate
from traj_diffusion.scene import Given, GivenFuture, Observation, Plan
from traj_diffusion.sim_adapter.between import Motion, between
from traj_diffusion.sim_adapter.history import GRID, SNAP


def along(path: GivenFuture, seen: Observation, moments: Float64[np.ndarray, " F"]) -> Motion:
    """Return how the agent moves along its given future at moments after the observation that the path reaches.

    It sets out from where it is seen. Velocities are those of the path itself.
    """
    row = int(np.flatnonzero(seen.agent_id == path.agent_id)[0])
    ahead = path.time > seen.time + SNAP
    time = np.concatenate([[seen.time], path.time[ahead]])
    place = np.concatenate([seen.position[row : row + 1], path.position[ahead]])
    heading = np.concatenate([seen.heading[row : row + 1], path.heading[ahead]]).astype(np.float32)
    velocity = np.gradient(place[:, :2], time, axis=0).astype(np.float32)
    velocity[0] = seen.velocity[row]
    after = np.searchsorted(time, moments - SNAP).clip(1, len(time) - 1)

    def at(index: Int64[np.ndarray, " F"]) -> Motion:
        return Motion(place[index], heading[index], velocity[index])

    seconds = time[after] - time[after - 1]
    return between(at(after - 1), at(after), seconds, ((moments - time[after - 1]) / seconds).clip(0, 1))


def next_given(seen: Observation, moment: float) -> dict[int, Motion]:
    """Return where those whose given future reaches that moment are then, by agent."""
    reached = (path for path in seen.given if path.time[-1] >= moment - SNAP)
    return {path.agent_id: along(path, seen, np.array([moment])) for path in reached}


def on_grid(seen: Observation, futures: int) -> Given | None:
    """Return the observation's given futures in the plan's steps, the same in all K futures; None if there are none."""
    lengths = [int((path.time[-1] - seen.time + SNAP) / GRID) for path in seen.given]
    if not any(lengths):
        return None
    given = nothing(futures, len(seen), max(lengths))
    for path, steps in zip(seen.given, lengths, strict=True):
        if steps:
            row = int(np.flatnonzero(seen.agent_id == path.agent_id)[0])
            motion = along(path, seen, seen.time + GRID * np.arange(1, steps + 1))
            given.position[0, :, row, :steps] = motion.position
            given.heading[0, :, row, :steps] = motion.heading
            given.velocity[0, :, row, :steps] = motion.velocity
            given.valid[0, :, row, :steps] = True
    return given


def nothing(futures: int, agents: int, steps: int) -> Given:
    """Return room for given futures of one world, of which none is there yet."""
    lead = (1, futures, agents, steps)
    return Given(
        np.zeros((*lead, 3)), np.zeros(lead, np.float32), np.zeros((*lead, 2), np.float32), np.zeros(lead, bool)
    )


def joined(first: Given | None, plan: Plan, rows: Sequence[int]) -> Given:
    """Return `first`, and the futures of those rows in a plan where `first` says nothing of them."""
    _, futures, agents, steps = plan.heading.shape
    length = max(steps, 0 if first is None else first.valid.shape[3])
    both = nothing(futures, agents, length)
    for row in rows:
        both.position[:, :, row, :steps] = plan.position[:, :, row]
        both.heading[:, :, row, :steps] = plan.heading[:, :, row]
        both.velocity[:, :, row, :steps] = plan.velocity[:, :, row]
        both.valid[:, :, row, :steps] = True
    if first is not None:
        for row in np.flatnonzero(first.valid.any(axis=(0, 1, 3))).tolist():
            both.valid[:, :, row] = False
            for name in ("position", "heading", "velocity", "valid"):
                getattr(both, name)[:, :, row, : first.valid.shape[3]] = getattr(first, name)[:, :, row]
    return both


def laid_over(plan: Plan, given: Given, who: str) -> Plan:
    """Return the plan in which agents are exactly where it was given; what comes after is moved on to go on from there.

    Raises BadInput if the plan has other steps than the given futures.
    """
    if abs(plan.dt - GRID) > SNAP:
        raise BadInput(f"{who} plans in steps of {plan.dt} s; given futures need {GRID} s")
    steps = min(plan.position.shape[3], given.valid.shape[3])
    valid = given.valid[..., :steps]
    position, heading, velocity = plan.position.copy(), plan.heading.copy(), plan.velocity.copy()
    for world, future, row in np.argwhere(valid.any(-1)).tolist():
        at = (world, future, row)
        known = int(valid[at].sum())
        last = known - 1
        end = plan.position[at][last], plan.heading[at][last]
        position[at][:known] = given.position[at][:known]
        heading[at][:known] = given.heading[at][:known]
        velocity[at][:known] = given.velocity[at][:known]
        turn = np.float64(heading[at][last]) - np.float64(end[1])
        angle = np.full(position.shape[3] - known, turn)
        rest = plan.position[at][known:] - end[0]
        position[at][known:, :2] = position[at][last, :2] + rotate(rest[:, :2], angle)
        position[at][known:, 2] = position[at][last, 2] + rest[:, 2]
        heading[at][known:] += np.float32(turn)
        velocity[at][known:] = rotate(plan.velocity[at][known:].astype(np.float64), angle)
    return replace(plan, position=position, heading=heading, velocity=velocity)
