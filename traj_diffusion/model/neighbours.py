"""Whom and what an agent sees: the nearest few, as they lie in its own frame. This makes all cost linear in agents."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from traj_diffusion.geometry import rotate, to_local, wrap_angle
from traj_diffusion.model import fused

LOOKAHEAD = 2.0  # s; near is what is near now, or near where the present velocity leads in this time
MAX_LEAD = 30.0  # m
EXACT = "donot_use_mm_for_euclid_dist"
RELATIVE_FEATURES = 9
TIE = 2.0**-21  # of a distance and a metre, by which each target counts as farther than the one before it
FINE = 3.0  # m; offsets of the nearest point saturate about here, so that a lane's width fills the scale


def nearest(
    position: Float[Tensor, "B A 2"],
    velocity: Float[Tensor, "B A 2"],
    target: Float[Tensor, "B M 2"],
    reach: Float[Tensor, "#B #A M"],
    valid: Bool[Tensor, "#B #A M"],
    count: int,
) -> tuple[Int[Tensor, "B A n"], Bool[Tensor, "B A n"]]:
    """Return which targets are nearest to each agent, the nearest first, and which of them exist at all.

    The distance is to the target's centre less its `reach`, from where the agent is or from where it will be in
    LOOKAHEAD seconds at its present velocity, whichever is less. Of targets that are equally far, as lights at one stop
    line are, the first ones are taken: `topk` would take others in other runtimes.
    """
    lead = velocity * LOOKAHEAD
    lead = lead * (MAX_LEAD / lead.norm(dim=-1, keepdim=True).clamp(min=MAX_LEAD))
    # Not by the matrix product that is the default, in which small differences of large coordinates drown.
    distance = torch.minimum(
        torch.cdist(position, target, compute_mode=EXACT), torch.cdist(position + lead, target, compute_mode=EXACT)
    )
    distance = distance - reach
    distance = distance + (distance.abs() + 1) * TIE * torch.arange(target.shape[1], device=target.device)
    distance = distance.masked_fill(~valid, torch.inf)
    near = distance.topk(min(count, target.shape[1]), dim=-1, largest=False)
    return near.indices, near.values.isfinite()


def gather(values: Tensor, index: Int[Tensor, "B A n"]) -> Tensor:
    """Return values [B or 1, M, ...] at the indices of each agent: [B, A, n, ...]."""
    batch = torch.arange(index.shape[0], device=index.device)[:, None, None]
    return values[batch if values.shape[0] > 1 else torch.zeros_like(batch), index]


def as_seen(
    pose: Float[Tensor, "B A 3"],
    velocity: Float[Tensor, "B A 2"],
    index: Int[Tensor, "B A n"],
    other: Float[Tensor, "b M 3"],
    other_velocity: Float[Tensor, "b M 2"] | None = None,
    points: Float[Tensor, "c M P 2"] | None = None,
) -> Float[Tensor, "B A n f"]:
    """Return the others at `index` as each agent sees them: `relative`, and `outline` of those that have points.

    Who has no velocity stands still. The others' batch axes may be 1.
    """
    if fused.fits(pose):
        features = RELATIVE_FEATURES + (0 if points is None else outline_features(points.shape[-2]))
        return fused.as_seen(pose, velocity, index, other, other_velocity, points, features, FINE)
    place = gather(other, index)
    # Of zeros_like(place) OpenVINO makes one row that it repeats, even where there are none.
    still = torch.zeros_like(index, dtype=place.dtype)[..., None].expand(*index.shape, 2)
    moving = still if other_velocity is None else gather(other_velocity, index)
    found = relative(pose, velocity, place, moving)
    return found if points is None else torch.cat([found, outline(pose, place, gather(points, index))], -1)


def outline_features(points: int) -> int:
    """Return how many features `outline` makes of so many points."""
    return 2 * points + 5


def relative(
    pose: Float[Tensor, "B A 3"],
    velocity: Float[Tensor, "B A 2"],
    other: Float[Tensor, "B A n 3"],
    other_velocity: Float[Tensor, "B A n 2"],
) -> Float[Tensor, "B A n 9"]:
    """Return how others lie and move as an agent sees them: invariant to where the world's origin is.

    Coarse and fine offsets (over 50 m, and saturating within 10 m), distance on a log scale, direction, velocity
    difference (over 10 m/s).
    """
    offset = to_local(other[..., :2], pose[..., None, :2], pose[..., None, 2])
    distance = offset.norm(dim=-1, keepdim=True)
    turn = wrap_angle(other[..., 2] - pose[..., None, 2])
    drift = to_local(other_velocity - velocity[..., None, :], torch.zeros_like(offset), pose[..., None, 2])
    return torch.cat(
        [
            offset / 50,
            offset / (distance + 5),
            torch.log1p(distance) / 4,
            turn.cos()[..., None],
            turn.sin()[..., None],
            drift / 10,
        ],
        -1,
    )


def outline(
    pose: Float[Tensor, "B A 3"], other: Float[Tensor, "B A n 3"], points: Float[Tensor, "B A n P 2"]
) -> Float[Tensor, "B A n f"]:
    """Return polylines, given in frames of their own, as agents see them: 2 P + 5 features.

    All points (over 20 m); of the point that is nearest, on a log scale how far it is, its offset on a fine scale, and
    the direction of the polyline there. Where a lane's middle or a kerb lies beside the agent stands there as a number.
    """
    turn = other[..., 2] - pose[..., None, 2]
    place = to_local(other[..., :2], pose[..., None, :2], pose[..., None, 2])
    seen = rotate(points, turn[..., None]) + place[..., None, :]
    start, along = seen[..., :-1, :], seen.diff(dim=-2)
    share = (-(start * along).sum(-1) / along.square().sum(-1).clamp(min=1e-6)).clamp(0, 1)
    foot = start + share[..., None] * along
    gap = foot.norm(dim=-1)
    first = gap.argmin(-1, keepdim=True)
    distance = gap.gather(-1, first)
    which = first[..., None].expand(*first.shape, 2)
    offset = foot.gather(-2, which)[..., 0, :]
    # The nearest point is often a corner, where two segments tie: a blend of those within about a metre jumps nowhere.
    segment = (along * (-gap).softmax(-1)[..., None]).sum(-2)
    direction = segment / segment.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    return torch.cat([seen.flatten(-2) / 20, torch.log1p(distance) / 2, (offset / FINE).tanh(), direction], -1)
