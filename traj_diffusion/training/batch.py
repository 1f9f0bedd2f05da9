"""From cached samples to what a training step needs: conditioning, the clean actions, and the recorded future."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from traj_diffusion.datasets.cache import Sample
from traj_diffusion.datasets.conditioning import (
    ABSENT_ROUTE,
    HISTORY_STEPS,
    KIND_OF_CODE,
    PLAIN_CODE,
    Conditioning,
    MapTensors,
    condition,
)
from traj_diffusion.geometry import to_local
from traj_diffusion.kinematics import encode
from traj_diffusion.model import TrafficDiffusion
from traj_diffusion.scene import MapKind
from traj_diffusion.training.config import TrainConfig
from traj_diffusion.training.disturb import disturbed
from traj_diffusion.training.roll_in import Past, driven, start_of_drive, until

STANDING = 0.5  # m; who moves less within the plan counts as standing
_PER_AGENT = ("position", "heading", "velocity", "valid", "size", "kind", "route", "light_route")
_PLAIN = torch.tensor(PLAIN_CODE)
_SUBTYPES = torch.tensor([KIND_OF_CODE.count(kind) for kind in KIND_OF_CODE])
_CROSSWALK, _SPEED_BUMP = (KIND_OF_CODE.index(kind) for kind in (MapKind.CROSSWALK, MapKind.SPEED_BUMP))


@dataclass(frozen=True)
class Batch:
    """One training batch. Futures are in each agent's own frame at the present step.

    The first F of the A agents of the conditioning are denoised; the others are only seen.
    """

    conditioning: Conditioning
    map: MapTensors
    action: Float[Tensor, "B F k 3"]
    action_valid: Bool[Tensor, "B F k"]
    position: Float[Tensor, "B F T 2"]
    heading: Float[Tensor, "B F T"]
    valid: Bool[Tensor, "B F T"]
    weight: Float[Tensor, "B F"]

    def to(self, device: torch.device | str) -> "Batch":
        """Return a copy on that device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def make_batch(
    sample: Sample, config: TrainConfig, generator: torch.Generator | None, driver: TrafficDiffusion | None = None
) -> Batch:
    """Return the batch of cached samples at their current index; with a generator, parts of it are hidden at random.

    With a driver, in a share `config.roll_in` of batches, the last part of the past is what that model drove.
    """
    tensors = {name: torch.from_numpy(array) for name, array in sample.items()}
    now = HISTORY_STEPS - 1
    future = slice(now + 1, now + 1 + config.model.knots * 5)
    tensors = _in_focus_first(tensors, now, future, generator)
    seen = tensors["valid"][:, :, : now + 1]
    past = Past(*(tensors[name][:, :, : now + 1] for name in Past._fields))
    if generator is not None:
        tensors, seen = _hide(tensors, seen, config, generator)
        past = _off_record(tensors, past, seen, config, generator, driver)
    c = _condition(tensors, past, seen)
    ours = slice(None if generator is None else config.focus)
    frame, facing = c.pose[:, ours, None, :2], c.pose[:, ours, None, 2]
    position = to_local(tensors["position"][:, ours, future], frame, facing)
    heading = tensors["heading"][:, ours, future] - past.heading[:, ours, now:]
    known = tensors["valid"][:, ours, future] & c.valid[:, ours, None]
    action, supported = encode(position, heading, known, c.speed[:, ours], c.kind[:, ours], c.size[:, ours, 0])
    moved = (position.norm(dim=-1) * known).amax(-1) > STANDING
    weight = torch.where(moved, 1.0, config.standing_weight) * c.valid[:, ours]
    return Batch(
        conditioning=c,
        map=_map(tensors),
        action=action,
        action_valid=supported & c.valid[:, ours, None],
        position=position,
        heading=heading,
        valid=known,
        weight=weight,
    )


