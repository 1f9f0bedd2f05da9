"""A budget in ms is kept on a clock that the test turns: no test measures time."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from traj_diffusion.policies import ConstantVelocity, DiffusionPolicy
from traj_diffusion.scene import Observation, OutOfTime, Plan, PlanRequest
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.sim_adapter.budget import Effort, Pace
from traj_diffusion.testing import crossing, straight_road
from traj_diffusion.testing.host_contract import obey

FULL = Effort(steps=8, futures=16)


class Clock:
    """A clock that stands still but for the work that is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        for module in ("traffic_model", "planning"):
            fake = SimpleNamespace(perf_counter=lambda: self.now)
            monkeypatch.setattr(f"traj_diffusion.sim_adapter.{module}.time", fake)


class Slow(ConstantVelocity):
    """Plans by steps and blocks of futures, and the clock tells what that takes; breaks off when it gets too late."""

    def __init__(self, clock: Clock, step_ms: float = 10.0) -> None:
        super().__init__()
        object.__setattr__(self, "clock", clock)
        object.__setattr__(self, "step_ms", step_ms)
        object.__setattr__(self, "asked", [])
        object.__setattr__(self, "steps", 8)

    def plan(self, request: PlanRequest) -> Plan:
        clock: Clock = self.clock  # type: ignore[attr-defined]
        step = 1e-3 * self.step_ms * -(-request.futures // 8)  # type: ignore[attr-defined]
        steps = request.steps if request.steps is not None else 8
        self.asked.append((steps, request.futures))  # type: ignore[attr-defined]
        for _ in range(1 + steps):
            if request.deadline is not None and clock.now + step > request.deadline:
                raise OutOfTime
            clock.now += step
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


@pytest.mark.parametrize("dt", [0.1, 0.04])
def test_without_time_for_any_plan_the_last_one_goes_on_and_newcomers_keep_their_velocity(
    dt: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Slow(Clock(monkeypatch), step_ms=1.0)
    traffic, seen = begun(policy, 100.0, dt=dt, replan_every=1)
    step = traffic.step(seen)
    assert step.replanned
    assert step.warnings == ()
    object.__setattr__(policy, "step_ms", 1000.0)
    asked = len(policy.asked)  # type: ignore[attr-defined]
    for tick in range(1, 20):
        seen = obey(seen, step)
        if tick == 8:  # somebody enters in the middle of it
            fields = ("agent_id", "kind", "position", "heading", "velocity", "size", "is_controlled")
            more = {name: np.concatenate([getattr(seen, name), getattr(seen, name)[:1]]) for name in fields}
            more["agent_id"][-1] = 77
            more["position"][-1, 1] += 50.0
            seen = replace(seen, **more)
        step = traffic.step(seen)
        assert step.latency_ms <= 100.0
        assert step.replanned is False
        assert step.position[0, 0] == pytest.approx(10.0 * dt * (tick + 1), abs=1e-4)
    assert step.agent_id.tolist() == [1, 2, 77]
    assert step.position[2, :2] == pytest.approx(step.position[0, :2] + [0, 50], abs=1e-4)
    assert any("broken off, the last plan goes on" in warning or "no time" in warning for warning in step.warnings)
    assert len(policy.asked) > asked, "it is tried again"  # type: ignore[attr-defined]
    object.__setattr__(policy, "step_ms", 1.0)
    steps = []
    for _ in range(40):
        seen = obey(seen, step)
        step = traffic.step(seen)
        steps.append(step)
    assert steps[-1].warnings == steps[-10].warnings == ()
    assert any(one.replanned for one in steps), "a machine that was slow is trusted again"


def test_a_step_that_was_late_all_the_same_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    class Stalls(Slow):
        def plan(self, request: PlanRequest) -> Plan:
            plan = super().plan(request)
            clock.now += 0.5 * (request.deadline is not None)
            return plan

    traffic, seen = begun(Stalls(clock), 100.0)
    assert traffic.step(seen).warnings[-1].startswith("budget of 100 ms: this step took 5")


def test_the_pace_believes_bad_news_at_once_and_good_news_slowly() -> None:
    work = FULL.work(agents=6)
    pace = Pace().after(work, 100.0)
    assert pace.after(work, 300.0).unit == pytest.approx(300.0 / work)
    assert pace.after(work, 20.0).unit == pytest.approx(80.0 / work)
    assert pace.affordable(FULL, 6, 100.0) == FULL
    assert pace.affordable(FULL, 6, 99.0) == Effort(4, 16)
    assert pace.affordable(FULL, 60, 99.0) == Effort(1, 8)
    assert pace.affordable(FULL, 6, 1.0) is None
    assert Pace().affordable(FULL, 6, 1.0) == Effort(1, 1)
    assert Pace().idle() == Pace()
    assert Effort(None, 4).work(6) == Effort(1, 8).work(6)


def test_the_diffusion_policy_takes_fewer_steps_and_breaks_off(random_policy: DiffusionPolicy) -> None:
    from traj_diffusion.testing.policy_contract import request_of

    policy = DiffusionPolicy(random_policy.model, "random", steps=4)
    request = request_of(policy, crossing())
    few = DiffusionPolicy(random_policy.model, "random", steps=2).plan(request)
    assert np.array_equal(policy.plan(replace(request, steps=2)).position, few.position)
    assert np.array_equal(policy.plan(replace(request, steps=9)).position, policy.plan(request).position)
    with pytest.raises(OutOfTime):
        policy.plan(replace(request, deadline=0.0))


def test_without_a_budget_nobody_asks_for_the_time(random_policy: DiffusionPolicy) -> None:
    asked = []

    class Watched(ConstantVelocity):
        def plan(self, request: PlanRequest) -> Plan:
            asked.append((request.steps, request.deadline))
            return super().plan(request)

    traffic = TrafficModel(Watched())
    seen = Observation.from_scene(straight_road())
    traffic.reset(None, seen)
    traffic.step(seen)
    assert asked == [(None, None)]
    with pytest.raises(ValueError, match="budget_ms must be positive, not 0"):
        TrafficModel(Watched(), budget_ms=0)
