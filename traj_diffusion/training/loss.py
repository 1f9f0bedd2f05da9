"""The loss: what the network predicts against the clean actions, and where those actions lead against the record."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from traj_diffusion.diffusion import Schedule, add_noise, make_schedule, target, to_x0
from traj_diffusion.kinematics import decode
from traj_diffusion.model import TrafficDiffusion
from traj_diffusion.training.batch import Batch
from traj_diffusion.training.config import TrainConfig


class Objective(nn.Module):
    """The training loss as a module, so that whatever wraps a module (precision, many processes) wraps all of it."""

    def __init__(self, model: TrafficDiffusion, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.schedule = make_schedule(model.config.schedule)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss of one batch and its parts; noise comes from the generator, which is on the CPU."""
        return training_loss(self.model, batch, self.schedule, self.config, generator)


def training_loss(
    model: TrafficDiffusion, batch: Batch, schedule: Schedule, config: TrainConfig, generator: torch.Generator
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return the loss of one batch and its parts.

    The action part is the mean squared error of what the network says: x0, or eps (Ho et al. 2020), or v. The agents of
    most futures share their noise level, for the joint future is one sample; in the others each has its own, as where
    some are given. The trajectory part is a Huber loss of positions, weighed by the share of signal alpha²: where x_t
    is mostly noise, x0 is an average over futures and leads nowhere.
    """
    c, draws = batch.conditioning, config.noise_draws
    size, agents = batch.weight.shape
    kind, speed, length = c.kind[:, :agents], c.speed[:, :agents], c.size[:, :agents, 0]
    x0 = model.normalise(batch.action, kind)[:, :, None].expand(-1, -1, draws, -1, -1)
    t = noise_levels(size, agents, draws, config.mixed_levels, generator).to(x0.device)
    eps = torch.randn(x0.shape, generator=generator).to(x0.device)
    x_t = add_noise(x0.contiguous(), eps, t, schedule)

    prepared = model.encode(c, batch.map, model.encode_map(batch.map), agents)
    prediction = model(x_t, t, prepared)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    wanted = target(model.config.parameterisation, x0, eps, alpha, sigma)
    estimate = to_x0(model.config.parameterisation, prediction, x_t, alpha, sigma)

    supported = batch.action_valid[:, :, None, :, None] * batch.weight[:, :, None, None, None]
    action_loss = ((prediction - wanted).square() * supported).sum() / (supported.sum() * draws * 3).clamp(min=1)

    def per_draw(value: Tensor) -> Tensor:
        return value[:, :, None].expand(-1, -1, draws, *(-1,) * (value.ndim - 2))

    motion = decode(model.denormalise(estimate, kind), per_draw(speed), per_draw(kind), per_draw(length))
    miss = (motion.position - per_draw(batch.position)).norm(dim=-1)
    turn = 1 - torch.cos(motion.heading - per_draw(batch.heading))
    distance = functional.huber_loss(miss, torch.zeros_like(miss), reduction="none", delta=1.0) + 5 * turn
    known = per_draw(batch.valid * batch.weight[..., None]) * alpha.square()[..., None]
    trajectory_loss = (distance * known).sum() / known.sum().clamp(min=1)

    loss = action_loss + config.trajectory_weight * trajectory_loss
    return loss, {"loss": loss.detach(), "action": action_loss.detach(), "trajectory": trajectory_loss.detach()}


def noise_levels(
    size: int, agents: int, draws: int, mixed: float, generator: torch.Generator
) -> Float[Tensor, "B A D"]:
    """Return uniform diffusion times: shared by the agents of a future, or each its own in a share `mixed` of them."""
    shared = torch.rand(size, 1, draws, generator=generator)
    own = torch.rand(size, agents, draws, generator=generator)
    return torch.where(torch.rand(size, 1, draws, generator=generator) < mixed, own, shared)
