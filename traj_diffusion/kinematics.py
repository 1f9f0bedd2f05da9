"""Per-kind motion models: from actions to states and back. No sample that went through `decode` breaks its limits.

One body moves by its forward speed u, lateral speed w and yaw rate. Vehicles and cyclists have w = 0 and turn about
their rear axle, which makes this the kinematic bicycle (Rajamani 2012, section 2.2); pedestrians step sideways too.
An action (forward acceleration, yaw rate, lateral acceleration) is held for `KNOT` seconds. All is in the agent's own
frame: the box centre at the origin facing +x when the plan starts.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from traj_diffusion.geometry import wrap_angle

DT = 0.1  # s, one step
STEPS_PER_KNOT = 5
KNOT = DT * STEPS_PER_KNOT  # s, how long one action is held
ACTION = 3  # forward acceleration, yaw rate, lateral acceleration


@dataclass(frozen=True)
class Limits:
    """What a body of one kind can do. Speeds in m/s, accelerations in m/s2, curvature in 1/m, yaw rate in rad/s."""

    forward: tuple[float, float]  # slowest (reverse is negative) and fastest
    acceleration: tuple[float, float]  # hardest braking (negative) and accelerating
    sideways: float  # fastest lateral speed
    side_acceleration: float
    curvature: float  # of the axle's path
    spin: float  # yaw rate at rest: what turns on the spot
    grip: float  # largest u * yaw rate, m/s2
    yaw_rate: float
    axle: float  # how far the turning point lies behind the centre, as a share of the length


# Tyres hold about .8 to .9 g on dry asphalt; turning circles of cars are 10 to 12 m (UNECE R79 test vehicles);
# people sprint at up to 6 m/s and accelerate at up to 4 m/s2 (Fruin 1971; di Prampero et al. 2005).
LIMITS = (
    Limits((0.0, 0.0), (0.0, 0.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),  # 0: nobody, padding
    Limits((-6.0, 45.0), (-8.0, 5.0), 0.0, 0.0, 0.28, 0.0, 7.0, 1.2, 0.3),  # VEHICLE
    Limits((-1.5, 6.0), (-4.0, 4.0), 1.5, 4.0, 0.0, 3.0, 8.0, 3.0, 0.0),  # PEDESTRIAN
    Limits((-1.5, 16.0), (-6.0, 3.5), 0.0, 0.0, 0.8, 0.0, 6.0, 1.8, 0.25),  # CYCLIST
    Limits((-6.0, 30.0), (-8.0, 5.0), 2.0, 4.0, 0.0, 3.0, 7.0, 3.0, 0.0),  # OTHER
)


class Motion(NamedTuple):
    """States over F steps in the agent's frame at the start of the plan; the start itself is not among them."""

    position: Float[Tensor, "*lead F 2"]  # box centre
    heading: Float[Tensor, "*lead F"]
    velocity: Float[Tensor, "*lead F 2"]  # of the box centre


def _table(kind: Int[Tensor, "*lead"], name: str, index: int | None = None) -> Float[Tensor, "*lead"]:
    values = [getattr(limits, name) if index is None else getattr(limits, name)[index] for limits in LIMITS]
    return torch.tensor(values, dtype=torch.float32, device=kind.device)[kind.long()]


def axle_offset(kind: Int[Tensor, "*lead"], length: Float[Tensor, "*lead"]) -> Float[Tensor, "*lead"]:
    """Return how far [m] the point about which a body turns lies behind its centre."""
    return _table(kind, "axle") * length


