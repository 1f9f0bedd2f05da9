"""Checks of what must not matter: where the world's origin is, how agents are numbered, what invalid entries hold."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from traj_diffusion.datasets.conditioning import Conditioning, MapTensors
from traj_diffusion.doctor.case import Case
from traj_diffusion.doctor.findings import Finding, NotApplicable, factor, judged
from traj_diffusion.geometry import rotate, wrap_angle
from traj_diffusion.kinematics import DT
from traj_diffusion.training.batch import Batch

_LEVEL = 1.0
PER_AGENT = ("history", "pose", "speed", "velocity", "size", "kind", "valid", "route", "light_route")
PER_LIGHT = ("light_pose", "light_state", "light_valid")
OF_BATCH = ("action", "action_valid", "position", "heading", "valid", "weight")


def moved(batch: Batch, angle: float, shift: tuple[float, float]) -> Batch:
    """Return the same scenes in a world turned about its origin by `angle` and shifted."""
    c, turn, offset = batch.conditioning, torch.tensor(angle), torch.tensor(shift)

    def pose(value: Tensor) -> Tensor:
        place = rotate(value[..., :2], turn.expand(value.shape[:-1])) + offset
        return torch.cat([place, wrap_angle(value[..., 2:] + turn)], -1)

    c = replace(
        c,
        pose=pose(c.pose),
        velocity=rotate(c.velocity, turn.expand(c.velocity.shape[:-1])),
        light_pose=pose(c.light_pose),
    )
    return replace(batch, conditioning=c, map=replace(batch.map, pose=pose(batch.map.pose)))


def reordered(batch: Batch, order: Tensor) -> Batch:
    """Return the same scenes with their agents in another order."""
    c = replace(batch.conditioning, **{name: getattr(batch.conditioning, name)[:, order] for name in PER_AGENT})
    return replace(batch, conditioning=c, **{name: getattr(batch, name)[:, order] for name in OF_BATCH})


def equivariance(case: Case) -> Finding:
    """Turning and shifting the world must change nothing; renumbering agents must only renumber the answer."""
    x_t, t, _ = case.noised(_LEVEL)
    said = case.bound(x_t, t)
    turned = case.network(moved(case.batch, 0.7, (130.0, -90.0)))(x_t, t)
    order = torch.randperm(x_t.shape[1], generator=torch.Generator().manual_seed(3))
    renumbered = case.network(reordered(case.batch, order))(x_t[:, order], t)
    off = {"turned and shifted": _change(case, said, turned), "renumbered": 0.0}
    size = (said * case.mask).norm().clamp(min=1e-9)
    off["renumbered"] = float(((said[:, order] - renumbered) * case.mask[:, order]).norm() / size)
    worst = max(off, key=lambda name: off[name] if math.isfinite(off[name]) else math.inf)
    return judged(
        "model.equivariance",
        off[worst],
        3e-3,
        3e-2,
        f"with the world {worst if worst != 'renumbered' else 'the same and its agents renumbered'}, "
        f"answers change by {off[worst]:.2g} of their size",
        "world coordinates or row numbers leak into the network: give it poses relative to each agent, and keep "
        "agents' rows together",
    )


def _change(case: Case, said: Tensor, other: Tensor) -> float:
    return float(((said - other) * case.mask).norm() / (said * case.mask).norm().clamp(min=1e-9))


def validity(case: Case) -> Finding:
    """What is marked invalid must not be heard, and recorded futures must begin where agents are."""
    batch = case.batch
    x_t, t, _ = case.noised(_LEVEL)
    junk = with_junk(batch)
    there = batch.conditioning.valid[:, :, None, None, None]
    wild = torch.where(there, x_t, 3.0)
    added = junk.conditioning.valid.shape[1] - x_t.shape[1]
    padding = x_t.new_full((x_t.shape[0], added, *x_t.shape[2:]), 3.0)
    said = case.network(junk)(torch.cat([wild, padding], 1), t)[:, : x_t.shape[1]]
    heard = _change(case, case.bound(x_t, t), said)
    known = batch.valid[..., 0] & case.moving
    expected = torch.zeros_like(batch.position[..., 0, :])
    expected[..., 0] = batch.conditioning.speed[..., 0] * DT
    jump = (
        float((batch.position[..., 0, :] - expected).norm(dim=-1).clamp(max=1)[known].mean())
        if known.any()
        else math.nan
    )
    if not jump < _JUMP:
        return judged(
            "data.validity",
            jump,
            _JUMP,
            _JUMP,
            f"recorded futures begin {jump:.2g} m from where their agents' speed leads",
            "rows of conditioning and targets do not belong together: agents swapped, frames mixed, or steps shifted",
        )
    return judged(
        "data.validity",
        heard,
        1e-3,
        1e-2,
        f"what is marked invalid changes the answers by {heard:.2g} of their size; {_shares(batch)}",
        "mask invalid agents, map pieces and lights in every attention and pooling, and in the loss",
    )


_PADDING = 2
_JUMP = 0.08  # m; braking at 8 m/s2 makes half of it within a step


def with_junk(batch: Batch) -> Batch:
    """Return the batch with wild values in all entries that are not valid; where there are none, two are added.

    Others are not padded too: among equally near things the choice may depend on how many there are.
    """
    generator = torch.Generator().manual_seed(4)

    def junk(value: Tensor) -> Tensor:
        if value.dtype == torch.bool:
            return torch.zeros_like(value)
        if not value.is_floating_point():
            return torch.randint(0, 3, value.shape, generator=generator)
        return 20 * torch.randn(value.shape, generator=generator)

    def wild(value: Tensor, valid: Tensor, axis: int) -> Tensor:
        shape = [*value.shape]
        shape[axis] = 0 if valid.logical_not().any() else _PADDING
        mask = valid.reshape(*valid.shape[:1], *[1] * (axis - 1), -1, *[1] * (value.ndim - axis - 1))
        return torch.cat([torch.where(mask, value, junk(value)), junk(value.new_zeros(shape))], axis)

    c, pieces = batch.conditioning, batch.map
    values = {name: wild(getattr(c, name), c.valid, 1) for name in PER_AGENT if name not in ("route", "light_route")}
    values |= {name: wild(getattr(c, name), c.light_valid, 1) for name in PER_LIGHT}
    values |= {"route": wild(wild(c.route, pieces.valid, 2), c.valid, 1)}
    values |= {"light_route": wild(wild(c.light_route, c.light_valid, 2), c.valid, 1)}
    there = MapTensors(**{name: wild(value, pieces.valid, 1) for name, value in vars(pieces).items()})
    return replace(batch, conditioning=Conditioning(**values), map=there)


def _shares(batch: Batch) -> str:
    there = batch.conditioning.valid
    future = float(batch.action_valid[there].float().mean()) if there.any() else 0.0
    return f"{int(there.sum())} agents in {len(there)} examples, {future:.0%} of their futures recorded"


def normalisation(case: Case) -> Finding:
    """Normalised data must have about unit size in each coordinate, and the way back must be the inverse."""
    subject = case.subject
    if subject.normalise is None or subject.denormalise is None:
        raise NotApplicable("the subject has no normaliser")
    kind = case.batch.conditioning.kind
    there = subject.denormalise(case.x0, kind)
    action = case.batch.action[:, :, None]
    turned = float((((subject.normalise(action + 1, kind) - case.x0) <= 0) * case.mask).sum())
    if turned:
        return judged(
            "data.normalisation",
            turned,
            0.0,
            0.0,
            "the normaliser turns the sign of a coordinate, or wipes it out: a larger action gives no larger x0",
            "scales must be positive: look at the normaliser that is stored with the weights",
        )
    lost = float(((there - action) * case.mask).norm() / (action * case.mask).norm().clamp(min=1e-9))
    used = _used(case)
    power = (case.x0.square() * used).sum((0, 1, 2, 3)) / used.sum((0, 1, 2, 3)).clamp(min=1)
    few = used.amax((2, 3)).sum((0, 1)) < _FEW
    std = [value for value in power.masked_fill(few, 0).sqrt().tolist() if value > 1e-3]
    worst = max((factor(value) for value in std), default=math.inf)
    if not lost <= 1e-3:
        return judged(
            "data.normalisation",
            1 + lost,
            1.001,
            1.01,
            f"normalising and back changes actions by {lost:.2g} of their size",
            "the normaliser is applied twice, or on one way only",
        )
    return judged(
        "data.normalisation",
        worst,
        1.75,
        2.5,
        f"coordinates of normalised data have standard deviations of {', '.join(f'{value:.2g}' for value in std)}",
        "the normaliser does not belong to these data: missing, applied twice, or of another data set",
    )


_FEW = 8  # agents, of whom a standard deviation says little


def _used(case: Case) -> Float[Tensor, "B A 1 k 3"]:
    """1 where an action counts: of coordinates in which nobody of a kind moves (sideways, for vehicles) none does."""
    kind = case.batch.conditioning.kind
    moves = ((case.x0 * case.mask) != 0).flatten(2, 3).any(2)
    used = torch.zeros_like(case.mask * case.x0)
    for one in kind.unique():
        of_kind = kind == one
        used += (of_kind[..., None] & moves[of_kind].any(0))[:, :, None, None] * case.mask
    return used
