"""TrafficModel: the plug that gives any simulator realistic traffic."""

import copy
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np

from traj_diffusion.errors import HostError
from traj_diffusion.scene import (
    AgentKind,
    Latency,
    Map,
    Observation,
    Policy,
    Scene,
    Step,
    check_observation,
    check_scene,
)
from traj_diffusion.sim_adapter.between import Motion
from traj_diffusion.sim_adapter.budget import Pace
from traj_diffusion.sim_adapter.closed_loop import REPLAN_EVERY
from traj_diffusion.sim_adapter.commit import Commit, Ground, commit_rule
from traj_diffusion.sim_adapter.controllers import Assign, Controller, Controllers
from traj_diffusion.sim_adapter.episode import Episode, Planned, follow, recent
from traj_diffusion.sim_adapter.given import next_given
from traj_diffusion.sim_adapter.history import GRID, recorded, scene_of
from traj_diffusion.sim_adapter.planning import Planner
from traj_diffusion.sim_adapter.waiting import Desk

SHORTEST_DT, LONGEST_DT = 0.001, 0.5  # s
LATENCIES_KEPT = 1024
NOBODY: Mapping[int, str] = MappingProxyType({})


class TrafficModel:
    """Traffic for somebody's simulator: at each tick it is shown the world and says where its agents are next.

    ```
    with TrafficModel(policy, futures=8, seed=0, dt=0.1) as traffic:
        traffic.reset(map, observation)
        while running:
            step = traffic.step(observation)      # of now
            ...                                   # place step.agent_id at step.position, step.heading; advance by dt
    ```

    The contract:

    - **Time.** An observation is of `observation.time`; the step that comes back is of `observation.time + dt`, with
      `dt` from 0.001 to 0.5 s. Policies plan in steps of 0.1 s from a history in steps of 0.1 s. History between two
      observations, and states between two planned ones, come from the motion at constant acceleration and turn rate
      that joins them. Time must grow; the first `step` may show the same moment as `reset`.
    - **Planning.** K joint futures of everyone are sampled when `replan_every` tenths of a second have passed; also
      when an agent is to be driven that the last plan did not drive, when the plan ends, and when the host shows an
      agent more than 0.5 m from where it was put (with a warning). In between, the future that `commit` chose is
      followed.
    - **Who.** Whoever is listed is there. An agent that enters late has no history before it entered, and none is made
      up. One that leaves is forgotten with its last second; if its id comes back, the time between is marked invalid.
      One that is not controlled (the ego, the host's own) is context: the traffic reacts to it. One that becomes
      controlled goes on from its observed state.
    - **Given futures.** Any agent's future may be given with an observation (`Observation.given`): the others are
      sampled to fit it at the next planning. A controlled agent is put exactly there, from this tick on.
    - **Controllers.** `controllers` are further policies and functions by name, `assign` says which of them drives an
      agent (None: the traffic's own policy). All are asked within one tick: the futures of agents that other policies
      drive are given to the traffic's own. A function says where its agent is `dt` later, at every tick; it must give
      the same answer to the same question, or forks and repetitions will differ.
    - **Map.** Given once at `reset`, as a Map, or as a Scene, whose history before its current index and whose routes
      are then known too (the observation is of the current index). None is no map. Signals come with each observation.
    - **Chance.** Noise is keyed by (seed, agent id, tenth of a second since reset, future): the same calls give the
      same bits, and more futures leave the first ones as they were. Not so with a budget, where time decides.
    - **Budget.** With `budget_ms` a step takes fewer denoising steps, then fewer futures, when what planning took
      before says that all will not be done in time. Plans are made in a thread of their own and not waited for beyond
      the budget: the last plan goes on, who has none keeps its velocity, and what was planned too late is followed from
      the tick that finds it done. `Step.warnings` tell. `reset` then plans twice, to learn what a plan costs.
    - **Faults.** An observation that cannot be, alone (BadInput) or after the one before (HostError), is refused in one
      line naming tick and agent, and then nothing has happened: the next step may show the corrected one. An agent
      that is really put elsewhere is left out for one tick.
    - **Memory** does not grow with the length of an episode. Not for use by several threads at once; use `fork`.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        futures: int = 1,
        seed: int = 0,
        dt: float = GRID,
        replan_every: int = REPLAN_EVERY,
        commit: str | Commit = "sample",
        controllers: Mapping[str, Controller] = MappingProxyType({}),
        assign: Assign = NOBODY,
        budget_ms: float | int | None = None,
    ) -> None:
        for name, count in (("futures", futures), ("replan_every", replan_every)):
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {count!r}")
        if not SHORTEST_DT <= dt <= LONGEST_DT:
            raise ValueError(f"dt must be {SHORTEST_DT} to {LONGEST_DT} s, not {dt!r}")
        if budget_ms is not None and not budget_ms > 0:
            raise ValueError(f"budget_ms must be positive, not {budget_ms!r}")
        self.dt = float(dt)
        self._commit = commit
        self._planner = Planner(
            policy=policy,
            controllers=Controllers(controllers, assign),
            futures=futures,
            seed=seed,
            dt=self.dt,
            replan_every=replan_every,
            choose=commit_rule(commit),
            budget_ms=None if budget_ms is None else float(budget_ms),
        )
        self._episode: Episode | None = None
        self._closed = False
        self._desk = Desk()
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What this traffic is made of and what it needs; plain values. Times in seconds."""
        planner = self._planner
        return {
            "policy": planner.policy.name,
            "controllers": planner.controllers.names,
            "history": (planner.history_steps - 1) * GRID,
            "dt": self.dt,
            "plan_dt": GRID,
            "replan_every": planner.replan_every,
            "futures": planner.futures,
            "commit": self._commit if isinstance(self._commit, str) else "callback",
            "seed": planner.seed,
            "budget_ms": planner.budget_ms,
            "kinds": [kind.name for kind in AgentKind],
        }

    def reset(self, scene_or_map: Scene | Map | None, observation: Observation) -> None:
        """Begin an episode on a map with what is there now. Encodes the map, which may take long.

        If it raises, the episode before goes on.
        """
        self._open()
        check_observation(observation, f"reset at {observation.time} s")
        if isinstance(scene_or_map, Scene):
            scene = check_scene(scene_or_map.history_only())
            past = recorded(scene, observation.time, self._planner.history_steps)
        else:
            scene = check_scene(scene_of(scene_or_map if scene_or_map is not None else Map.empty(), observation))
            past = ()
        seen = (*past, observation)
        self._desk.clear()
        episode = Episode(Ground(scene.map), self._planner.encode(scene), observation.time, seen, Pace())
        self._episode = replace(episode, pace=self._planner.practised(episode))
        self._latencies.clear()

    def step(self, observation: Observation) -> Step:
        """Return where the controlled agents are `dt` after the observation. See the class for the contract.

        Raises BadInput or HostError; then this object is as it was before the call.
        """
        began = time.perf_counter()
        episode = self._open()
        if episode is None:
            raise HostError("step before reset: the traffic has no map yet")
        where = f"tick {episode.steps}, {observation.time} s"
        check_observation(observation, where)
        seen = follow(episode, observation, where)
        outcome = self._planner.plan(episode, seen, began, self._desk, where)
        moment, controllers = observation.time + self.dt, self._planner.controllers
        own = next_given(observation, moment)
        own = controllers.called(observation, controllers.rows(observation, where), self.dt, where) | own
        step = _next(outcome.planned, observation, self.dt, own)
        took = 1e3 * (time.perf_counter() - began)
        latency, warnings, budget = _latency((*self._latencies, took)), outcome.warnings, self._planner.budget_ms
        if budget is not None and took > budget:
            warnings += (f"budget of {budget:g} ms: this step took {took:.0f} ms",)
        step = replace(step, replanned=outcome.new, latency_ms=took, latency=latency, warnings=warnings)
        self._episode = replace(
            episode,
            seen=recent(seen, (self._planner.history_steps - 1) * GRID),
            pace=outcome.pace,
            steps=episode.steps + 1,
            planned=outcome.planned,
            put=step,
        )
        self._latencies.append(took)
        return step

    def fork(self) -> "TrafficModel":
        """Return traffic that goes on from here by itself, with the same noise: what would they do if ...?

        Cheap: all that has been is shared and never changed.
        """
        self._open()
        other = copy.copy(self)
        other._latencies, other._desk = self._latencies.copy(), Desk()
        return other

    def latency(self) -> Latency:
        """Return how long the last steps took."""
        if not self._latencies:
            raise HostError("no step has been taken since reset, so there is no latency to report")
        return _latency(tuple(self._latencies))

    def close(self) -> None:
        """Let go of map and history. Closing twice is fine; anything else after it is an error."""
        self._desk.clear()
        self._closed, self._episode = True, None

    def __enter__(self) -> "TrafficModel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Episode | None:
        if self._closed:
            raise HostError("this traffic is closed; make another TrafficModel")
        return self._episode


