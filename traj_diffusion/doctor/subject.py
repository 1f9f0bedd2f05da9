"""Whom the doctor examines: the parts of a diffusion model as functions, so that anybody's model can be one.

Actions and noise have the layout [B, A, K, k, 3]: K futures of the A agents of B examples, k knots of action. A level t
has the shape [B]; it is an integer tensor where the schedule is discrete. `adapt.py` makes subjects of checkpoints.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from traj_diffusion.diffusion import Ddim, as_denoiser, initial_noise, sample, target, to_x0, uniform_grid
from traj_diffusion.diffusion import add_noise as add_noise_by
from traj_diffusion.diffusion.schedules import Schedule
from traj_diffusion.kinematics import Motion, decode
from traj_diffusion.scene import Policy, Scene
from traj_diffusion.training.batch import Batch

# (x_t, t) -> what the network says; the conditioning is bound.
Bound = Callable[[Tensor, Tensor], Tensor]
# Binds the conditioning of a batch, so that it is encoded once and asked at many levels.
Network = Callable[[Batch], Bound]
Scaling = Callable[[Tensor, Tensor], Tensor]  # (actions [B A ...], kind [B A]) -> the same, scaled


@dataclass(frozen=True)
class Subject:
    """A diffusion process and, where `network` is given, a model with data to try it on.

    Only the first group is needed without a model. Every function must be the very one that training or sampling
    uses: what is passed here is what is examined.
    """

    name: str
    schedule: Schedule
    parameterisation: str  # what the sampler takes the network's output for: x0, eps, v, u
    add_noise: Callable[[Tensor, Tensor, Tensor], Tensor]  # (x0, eps, t) -> x_t, as in training
    target: Callable[[Tensor, Tensor, Tensor], Tensor]  # (x0, eps, t) -> what the network is trained to say
    to_x0: Callable[[Tensor, Tensor, Tensor], Tensor]  # (prediction, x_t, t) -> x0
    prior: Callable[[int, tuple[int, ...]], Tensor]  # (seed, shape) -> x_T, from which sampling starts
    sampler: Callable[[Bound, Tensor], Tensor]  # (network, x_T) -> x0

    network: Network | None = None
    batch: Batch | None = None
    normalise: Scaling | None = None
    denormalise: Scaling | None = None
    drive: Callable[[Tensor, Batch], Motion] | None = None  # physical actions [B A K k 3] -> where they lead
    policy: Policy | None = None  # for closed loops on `scenes`
    scenes: tuple[Scene, ...] = ()
    # A new, untrained network of the same architecture and its parameters, made under torch's global seed.
    fresh: Callable[[], tuple[list[torch.nn.Parameter], Network]] | None = None
    weights: Mapping[str, Tensor] | None = None  # of the network
    initial: Mapping[str, Tensor] | None = None  # the same before training, to tell constants that never moved
    average: Mapping[str, Tensor] | None = None  # the moving average that training kept
    earlier: tuple["Subject", ...] = ()  # the same training's other checkpoints, in order of their steps


def plain_subject(schedule: Schedule, parameterisation: str = "v", steps: int = 8, name: str = "schedule") -> Subject:
    """Return the process that this package makes of a schedule, without a model."""

    def levels(t: Tensor) -> tuple[Tensor, Tensor]:
        return schedule.alpha(t), schedule.sigma(t)

    def prior(seed: int, shape: tuple[int, ...]) -> Tensor:
        return initial_noise(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), schedule)

    def sampler(network: Bound, x_T: Tensor) -> Tensor:
        grid = uniform_grid(schedule, steps)
        return sample(as_denoiser(network, parameterisation, schedule), x_T, schedule, grid, Ddim())

    return Subject(
        name=name,
        schedule=schedule,
        parameterisation=parameterisation,
        add_noise=lambda x0, eps, t: add_noise_by(x0, eps, t, schedule),
        target=lambda x0, eps, t: target(parameterisation, x0, eps, *levels(t)),
        to_x0=lambda prediction, x_t, t: to_x0(parameterisation, prediction, x_t, *levels(t)),
        prior=prior,
        sampler=sampler,
    )


def drive(action: Tensor, batch: Batch) -> Motion:
    """Return where physical actions [B A K k 3] lead by this package's kinematics, in each agent's own frame."""
    c = batch.conditioning

    def per_future(value: Tensor) -> Tensor:
        return value[:, :, None].expand(-1, -1, action.shape[2], *(-1,) * (value.ndim - 2))

    return decode(action, per_future(c.speed), per_future(c.kind), per_future(c.size[..., 0]))
