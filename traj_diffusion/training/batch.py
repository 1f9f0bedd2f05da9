"""From cached samples to what a training step needs: conditioning, the clean actions, and the recorded future."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from traj_diffusion.datasets.cache import Sample
from traj_diffusion.datasets.conditioning import ABSENT_ROUTE, HISTORY_STEPS, Conditioning, MapTensors, condition
from traj_diffusion.geometry import to_local
from traj_diffusion.kinematics import encode
from traj_diffusion.training.config import TrainConfig
from traj_diffusion.training.disturb import disturbed

STANDING = 0.5  # m; who moves less within the plan counts as standing


@dataclass(frozen=True)
class Batch:
    """One training batch. Futures are in each agent's own frame at the present step."""

    conditioning: Conditioning
    map: MapTensors
    action: Float[Tensor, "B A k 3"]
    action_valid: Bool[Tensor, "B A k"]
    position: Float[Tensor, "B A F 2"]
    heading: Float[Tensor, "B A F"]
    valid: Bool[Tensor, "B A F"]
    weight: Float[Tensor, "B A"]

    def to(self, device: torch.device | str) -> "Batch":
        """Return a copy on that device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def make_batch(sample: Sample, config: TrainConfig, generator: torch.Generator | None) -> Batch:
    """Return the batch of cached samples at their current index; with a generator, parts of it are hidden at random."""
    tensors = {name: torch.from_numpy(array) for name, array in sample.items()}
    now = HISTORY_STEPS - 1
    kind = tensors["kind"].long()
    valid = tensors["valid"]
    seen = valid[:, :, : now + 1]
    route, light_route = tensors["route"].long(), tensors["light_route"].long()
    light_valid = tensors["light_seen"]
    if generator is not None:
        batch, agents = kind.shape

        def chance(share: float, *shape: int) -> Tensor:
            return torch.rand(shape, generator=generator) < share

        hidden = chance(config.drop_route, batch, agents)[..., None]
        route = route.masked_fill(hidden, ABSENT_ROUTE)
        light_route = light_route.masked_fill(hidden, ABSENT_ROUTE)
        light_valid = light_valid & ~chance(config.drop_lights, batch)[:, None]
        forgotten = chance(config.drop_history, batch, agents)
        seen = torch.cat([seen[..., :-1] & ~forgotten[..., None], seen[..., -1:]], -1)

    past = (
        tensors["position"][:, :, : now + 1],
        tensors["heading"][:, :, : now + 1],
        tensors["velocity"][:, :, : now + 1],
    )
    if generator is not None:
        past = disturbed(*past, kind, config, generator)
    c = condition(
        position=past[0],
        heading=past[1],
        velocity=past[2],
        valid=seen,
        size=tensors["size"],
        kind=kind,
        light_pose=tensors["light_pose"],
        light_state=tensors["light_state"].long(),
        light_valid=light_valid,
        route=route,
        light_route=light_route,
    )
    frame, facing = c.pose[..., None, :2], c.pose[..., None, 2]
    future = slice(now + 1, now + 1 + config.model.knots * 5)
    position = to_local(tensors["position"][:, :, future], frame, facing)
    heading = tensors["heading"][:, :, future] - past[1][:, :, now:]
    known = valid[:, :, future] & c.valid[..., None]
    action, supported = encode(position, heading, known, c.speed, c.kind, c.size[..., 0])
    moved = (position.norm(dim=-1) * known).amax(-1) > STANDING
    weight = torch.where(moved, 1.0, config.standing_weight) * c.valid
    return Batch(
        conditioning=c,
        map=MapTensors(
            points=tensors["map_points"].float(),
            pose=tensors["map_pose"],
            length=tensors["map_length"],
            code=tensors["map_code"].long(),
            speed_limit=tensors["map_speed"],
            valid=tensors["map_valid"],
        ),
        action=action,
        action_valid=supported & c.valid[..., None],
        position=position,
        heading=heading,
        valid=known,
        weight=weight,
    )
