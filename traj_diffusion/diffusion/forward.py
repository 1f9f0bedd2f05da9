"""The forward process: noise is added, in one go or step by step."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from traj_diffusion.diffusion.checks import align, all_finite, same_shape, tensor
from traj_diffusion.diffusion.schedules import DiscreteVP, Schedule, check_schedule, check_table


def add_noise(
    x0: Float[Tensor, "*shape"], eps: Float[Tensor, "..."], t: Shaped[Tensor, "..."], schedule: Schedule
) -> Float[Tensor, "*shape"]:
    """Return x_t = alpha(t) x0 + sigma(t) eps (Ho et al. 2020, eq. 4), in the dtype of x0.

    The shape of t must be that of the leading axes of x0, with 1 allowed for any: [] is one level for all, [B] one per
    row, [B, 1, H] one for each place along the third axis. ValueError: another shape of eps or t, a t out of range,
    values that are not finite.
    """
    check_schedule(schedule)
    _check(x0, eps, "x0")
    alpha = align(schedule.alpha(t), x0).to(x0.dtype)
    sigma = align(schedule.sigma(t), x0).to(x0.dtype)
    return alpha * x0 + sigma * eps.to(x0.dtype)


def noise_one_step(
    x_before: Float[Tensor, "*shape"], eps: Float[Tensor, "..."], t: Shaped[Tensor, "..."], schedule: DiscreteVP
) -> Float[Tensor, "*shape"]:
    """Return x_t from x_{t-1}: sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps (Ho et al. 2020, eq. 2).

    At t = 0 `x_before` is x0 itself. Walking from 0 to t with fresh noise gives what `add_noise` gives at t, in
    distribution.
    """
    check_table(schedule)
    _check(x_before, eps, "x_before")
    schedule.alpha(t)  # refuses a t out of range
    alpha_bar = torch.cat([schedule.alpha_bar.new_ones(1), schedule.alpha_bar]).to(t.device)
    keep = (alpha_bar[t.long() + 1] / alpha_bar[t.long()]).to(x_before.dtype)
    keep = align(keep, x_before)
    return keep.sqrt() * x_before + (1 - keep).sqrt() * eps.to(x_before.dtype)


def _check(x: Tensor, eps: Tensor, name: str) -> None:
    same_shape(tensor(eps, "eps"), tensor(x, name), "eps", name)
    all_finite(x, name)
    all_finite(eps, "eps")
