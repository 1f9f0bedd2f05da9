"""What a network may predict, and the way from each target to every other one.

With x_t = alpha x0 + sigma eps each target is a combination of x0 and eps:

    "x0"   x0                          clean data
    "eps"  eps                         noise                       (Ho et al. 2020)
    "v"    v = alpha eps - sigma x0    v-prediction                (Salimans and Ho 2022, appendix D)
    "u"    u = eps - x0                velocity dx_t/dt of a straight flow; flow matching with time turned round

so one of them and x_t give x0 and eps, and these give all others. Two ways are singular: x0 from eps where alpha = 0
(pure noise), and eps from x0 where sigma = 0 (clean data).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from traj_diffusion.diffusion.checks import align, all_finite, known, same_shape, tensor
from traj_diffusion.diffusion.schedules import Schedule, check_schedule

PARAMETERISATIONS = ("x0", "eps", "v", "u")

# The one signature that samplers use, with the conditioning bound: (x_t, t) -> estimate of x0. A sampler passes a t of
# shape [B], or one level per element, [B, ..., H], where levels differ along an axis.
Denoiser = Callable[[Tensor, Tensor], Tensor]


def target(
    parameterisation: str,
    x0: Float[Tensor, "*shape"],
    eps: Float[Tensor, "..."],
    alpha: Float[Tensor, "..."],
    sigma: Float[Tensor, "..."],
) -> Float[Tensor, "*shape"]:
    """Return what a network of that parameterisation should predict."""
    known(parameterisation, PARAMETERISATIONS, "parameterisation")
    same_shape(tensor(eps, "eps"), tensor(x0, "x0"), "eps", "x0")
    all_finite(x0, "x0")
    all_finite(eps, "eps")
    alpha, sigma = _levels(x0, alpha, sigma)
    if parameterisation == "x0":
        return x0
    if parameterisation == "eps":
        return eps
    if parameterisation == "u":
        return eps - x0
    return alpha.to(x0.dtype) * eps - sigma.to(x0.dtype) * x0


def to_x0(
    parameterisation: str,
    prediction: Float[Tensor, "*shape"],
    x_t: Float[Tensor, "..."],
    alpha: Float[Tensor, "..."],
    sigma: Float[Tensor, "..."],
) -> Float[Tensor, "*shape"]:
    """Return x0 from a prediction at x_t. ValueError for "eps" where alpha = 0, and for values that are not finite.

    A prediction with a gradient is not looked through: while it is trained, a loss that is not finite shows it.
    """
    alpha, sigma = _fitting(parameterisation, prediction, x_t, alpha, sigma)
    if parameterisation == "x0":
        return prediction
    if parameterisation == "v":  # alpha x_t - sigma v = (alpha² + sigma²) x0
        return (alpha * x_t - sigma * prediction) / (alpha**2 + sigma**2)
    if parameterisation == "u":  # x_t - sigma u = (alpha + sigma) x0
        return (x_t - sigma * prediction) / (alpha + sigma)
    if (alpha == 0).any():
        raise ValueError("x0 cannot be had from eps where alpha = 0 (x_t is pure noise): predict v, u or x0 there")
    return (x_t - sigma * prediction) / alpha


def to_eps(
    parameterisation: str,
    prediction: Float[Tensor, "*shape"],
    x_t: Float[Tensor, "..."],
    alpha: Float[Tensor, "..."],
    sigma: Float[Tensor, "..."],
) -> Float[Tensor, "*shape"]:
    """Return eps from a prediction at x_t. ValueError for "x0" where sigma = 0."""
    alpha, sigma = _fitting(parameterisation, prediction, x_t, alpha, sigma)
    if parameterisation == "eps":
        return prediction
    if parameterisation == "v":  # sigma x_t + alpha v = (alpha² + sigma²) eps
        return (sigma * x_t + alpha * prediction) / (alpha**2 + sigma**2)
    if parameterisation == "u":  # x_t + alpha u = (alpha + sigma) eps
        return (x_t + alpha * prediction) / (alpha + sigma)
    if (sigma == 0).any():
        raise ValueError("eps cannot be had from x0 where sigma = 0 (x_t is clean): predict eps, v or u there")
    return (x_t - alpha * prediction) / sigma


def convert(
    prediction: Float[Tensor, "*shape"],
    source: str,
    to: str,
    x_t: Float[Tensor, "..."],
    alpha: Float[Tensor, "..."],
    sigma: Float[Tensor, "..."],
) -> Float[Tensor, "*shape"]:
    """Return a prediction of parameterisation `source` as one of `to`, by way of (x0, eps).

    ValueError where the way is singular: it names the parameterisation that works.
    """
    known(to, PARAMETERISATIONS, "parameterisation")
    if source == to:
        _fitting(source, prediction, x_t, alpha, sigma)
        return prediction
    if to == "x0":
        return to_x0(source, prediction, x_t, alpha, sigma)
    if to == "eps":
        return to_eps(source, prediction, x_t, alpha, sigma)
    x0 = to_x0(source, prediction, x_t, alpha, sigma)
    return target(to, x0, to_eps(source, prediction, x_t, alpha, sigma), alpha, sigma)


def as_denoiser(network: Denoiser, parameterisation: str, schedule: Schedule) -> Denoiser:
    """Return the network, which predicts `parameterisation` from (x_t, t), as a function (x_t, t) -> x0."""
    known(parameterisation, PARAMETERISATIONS, "parameterisation")
    check_schedule(schedule)

    def denoise(x_t: Float[Tensor, "*shape"], t: Shaped[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        prediction = network(x_t, t)
        if parameterisation == "x0":
            same_shape(tensor(prediction, "the prediction"), x_t, "the prediction", "x_t")
            return prediction
        return to_x0(parameterisation, prediction, x_t, schedule.alpha(t), schedule.sigma(t))

    return denoise


def _fitting(
    parameterisation: str, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor]:
    known(parameterisation, PARAMETERISATIONS, "parameterisation")
    same_shape(tensor(prediction, "the prediction"), tensor(x_t, "x_t"), "the prediction", "x_t")
    all_finite(x_t, "x_t")
    if not prediction.requires_grad:
        all_finite(prediction, "the prediction")
    dtype = torch.promote_types(prediction.dtype, x_t.dtype)
    alpha, sigma = _levels(x_t, alpha, sigma)
    return alpha.to(dtype), sigma.to(dtype)


def _levels(x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = align(alpha, x, "alpha"), align(sigma, x, "sigma")
    same_shape(alpha, sigma, "alpha", "sigma")
    for name, level in (("alpha", alpha), ("sigma", sigma)):
        all_finite(level, name)
        if (level < 0).any():
            raise ValueError(f"{name} must not be negative, got {level.min().item():g}")
    if ((alpha == 0) & (sigma == 0)).any():
        raise ValueError("alpha and sigma are both 0 somewhere: x_t holds nothing there; take them from one schedule")
    return alpha, sigma
