"""What is wrong with a plan, as a number with a slope, and a few steps down it: off kerbs, each other and red lights.

It leans the estimate of x0 while it is denoised (guidance without a pass back through the network), so that the steps
that follow settle on a plan near what was leant to.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from traj_diffusion.geometry import box_corners, to_local, to_world, wrap_angle
from traj_diffusion.kinematics import STEPS_PER_KNOT, decode
from traj_diffusion.policies.boxes import Pairs, gap, intrusion
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
        past, beside = _at_line(pose[:, :, None, None, :2], pose[:, :, None, 2:], size[:, :, None, 0], light[:, None])
        needed = speed[..., :1].square() / (2 * (-past[..., 0]).clamp(min=0.1))
        aligned = wrap_angle(pose[:, :, None, 2] - light[:, None, :, 2]).abs() < ALIGNED
        stops = drives[..., None] & red[:, None] & aligned & (beside[..., 0].abs() < IN_LANE)
        stops &= (past[..., 0] < 0) & (needed < HARDEST)
        return cls(
            pose, speed, size, kind, valid, scale, near, pair & (between > 0), on_road, free, light, stops, field
        )


def lean(x0: Float[Tensor, "B A k 3"], around: Surroundings, guidance: Guidance) -> Float[Tensor, "B A k 3"]:
    """Return normalised actions a few steps down the slope of `fault`.

    Each agent takes the step that would bring its own fault to zero if that were linear (Polyak 1969).
    """
    with torch.enable_grad():
        for _ in range(guidance.rounds):
            x = x0.detach().requires_grad_()
            own, moves = fault(x, around, guidance)
            moves = moves & around.free
            own = own * moves  # two that move share the work
            if not bool((own.detach() > 0).any()):
                return x0
            (slope,) = torch.autograd.grad(own.sum(), x)
            slope = slope * moves[..., None, None]
            step = own.detach()[..., None, None] / slope.square().sum((-1, -2), keepdim=True).clamp(min=1e-3) * slope
            x0 = x.detach() - step.clamp(-guidance.most, guidance.most)
    return x0


def fault(
    x0: Float[Tensor, "B A k 3"], around: Surroundings, guidance: Guidance
) -> tuple[Float[Tensor, "B A"], Bool[Tensor, "B A"]]:
    """Return how much of each agent's plan lies beyond kerbs and lines or in others [m, over time], and who moves."""
    motion = decode(x0[..., : guidance.knots, :] * around.scale, around.speed, around.kind, around.size[..., 0])
    some = slice(guidance.every - 1, guidance.knots * STEPS_PER_KNOT, guidance.every)
    local = motion.position[..., some, :]
    far = local.detach().norm(dim=-1).amax(-1)
    moves = (around.speed.norm(dim=-1) > STANDING) | (far > STILL)
    place = to_world(local, around.pose[..., None, :2], around.pose[..., None, 2])
    heading = motion.heading[..., some] + around.pose[..., 2:]
    # Who stands is an obstacle where it stands.
    place = torch.where(moves[..., None, None], place, around.pose[..., None, :2])
    heading = torch.where(moves[..., None], heading, around.pose[..., 2:])

    own = _crowding(place, heading, around, guidance.gap)
    own = own + _running(place, heading, around, moves, guidance.line)
    if around.field is not None:
        size = around.size[..., None, :].expand(*heading.shape, 3)
        corners = box_corners(place, heading, size[..., 0], size[..., 1])
        beyond = around.field(corners).amax(-1) + guidance.kerb
        own = own + (beyond.clamp(min=0) * (around.bound & moves)[..., None]).sum(-1)
    return own, moves & around.valid


def _crowding(
    place: Float[Tensor, "B A T 2"], heading: Float[Tensor, "B A T"], around: Surroundings, keep: float
) -> Float[Tensor, "B A"]:
    """Return by how much [m, over time] each agent comes too near to its near ones; few pairs ever could."""
    with torch.no_grad():
        row = torch.arange(len(place), device=place.device)[:, None, None]
        apart = (place[:, :, None] - place[row, around.near]).square().sum(-1).amin(-1)
        half = around.size[..., :2].norm(dim=-1) / 2
        could = around.pair & (apart < (half[:, :, None] + half[row, around.near] + keep).square())
        world, agent, rank = could.nonzero(as_tuple=True)
        other = around.near[world, agent, rank]
    pairs = Pairs(
        offset=place[world, agent] - place[world, other],
        heading=heading[world, agent],
        size=around.size[world, agent][:, None],
        other_heading=heading[world, other],
        other_size=around.size[world, other][:, None],
    )
    crowding = intrusion(pairs, keep).sum(-1)
    return torch.zeros_like(heading[..., 0]).index_put((world, agent), crowding, accumulate=True)


def _running(
    place: Float[Tensor, "B A T 2"],
    heading: Float[Tensor, "B A T"],
    around: Surroundings,
    moves: Bool[Tensor, "B A"],
    line: float,
) -> Float[Tensor, "B A"]:
    """Return how far [m, over time] each agent comes beyond the lines at which it has to stop; few have one."""
    world, agent, light = (around.stops & moves[..., None]).nonzero(as_tuple=True)
    past, _ = _at_line(
        place[world, agent], heading[world, agent], around.size[world, agent, 0], around.light[world, light]
    )
    beyond = (past + line).clamp(min=0).sum(-1)
    return torch.zeros_like(heading[..., 0]).index_put((world, agent), beyond, accumulate=True)


def _at_line(
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
