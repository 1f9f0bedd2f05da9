"""The traffic model keeps the hosts' contract with any policy; and the contract notices hosts that count otherwise."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from traj_diffusion.policies import ConstantVelocity, DiffusionPolicy
from traj_diffusion.scene import Map, Observation, Scene, Step
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.testing import HOST_CONTRACT, host_contract
from traj_diffusion.testing.host_contract import Make


@pytest.mark.parametrize("check", HOST_CONTRACT, ids=lambda check: check.__name__)
def test_constant_velocity_keeps_the_contract(check: Callable[[Make], None]) -> None:
    check(lambda dt: TrafficModel(ConstantVelocity(), dt=dt))


@pytest.mark.parametrize("check", HOST_CONTRACT, ids=lambda check: check.__name__)
def test_the_diffusion_policy_keeps_the_contract(check: Callable[[Make], None], random_policy: DiffusionPolicy) -> None:
    check(lambda dt: TrafficModel(random_policy, dt=dt))


class Wrong:
    """Traffic that is right but for one thing."""

    def __init__(self, dt: float, spoil: Callable[[Observation, Step], Step]) -> None:
        self.traffic = TrafficModel(ConstantVelocity(), dt=dt)
        self.spoil = spoil

    def reset(self, scene_or_map: Scene | Map | None, observation: Observation) -> None:
        self.traffic.reset(scene_or_map, observation)

    def step(self, observation: Observation) -> Step:
        return self.spoil(observation, self.traffic.step(observation))


def _mirrored(seen: Observation, step: Step) -> Step:
    return replace(step, position=step.position * np.array([1.0, -1.0, 1.0]))


def _east_of_it(seen: Observation, step: Step) -> Step:
    return replace(step, position=step.position + np.array([0.3, 0.0, 0.0]))


def _at_the_axle(seen: Observation, step: Step) -> Step:
    back = 0.3 * seen.size[seen.is_controlled, :1] * np.stack([np.cos(step.heading), np.sin(step.heading)], -1)
    return replace(step, position=step.position - np.pad(back.astype(np.float64), ((0, 0), (0, 1))))


def _rounded(seen: Observation, step: Step) -> Step:
    return replace(step, position=np.round(step.position))


def _clockwise(seen: Observation, step: Step) -> Step:
    return replace(step, heading=-step.heading)


def _a_tick_late(seen: Observation, step: Step) -> Step:
    return replace(step, position=seen.position[seen.is_controlled])


def _backwards(seen: Observation, step: Step) -> Step:
    order = np.arange(len(step.agent_id))[::-1]
    return replace(step, agent_id=step.agent_id[order], position=step.position[order])


def _random(seen: Observation, step: Step) -> Step:
    return replace(step, velocity=step.velocity + np.float32(1e-3 * step.latency_ms))


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (_east_of_it, "frames_do_not_matter"),
        (_clockwise, "any_dt_works"),
        (_mirrored, "everyone_moves_where_it_faces"),
        (_at_the_axle, "positions_are_box_centres"),
        (_rounded, "handing_over_makes_no_jump"),
        (_a_tick_late, "everyone_moves_where_it_faces"),
        (_backwards, "agents_come_and_go"),
        (_random, "the_same_calls_give_the_same_bits"),
        (_random, "bad_observations_are_refused_whole"),
    ],
)
def test_the_contract_notices_a_breach(spoil: Callable[[Observation, Step], Step], check: str) -> None:
    with pytest.raises(AssertionError):
        getattr(host_contract, check)(lambda dt: Wrong(dt, spoil))
