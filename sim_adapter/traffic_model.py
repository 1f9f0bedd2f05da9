"""TrafficModel: the plug that gives any simulator realistic traffic."""

import copy
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from traj_diffusion.errors import HostError
from traj_diffusion.scene import (
    AgentKind,
    Map,
    Observation,
    PlanRequest,
    Policy,
    Scene,
    Step,
    check_observation,
)
from traj_diffusion.sim_adapter.between import Motion
from traj_diffusion.sim_adapter.closed_loop import REPLAN_EVERY
from traj_diffusion.sim_adapter.commit import Choice, Commit, Following, Ground, chosen_future, commit_rule
from traj_diffusion.sim_adapter.episode import Episode, Planned, astray, check_plan, follow, recent
from traj_diffusion.sim_adapter.history import GRID, SNAP, recorded, scene_of, world_state

SHORTEST_DT, LONGEST_DT = 0.001, 0.5  # s
LATENCIES_KEPT = 4096


class Latency(NamedTuple):
    """How long `step` took [ms]: percentiles over the last `steps` steps."""

    p50: float
    p95: float
    p99: float
    steps: int


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
    - **Map.** Given once at `reset`, as a Map, or as a Scene, whose history before its current index and whose routes
      are then known too (the observation is of the current index). None is no map. Signals come with each observation.
    - **Chance.** Noise is keyed by (seed, agent id, tenth of a second since reset, future): the same calls give the
      same bits, and more futures leave the first ones as they were.
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
    ) -> None:
        for name, count in (("futures", futures), ("replan_every", replan_every)):
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {count!r}")
        if not SHORTEST_DT <= dt <= LONGEST_DT:
            raise ValueError(f"dt must be {SHORTEST_DT} to {LONGEST_DT} s, not {dt!r}")
        self.dt = float(dt)
        self._policy = policy
        self._futures = futures
        self._seed = seed
        self._replan_every = replan_every
        self._commit = commit
        self._choose = commit_rule(commit)
        self._episode: Episode | None = None
        self._closed = False
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What this traffic is made of and what it needs; plain values. Times in seconds."""
        return {
            "policy": self._policy.name,
            "history": (self._policy.history_steps - 1) * GRID,
            "dt": self.dt,
            "plan_dt": GRID,
            "replan_every": self._replan_every,
            "futures": self._futures,
            "commit": self._commit if isinstance(self._commit, str) else "callback",
            "seed": self._seed,
            "kinds": [kind.name for kind in AgentKind],
        }

    def reset(self, scene_or_map: Scene | Map | None, observation: Observation) -> None:
        """Begin an episode on a map with what is there now. Encodes the map, which may take long.

        If it raises, the episode before goes on.
        """
        self._open()
        check_observation(observation, f"reset at {observation.time} s")
        if isinstance(scene_or_map, Scene):
            scene = scene_or_map.history_only()
            past = recorded(scene, observation.time, self._policy.history_steps)
        else:
            scene = scene_of(scene_or_map if scene_or_map is not None else Map.empty(), observation)
            past = ()
        context = self._policy.encode(scene)
        self._episode = Episode(Ground(scene.map), context, observation.time, (*past, observation))
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
        planned, replanned, warnings = self._plan(episode, seen, where)
        step = _next(planned, observation, self.dt, replanned, warnings)
        latency = 1e3 * (time.perf_counter() - began)
        step = replace(step, latency_ms=latency)
        self._episode = replace(
            episode,
            seen=recent(seen, (self._policy.history_steps - 1) * GRID),
            steps=episode.steps + 1,
            planned=planned,
            put=step,
        )
        self._latencies.append(latency)
        return step

    def fork(self) -> "TrafficModel":
        """Return traffic that goes on from here by itself, with the same noise: what would they do if ...?

        Cheap: all that has been is shared and never changed.
        """
        self._open()
        other = copy.copy(self)
        other._latencies = self._latencies.copy()
        return other

    def latency(self) -> Latency:
        """Return how long the last steps took."""
        if not self._latencies:
            raise HostError("no step has been taken since reset, so there is no latency to report")
        p50, p95, p99 = (float(value) for value in np.percentile(self._latencies, (50, 95, 99)))
        return Latency(p50, p95, p99, len(self._latencies))

    def close(self) -> None:
        """Let go of map and history. Closing twice is fine; anything else after it is an error."""
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

    def _plan(
        self, episode: Episode, seen: tuple[Observation, ...], where: str
    ) -> tuple[Planned | None, bool, tuple[str, ...]]:
        """Return the plan to follow, whether it is new, and what the host should know."""
        now, old = seen[-1], episode.planned
        driven = now.agent_id[now.is_controlled]
        if not len(driven):
            return None, False, ()
        tick = int((now.time - episode.began + SNAP) / GRID)
        warnings = astray(episode.put, now)
        if old is not None:
            followed = np.intersect1d(old.followed, driven, assume_unique=True)
            goes_on = (
                not warnings
                and len(followed) == len(driven)
                and tick < old.tick + self._replan_every
                and now.time + self.dt <= old.end + SNAP
            )
            if goes_on:
                return replace(old, followed=followed), False, ()
        state = world_state(seen, self._policy.history_steps)
        world = np.zeros(1, np.int32)
        request = PlanRequest(
            episode.context, state, self._futures, tick, self._seed, world, None if old is None else old.plan
        )
        plan = self._policy.plan(request)
        check_plan(plan, request, self.dt, f"{where}: policy {self._policy.name}")
        following = None
        if old is not None:
            chosen = np.array([old.chosen], np.int32)
            following = Following.of(old.state.agent_id, old.plan, chosen, (now.time - old.time) / old.plan.dt)
        choice = Choice(plan, state, now.is_controlled, episode.ground, following)
        picked = int(chosen_future(self._choose, choice)[0])
        return Planned(plan, picked, now.time, tick, state, driven), True, warnings


def _next(planned: Planned | None, now: Observation, dt: float, new: bool, warnings: tuple[str, ...]) -> Step:
    driven = now.agent_id[now.is_controlled]
    everyone = planned.state.agent_id if planned is not None else now.agent_id[:0]
    order = np.argsort(everyone)
    rows = order[np.searchsorted(everyone, driven, sorter=order)] if planned is not None else order
    nobody = Motion(np.zeros((0, 3)), np.zeros(0, np.float32), np.zeros((0, 2), np.float32))
    motion = planned.at(now.time + dt, rows) if planned is not None else nobody
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
        replanned=new,
        latency_ms=0.0,
        warnings=warnings,
    )
