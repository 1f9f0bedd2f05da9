"""Warm start: what the last plan leaves, moved on in time, is where the next one begins."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from traj_diffusion.model import ModelConfig, TrafficDiffusion
from traj_diffusion.policies import DiffusionPolicy
from traj_diffusion.policies.streaming import Memory, carried_over
from traj_diffusion.scene import Plan, PlanRequest
from traj_diffusion.sim_adapter import rollout
from traj_diffusion.testing import crossing
from traj_diffusion.testing.policy_contract import request_of


@pytest.fixture(scope="module")
def model() -> TrafficDiffusion:
    torch.manual_seed(0)
    model = TrafficDiffusion(ModelConfig(width=32, n_heads=4, encoder_layers=1, denoiser_layers=1)).eval()
    torch.nn.init.normal_(model.denoiser.out.weight, std=0.1)
    return model


def after(request: PlanRequest, memory: object, ticks: int) -> PlanRequest:
    plan = Plan(*(np.zeros((2, 2, 3, 80, 3)), np.zeros((2, 2, 3, 80), np.float32)),
                np.zeros((2, 2, 3, 80, 2), np.float32), np.zeros((2, 2), np.float32), 0.1, memory)  # fmt: skip
    return replace(request, previous=plan, followed=np.array([0, 1], np.int32), tick=5 + ticks)


def remembered(ids: tuple[int, ...] = (1, 2, 3)) -> Memory:
    """Actions that tell world, future, agent and knot: w f a k in decimal places."""
    value = torch.arange(2)[:, None, None, None] * 1000 + torch.arange(2)[:, None, None] * 100
    value = value + torch.arange(len(ids))[:, None] * 20 + torch.arange(16)
    return Memory(np.array(ids, np.int64), 5, value[..., None].expand(-1, -1, -1, -1, 3).float())


def test_each_world_goes_on_with_the_future_that_it_followed(model: TrafficDiffusion) -> None:
    request = request_of(DiffusionPolicy(model, "random"), crossing())
    carried = carried_over(after(request, remembered(), ticks=5))
    assert carried is not None
    assert carried[0, 1, :, 0].tolist() == [20.0 + knot for knot in range(1, 16)] + [0.0]
    assert carried[1, 2, :3, 0].tolist() == [1141.0, 1142.0, 1143.0]


def test_between_knots_an_action_is_the_mean_over_time_and_strangers_do_as_they_did(model: TrafficDiffusion) -> None:
    request = request_of(DiffusionPolicy(model, "random"), crossing())
    carried = carried_over(after(request, remembered((9, 2, 1)), ticks=7))
    assert carried is not None
    assert carried[0, 1, :2, 0].tolist() == pytest.approx([20 + 1.4, 20 + 2.4])
    assert carried[0, 0, 0, 0].item() == pytest.approx(40 + 1.4)
    assert carried[0, 1, -2:, 0].tolist() == pytest.approx([0.6 * 35, 0.0])
    assert carried[0, 2].abs().max() == 0


@pytest.mark.parametrize("what", ["no plan", "foreign memory", "other worlds", "too old", "earlier"])
def test_where_no_plan_can_say_the_start_is_cold(what: str, model: TrafficDiffusion) -> None:
    request = request_of(DiffusionPolicy(model, "random"), crossing())
    one_world = replace(remembered(), x0=remembered().x0[:1])
    given = {
        "no plan": request,
        "foreign memory": after(request, "mine", 5),
        "other worlds": after(request, one_world, 5),
        "too old": after(request, remembered(), 80),
        "earlier": after(request, remembered(), -1),
    }[what]
    assert carried_over(given) is None
    cold, warm = (DiffusionPolicy(model, "random", 2, start) for start in (None, 0.5))
    assert np.array_equal(cold.plan(given).position, warm.plan(given).position)


def test_a_start_with_little_noise_stays_near_the_last_plan_and_one_from_pure_noise_forgets_it(
    model: TrafficDiffusion,
) -> None:
    policy = DiffusionPolicy(model, "random", 2, 1.0)
    request = request_of(policy, crossing())
    first = policy.plan(request)
    later = replace(request, previous=first, followed=np.zeros(2, np.int32), tick=10)
    cold = DiffusionPolicy(model, "random", 2, None).plan(later)
    assert np.allclose(policy.plan(later).position, cold.position, atol=1e-4), "at t = 1 nothing is left of the plan"
    warm = DiffusionPolicy(model, "random", 2, 0.5).plan(later)
    assert not np.allclose(warm.position, cold.position, atol=1e-2)


def test_a_warm_closed_loop_is_repeatable_and_more_rollouts_leave_the_first_as_they_were(
    model: TrafficDiffusion,
) -> None:
    policy = DiffusionPolicy(model, "random", 2, 0.5)
    runs = [rollout(crossing(), policy, rollouts=n, futures=k, seconds=1.2) for n, k in ((2, 1), (2, 1), (3, 2))]
    assert np.array_equal(runs[0].position, runs[1].position)
    assert np.array_equal(runs[0].position, runs[2].position[:2])
    assert policy.fingerprint != DiffusionPolicy(model, "random", 2, None).fingerprint


def test_a_warm_start_lies_within_the_schedule(model: TrafficDiffusion) -> None:
    with pytest.raises(ValueError, match=r"a warm start lies in \(0, 1\], a share of the schedule's time, not at 1\.5"):
        DiffusionPolicy(model, "random", warm=1.5)
