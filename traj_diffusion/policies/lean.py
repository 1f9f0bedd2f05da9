"""What is wrong with a plan, as a number with a slope, and a few steps down it: off kerbs, each other and red lights.

It leans the estimate of x0 while it is denoised (guidance without a pass back through the network), so that the steps
that follow settle on a plan near what was leant to.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from traj_diffusion.geometry import box_corners, to_world
from traj_diffusion.kinematics import STEPS_PER_KNOT, decode
from traj_diffusion.policies import fused
from traj_diffusion.policies.boxes import Pairs, intrusion
from traj_diffusion.policies.surroundings import STANDING, STILL, Guidance, Surroundings, at_line


def lean(x0: Float[Tensor, "B A k 3"], around: Surroundings, guidance: Guidance) -> Float[Tensor, "B A k 3"]:
    """Return normalised actions a few steps down the slope of `fault`.

    Each agent takes the step that would bring its own fault to zero if that were linear (Polyak 1969).
    """
    of = fused.fault_and_slope if fused.fits(x0) else fault_and_slope
    for _ in range(guidance.rounds):
        own, slope = of(x0, around, guidance)
        if not bool((own > 0).any()):
            return x0
        step = own[..., None, None] / slope.square().sum((-1, -2), keepdim=True).clamp(min=1e-3) * slope
        x0 = x0 - step.clamp(-guidance.most, guidance.most)
    return x0


def fault_and_slope(
    x0: Float[Tensor, "B A k 3"], around: Surroundings, guidance: Guidance
) -> tuple[Float[Tensor, "B A"], Float[Tensor, "B A k 3"]]:
    """Return each agent's fault, zero for who may not be leant, and the slope of their sum along who may."""
    with torch.enable_grad():
        x = x0.detach().requires_grad_()
        own, moves = fault(x, around, guidance)
        moves = moves & around.free
        own = own * moves  # two that move share the work
        (slope,) = torch.autograd.grad(own.sum(), x)
    return own.detach(), slope * moves[..., None, None]


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
    past, _ = at_line(
        place[world, agent], heading[world, agent], around.size[world, agent, 0], around.light[world, light]
    )
    beyond = (past + line).clamp(min=0).sum(-1)
    return torch.zeros_like(heading[..., 0]).index_put((world, agent), beyond, accumulate=True)
