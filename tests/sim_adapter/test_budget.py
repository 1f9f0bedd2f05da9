"""A budget in ms is kept on a clock that the test turns: no test measures time."""

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from traj_diffusion.policies import ConstantVelocity, DiffusionPolicy
from traj_diffusion.scene import Observation, Plan, PlanRequest
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.sim_adapter.budget import Effort, Pace
from traj_diffusion.sim_adapter.episode import Planned
from traj_diffusion.sim_adapter.history import world_state
from traj_diffusion.sim_adapter.waiting import Desk, caught_up
from traj_diffusion.testing import crossing, straight_road
from traj_diffusion.testing.host_contract import obey

FULL = Effort(steps=8, futures=16)


class Clock:
    """A clock that stands still but for the work that is done, and while a policy is held up: then time runs out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.held = threading.Event()
        for module in ("traffic_model", "planning", "waiting"):
            fake = SimpleNamespace(perf_counter=lambda: self.now)
            monkeypatch.setattr(f"traj_diffusion.sim_adapter.{module}.time", fake)
        monkeypatch.setattr("traj_diffusion.sim_adapter.planning.wait", self.wait)

    def wait(self, done: threading.Event, until: float) -> bool:
        while not done.is_set() and not self.held.is_set():
            done.wait(0.001)
        if done.is_set():
            return True
        self.now = max(self.now, until)
        return False


class Slow(ConstantVelocity):
    """Plans by steps and blocks of futures, and the clock tells what that takes. It can be held up, and fail."""

    def __init__(self, clock: Clock, step_ms: float = 10.0) -> None:
        super().__init__()
        for name, value in (("clock", clock), ("step_ms", step_ms), ("asked", []), ("steps", 8), ("fails", False)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "go", threading.Event())
        self.go.set()  # type: ignore[attr-defined]

    def set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def hold(self) -> None:
        self.go.clear()  # type: ignore[attr-defined]

    def let_go(self, desk: Desk) -> None:
        """Let it finish what it is at."""
        assert desk.job is not None
        self.go.set()  # type: ignore[attr-defined]
        assert desk.job.done.wait(60)
        self.clock.held.clear()  # type: ignore[attr-defined]

    def plan(self, request: PlanRequest) -> Plan:
        clock: Clock = self.clock  # type: ignore[attr-defined]
        steps = request.steps if request.steps is not None else 8
        self.asked.append((steps, request.futures))  # type: ignore[attr-defined]
        if not self.go.is_set():  # type: ignore[attr-defined]
            clock.held.set()
            assert self.go.wait(60)  # type: ignore[attr-defined]
        if self.fails:  # type: ignore[attr-defined]
            raise RuntimeError("out of memory")
        clock.now += 1e-3 * self.step_ms * -(-request.futures // 8) * (1 + steps)  # type: ignore[attr-defined]
        return super().plan(request)


def begun(policy: Slow, budget_ms: float, **options: object) -> tuple[TrafficModel, Observation]:
    traffic = TrafficModel(policy, budget_ms=budget_ms, **options)  # type: ignore[arg-type]
    seen = Observation.from_scene(straight_road())
    traffic.reset(straight_road(), seen)
    return traffic, seen


def test_with_time_enough_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Slow(Clock(monkeypatch))
    traffic, seen = begun(policy, 400.0, futures=16)
    step = traffic.step(seen)
    assert policy.asked == [(8, 16)] * 3  # type: ignore[attr-defined]
    assert step.warnings == ()
    assert step.latency_ms == pytest.approx(180.0)
    assert step.latency.p50 == step.latency.p99 == pytest.approx(180.0)


@pytest.mark.parametrize(
    ("budget", "done", "told"),
    [
        (150.0, (4, 16), "budget of 150 ms: planned with 4 of 8 steps"),
        (75.0, (2, 16), "budget of 75 ms: planned with 2 of 8 steps"),
        (50.0, (1, 16), "budget of 50 ms: planned with 1 of 8 steps"),
        (30.0, (1, 8), "budget of 30 ms: planned with 1 of 8 steps and 8 of 16 futures"),
    ],
)
def test_short_of_time_steps_go_first_and_then_futures(
    budget: float, done: tuple[int, int], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Slow(Clock(monkeypatch))
    traffic, seen = begun(policy, budget, futures=16)
    step = traffic.step(seen)
    assert policy.asked[-1] == done  # type: ignore[attr-defined]
    assert step.warnings == (told,)
    assert step.replanned
    assert step.latency_ms <= budget
    assert step.futures is not None
    assert step.futures.position.shape[1] == done[1]


def with_another(seen: Observation, agent: int) -> Observation:
    """The same with somebody more, 50 m to the left of the first."""
    fields = ("agent_id", "kind", "position", "heading", "velocity", "size", "is_controlled")
    more = {name: np.concatenate([getattr(seen, name), getattr(seen, name)[:1]]) for name in fields}
    more["agent_id"][-1] = agent
    more["position"][-1, 1] += 50.0
    return replace(seen, **more)


@pytest.mark.parametrize("dt", [0.1, 0.04])
def test_a_plan_that_takes_too_long_is_not_waited_for_and_followed_once_it_is_there(
    dt: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Slow(Clock(monkeypatch), step_ms=1.0)
    traffic, seen = begun(policy, 100.0, dt=dt, replan_every=1)
    step = traffic.step(seen)
    assert step.replanned
    assert step.warnings == ()
    policy.hold()
    told = []
    for tick in range(1, 8):  # these calls come back while the policy has not
        seen = obey(seen, step)
        if tick == 4:
            seen = with_another(seen, 77)
        step = traffic.step(seen)
        told += step.warnings
        assert step.latency_ms <= 85.0
        assert not step.replanned
        assert step.position[0, 0] == pytest.approx(10.0 * dt * (tick + 1), abs=1e-4)
    assert step.agent_id.tolist() == [1, 2, 77]
    assert step.position[2, :2] == pytest.approx(step.position[0, :2] + [0, 50], abs=1e-4)
    assert told[0] == "budget of 100 ms: planning takes longer, the last plan goes on"
    assert set(told[1:]) == {"budget of 100 ms: no plan yet, the last plan goes on"}
    policy.let_go(traffic._desk)
    planned = []
    for tick in range(8, 14):  # what was left behind does not know 77: it is planned anew
        seen = obey(seen, step)
        step = traffic.step(seen)
        planned.append(step.replanned)
        assert not any("late" in warning for warning in step.warnings)
        assert step.position[2, 0] == pytest.approx(10.0 * dt * (tick + 1), abs=1e-4)
    assert any(planned)


def test_where_nothing_fits_the_least_is_planned_beside_the_loop_and_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Slow(Clock(monkeypatch), step_ms=1000.0)
    traffic, seen = begun(policy, 50.0, futures=16, replan_every=1)
    policy.asked.clear()  # type: ignore[attr-defined]
    policy.hold()
    step = traffic.step(seen)
    assert step.warnings == ("budget of 50 ms: no time to plan, the last plan goes on",)
    assert step.futures is not None
    assert step.futures.position.shape[1] == 1
    policy.let_go(traffic._desk)
    before, seen = step, obey(seen, step)
    step = traffic.step(seen)
    assert step.warnings == ("budget of 50 ms: follows a plan of 1.00 s, which was late",)
    assert step.replanned
    assert step.position[:, 0] - before.position[:, 0] == pytest.approx(0.1 * seen.velocity[:, 0], abs=1e-4)
    assert policy.asked == [(1, 1)]  # type: ignore[attr-defined]


def test_a_plan_that_is_too_old_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Slow(Clock(monkeypatch))
    traffic, seen = begun(policy, 400.0, replan_every=1, dt=0.5)
    policy.hold()
    for _ in range(5):
        step = traffic.step(seen)
        seen = obey(seen, step)
    policy.let_go(traffic._desk)
    asked = len(policy.asked)  # type: ignore[attr-defined]
    assert traffic.step(seen).warnings == ("budget of 400 ms: planned with 4 of 8 steps",)
    assert len(policy.asked) == asked + 1, "it plans anew"  # type: ignore[attr-defined]


def test_what_fails_beside_the_loop_is_raised_at_the_tick_that_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Slow(Clock(monkeypatch))
    traffic, seen = begun(policy, 400.0, replan_every=1)
    policy.set("fails", True)
    with pytest.raises(RuntimeError, match="out of memory"):
        traffic.step(seen)
    policy.hold()
    step = traffic.step(seen)
    policy.let_go(traffic._desk)
    seen = obey(seen, step)
    with pytest.raises(RuntimeError, match="out of memory"):
        traffic.step(seen)
    policy.set("fails", False)
    assert traffic.step(seen).replanned


@pytest.mark.parametrize("ends", ["reset", "close"])
def test_what_was_left_behind_ends_with_the_episode_and_is_no_fork_s(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Slow(Clock(monkeypatch))
    traffic, seen = begun(policy, 400.0)
    policy.hold()
    traffic.step(seen)
    (thread,) = (one for one in threading.enumerate() if one.name == "traj_diffusion plan")
    fork = traffic.fork()
    policy.let_go(traffic._desk)
    if ends == "reset":
        traffic.reset(straight_road(), seen)
        assert traffic.step(seen).warnings == ()
    else:
        traffic.close()
    assert not thread.is_alive()
    assert not any("late" in one for one in fork.step(replace(seen, time=seen.time + 0.1)).warnings)


def test_a_plan_that_caught_up_goes_on_from_where_its_agents_are() -> None:
    scene = straight_road()
    seen = replace(Observation.from_scene(scene), time=0.0)
    request = PlanRequest(None, world_state((seen,), 2), 2, 0, 0, np.zeros(1, np.int32))
    late = Planned(ConstantVelocity().plan(request), 1, 0.0, 0, request.state, seen.agent_id)
    turned = replace(
        seen,
        time=0.25,
        position=seen.position + np.array([2.0, 1.0, 0.5]),
        heading=seen.heading + np.float32(0.5),
    )
    one = caught_up(late, turned)
    assert one.plan.position.shape[3] == late.plan.position.shape[3] - 3
    for moment in (0.25 + 0.1, 0.25 + 0.3):
        motion = one.at(moment, np.arange(len(seen)))
        ahead = (moment - 0.25) * np.linalg.norm(seen.velocity, axis=-1)
        facing = np.stack([np.cos(turned.heading), np.sin(turned.heading)], -1)
        assert motion.position[:, :2] == pytest.approx(turned.position[:, :2] + ahead[:, None] * facing, abs=1e-4)
        assert motion.position[:, 2] == pytest.approx(turned.position[:, 2])
        assert motion.heading == pytest.approx(turned.heading, abs=1e-6)
    same = caught_up(late, replace(seen, time=0.0))
    assert same.plan.position == pytest.approx(late.plan.position)


def test_a_step_that_was_late_all_the_same_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def stalls(seen: Observation, row: int, dt: float) -> Any:
        clock.now += 0.5
        return seen.position[row], seen.heading[row], seen.velocity[row]

    traffic, seen = begun(Slow(clock), 100.0, controllers={"stalls": stalls}, assign={1: "stalls"})
    assert traffic.step(seen).warnings[-1].startswith("budget of 100 ms: this step took 5")


def test_the_pace_believes_bad_news_at_once_and_good_news_slowly() -> None:
    work = FULL.work(agents=6)
    pace = Pace().after(work, 100.0)
    assert pace.after(work, 300.0).unit == pytest.approx(300.0 / work)
    assert pace.after(work, 20.0).unit == pytest.approx(80.0 / work)
    assert pace.affordable(FULL, 6, 100.0) == (FULL, True)
    assert pace.affordable(FULL, 6, 99.0) == (Effort(4, 16), True)
    assert pace.affordable(FULL, 60, 99.0) == (Effort(1, 8), True)
    assert pace.affordable(FULL, 6, 1.0) == (Effort(1, 1), False)
    assert Pace().affordable(FULL, 6, 1.0) == (Effort(1, 1), True)
    assert Effort(None, 3).work(6) == Effort(1, 4).work(6)


def test_the_diffusion_policy_takes_fewer_steps(random_policy: DiffusionPolicy) -> None:
    from traj_diffusion.testing.policy_contract import request_of

    policy = DiffusionPolicy(random_policy.model, "random", steps=4)
    request = request_of(policy, crossing())
    few = DiffusionPolicy(random_policy.model, "random", steps=2).plan(request)
    assert np.array_equal(policy.plan(replace(request, steps=2)).position, few.position)
    assert np.array_equal(policy.plan(replace(request, steps=9)).position, policy.plan(request).position)


def test_without_a_budget_all_steps_are_taken_where_the_host_waits(random_policy: DiffusionPolicy) -> None:
    asked = []

    class Watched(ConstantVelocity):
        def plan(self, request: PlanRequest) -> Plan:
            asked.append((request.steps, threading.current_thread()))
            return super().plan(request)

    traffic = TrafficModel(Watched())
    seen = Observation.from_scene(straight_road())
    traffic.reset(None, seen)
    traffic.step(seen)
    assert asked == [(None, threading.current_thread())]
    with pytest.raises(ValueError, match="budget_ms must be positive, not 0"):
        TrafficModel(Watched(), budget_ms=0)
