"""The closed loop: nothing of the future leaks in, randomness is keyed, controllers do what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from traj_diffusion.errors import BadScene
from traj_diffusion.model import ModelConfig, TrafficDiffusion
from traj_diffusion.policies import ConstantVelocity, DiffusionPolicy
from traj_diffusion.scene import LightState, Rollouts, Scene, WorldState
from traj_diffusion.sim_adapter import rollout
from traj_diffusion.testing import crossing, make_scene, straight_road


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    """A network of random weights: what is on trial is the loop, not the traffic."""
    torch.manual_seed(0)
    model = TrafficDiffusion(ModelConfig(width=32, n_heads=4, encoder_layers=1, denoiser_layers=1)).eval()
    torch.nn.init.normal_(model.denoiser.out.weight, std=0.1)
    return DiffusionPolicy(model, "random", steps=2)


def same(a: Rollouts, b: Rollouts, runs: int | None = None) -> bool:
    return np.array_equal(a.position[:runs], b.position[:runs]) and np.array_equal(a.heading[:runs], b.heading[:runs])


def test_constant_velocity_lands_where_paper_says() -> None:
    scene = straight_road(speeds=(10.0, 8.0))
    result = rollout(scene, ConstantVelocity(), rollouts=2)
    assert result.position.shape == (2, 2, 80, 3)
    assert result.position[:, 0, -1, 0].tolist() == pytest.approx([80.0, 80.0])
    assert np.abs(result.position[0] - scene.agents.position[:, 11:]).max() < 1e-9


def test_the_full_scene_and_its_history_give_the_same_rollouts(policy: DiffusionPolicy) -> None:
    scene = crossing()
    late = replace(scene.agents, valid=scene.agents.valid.copy(), position=scene.agents.position.copy())
    late.valid[2, :20] = False  # the pedestrian turns up later
    late.position[0, 40:, 1] += 50.0  # and the car does something that nobody could know
    switched = replace(scene.lights, state=scene.lights.state.copy())
    switched.state[:, 30:] = LightState.GO
    full = replace(scene, agents=late, lights=switched)
    assert same(rollout(full, policy, rollouts=2), rollout(full.history_only(), policy, rollouts=2))
    assert len(rollout(full, policy, rollouts=1).agent_id) == 2


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(policy: DiffusionPolicy) -> None:
    first, second = (rollout(crossing(), policy, rollouts=2, seed=3) for _ in range(2))
    assert same(first, second)
    assert not same(first, rollout(crossing(), policy, rollouts=2, seed=4))
    assert not np.array_equal(first.position[0], first.position[1])


def test_more_rollouts_and_more_futures_leave_the_first_ones_as_they_were(policy: DiffusionPolicy) -> None:
    few = rollout(crossing(), policy, rollouts=2)
    assert same(few, rollout(crossing(), policy, rollouts=7), runs=2)
    many = rollout(crossing(), policy, rollouts=2, futures=5)
    assert same(few, many)
    assert np.array_equal(few.futures[:1], many.futures[:1])


def test_replanning_more_often_asks_more_often() -> None:
    class Counting(ConstantVelocity):
        asked = 0

        def plan(self, request):  # type: ignore[no-untyped-def]
            Counting.asked += 1
            return super().plan(request)

    for every, times in ((1, 80), (5, 16), (80, 1), (100, 1)):
        Counting.asked = 0
        rollout(straight_road(), Counting(), rollouts=1, replan_every=every)
        assert Counting.asked == times


def test_a_logged_ego_follows_the_log_and_stays_where_it_ends(policy: DiffusionPolicy) -> None:
    scene = crossing()
    scene.agents.valid[0, 60:] = False
    result = rollout(scene, policy, rollouts=2, ego="log")
    assert np.array_equal(result.position[0, 0, :49], scene.agents.position[0, 11:60])
    assert np.array_equal(result.position[1, 0, 48:], np.repeat(scene.agents.position[0, 59:60], 32, 0))
    assert not np.array_equal(result.position[0, 1], scene.agents.position[1, 11:])


def test_an_ego_of_the_users_own() -> None:
    def drive(step: int, state: WorldState):  # type: ignore[no-untyped-def]
        place = state.position[:, 0, -1] + [0.0, 1.0, 0.0]
        return place, state.heading[:, 0, -1], np.tile(np.float32([0, 10]), (2, 1))

    result = rollout(straight_road(), ConstantVelocity(), rollouts=2, ego=drive)
    assert result.position[0, 0, -1].tolist() == pytest.approx([0.0, 80.0, 0.0])
    assert result.position[0, 1, -1, 0] == pytest.approx(-30 + 64)


@pytest.mark.parametrize("which", ["hold", "log", "callback"])
def test_lights_are_held_logged_or_the_users_own(which: str) -> None:
    seen: list[int] = []

    class Watching(ConstantVelocity):
        def plan(self, request):  # type: ignore[no-untyped-def]
            seen.append(int(request.state.light_state[0, 0]))
            return super().plan(request)

    scene = crossing(LightState.STOP)
    scene.lights.state[:, 50:] = LightState.GO
    lights = (lambda step, state: np.full_like(state.light_state, LightState.CAUTION)) if which == "callback" else which
    rollout(scene, Watching(), rollouts=1, lights=lights)
    last = {"hold": LightState.STOP, "log": LightState.GO, "callback": LightState.CAUTION}[which]
    assert (seen[0], seen[-1]) == (LightState.STOP, last)


def test_far_from_the_origin_nothing_is_lost_to_rounding(policy: DiffusionPolicy) -> None:
    def moved(scene: Scene, by: float) -> Scene:
        agents = replace(scene.agents, position=scene.agents.position + np.array([by, by, 0]))
        points = scene.map.points + np.array([by, by, 0])
        stop = scene.lights.stop_point + np.array([by, by, 0])
        return replace(
            scene, agents=agents, map=replace(scene.map, points=points), lights=replace(scene.lights, stop_point=stop)
        )

    near = rollout(crossing(), policy, rollouts=1)
    far = rollout(moved(crossing(), 40_000.0), policy, rollouts=1)
    assert np.abs(far.position - 40_000.0 * np.array([1, 1, 0]) - near.position).max() < 1e-6


def test_nobody_to_simulate_is_one_clear_error() -> None:
    scene = straight_road()
    scene.agents.valid[:, 10] = False
    with pytest.raises(BadScene, match="no agent is valid at its current index 10"):
        rollout(scene, ConstantVelocity())


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="replan_every must be a whole number of at least 1, not 0"):
        rollout(straight_road(), ConstantVelocity(), replan_every=0)
    with pytest.raises(ValueError, match="unknown commit rule 'best'; known: sample, likeliest"):
        rollout(straight_road(), ConstantVelocity(), commit="best")
    with pytest.raises(ValueError, match="unknown ego 'me'"):
        rollout(straight_road(), ConstantVelocity(), ego="me")


@pytest.mark.parametrize("agents", [1, 70])
def test_one_agent_without_a_map_and_many_work(policy: DiffusionPolicy, agents: int) -> None:
    place = np.stack([np.arange(agents) * 7.0, np.zeros(agents)], -1)
    scene = make_scene(place, np.tile([3.0, 1.0], (agents, 1)))
    result = rollout(scene, policy, rollouts=1, seconds=1.0)
    assert np.isfinite(result.position).all()


def test_no_history_before_now_works(policy: DiffusionPolicy) -> None:
    scene = make_scene(np.array([[0.0, 0.0], [10.0, 0.0]]), np.ones((2, 2)), steps=81, current_index=0)
    result = rollout(scene, policy, rollouts=1)
    assert (result.first_step, result.position.shape[2]) == (1, 80)
