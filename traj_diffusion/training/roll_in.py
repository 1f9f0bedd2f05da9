"""Histories that the model itself has driven, so that it learns to recover from its own errors.

Training on records alone shows a model no state that its own plans lead to, but closed loop shows it nothing else (Ross
et al. 2011, DAgger). Here everyone in focus drives half a second or a whole one up to the present by a plan of the
model's, from where it was recorded then; the clean actions lead back to the record from where that ends. Because the
present stays where it is, so do the lights, the map and all of the recorded future.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from traj_diffusion.datasets.conditioning import HISTORY_STEPS, Conditioning, MapTensors
from traj_diffusion.diffusion import DpmSolver, as_denoiser, initial_noise, make_schedule, power_grid, sample
from traj_diffusion.geometry import rotate, to_world
from traj_diffusion.kinematics import ACTION, decode
from traj_diffusion.model import TrafficDiffusion

DRIVEN = (5, 10)  # steps before the present from which the model drives, one or the other
DENOISING_STEPS = 2


class Past(NamedTuple):
    """Where agents were, up to the present."""

    position: Float[Tensor, "B A H 2"]
    heading: Float[Tensor, "B A H"]
    velocity: Float[Tensor, "B A H 2"]


def start_of_drive(generator: torch.Generator) -> int:
    """Return the index in the history of the last recorded step before the model drives."""
    return HISTORY_STEPS - 1 - DRIVEN[int(torch.randint(len(DRIVEN), (), generator=generator))]


def until(past: Past, seen: Bool[Tensor, "B A H"], begin: int) -> tuple[Past, Bool[Tensor, "B A H"]]:
    """Return the past up to that index, moved to the end of a history whose first steps nobody was seen in."""
    missing = seen.shape[2] - 1 - begin

    def later(value: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(value[:, :, :missing]), value[:, :, : begin + 1]], 2)

    return Past(*map(later, past)), later(seen)


@torch.no_grad()
def driven(
    model: TrafficDiffusion,
    c: Conditioning,
    map_: MapTensors,
    past: Past,
    seen: Bool[Tensor, "B A H"],
    begin: int,
    focus: int,
    generator: torch.Generator,
) -> Past:
    """Return the past in which the first `focus` agents follow a plan of the model's after index `begin`.

    `c` is the conditioning of that moment, on the model's device. Who was not seen all along stays as recorded.
    """
    ours = slice(focus)
    kind, pose = c.kind[:, ours], c.pose[:, ours]
    schedule = make_schedule(model.config.schedule)
    scene = model.encode(c, map_, model.encode_map(map_), focus)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        return model(x_t, t[:, None, None].expand(x_t.shape[:3]), scene)

    eps = torch.randn(*kind.shape, 1, model.config.knots, ACTION, generator=generator).to(pose.device)
    denoise = as_denoiser(predict, model.config.parameterisation, schedule)
    grid = power_grid(schedule, DENOISING_STEPS)
    x0 = sample(denoise, initial_noise(eps, schedule), schedule, grid, DpmSolver())
    motion = decode(model.denormalise(x0, kind)[:, :, 0], c.speed[:, ours], kind, c.size[:, ours, 0])

    steps = seen.shape[2] - 1 - begin
    there = (c.valid[:, ours] & seen[:, ours, begin:].all(-1).to(pose.device))[..., None]
    turned = past.heading[:, ours, begin, None].to(pose.device)
    ways = (
        to_world(motion.position, pose[..., None, :2], pose[..., None, 2]),
        motion.heading + turned,
        rotate(motion.velocity, turned),
    )

    def replaced(record: Tensor, way: Tensor) -> Tensor:
        record = record.clone()
        after = record[:, ours, begin + 1 :]
        mask = there if way.ndim == 3 else there[..., None]
        record[:, ours, begin + 1 :] = torch.where(mask.to(after.device), way[:, :, :steps].to(after), after)
        return record

    return Past(*map(replaced, past, ways))
