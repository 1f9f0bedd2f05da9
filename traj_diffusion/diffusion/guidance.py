"""Guidance: a denoiser goes in, a denoiser that leans towards something comes out."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from traj_diffusion.diffusion.checks import align, all_finite, number, same_shape, tensor
from traj_diffusion.diffusion.parameterisations import Denoiser
from traj_diffusion.diffusion.schedules import Schedule, check_schedule


def classifier_free(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """Return unconditional + scale (conditional - unconditional), in x0 (Ho and Salimans 2022, eq. 6, scale = 1 + w).

    Scale 1 is the conditional model and 0 the other; above 1 the condition is exaggerated. In x0 this is the same as
    in eps, for both are linear in each other.
    """
    number(scale, "scale")

    def denoise(x_t: Float[Tensor, "*shape"], t: Shaped[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        without, with_it = unconditional(x_t, t), conditional(x_t, t)
        same_shape(tensor(without, "the unconditional x0"), x_t, "the unconditional x0", "x_t")
        same_shape(tensor(with_it, "the conditional x0"), x_t, "the conditional x0", "x_t")
        return without + scale * (with_it - without)

    return denoise


def guided(
    denoise: Denoiser,
    log_weight: Callable[[Tensor], Tensor],
    schedule: Schedule,
    scale: float = 1.0,
    through_denoiser: bool = True,
) -> Denoiser:
    """Return a denoiser for data reweighted by exp(scale log_weight(x0)): reconstruction guidance.

    `log_weight` takes x0 [B, ...] and returns one number per row [B], or one for all; autograd takes its gradient. By
    Tweedie's formula the score of the weight at x_t moves the estimate (Ho et al. 2022, eq. 7; Chung et al. 2023,
    eq. 16):

        x0' = x0 + (sigma² / alpha) grad_{x_t} log_weight(x0(x_t))

    The factor and the denoiser's Jacobian together are the covariance of x0 given x_t. With `through_denoiser` False,
    and where alpha = 0, that of unit normal data stands for it, sigma² / (alpha² + sigma²) (Song et al. 2023, section
    3.2): no backward pass through the network. Exact for a linear weight and Gaussian data, otherwise the usual
    approximation that takes x0(x_t) for x0. ValueError where autograd finds no way from the weight to x_t.
    """
    check_schedule(schedule)
    number(scale, "scale")

    def guided_denoise(x_t: Float[Tensor, "*shape"], t: Shaped[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        alpha = align(schedule.alpha(t), x_t).to(x_t.dtype)
        sigma = align(schedule.sigma(t), x_t).to(x_t.dtype)
        through = through_denoiser and bool((alpha > 0).all())
        with torch.enable_grad():
            x = x_t.detach().requires_grad_(through)
            x0 = denoise(x, t) if through else denoise(x, t).detach().requires_grad_()
            slope = _slope(tensor(log_weight(x0), "log_weight(x0)"), x if through else x0)
        gain = sigma**2 / alpha if through else sigma**2 / (alpha**2 + sigma**2)
        return x0.detach() + scale * gain * slope

    return guided_denoise


def _slope(weight: Tensor, by: Tensor) -> Tensor:
    """Return the gradient of a weight, one number or one per row, by a tensor [B, ...]."""
    if weight.ndim > 0 and weight.shape != by.shape[:1]:
        raise ValueError(
            f"log_weight returned shape {list(weight.shape)}: one number is wanted, or one per row, "
            f"{list(by.shape[:1])}"
        )
    all_finite(weight, "log_weight(x0)")
    slope = torch.autograd.grad(weight.sum(), by, allow_unused=True)[0] if weight.requires_grad else None
    if slope is None:
        raise ValueError(
            "log_weight(x0) has no gradient: compute it from x0 by torch operations that have one; where the denoiser "
            "has none, pass through_denoiser=False"
        )
    all_finite(slope, "the gradient of log_weight")
    return slope
