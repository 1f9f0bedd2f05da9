"""One replanning: when it is due, who plans for whom, what is settled beforehand, and which future is committed."""

import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from traj_diffusion.scene import Observation, Plan, PlanRequest, Policy, Scene
from traj_diffusion.sim_adapter.budget import Effort, Pace, coasting, deadline, full_effort
from traj_diffusion.sim_adapter.commit import Choice, Commit, Following, chosen_future
from traj_diffusion.sim_adapter.controllers import Controllers
from traj_diffusion.sim_adapter.episode import Episode, Planned, astray, check_plan
from traj_diffusion.sim_adapter.given import joined, laid_over, on_grid
from traj_diffusion.sim_adapter.history import GRID, SNAP, world_state
from traj_diffusion.sim_adapter.waiting import PATIENCE, Desk, Job, caught_up, wait


class Outcome(NamedTuple):
    """The plan to follow, whether it is new, what the host should know, and what was learnt of its cost."""

    planned: Planned | None
    new: bool
    warnings: tuple[str, ...]
    pace: Pace


@dataclass(frozen=True)
class Planner:
    """How traffic plans; knows nothing of any episode."""

    policy: Policy
    controllers: Controllers
    futures: int
    seed: int
    dt: float
    replan_every: int
    choose: Commit
    budget_ms: float | None

    @property
    def history_steps(self) -> int:
        """Steps of history that everyone who plans needs."""
        return max(policy.history_steps for policy in (self.policy, *self.controllers.policies.values()))

    def encode(self, scene: Scene) -> dict[str, Any]:
        """Return what each policy remembers of the scene, by controller; the traffic's own under ""."""
        others = {name: policy.encode(scene) for name, policy in self.controllers.policies.items()}
        return {"": self.policy.encode(scene), **others}

    def practised(self, episode: Episode) -> Pace:
        """Return a first estimate of what planning costs, from two plans: the first one warms up."""
        pace, now = Pace(), episode.seen[-1]
        if self.budget_ms is None or not now.is_controlled.any():
            return pace
        request = self._request(episode, episode.seen, 0)
        for _ in range(2):
            began = time.perf_counter()
            self._made(episode, request, now, f"reset at {now.time} s")
            took = time.perf_counter() - began
        return pace.after(full_effort(self.policy, self.futures).work(len(now)), 1e3 * took)

    def plan(self, episode: Episode, seen: tuple[Observation, ...], began: float, desk: Desk, where: str) -> Outcome:
        """Return the plan to follow now; `began` is when the tick did. Raises BadInput where a policy plans amiss.

        With a budget it is made at that desk.
        """
        now, old = seen[-1], episode.planned
        driven = now.agent_id[now.is_controlled]
        if not len(driven):
            return Outcome(None, False, (), episode.pace)
        strayed = astray(episode.put, now)
        followed = driven[:0]
        if old is not None:
            followed = np.setdiff1d(np.intersect1d(old.followed, driven, assume_unique=True), list(strayed))
        reaches = old is not None and len(followed) == len(driven) and now.time + self.dt <= old.end + SNAP
        tick = int((now.time - episode.began + SNAP) / GRID)
        if old is not None and reaches and tick < old.tick + self.replan_every:
            return Outcome(replace(old, followed=followed), False, (), episode.pace)
        warnings = tuple(strayed.values())
        request = self._request(episode, seen, tick)
        if self.budget_ms is None:
            return Outcome(self._made(episode, request, now, where), True, warnings, episode.pace)
        until = deadline(began, self.budget_ms)
        planned, warning, pace = self._by_then(until, episode, request, now, desk, where)
        warnings += tuple(f"budget of {self.budget_ms:g} ms: {one}" for one in warning)
        if planned is not None:
            return Outcome(planned, True, warnings, pace)
        if old is not None and reaches:
            return Outcome(replace(old, followed=followed), False, warnings, pace)
        return Outcome(self._coasting(old, request, now, followed), False, warnings, pace)

    def _request(self, episode: Episode, seen: tuple[Observation, ...], tick: int) -> PlanRequest:
        old = episode.planned
        return PlanRequest(
            context=episode.contexts[""],
            state=world_state(seen, self.history_steps),
            futures=self.futures,
            tick=tick,
            seed=self.seed,
            world=np.zeros(1, np.int32),
            previous=None if old is None else old.plan,
            followed=None if old is None else np.array([old.chosen], np.int32),
        )

    def _by_then(
        self, until: float, episode: Episode, request: PlanRequest, now: Observation, desk: Desk, where: str
    ) -> tuple[Planned | None, tuple[str, ...], Pace]:
        """Return a plan if there is one by that moment, what the host should know, and the pace.

        A plan that is not there by then is left behind, and followed by a later tick that finds it done.
        """
        pace, behind = episode.pace, desk.job
        if behind is not None:
            if not behind.done.is_set():
                return None, ("no plan yet, the last plan goes on",), pace
            desk.clear()
            planned, pace = behind.result(), behind.learnt(pace)
            driven = now.agent_id[now.is_controlled]
            useful = now.time + self.dt <= min(planned.time + PATIENCE, planned.end)
            if useful and np.isin(driven, planned.followed).all():
                late = f"follows a plan of {planned.time:.2f} s, which was late"
                return replace(caught_up(planned, now), followed=driven), (late,), pace
        full, agents = full_effort(self.policy, self.futures), len(now)
        effort, fits = pace.affordable(full, agents, 1e3 * (until - time.perf_counter()))
        asked = replace(request, futures=effort.futures, steps=effort.steps)
        job = Job(lambda: self._made(episode, asked, now, where), effort.work(agents))
        desk.begin(job)
        if not fits:
            return None, ("no time to plan, the last plan goes on",), pace
        if not wait(job.done, until):
            return None, ("planning takes longer, the last plan goes on",), pace
        desk.clear()
        return job.result(), () if effort == full else (_told(effort, full),), job.learnt(pace)

    def _made(self, episode: Episode, request: PlanRequest, now: Observation, where: str) -> Planned:
        return self._committed(episode, request, self._asked(episode, request, now, where), now)

    def _asked(self, episode: Episode, request: PlanRequest, now: Observation, where: str) -> Plan:
        """Return everyone's joint futures, those of other controllers and those that are given among them."""
        given = on_grid(now, request.futures)
        for name, rows in self.controllers.rows(now, where).items():
            if name in self.controllers.policies:
                policy = self.controllers.policies[name]
                # What the traffic's own policy remembers of its last plan is not another one's to read.
                theirs = replace(request, context=episode.contexts[name], given=given, previous=None, followed=None)
                given = joined(given, _checked(policy, theirs, self.dt, where), rows)
        plan = _checked(self.policy, replace(request, given=given), self.dt, where)
        return plan if given is None else laid_over(plan, given, f"{where}: policy {self.policy.name}")

    def _committed(self, episode: Episode, request: PlanRequest, plan: Plan, now: Observation) -> Planned:
        old, following = episode.planned, None
        if old is not None:
            chosen = np.array([old.chosen], np.int32)
            following = Following.of(old.state.agent_id, old.plan, chosen, (now.time - old.time) / old.plan.dt)
        choice = Choice(plan, request.state, now.is_controlled, episode.ground, following)
        picked = int(chosen_future(self.choose, choice)[0])
        return Planned(plan, picked, now.time, request.tick, request.state, now.agent_id[now.is_controlled])

    def _coasting(self, old: Planned | None, request: PlanRequest, now: Observation, followed: np.ndarray) -> Planned:
        """Return something to follow until there is time to plan, which is tried again at the next tick."""
        known = np.full(len(now), -1)
        elapsed = 0.0
        if old is not None:
            row_of = {agent: row for row, agent in enumerate(old.state.agent_id.tolist())}
            fits = np.isin(now.agent_id, followed)
            known[fits] = [row_of[agent] for agent in now.agent_id[fits].tolist()]
            elapsed = (now.time - old.time) / old.plan.dt
        plan = coasting(request, None if old is None else old.plan, 0 if old is None else old.chosen, elapsed, known)
        due = request.tick - self.replan_every
        return Planned(plan, 0, now.time, due, request.state, now.agent_id[now.is_controlled])


def _checked(policy: Policy, request: PlanRequest, dt: float, where: str) -> Plan:
    plan = policy.plan(request)
    check_plan(plan, request, dt, f"{where}: policy {policy.name}")
    return plan


def _told(effort: Effort, full: Effort) -> str:
    left_out = []
    if effort.steps != full.steps:
        left_out.append(f"{effort.steps} of {full.steps} steps")
    if effort.futures != full.futures:
        left_out.append(f"{effort.futures} of {full.futures} futures")
    return "planned with " + " and ".join(left_out)
