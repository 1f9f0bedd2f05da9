"""Loss weights as functions of lambda = log SNR, for a loss measured on x0: L = E w(lambda) |x0_hat - x0|².

Errors of one prediction measured on other targets differ only by a factor of alpha and sigma (`target_factor`):

    |eps error|² = SNR |x0 error|²        |v error|² = (alpha² + sigma²)² / sigma² |x0 error|²   (SNR + 1 for VP)
    |u error|² = (1 + alpha / sigma)² |x0 error|²

so the DDPM loss on eps is the loss on x0 with weight SNR. The networks may predict anything; convert, then weigh.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from traj_diffusion.diffusion.checks import known, number
from traj_diffusion.diffusion.parameterisations import PARAMETERISATIONS


def simple(log_snr: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Return SNR: the unweighted loss on eps (Ho et al. 2020, eq. 14). Infinite where there is no noise."""
    return torch.exp(log_snr)


def uniform(log_snr: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Return 1: the unweighted loss on x0."""
    return torch.ones_like(log_snr)


def min_snr(log_snr: Float[Tensor, "*axes"], gamma: float = 5.0) -> Float[Tensor, "*axes"]:
    """Return min(SNR, gamma) (Hang et al. 2023, section 3.4)."""
    number(gamma, "gamma", low=1e-6)
    return torch.exp(log_snr).clamp(max=gamma)


def edm(log_snr: Float[Tensor, "*axes"], sigma_data: float = 0.5) -> Float[Tensor, "*axes"]:
    """Return (sigma² + sigma_data²) / (sigma sigma_data)² = SNR + 1 / sigma_data² (Karras et al. 2022, table 1).

    Their sigma is ours where alpha = 1: sigma² = 1 / SNR. It makes the loss of a fresh preconditioned network equal
    at all levels.
    """
    number(sigma_data, "sigma_data", low=1e-6)
    return torch.exp(log_snr) + 1 / sigma_data**2


def sigmoid(log_snr: Float[Tensor, "*axes"], bias: float = -1.0) -> Float[Tensor, "*axes"]:
    """Return SNR sigmoid(bias - lambda) = exp(bias) sigmoid(lambda - bias) (Kingma and Gao 2023, appendix D; Hoogeboom
    et al. 2024, section 3).

    The sigmoid weighs eps in the papers. The second form stays finite where there is no noise.
    """
    number(bias, "bias")
    return torch.exp(torch.tensor(bias)).to(log_snr) * torch.sigmoid(log_snr - bias)


LOSS_WEIGHTS: Mapping[str, Callable[..., Tensor]] = {
    "simple": simple,
    "uniform": uniform,
    "min_snr": min_snr,
    "edm": edm,
    "sigmoid": sigmoid,
}


def loss_weight(name: str, **options: Any) -> Callable[[Tensor], Tensor]:
    """Return the weight of that name as a function of log_snr, with its options bound.

    >>> loss_weight("min_snr", gamma=2.0)(torch.tensor([-50.0, 3.0]))
    tensor([1.9287e-22, 2.0000e+00])
    """
    weight = partial(LOSS_WEIGHTS[known(name, LOSS_WEIGHTS, "loss weight")], **options)
    try:
        weight(torch.zeros(()))
    except TypeError as error:
        raise ValueError(f"loss weight {name!r}: {str(error).splitlines()[0]}") from error

    def weigh(log_snr: Tensor) -> Tensor:
        if torch.isnan(log_snr).any():
            raise ValueError("log_snr holds NaN: take it from a schedule, where it is infinite at worst")
        return weight(log_snr)

    return weigh


def target_factor(
    parameterisation: str, alpha: Float[Tensor, "*axes"], sigma: Float[Tensor, "*axes"]
) -> Float[Tensor, "*axes"]:
    """Return |target error|² / |x0 error|² of one prediction. Dividing a weight for x0 by it weighs that target."""
    known(parameterisation, PARAMETERISATIONS, "parameterisation")
    if parameterisation == "x0":
        return torch.ones_like(alpha)
    if parameterisation == "eps":
        return (alpha / sigma) ** 2
    if parameterisation == "v":
        return ((alpha**2 + sigma**2) / sigma) ** 2
    return (1 + alpha / sigma) ** 2