def decode(
    action: Float[Tensor, "*lead k 3"],
    speed: Float[Tensor, "*lead 2"],
    kind: Int[Tensor, "*lead"],
    length: Float[Tensor, "*lead"],
) -> Motion:
    """Return the motion that `action` causes from forward and lateral `speed`, within the limits of each kind.

    Differentiable. Speeds saturate knot by knot, so that a body that has braked to a limit leaves it at once.
    """
    low, high = _table(kind, "forward", 0)[..., None], _table(kind, "forward", 1)[..., None]
    side = _table(kind, "sideways")[..., None]
    forward = action[..., 0].clamp(
        _table(kind, "acceleration", 0)[..., None], _table(kind, "acceleration", 1)[..., None]
    )
    lateral = _bounded(action[..., 2], _table(kind, "side_acceleration")[..., None])

    time = torch.arange(1, STEPS_PER_KNOT + 1, device=action.device, dtype=action.dtype) * DT
    u = speed[..., :1].clamp(low, high)
    w = _bounded(speed[..., 1:], side)
    along, across = [u], [w]
    for knot in range(action.shape[-2]):
        u = (u[..., -1:] + forward[..., knot, None] * time).clamp(low, high)
        w = _bounded(w[..., -1:] + lateral[..., knot, None] * time, side)
        along.append(u)
        across.append(w)
    u, w = torch.cat(along, -1), torch.cat(across, -1)
    u_mid, w_mid = (u[..., 1:] + u[..., :-1]) / 2, (w[..., 1:] + w[..., :-1]) / 2

    pace = u_mid.abs()
    turn = torch.minimum(_table(kind, "yaw_rate")[..., None], _table(kind, "grip")[..., None] / pace.clamp(min=1e-3))
    turn = torch.minimum(turn, _table(kind, "spin")[..., None] + _table(kind, "curvature")[..., None] * pace)
    yaw_rate = _bounded(action[..., 1].repeat_interleave(STEPS_PER_KNOT, -1), turn)
    heading = (yaw_rate * DT).cumsum(-1)
    middle = heading - yaw_rate * (DT / 2)
    cos, sin = middle.cos(), middle.sin()
    step = torch.stack([u_mid * cos - w_mid * sin, u_mid * sin + w_mid * cos], -1) * DT

    offset = axle_offset(kind, length)[..., None]
    facing = torch.stack([heading.cos(), heading.sin()], -1)
    left = torch.stack([-facing[..., 1], facing[..., 0]], -1)
    start = torch.stack([-offset, torch.zeros_like(offset)], -1)
    position = start + step.cumsum(-2) + offset[..., None] * facing
    sway = (w[..., 1:] + offset * yaw_rate)[..., None] * left
    return Motion(position, heading, u[..., 1:, None] * facing + sway)


