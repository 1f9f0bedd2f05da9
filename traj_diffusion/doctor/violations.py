"""What a model that is deaf to routes or to lights does: it leaves its route, it drives past a red light.

Both are counted over samples, drawn without guidance, so that it is the model that is asked and not what leans on it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from traj_diffusion.datasets.conditioning import ABSENT_ROUTE, KIND_OF_CODE, ON_ROUTE
from traj_diffusion.doctor.case import Case
from traj_diffusion.geometry import rotate, to_local, wrap_angle
from traj_diffusion.kinematics import DT, Motion
from traj_diffusion.metrics.signals import LANE_HALF_WIDTH, RED
from traj_diffusion.scene import AgentKind, MapKind

OFF_ROUTE_BY = 5.0  # m from every centre line of the route: a lane and a half, for changing lanes leaves no route
FACING = 60.0  # m before a stop line, up to which a vehicle counts as facing it
ALIGNED = torch.pi / 4
SOON = 3.0  # s, for which a light that is red now counts as red: what it shows later no sample can know
PASSED = 1.0  # m beyond the line; who noses over it has not passed
_TOGETHER = 2.5  # m between stop points of one line
_LANE = torch.tensor([kind == MapKind.LANE for kind in KIND_OF_CODE])


@dataclass(frozen=True)
class Violations:
    """Shares of samples that do what they must not, with a part of the conditioning, without it, and in the data."""

    shown: float
    hidden: float
    recorded: float
    vehicles: int

    def say(self, what: str, did: str) -> str:
        """Return it in words."""
        if not self.vehicles:
            return f"no {what}"
        return (
            f"of {self.vehicles} {what}, {self.shown:.1%} {did}, {self.hidden:.1%} without ({self.ratio}), "
            f"{self.recorded:.1%} in the data"
        )

    @property
    def ratio(self) -> str:
        """How many times as often without as with it, in words."""
        return f"{self.hidden / self.shown:.2f} times" if self.shown > 0 else "none with it"


def routes_left(case: Case, with_it: Motion, without: Motion) -> Violations:
    """Return how often moving vehicles end off their route.

    Counted are those that begin on it and end on it in the record, with route left ahead of them. A sample has left it
    where it ends more than 5 m from all of its lane pieces, unless that is ahead of where the route ends.
    """
    c = case.batch.conditioning
    last = case.batch.valid[..., -1] & case.moving & (c.kind == AgentKind.VEHICLE)
    begins, _ = _off_route(case, c.pose[:, :, None, :2])
    ends, past = _off_route(case, case.in_world(case.recorded)[0][..., -1, :])
    counted = last & (c.route != ABSENT_ROUTE).any(-1) & ~(begins | ends | past)[..., 0]

    def rate(motion: Motion) -> float:
        off, _ = _off_route(case, case.in_world(motion)[0][..., -1, :])
        return _share(off, counted)

    return Violations(rate(with_it), rate(without), rate(case.recorded), int(counted.sum()))


def _off_route(case: Case, place: Float[Tensor, "B A K 2"]) -> tuple[Bool[Tensor, "B A K"], Bool[Tensor, "B A K"]]:
    """Return who is off the route at its side, and who is past its end."""
    c, pieces = case.batch.conditioning, case.batch.map
    turn = pieces.pose[:, :, None, 2].expand(pieces.points.shape[:-1])
    lines = rotate(pieces.points, turn) + pieces.pose[:, :, None, :2]
    route = (c.route == ON_ROUTE).expand(len(place), -1, -1) & (pieces.valid & _LANE[pieces.code])[:, None]
    off = torch.zeros(place.shape[:-1], dtype=torch.bool)
    past = off.clone()
    for example, agent in route.any(-1).nonzero().tolist():
        line, points = lines[example, route[example, agent]], place[example, agent]
        start, along = line[:, :-1], line.diff(dim=1)
        length = along.square().sum(-1).clamp(min=1e-9)
        share = ((points[:, None, None] - start) * along).sum(-1) / length
        gap = (points[:, None, None] - start - share.clamp(0, 1)[..., None] * along).norm(dim=-1)  # [K m P-1]
        nearest = gap.flatten(1).argmin(-1)
        piece, segment = nearest // gap.shape[2], nearest % gap.shape[2]
        final = (segment == gap.shape[2] - 1) & (share.flatten(1).gather(1, nearest[:, None])[:, 0] > 1)
        tip, way = line[piece, -1], along[piece, -1]
        ahead = to_local(points, tip, torch.atan2(way[:, 1], way[:, 0]))
        beyond = final & (ahead[:, 0] > ahead[:, 1].abs())
        past[example, agent] = beyond
        off[example, agent] = (gap.flatten(1).amin(-1) > OFF_ROUTE_BY) & ~beyond
    return off, past


def reds_run(case: Case, with_it: Motion, without: Motion) -> Violations:
    """Return how often vehicles that face a red light pass its stop line within 3 s.

    A vehicle faces a light that it stands or drives before, in the light's lane and direction, up to 60 m away. It
    passes where its front bumper gets a metre beyond the line, in the lane. A light whose line has another one that
    allows to go on does not count.
    """
    c = case.batch.conditioning
    red = torch.isin(c.light_state, torch.tensor(RED)) & c.light_valid
    others = (c.light_pose[:, :, None, :2] - c.light_pose[:, None, :, :2]).norm(dim=-1) < _TOGETHER
    open_beside = (others & (c.light_valid & ~red)[:, None]).any(-1)
    closed = red & ~open_beside
    ahead, aside, turn = _seen_from_lights(case, c.pose[:, :, None, None, :2], c.pose[:, :, None, None, 2])
    near = (ahead[..., 0, 0, :] < 0) & (ahead[..., 0, 0, :] > -FACING) & (aside[..., 0, 0, :].abs() <= LANE_HALF_WIDTH)
    faced = near & (turn[..., 0, 0, :].abs() < ALIGNED) & closed[:, None]
    vehicle = (c.kind == AgentKind.VEHICLE) & c.valid
    counted = faced.any(-1) & vehicle

    def rate(motion: Motion) -> float:
        place, heading = case.in_world(motion)
        soon = round(SOON / DT)
        ahead, aside, turn = _seen_from_lights(case, place[..., :soon, :], heading[..., :soon])
        passed = (ahead > PASSED) & (aside.abs() <= LANE_HALF_WIDTH) & (turn.abs() < ALIGNED)
        return _share((passed & faced[:, :, None, None]).any(-1).any(-1), counted)

    return Violations(rate(with_it), rate(without), rate(case.recorded), int(counted.sum()))


def _seen_from_lights(
    case: Case, place: Float[Tensor, "B A K T 2"], heading: Float[Tensor, "B A K T"]
) -> tuple[Float[Tensor, "B A K T S"], Float[Tensor, "B A K T S"], Float[Tensor, "B A K T S"]]:
    """Return how far front bumpers are past each stop line and to the left of its stop point, and their turn."""
    c = case.batch.conditioning
    half = c.size[:, :, None, None, 0] / 2
    bumper = place + half[..., None] * torch.stack([heading.cos(), heading.sin()], -1)
    light = c.light_pose[:, None, None, None]
    seen = to_local(bumper[..., None, :], light[..., :2], light[..., 2])
    return seen[..., 0], seen[..., 1], wrap_angle(heading[..., None] - light[..., 2])


def _share(did: Bool[Tensor, "B A K"], counted: Bool[Tensor, "B A"]) -> float:
    return float(did[counted].float().mean()) if counted.any() else 0.0
