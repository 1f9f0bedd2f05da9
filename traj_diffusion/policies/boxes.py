"""How far boxes are apart along their own sides, with a slope (separating axes; Gottschalk, Lin & Manocha 1996)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

QUARTER = torch.pi / 2
PARALLEL = 1e-5  # sine of an angle below which a side lies along a line


class Pairs(NamedTuple):
    """Pairs of boxes. `offset` leads from the centre of the second one to that of the first."""

    offset: Float[Tensor, "*pairs 2"]
    heading: Float[Tensor, "*pairs"]
    size: Float[Tensor, "*#pairs 3"]
    other_heading: Float[Tensor, "*pairs"]
    other_size: Float[Tensor, "*#pairs 3"]

    def reach(self, angle: Float[Tensor, "*#pairs"]) -> Float[Tensor, "*pairs"]:
        """Return how far [m] the two boxes of each pair reach together along a line at that angle."""
        return _reach(self.heading - angle, self.size) + _reach(self.other_heading - angle, self.other_size)


def gap(pairs: Pairs) -> tuple[Float[Tensor, "*pairs"], Float[Tensor, "*pairs 2"]]:
    """Return the widest gap [m] between two boxes along any of their sides, and the unit vector along it.

    Negative where they overlap. The vector leads from the second box to the first.
    """
    heading, other = pairs.heading, pairs.other_heading
    gaps, axes = [], []
    for angle in (heading, heading + QUARTER, other, other + QUARTER):
        axis = torch.stack([angle.cos(), angle.sin()], -1)
        way = (pairs.offset * axis).sum(-1)
        gaps.append(way.abs() - pairs.reach(angle))
        axes.append(axis * torch.where(way < 0, -1.0, 1.0)[..., None])
    widest, side = torch.stack(gaps, -1).max(-1, keepdim=True)
    axis = torch.stack(axes, -2)
    return widest[..., 0], axis.gather(-2, side[..., None].expand(*side.shape, 2))[..., 0, :]


def intrusion(pairs: Pairs, keep: float) -> Float[Tensor, "P T"]:
    """Return by how much [m] boxes come nearer than `keep` over T moments, along what parted them before they did.

    Once one has run halfway through another, the shortest way out is out at the other end. It must not be taken.
    """
    with torch.no_grad():
        width, line = gap(pairs)
        touching = width < keep
        before = (touching.float().argmax(-1, keepdim=True) - 1).clamp(min=0)
        line = line.gather(-2, before[..., None].expand(*before.shape, 2))
        along = torch.atan2(line[..., 1], line[..., 0])
    room = pairs.reach(along) + keep
    return (room - (pairs.offset * line).sum(-1)).clamp(min=0) * touching


def _reach(angle: Float[Tensor, "*#pairs"], size: Float[Tensor, "*#pairs 3"]) -> Float[Tensor, "*pairs"]:
    cos, sin = angle.cos().abs(), angle.sin().abs()
    # Along its own sides a box reaches less than when it is turned either way: no slope, rather than the one that
    # rounding would choose.
    cos, sin = (torch.where(one < PARALLEL, 0.0, one) for one in (cos, sin))
    return (size[..., 0] * cos + size[..., 1] * sin) / 2
