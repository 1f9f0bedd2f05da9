"""Commit rules on futures whose order is known on paper."""

from dataclasses import replace

import numpy as np
import pytest

from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import PlanRequest, Scene
from traj_diffusion.sim_adapter import COMMITS, Choice, Following, rollout
from traj_diffusion.sim_adapter.commit import Ground, chosen_future, costs
from traj_diffusion.sim_adapter.worlds import Worlds
from traj_diffusion.testing import make_scene, straight_road


def choice_of(scene: Scene, futures: int, worlds: int = 1) -> Choice:
    """Return the choice among equal futures at constant velocity, to be changed by the test."""
    state = Worlds.at_current_index(scene, worlds, 11).state
    plan = ConstantVelocity().plan(PlanRequest(None, state, futures, 0, 0, np.arange(worlds, dtype=np.int32)))
    return Choice(plan, state, np.ones(len(state.agent_id), bool), Ground(scene.map))


def test_likeliest_takes_the_largest_weight_of_each_world_and_sample_the_first_future() -> None:
    choice = choice_of(straight_road(), futures=3, worlds=2)
    weighted = replace(choice, plan=replace(choice.plan, log_weight=np.log(np.float32([[1, 5, 2], [3, 1, 3]]))))
    assert COMMITS["likeliest"](weighted).tolist() == [1, 0]
    assert COMMITS["sample"](weighted).tolist() == [0, 0]


def test_cheapest_avoids_a_collision_then_the_verge_then_hard_braking() -> None:
    choice = choice_of(straight_road(speeds=(10.0, 10.0)), futures=4)
    plan = choice.plan
    step = np.arange(1, 81) * 0.1
    plan.position[0, 0, 1, :, 0] += np.minimum(step * 10, 30)  # runs into the one ahead, and both count
    plan.position[0, 1, 1, :, 1] += np.minimum(step, 6)  # leaves the road, whose edge is 4 m away
    plan.velocity[0, 2, 1, :, 0] = np.maximum(10 - 5 * step, 0)  # brakes at 5 m/s² for 2 s
    cost = costs(choice)[0]
    assert cost == pytest.approx([20.0, 5.0, 0.1 * 25 * 20 / 80, 0.0], rel=1e-3, abs=1e-4)
    assert COMMITS["cheapest"](choice).tolist() == [3]
    assert costs(replace(choice, is_controlled=np.array([False, False])))[0].tolist() == [0, 0, 0, 0]


def test_who_touches_already_and_who_is_off_the_road_already_costs_nothing() -> None:
    place = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 30.0]])
    scene = make_scene(place, np.zeros((3, 2)), features=straight_road().map)
    assert costs(choice_of(scene, futures=2)).tolist() == [[0.0, 0.0]]


def test_without_a_map_cheapest_still_chooses() -> None:
    scene = make_scene(np.array([[0.0, 0.0], [10.0, 0.0]]), np.array([[5.0, 0.0], [0.0, 0.0]]))
    choice = choice_of(scene, futures=2)
    choice.plan.position[0, 1, 0, :, 1] += 5.0  # passes beside
    assert COMMITS["cheapest"](choice).tolist() == [1]


def test_consistent_stays_with_the_last_plan_in_step_with_it() -> None:
    choice = choice_of(straight_road(speeds=(10.0, 8.0)), futures=3)
    assert COMMITS["consistent"](choice).tolist() == [0]
    last = choice_of(straight_road(speeds=(10.0, 8.0)), futures=2)
    last.plan.position[0, 1, :, :, 1] += 2.0
    following = Following.of(np.array([2, 9]), last.plan, np.array([1], np.int32), 5.5)
    # Half a step later than step 5: 0.65 s into the last plan is step 0 of this one, on the line y = 2.
    assert following.position[0, 0, 0].tolist() == pytest.approx([6.5, 2.0, 0.0])
    choice.plan.position[0, 1, 1, :, 1] += 2.5
    choice.plan.position[0, 2, 1, :, 1] += 1.0
    known = replace(following, position=choice.plan.position[:, 0, ::-1] + np.array([0.0, 2.0, 0.0]))
    assert COMMITS["consistent"](replace(choice, following=known)).tolist() == [1]
    stranger = replace(known, agent_id=np.array([50, 51]))
    assert COMMITS["consistent"](replace(choice, following=stranger)).tolist() == [0]


def test_a_callback_sees_the_choice_and_what_is_no_future_is_refused() -> None:
    seen: list[Choice] = []

    def mine(choice: Choice):  # type: ignore[no-untyped-def]
        seen.append(choice)
        return np.full(choice.state.worlds, 1)

    rollout(straight_road(), ConstantVelocity(), rollouts=2, futures=2, seconds=1.5, commit=mine)
    assert [choice.following is None for choice in seen] == [True, False, False]
    later = seen[1].following
    assert later is not None
    assert np.abs(later.position - seen[1].plan.position[:, 0, :, :75]).max() < 1e-9
    with pytest.raises(ValueError, match=r"the commit rule chose \[2\]; it must choose one of 0\.\.1"):
        chosen_future(lambda choice: np.array([2]), choice_of(straight_road(), futures=2))


@pytest.mark.parametrize("rule", COMMITS)
def test_every_rule_runs_in_a_closed_loop(rule: str) -> None:
    result = rollout(straight_road(), ConstantVelocity(), rollouts=2, futures=2, seconds=1.0, commit=rule)
    assert result.position[1, 0, -1, 0] == pytest.approx(10.0)
