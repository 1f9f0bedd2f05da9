"""Controllers: each agent driven by its own, all within one tick."""

from typing import Any

import numpy as np
import pytest

from traj_diffusion.errors import BadInput
from traj_diffusion.policies import ConstantVelocity, DiffusionPolicy, Stationary
from traj_diffusion.scene import AgentKind, Observation, Plan, PlanRequest
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.testing import crossing
from traj_diffusion.testing.host_contract import obey


def sideways(seen: Observation, row: int, dt: float) -> tuple[Any, Any, Any]:
    """A script: one metre per second north, whatever the heading."""
    return seen.position[row, :2] + [0.0, dt], seen.heading[row], (0.0, 1.0)


def test_each_agent_is_driven_by_its_own_controller() -> None:
    traffic = TrafficModel(
        ConstantVelocity(),
        controllers={"stands": Stationary(), "script": sideways},
        assign=lambda agent, kind: "script" if kind == AgentKind.PEDESTRIAN else {1: "stands"}.get(agent),
    )
    seen = Observation.from_scene(crossing())
    first = seen
    traffic.reset(crossing(), seen)
    for _ in range(12):
        step = traffic.step(seen)
        seen = obey(seen, step)
    moved = step.position - first.position
    assert moved[0] == pytest.approx([0, 0, 0])
    assert moved[1] == pytest.approx([0, 1.2 * 8, 0])
    assert moved[2] == pytest.approx([0, 1.2, 0])
    assert step.velocity[2].tolist() == [0.0, 1.0]
    assert step.warnings == ()
    assert traffic.metadata["controllers"] == ["stands", "script"]


def test_what_other_policies_plan_is_given_to_the_traffics_own(random_policy: DiffusionPolicy) -> None:
    asked: list[PlanRequest] = []

    class Watched(ConstantVelocity):
        def plan(self, request: PlanRequest) -> Plan:
            asked.append(request)
            return super().plan(request)

    traffic = TrafficModel(Watched(), futures=3, controllers={"model": random_policy}, assign={2: "model"})
    seen = Observation.from_scene(crossing())
    traffic.reset(crossing(), seen)
    step = traffic.step(seen)
    given = asked[0].given
    assert given is not None
    assert given.valid[0].all(axis=(0, 2)).tolist() == [False, True, False]
    assert step.futures is not None
    assert np.array_equal(step.futures.position[0, :, 1], given.position[0, :, 1])
    assert len(np.unique(given.position[0, :, 1, -1, 1])) == 3, "each of the three futures is its own"
    assert asked[0].state.valid.shape[2] == random_policy.history_steps


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((np.array([np.nan, 0.0]), 0.0, (0.0, 0.0)), "returned values that are not finite"),
        ((np.zeros(3), 0.0, (1e6, 0.0)), "returned values that are not finite, or too large"),
        ((np.zeros(3), 0.0), r"returned no \(position, heading, velocity\)"),
        (None, r"returned no \(position, heading, velocity\)"),
        ((np.zeros(4), 0.0, (0.0, 0.0)), "returned 4, 1 and 2 numbers"),
    ],
)
def test_a_function_that_answers_nonsense_is_named_and_the_tick_undone(answer: Any, message: str) -> None:
    right = {"now": False}

    def odd(seen: Observation, row: int, dt: float) -> Any:
        return sideways(seen, row, dt) if right["now"] else answer

    traffic = TrafficModel(ConstantVelocity(), controllers={"odd": odd}, assign={3: "odd"})
    seen = Observation.from_scene(crossing())
    traffic.reset(crossing(), seen)
    for _ in range(2):
        with pytest.raises(BadInput, match=f"tick 0, 1.0 s: controller 'odd' of agent 3 {message}"):
            traffic.step(seen)
    right["now"] = True
    assert traffic.step(seen).replanned


def test_an_assignment_to_nobody_is_named() -> None:
    traffic = TrafficModel(ConstantVelocity(), controllers={"x": sideways}, assign={2: "y"})
    seen = Observation.from_scene(crossing())
    traffic.reset(None, seen)
    with pytest.raises(BadInput, match=r"agent 2 is assigned to 'y'; known controllers: \['x'\]"):
        traffic.step(seen)