def _bounded(value: Float[Tensor, "..."], bound: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return torch.maximum(torch.minimum(value, bound), -bound)


def start_speed(
    velocity: Float[Tensor, "*lead 2"], heading: Float[Tensor, "*lead"], kind: Int[Tensor, "*lead"]
) -> Float[Tensor, "*lead 2"]:
    """Return forward and lateral speed [m/s] of a body that moves with `velocity` and faces `heading`, in one frame."""
    cos, sin = heading.cos(), heading.sin()
    forward = velocity[..., 0] * cos + velocity[..., 1] * sin
    lateral = velocity[..., 1] * cos - velocity[..., 0] * sin
    return torch.stack([forward, _bounded(lateral, _table(kind, "sideways"))], -1)


def encode(
    position: Float[Tensor, "*lead F 2"],
    heading: Float[Tensor, "*lead F"],
    valid: Bool[Tensor, "*lead F"],
    speed: Float[Tensor, "*lead 2"],
    kind: Int[Tensor, "*lead"],
    length: Float[Tensor, "*lead"],
) -> tuple[Float[Tensor, "*lead k 3"], Bool[Tensor, "*lead k"]]:
    """Return the actions whose `decode` follows a recorded motion, and which of them the record supports.

    A tracking controller, not a difference quotient: recorded positions carry noise of a centimetre, which two
    differences over .1 s would turn into accelerations of .7 m/s2. It looks at speeds over .4 s and feeds back half of
    what it is off. `position` and `heading` are in the agent's frame, as `decode` returns them.
    """
    position, heading, known = _fill(position, heading, valid, speed)
    offset = axle_offset(kind, length)
    facing = torch.stack([heading.cos(), heading.sin()], -1)
    axle = position - offset[..., None, None] * facing
    steps = axle.shape[-2]
    holonomic = _table(kind, "sideways") > 0

    actions = []
    place = torch.stack([-offset, torch.zeros_like(offset)], -1)
    angle = torch.zeros_like(offset)
    u, w = speed[..., 0], speed[..., 1]
    for end in range(STEPS_PER_KNOT - 1, steps, STEPS_PER_KNOT):
        before, after = max(end - 2, 0), min(end + 2, steps - 1)
        drift = (axle[..., after, :] - axle[..., before, :]) / ((after - before) * DT)
        goal, goal_angle = axle[..., end, :], heading[..., end]
        cos, sin = goal_angle.cos(), goal_angle.sin()
        goal_u = drift[..., 0] * cos + drift[..., 1] * sin
        goal_w = torch.where(holonomic, drift[..., 1] * cos - drift[..., 0] * sin, torch.zeros_like(u))

        # Where the body would end with those speeds, and by how much that misses the goal.
        middle = (angle + goal_angle) / 2
        mean_u, mean_w = (u + goal_u) / 2, (w + goal_w) / 2
        reach = torch.stack(
            [mean_u * middle.cos() - mean_w * middle.sin(), mean_u * middle.sin() + mean_w * middle.cos()], -1
        )
        miss = goal - (place + reach * KNOT)
        miss_along = miss[..., 0] * cos + miss[..., 1] * sin
        miss_across = miss[..., 1] * cos - miss[..., 0] * sin
        steer = torch.where(
            holonomic, torch.zeros_like(u), (0.5 * miss_across / (KNOT * mean_u.abs().clamp(min=2.0))).clamp(-0.1, 0.1)
        )
        steer = steer * torch.sign(mean_u)
        action = torch.stack(
            [
                (goal_u + 0.5 * miss_along / KNOT - u) / KNOT,
                wrap_angle(goal_angle + steer - angle) / KNOT,
                torch.where(holonomic, (goal_w + 0.5 * miss_across / KNOT - w) / KNOT, torch.zeros_like(u)),
            ],
            -1,
        )
        action, place, angle, u, w = _advance(action, place, angle, u, w, kind)
        actions.append(action)
    supported = known[..., STEPS_PER_KNOT - 1 :: STEPS_PER_KNOT]
    return torch.stack(actions, -2), supported


def _advance(
    action: Float[Tensor, "*lead 3"],
    place: Float[Tensor, "*lead 2"],
    angle: Float[Tensor, "*lead"],
    u: Float[Tensor, "*lead"],
    w: Float[Tensor, "*lead"],
    kind: Int[Tensor, "*lead"],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the action within its limits and the axle's state after it was held for one knot."""
    zero = torch.zeros_like(u)
    motion = decode(action[..., None, :], torch.stack([u, w], -1), kind, zero)
    turned = motion.heading[..., -1]
    cos, sin = angle.cos(), angle.sin()
    step = motion.position[..., -1, :]
    place = place + torch.stack([cos * step[..., 0] - sin * step[..., 1], sin * step[..., 0] + cos * step[..., 1]], -1)
    velocity = start_speed(motion.velocity[..., -1, :], turned, kind)
    action = torch.stack(
        [
            (velocity[..., 0] - u.clamp(_table(kind, "forward", 0), _table(kind, "forward", 1))) / KNOT,
            turned / KNOT,
            (velocity[..., 1] - w) / KNOT,
        ],
        -1,
    )
    return action, place, angle + turned, velocity[..., 0], velocity[..., 1]


def _fill(
    position: Float[Tensor, "*lead F 2"],
    heading: Float[Tensor, "*lead F"],
    valid: Bool[Tensor, "*lead F"],
    speed: Float[Tensor, "*lead 2"],
) -> tuple[Float[Tensor, "*lead F 2"], Float[Tensor, "*lead F"], Bool[Tensor, "*lead F"]]:
    """Return the motion with gaps bridged, headings made continuous, and which steps lie before the record's end.

    Gaps are bridged in a straight line from the last valid step to the next; after the last one the body goes on as
    it went (those steps are not `known`).
    """
    steps = valid.shape[-1]
    index = torch.arange(steps, device=valid.device).expand(valid.shape)
    last = torch.where(valid, index, -1).cummax(-1).values
    following = torch.where(valid, index, steps).flip(-1).cummin(-1).values.flip(-1)
    known = following < steps

    start = torch.zeros_like(position[..., :1, :])
    padded = torch.cat([start, position], -2)
    turned = torch.cat([torch.zeros_like(heading[..., :1]), heading], -1)
    early = (last + 1)[..., None].expand(*valid.shape, 2)
    late = (following.clamp(max=steps - 1) + 1)[..., None].expand(*valid.shape, 2)
    share = ((index - last) / (following - last).clamp(min=1)).to(position.dtype)
    before, after = padded.gather(-2, early), padded.gather(-2, late)
    turned_before, turned_after = turned.gather(-1, early[..., 0]), turned.gather(-1, late[..., 0])
    bridged = before + share[..., None] * (after - before)
    turned_bridged = turned_before + share * wrap_angle(turned_after - turned_before)

    # Past the end of the record: onwards at the mean velocity of its last second (or of the start).
    age = ((index - last) * DT)[..., None]
    second = (early - round(1 / DT)).clamp(min=0)
    mean = (before - padded.gather(-2, second)) / (((early - second).clamp(min=1)) * DT)
    initial = torch.stack([speed[..., 0], torch.zeros_like(speed[..., 0])], -1)[..., None, :].expand_as(mean)
    mean = torch.where(early > 0, mean, initial)
    filled = torch.where(known[..., None], bridged, before + mean * age)
    angle = torch.where(known, turned_bridged, turned_before)
    unwrapped = torch.cat([torch.zeros_like(angle[..., :1]), angle], -1)
    unwrapped = unwrapped[..., :1] + wrap_angle(unwrapped.diff(dim=-1)).cumsum(-1)
    return filled, unwrapped, known
