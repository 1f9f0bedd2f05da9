"""How guidance is set, and what it knows of the present: who is held apart, who is on the road, who has to stop."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from traj_diffusion.geometry import box_corners, to_local, to_world, wrap_angle
from traj_diffusion.policies.boxes import Pairs, gap
from traj_diffusion.policies.road import RoadField
from traj_diffusion.scene import AgentKind, LightState

NEAR = 8  # agents with whom each is held apart
STANDING = 0.3  # m/s; whoever is slower, and stays within
STILL = 0.2  # m of where he is, is an obstacle and not leant. Two who creep towards each other are not obstacles yet
IN_LANE = 1.8  # m beside the stop point, and
ALIGNED = 0.6  # rad off the direction of its lane, within which a light concerns somebody
HARDEST = 4.0  # m/s2; whoever would have to brake harder for a red light goes on


@dataclass(frozen=True)
class Guidance:
    """How plans are leant away from collisions, from the road's edge and from red lights."""

    rounds: int = 2  # steps down the slope, each time that it is asked
    last: int = 2  # denoising steps at the end of which it is asked; earlier estimates are means over many plans
    knots: int = 6  # of half a second, how far it looks ahead
    every: int = 2  # steps of 0.1 s between two looks
    kerb: float = 0.3  # m that corners keep from the road's edge
    gap: float = 0.3  # m between two boxes
    line: float = 0.5  # m before the stop point of a red light
    most: float = 1.0  # normalised actions, how far one step may change any of them


@dataclass(frozen=True)
class Surroundings:
    """What guidance knows of the present, for B rows of the same A agents."""

    pose: Float[Tensor, "B A 3"]
    speed: Float[Tensor, "B A 2"]
    size: Float[Tensor, "B A 3"]
    kind: Int[Tensor, "B A"]
    valid: Bool[Tensor, "B A"]
    scale: Float[Tensor, "B A 1 3"]  # of normalised actions
    near: Int[Tensor, "B A m"]
    pair: Bool[Tensor, "B A m"]  # pairs to be held apart: valid, and apart now
    bound: Bool[Tensor, "B A"]  # who is on the road now and is to stay there
    free: Bool[Tensor, "B A"]  # whose plan may be changed; the others' are given
    light: Float[Tensor, "B S 3"]  # stop points, and the direction of their lanes
    stops: Bool[Tensor, "B A S"]  # which lights are red for whom, and can be stopped at
    field: RoadField | None

    @classmethod
    def of(
        cls,
        pose: Float[Tensor, "B A 3"],
        speed: Float[Tensor, "B A 2"],
        size: Float[Tensor, "B A 3"],
        kind: Int[Tensor, "B A"],
        valid: Bool[Tensor, "B A"],
        scale: Float[Tensor, "B A 1 3"],
        free: Bool[Tensor, "B A"],
        light: Float[Tensor, "B S 3"],
        red: Bool[Tensor, "B S"],
        field: RoadField | None,
    ) -> "Surroundings":
        """Return the surroundings of agents at their present poses."""
        agents = pose.shape[1]
        lead = to_world(speed, pose[..., :2], pose[..., 2])  # where they are in a second
        apart = torch.minimum(torch.cdist(pose[..., :2], pose[..., :2]), torch.cdist(lead, lead))
        apart = apart - (size[:, :, None, 0] + size[:, None, :, 0]) / 2
        possible = valid[:, :, None] & valid[:, None] & ~torch.eye(agents, dtype=torch.bool, device=pose.device)
        ranked = apart.masked_fill(~possible, torch.inf).topk(min(NEAR, agents), -1, largest=False)
        near, pair = ranked.indices, ranked.values.isfinite()
        row = torch.arange(len(near), device=near.device)[:, None, None]
        between, _ = gap(
            Pairs(
                offset=(pose[:, :, None] - pose[row, near])[..., :2],
                heading=pose[:, :, None, 2].expand(near.shape),
                size=size[:, :, None].expand(*near.shape, 3),
                other_heading=pose[row, near][..., 2],
                other_size=size[row, near],
            )
        )
        drives = ((kind == AgentKind.VEHICLE) | (kind == AgentKind.CYCLIST)) & valid
        on_road = torch.zeros_like(valid)
        if field is not None:
            corners = box_corners(pose[..., :2], pose[..., 2], size[..., 0], size[..., 1])
            on_road = (field(corners).amax(-1) < 0) & drives
        past, beside = at_line(pose[:, :, None, None, :2], pose[:, :, None, 2:], size[:, :, None, 0], light[:, None])
        needed = speed[..., :1].square() / (2 * (-past[..., 0]).clamp(min=0.1))
        aligned = wrap_angle(pose[:, :, None, 2] - light[:, None, :, 2]).abs() < ALIGNED
        stops = drives[..., None] & red[:, None] & aligned & (beside[..., 0].abs() < IN_LANE)
        stops &= (past[..., 0] < 0) & (needed < HARDEST)
        return cls(
            pose, speed, size, kind, valid, scale, near, pair & (between > 0), on_road, free, light, stops, field
        )


def at_line(
    place: Float[Tensor, "*#pairs T 2"],
    heading: Float[Tensor, "*#pairs T"],
    length: Float[Tensor, "*#pairs"],
    light: Float[Tensor, "*#pairs 3"],
) -> tuple[Float[Tensor, "*pairs T"], Float[Tensor, "*pairs T"]]:
    """Return how far [m] each front bumper is past a stop point, and to the left of it."""
    ahead = torch.stack([heading.cos(), heading.sin()], -1)
    front = place + length[..., None, None] / 2 * ahead
    at = to_local(front, light[..., None, :2], light[..., None, 2])
    return at[..., 0], at[..., 1]


def is_red(state: Int[Tensor, "B S"]) -> Bool[Tensor, "B S"]:
    """Return which lights forbid to go on."""
    return (state == LightState.STOP) | (state == LightState.ARROW_STOP)
