"""Every policy keeps the contract; and the contract notices those that do not."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from traj_diffusion.errors import BadScene
from traj_diffusion.model import ModelConfig, TrafficDiffusion
from traj_diffusion.policies import BASELINES, ConstantVelocity, DiffusionPolicy
from traj_diffusion.policies.diffusion import single_threaded
from traj_diffusion.scene import Plan, PlanRequest, Policy, Scene
from traj_diffusion.testing import POLICY_CONTRACT, crossing, policy_contract


def random_diffusion() -> Policy:
    """A network of random weights."""
    torch.manual_seed(0)
    model = TrafficDiffusion(ModelConfig(width=32, n_heads=4, encoder_layers=1, denoiser_layers=1)).eval()
    torch.nn.init.normal_(model.denoiser.out.weight, std=0.1)
    return DiffusionPolicy(model, "random", steps=1)


POLICIES: dict[str, Callable[[], Policy]] = {**BASELINES, "diffusion": random_diffusion}


@pytest.mark.parametrize("check", POLICY_CONTRACT, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", POLICIES)
def test_policies_keep_the_contract(name: str, check: Callable[[Policy], None]) -> None:
    check(POLICIES[name]())


class Sequential(ConstantVelocity):
    """Draws from one generator, so that everybody's numbers depend on how many there are."""

    def plan(self, request: PlanRequest) -> Plan:
        plan = super().plan(request)
        return replace(plan, position=plan.position + np.random.default_rng(1).normal(size=plan.position.shape))


class Peeking(ConstantVelocity):
    """Plans the end of the recording."""

    def encode(self, scene: Scene):  # type: ignore[no-untyped-def]
        return scene

    def plan(self, request: PlanRequest) -> Plan:
        plan = super().plan(request)
        return replace(plan, position=plan.position + request.context.agents.position[0, -1])


class Counting(ConstantVelocity):
    """Remembers how often it was asked."""

    def plan(self, request: PlanRequest) -> Plan:
        object.__setattr__(self, "asked", getattr(self, "asked", 0) + 1)
        plan = super().plan(request)
        return replace(plan, position=plan.position + self.asked)  # type: ignore[attr-defined]


class First(ConstantVelocity):
    """Everybody follows the first row."""

    def plan(self, request: PlanRequest) -> Plan:
        plan = super().plan(request)
        return replace(plan, position=np.repeat(plan.position[:, :, :1], plan.position.shape[2], 2))


class Short(ConstantVelocity):
    """Reaches 0.2 s."""

    def plan(self, request: PlanRequest) -> Plan:
        plan = super().plan(request)
        return replace(
            plan, position=plan.position[..., :2, :], heading=plan.heading[..., :2], velocity=plan.velocity[..., :2, :]
        )


class Dividing(ConstantVelocity):
    """Divides by how many are there."""

    def plan(self, request: PlanRequest) -> Plan:
        plan = super().plan(request)
        with np.errstate(divide="ignore", invalid="ignore"):
            return replace(plan, position=plan.position / request.state.valid[:, None, :1, -1:, None])


@pytest.mark.parametrize(
    ("policy", "check"),
    [
        (Sequential, "randomness_is_keyed"),
        (Peeking, "the_future_is_not_known"),
        (Counting, "asking_changes_nothing"),
        (First, "order_of_rows_is_free"),
        (Short, "shapes_fit"),
        (Dividing, "everything_is_finite"),
    ],
)
def test_the_contract_notices_a_breach(policy: type[ConstantVelocity], check: str) -> None:
    with pytest.raises(AssertionError):
        getattr(policy_contract, check)(policy())


def test_a_scene_of_other_steps_is_a_bad_scene() -> None:
    scene = replace(crossing(), dt=0.5)
    with pytest.raises(
        BadScene, match=r"scene crossing: its steps are of 0\.5 s; this policy plans in steps of 0\.1 s"
    ):
        DiffusionPolicy(TrafficDiffusion(ModelConfig(width=32, n_heads=4)), "random").encode(scene)


def test_plans_made_at_once_leave_torch_its_threads() -> None:
    before, met = torch.get_num_threads(), threading.Barrier(2, timeout=30)

    def nested(stays: bool, left: threading.Event) -> tuple[int, int]:
        with single_threaded() as threads:
            met.wait()
            if stays:
                left.wait(30)
            during = torch.get_num_threads()
        left.set()
        return during, threads

    torch.set_num_threads(2)
    try:
        event = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            done = [pool.submit(nested, stays, event) for stays in (False, True)]
        assert [one.result() for one in done] == [(1, 2), (1, 2)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
