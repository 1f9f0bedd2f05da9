"""Rollouts are laid beside their scene, or refused with a line that says what would fit."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from traj_diffusion.errors import BadRollouts
from traj_diffusion.metrics import AgentSet, match
from traj_diffusion.scene import Rollouts
from traj_diffusion.testing import crossing, straight_road

Replay = Callable[..., Rollouts]


def test_agents_are_put_in_recorded_order(replay: Replay) -> None:
    scene = crossing()
    rollouts = replay(scene, 2)
    turned = replace(
        rollouts,
        agent_id=rollouts.agent_id[::-1].copy(),
        kind=rollouts.kind[::-1].copy(),
        position=rollouts.position[:, ::-1].copy(),
        heading=rollouts.heading[:, ::-1].copy(),
    )
    one, other = match(scene, rollouts), match(scene, turned)
    assert np.array_equal(one.position, other.position)
    assert np.array_equal(one.heading, other.heading)
    assert np.abs(one.position - one.log_position).max() == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scene_id": "another"}, "scene at hand is crossing"),
        ({"first_step": 10}, "first_step is 10; 11 fits"),
        ({"dt": 0.2}, "dt is 0.2 s, that of the scene 0.1 s"),
        ({"agent_id": np.array([1, 2, 9])}, r"1 agents are missing \(ids \[3\]\), 1 do not belong \(ids \[9\]\)"),
        ({"kind": np.array([1, 1, 1], np.uint8)}, "agent 3 is of kind 1; the scene says 2"),
        ({"weights": np.array([-1.0], np.float32)}, "weights"),
        ({"size": np.full((1, 3, 3), -1.0, np.float32)}, "size has shape .* finite values >= 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(replay: Replay, change: dict[str, object], says: str) -> None:
    scene = crossing()
    with pytest.raises(BadRollouts, match=says):
        match(scene, replay(scene, **change))


def test_too_few_steps_are_refused(replay: Replay) -> None:
    scene = crossing()
    with pytest.raises(BadRollouts, match="80 steps per run; 81 or more"):
        match(scene, replay(scene), steps=81)
    assert match(scene, replay(scene), steps=30).valid.shape == (1, 3, 30)


def test_a_value_that_is_not_finite_is_refused_where_valid_and_ignored_elsewhere(replay: Replay) -> None:
    scene = crossing()
    rollouts = replay(scene)
    rollouts.position[0, 1, 5] = np.nan
    with pytest.raises(BadRollouts, match="agent 2, step 5"):
        match(scene, rollouts)
    rollouts.valid[0, 1, 5] = False
    matched = match(scene, rollouts)
    assert np.array_equal(matched.position[0, 1, 5], matched.position[0, 1, 4])  # held where it was last seen


def test_a_scene_cut_at_now_matches_but_has_no_future(replay: Replay) -> None:
    scene = straight_road()
    assert match(scene, replay(scene)).has_future
    assert not match(scene.history_only(), replay(scene)).has_future


def test_the_evaluated_agents_are_those_to_predict_and_the_ego(replay: Replay) -> None:
    scene = straight_road(speeds=(10.0, 8.0, 6.0))
    scene.agents.to_predict[:] = [False, False, True]
    matched = match(scene, replay(scene))
    assert matched.counted(AgentSet.EVALUATED).tolist() == [True, False, True]
    assert matched.counted(AgentSet.SIMULATED).all()
