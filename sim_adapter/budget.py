"""Answers in time: how long planning will take, told from how long it took, and what to leave out when that is long."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.policies.diffusion import BLOCK
from traj_diffusion.scene import Plan, PlanRequest, Policy
from traj_diffusion.sim_adapter.given import laid_over, nothing

# What is left of the budget for what comes after the plan, and for what the clock does not say: a share, and at least
# this many ms, which waking up takes when the plan is still being made.
RESERVE, LEAST_RESERVE = 0.15, 5.0
# A plan costs about one denoising step more than it takes; futures are denoised in blocks; few agents are not free.
OVERHEAD_STEPS, OVERHEAD_AGENTS = 1, 4
CALMER = 0.8  # by which the estimate sinks when a plan was faster than expected


class Effort(NamedTuple):
    """How many denoising steps (None: the policy knows none) and futures a plan takes."""

    steps: int | None
    futures: int

    def work(self, agents: int) -> int:
        """Return what it costs, in units whose length `Pace` learns."""
        blocks = -(-self.futures // BLOCK)
        return (agents + OVERHEAD_AGENTS) * blocks * (OVERHEAD_STEPS + (self.steps or 1))


@dataclass(frozen=True)
class Pace:
    """Running estimate of what a unit of work takes [ms]; None before anything was measured.

    It believes bad news at once and good news slowly, since a late answer is worse than a coarse one.
    """

    unit: float | None = None

    def after(self, work: int, took: float) -> "Pace":
        """Return the estimate after that much work took that long."""
        found = took / work
        if self.unit is None or found >= self.unit:
            return replace(self, unit=found)
        return replace(self, unit=max(found, CALMER * self.unit))

    def affordable(self, full: Effort, agents: int, left: float) -> tuple[Effort, bool]:
        """Return the best effort that ends within `left` ms, fewer steps first, then fewer futures; else the least.

        Also whether it ends in time. The least effort is tried while nothing is known.
        """
        efforts = _ladder(full)
        if self.unit is None:
            return efforts[-1], left > 0
        best = next((one for one in efforts if self.unit * one.work(agents) <= left), None)
        return (efforts[-1], False) if best is None else (best, True)


def deadline(began: float, budget_ms: float) -> float:
    """Return the moment [s] until which a plan is waited for."""
    return began + 1e-3 * (budget_ms - max(RESERVE * budget_ms, min(LEAST_RESERVE, budget_ms / 2)))


def full_effort(policy: Policy, futures: int) -> Effort:
    """Return what the policy does when it has time."""
    steps = getattr(policy, "steps", None)
    return Effort(steps if isinstance(steps, int) else None, futures)


def _ladder(full: Effort) -> list[Effort]:
    efforts = [full]
    while (last := efforts[-1]).steps is not None and last.steps > 1:
        efforts.append(last._replace(steps=last.steps // 2))
    while (last := efforts[-1]).futures > 1:
        efforts.append(last._replace(futures=-(-last.futures // 2)))
    return efforts


def coasting(request: PlanRequest, old: Plan | None, chosen: int, elapsed: float, known: np.ndarray) -> Plan:
    """Return what can be had without time: one future in which agents go on by the old plan, or else as they move.

    `known` [A] are the rows of the state's agents in the old plan, -1 for those that cannot follow it; `elapsed` is its
    age in steps. Between two of its steps the way is straight.
    """
    plan = ConstantVelocity().plan(replace(request, futures=1, given=None))
    rows = np.flatnonzero(known >= 0)
    first, share = int(elapsed), elapsed - int(elapsed)
    rest = 0 if old is None else old.position.shape[3] - first - (share > 0)
    if old is None or not len(rows) or rest < 1:
        return plan

    def onwards(values: np.ndarray) -> np.ndarray:
        path = values[0, chosen, known[rows]]
        return (1 - share) * path[:, first : first + rest] + share * path[:, -rest:]

    given = nothing(1, len(known), rest)
    given.position[0, 0, rows] = onwards(old.position)
    given.heading[0, 0, rows] = onwards(old.heading)
    given.velocity[0, 0, rows] = onwards(old.velocity)
    given.valid[0, 0, rows] = True
    return laid_over(plan, given, "the plan before")
