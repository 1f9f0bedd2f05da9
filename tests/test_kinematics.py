"""Motion models: known answers, limits that no action breaks, and actions found again from noisy records."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from traj_diffusion.kinematics import KNOT, LIMITS, decode, encode, start_speed
from traj_diffusion.scene import AgentKind

STEPS = 80


def straight(kind: AgentKind, speed: float, action: tuple[float, float, float] = (0.0, 0.0, 0.0)):
    return decode(
        torch.tensor(action).expand(1, 16, 3),
        torch.tensor([[speed, 0.0]]),
        torch.tensor([int(kind)]),
        torch.tensor([4.0]),
    )


def test_without_action_a_body_goes_on_straight() -> None:
    motion = straight(AgentKind.VEHICLE, 10.0)
    assert motion.position[0, -1].tolist() == pytest.approx([80.0, 0.0], abs=1e-3)
    assert motion.velocity[0, -1].tolist() == pytest.approx([10.0, 0.0], abs=1e-4)


def test_constant_acceleration_follows_the_textbook() -> None:
    motion = straight(AgentKind.VEHICLE, 5.0, (1.0, 0.0, 0.0))
    assert float(motion.position[0, -1, 0]) == pytest.approx(5 * 8 + 0.5 * 8**2, abs=1e-3)


def test_the_rear_axle_runs_on_a_circle_of_radius_speed_over_yaw_rate() -> None:
    speed, yaw_rate, length = 5.0, 0.5, 4.0
    motion = straight(AgentKind.VEHICLE, speed, (0.0, yaw_rate, 0.0))
    offset = 0.3 * length
    facing = torch.stack([motion.heading.cos(), motion.heading.sin()], -1)
    axle = motion.position - offset * facing
    centre = torch.tensor([-offset, speed / yaw_rate])
    assert (axle - centre).norm(dim=-1)[0].tolist() == pytest.approx([speed / yaw_rate] * STEPS, abs=0.01)
    # The box's centre lies off the axle, so it moves on a wider circle and faster.
    assert float(motion.velocity[0, -1].norm()) == pytest.approx(math.hypot(speed, offset * yaw_rate), abs=1e-4)


def test_who_has_braked_to_a_stop_starts_at_once() -> None:
    action = torch.tensor([[-4.0, 0, 0]] * 8 + [[2.0, 0, 0]] * 8)[None]
    limits = LIMITS[AgentKind.VEHICLE]
    motion = decode(action, torch.tensor([[2.0, 0.0]]), torch.tensor([1]), torch.tensor([4.0]))
    speed = motion.velocity[0, :, 0]
    assert float(speed.min()) == pytest.approx(limits.forward[0])
    assert float(speed[40]) == pytest.approx(limits.forward[0] + 0.2, abs=1e-4)


def test_a_vehicle_cannot_turn_at_rest_but_a_pedestrian_can() -> None:
    turn = (0.0, 0.5, 0.0)
    assert float(straight(AgentKind.VEHICLE, 0.0, turn).heading.abs().max()) == 0
    assert float(straight(AgentKind.PEDESTRIAN, 0.0, turn).heading[0, -1]) == pytest.approx(4.0, abs=1e-4)


def test_nobody_stays_where_nobody_is() -> None:
    motion = decode(torch.randn(1, 16, 3), torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), torch.zeros(1))
    assert float(motion.position.abs().max()) == 0


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3, 4]), st.floats(0.1, 30.0))
@settings(max_examples=60, deadline=None)
def test_no_action_breaks_the_limits(seed: int, kind: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    action = torch.randn(5, 16, 3, generator=generator) * scale
    speed = torch.randn(5, 2, generator=generator) * scale
    kinds = torch.full((5,), kind)
    motion = decode(action, speed, kinds, torch.full((5,), 4.0))
    limits = LIMITS[kind]
    axle = limits.axle * 4.0
    turn = torch.cat([torch.zeros(5, 1), motion.heading], 1).diff(dim=1) / 0.1
    body = start_speed(motion.velocity, motion.heading, kinds[:, None].expand(-1, STEPS))
    assert (body[..., 0] <= limits.forward[1] + 1e-3).all()
    assert (body[..., 0] >= limits.forward[0] - 1e-3).all()
    assert (turn.abs() <= limits.yaw_rate + 1e-3).all()
    gain = body[..., 0].diff(dim=1) / 0.1
    assert (gain <= limits.acceleration[1] + 2e-2).all()
    assert (gain >= limits.acceleration[0] - 2e-2).all()
    if limits.sideways == 0:
        side = motion.velocity[..., 1] * motion.heading.cos() - motion.velocity[..., 0] * motion.heading.sin()
        assert (side - axle * turn).abs().max() < 1e-2
    assert torch.isfinite(motion.position).all()


@pytest.mark.parametrize("kind", [AgentKind.VEHICLE, AgentKind.PEDESTRIAN, AgentKind.CYCLIST])
def test_actions_are_found_again_from_a_noisy_record_with_gaps(kind: AgentKind) -> None:
    generator = torch.Generator().manual_seed(3)
    count = 64
    spread = {
        AgentKind.VEHICLE: (1.0, 0.15, 0.0),
        AgentKind.PEDESTRIAN: (0.3, 0.4, 0.2),
        AgentKind.CYCLIST: (0.5, 0.2, 0.0),
    }
    kinds, length = torch.full((count,), int(kind)), torch.full((count,), 4.0 if kind == 1 else 0.8)
    action = torch.randn(count, 16, 3, generator=generator) * torch.tensor(spread[kind])
    speed = torch.rand(count, 2, generator=generator) * torch.tensor([12.0 if kind == 1 else 1.5, 0.0])
    motion = decode(action, speed, kinds, length)
    noisy = motion.position + 0.01 * torch.randn(motion.position.shape, generator=generator)
    valid = torch.rand(count, STEPS, generator=generator) > 0.1
    found, _ = encode(noisy, motion.heading, valid, speed, kinds, length)
    again = decode(found, speed, kinds, length)
    assert float((again.position - motion.position).norm(dim=-1).mean()) < 0.04


def test_what_the_record_does_not_support_is_marked() -> None:
    motion = straight(AgentKind.VEHICLE, 10.0)
    valid = torch.zeros(1, STEPS, dtype=torch.bool)
    valid[:, :23] = True
    action, supported = encode(
        motion.position, motion.heading, valid, torch.tensor([[10.0, 0.0]]), torch.tensor([1]), torch.tensor([4.0])
    )
    assert int(supported.sum()) == int(2.3 / KNOT)
    assert float(action.abs().max()) < 1e-3