def _latency(took: tuple[float, ...]) -> Latency:
    ranks = np.arange(len(took))
    # np.percentile says the same and takes ten times as long, which is a tenth of a tick's work here.
    p50, p95, p99 = np.interp(np.array([0.50, 0.95, 0.99]) * ranks[-1], ranks, np.sort(took)).tolist()
    return Latency(p50, p95, p99, len(took))


def _next(planned: Planned | None, now: Observation, dt: float, own: Mapping[int, Motion]) -> Step:
    """Return where the controlled agents are next: by the plan, but `own` ones where that says."""
    driven = now.agent_id[now.is_controlled]
    everyone = planned.state.agent_id if planned is not None else now.agent_id[:0]
    order = np.argsort(everyone)
    rows = order[np.searchsorted(everyone, driven, sorter=order)] if planned is not None else order
    motion = Motion(np.zeros((0, 3)), np.zeros(0, np.float32), np.zeros((0, 2), np.float32))
    if planned is not None:
        motion = Motion(*(np.array(part) for part in planned.at(now.time + dt, rows)))
    for row, agent in enumerate(driven.tolist()):
        if agent in own:
            motion.position[row], motion.heading[row], motion.velocity[row] = (part[0] for part in own[agent])
    return Step(
        time=now.time + dt,
        agent_id=driven,
        position=motion.position,
        heading=motion.heading,
        velocity=motion.velocity,
        futures=planned.plan if planned is not None else None,
        futures_id=everyone,
        futures_time=planned.time if planned is not None else now.time,
        chosen=planned.chosen if planned is not None else 0,
        replanned=False,
        latency_ms=0.0,
        warnings=(),
    )