def _off_record(
    tensors: dict[str, Tensor],
    past: Past,
    seen: Bool[Tensor, "B A H"],
    config: TrainConfig,
    generator: torch.Generator,
    driver: TrafficDiffusion | None,
) -> Past:
    """Return a past from which the recorded future is not simply to go on: driven by a model, or disturbed."""
    if driver is None or float(torch.rand((), generator=generator)) >= config.roll_in:
        return Past(*disturbed(*past, tensors["kind"].long(), config, generator))
    begin, device = start_of_drive(generator), driver.action_scale.device
    then = _condition(tensors, *until(past, seen, begin)).to(device)
    return driven(driver, then, _map(tensors).to(device), past, seen, begin, config.focus, generator)


def _condition(tensors: dict[str, Tensor], past: Past, seen: Bool[Tensor, "B A H"]) -> Conditioning:
    return condition(
        position=past.position,
        heading=past.heading,
        velocity=past.velocity,
        valid=seen,
        size=tensors["size"],
        kind=tensors["kind"].long(),
        light_pose=tensors["light_pose"],
        light_state=tensors["light_state"].long(),
        light_valid=tensors["light_seen"],
        route=tensors["route"].long(),
        light_route=tensors["light_route"].long(),
    )


def _map(tensors: dict[str, Tensor]) -> MapTensors:
    return MapTensors(
        points=tensors["map_points"].float(),
        pose=tensors["map_pose"],
        length=tensors["map_length"],
        code=tensors["map_code"].long(),
        speed_limit=tensors["map_speed"],
        valid=tensors["map_valid"],
    )


def _in_focus_first(
    tensors: dict[str, Tensor], now: int, future: slice, generator: torch.Generator | None
) -> dict[str, Tensor]:
    """Return the sample with those in front that will move, then those that stand, each in random order."""
    if generator is None:
        return tensors
    place, valid = tensors["position"], tensors["valid"]
    far = (place[:, :, future] - place[:, :, now : now + 1]).norm(dim=-1) * valid[:, :, future]
    moves = far.amax(-1) > STANDING
    rank = valid[:, :, now].float() + moves + 0.5 * torch.rand(moves.shape, generator=generator)
    order = rank.argsort(dim=1, descending=True)

    def sorted_along(value: Tensor) -> Tensor:
        index = order.reshape(*order.shape, *(1,) * (value.ndim - 2)).expand(-1, -1, *value.shape[2:])
        return value.gather(1, index)

    return {name: sorted_along(value) if name in _PER_AGENT else value for name, value in tensors.items()}


def _hide(
    tensors: dict[str, Tensor], seen: Bool[Tensor, "B A H"], config: TrainConfig, generator: torch.Generator
) -> tuple[dict[str, Tensor], Bool[Tensor, "B A H"]]:
    """Return the sample and its history without what sources may lack: routes, lights, limits, types, the past."""
    batch, agents = tensors["kind"].shape

    def chance(share: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) < share

    hidden = chance(config.drop_route, batch, agents)[..., None]
    limit, code = tensors["map_speed"], tensors["map_code"].long()
    plain = _PLAIN[code]
    code = torch.where(chance(config.drop_types, batch)[:, None], plain, code)
    # Types that no simulation makes, such as medians and speed bumps, must not be strangers to the model.
    other = plain + (torch.rand(code.shape, generator=generator) * _SUBTYPES[code]).long()
    other = torch.where(code == _CROSSWALK, _SPEED_BUMP, other)
    code = torch.where(chance(config.mistake_types, *code.shape), other, code)
    forgotten = chance(config.drop_history, batch, agents)
    return tensors | {
        "route": tensors["route"].masked_fill(hidden, ABSENT_ROUTE),
        "light_route": tensors["light_route"].masked_fill(hidden, ABSENT_ROUTE),
        "light_seen": tensors["light_seen"] & ~chance(config.drop_lights, batch)[:, None],
        "map_speed": limit.masked_fill(chance(config.drop_limits, batch)[:, None], 0.0),
        "map_code": code,
    }, torch.cat([seen[..., :-1] & ~forgotten[..., None], seen[..., -1:]], -1)
