"""What `TrafficModel` knows from one tick to the next, and what it holds observations and plans to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from traj_diffusion.errors import BadInput, HostError
from traj_diffusion.scene import Observation, Plan, PlanRequest, Step, WorldState
from traj_diffusion.sim_adapter.between import Motion, between
from traj_diffusion.sim_adapter.budget import Pace
from traj_diffusion.sim_adapter.commit import Ground
from traj_diffusion.sim_adapter.history import SNAP

ASTRAY = 0.5  # m between where an agent was put and where the host shows it, before the traffic plans anew
JUMP_METRES, JUMP_FACTOR = 5.0, 1.5  # an agent may move so far, and so many times what its speed explains


@dataclass(frozen=True)
class Planned:
    """A plan that is being followed, and the state that it starts from."""

    plan: Plan
    chosen: int
    time: float
    tick: int
    state: WorldState
    followed: Int64[np.ndarray, " followed"]  # controlled at every step since the plan was made

    @property
    def end(self) -> float:
        """The last moment that it reaches."""
        return self.time + self.plan.position.shape[3] * self.plan.dt

    def at(self, moment: float, rows: Int64[np.ndarray, " rows"]) -> Motion:
        """Return the states of those agents of the plan at a moment within it."""
        age = (moment - self.time) / self.plan.dt
        step = round(age)
        if abs(age - step) * self.plan.dt <= SNAP and step >= 1:
            return self._step(step, rows)
        before = int(age)
        return between(self._step(before, rows), self._step(before + 1, rows), self.plan.dt, age - before)

    def _step(self, step: int, rows: Int64[np.ndarray, " rows"]) -> Motion:
        """Return the states after that many steps; 0 is the start, which was observed."""
        if step == 0:
            start = self.state
            return Motion(start.position[0, rows, -1], start.heading[0, rows, -1], start.velocity[0, rows, -1])
        last = min(step, self.plan.position.shape[3]) - 1
        future = self.chosen
        return Motion(
            self.plan.position[0, future, rows, last],
            self.plan.heading[0, future, rows, last],
            self.plan.velocity[0, future, rows, last],
        )


@dataclass(frozen=True)
class Episode:
    """All that a tick needs to know of those before. Never changed, only replaced: a fork shares it."""

    ground: Ground
    contexts: Mapping[str, Any]  # what each controller's policy remembers of the map
    began: float
    seen: tuple[Observation, ...]
    pace: Pace
    steps: int = 0
    planned: Planned | None = None
    put: Step | None = None


def follow(episode: Episode, now: Observation, where: str) -> tuple[Observation, ...]:
    """Return what was seen so far and now, or raise HostError where the one cannot follow the other."""
    last = episode.seen[-1]
    seconds = now.time - last.time
    if episode.steps == 0 and abs(seconds) <= SNAP:
        return (*episode.seen[:-1], now)
    if seconds <= SNAP:
        raise HostError(f"{where}: time does not grow, the tick before was at {last.time} s")
    _, rows, before = np.intersect1d(now.agent_id, last.agent_id, assume_unique=True, return_indices=True)
    changed = now.kind[rows] != last.kind[before]
    if changed.any():
        row, was = rows[changed][0], last.kind[before][changed][0]
        raise HostError(
            f"{where}: agent {now.agent_id[row]} has become kind {now.kind[row]}, it was {was} at {last.time} s; "
            "somebody else needs another id"
        )
    pace = np.maximum(np.linalg.norm(now.velocity[rows], axis=-1), np.linalg.norm(last.velocity[before], axis=-1))
    went = np.linalg.norm((now.position[rows] - last.position[before])[:, :2], axis=-1)
    jumped = went > JUMP_METRES + JUMP_FACTOR * pace * seconds
    if jumped.any():
        first = int(np.flatnonzero(jumped)[0])
        raise HostError(
            f"{where}: agent {now.agent_id[rows[first]]} has jumped {went[first]:.1f} m in {seconds:.3f} s at "
            f"{pace[first]:.1f} m/s; leave an agent that is put elsewhere out for one tick"
        )
    return (*episode.seen, now)


def recent(seen: tuple[Observation, ...], seconds: float) -> tuple[Observation, ...]:
    """Return the observations that a history of that length, taken at any later time, can still need."""
    old = [i for i, one in enumerate(seen) if one.time <= seen[-1].time - seconds + SNAP]
    return seen[old[-1] if old else 0 :]


def astray(put: Step | None, now: Observation) -> dict[int, str]:
    """Return a warning for each agent that the host shows elsewhere than it was put, by agent."""
    if put is None or abs(put.time - now.time) > SNAP:
        return {}
    driven = now.agent_id[now.is_controlled]
    _, rows, at = np.intersect1d(put.agent_id, driven, assume_unique=True, return_indices=True)
    place = now.position[now.is_controlled][at]
    off = np.linalg.norm((put.position[rows] - place)[:, :2], axis=-1)
    return {
        int(agent): f"agent {agent} is {gap:.1f} m from where it was put for {now.time:.2f} s; planned anew"
        for agent, gap in zip(put.agent_id[rows], off, strict=True)
        if gap > ASTRAY
    }


def check_plan(plan: Plan, request: PlanRequest, dt: float, who: str) -> None:
    """Raise BadInput if that is not the plan that was asked for."""
    agents = len(request.state.agent_id)
    shape = plan.position.shape
    if shape[:3] != (1, request.futures, agents) or shape[3] * plan.dt < dt - SNAP:
        raise BadInput(
            f"{who} planned {list(shape)} in steps of {plan.dt} s; [1, {request.futures}, {agents}, F, 3] over "
            f"at least {dt} s was asked for"
        )
    fine = np.isfinite(plan.position).all((-1, -2)) & np.isfinite(plan.heading).all(-1)
    fine &= np.isfinite(plan.velocity).all((-1, -2))
    if not fine.all():
        agent = request.state.agent_id[np.flatnonzero(~fine.all((0, 1)))[0]]
        raise BadInput(f"{who} planned a future for agent {agent} that is not finite")
