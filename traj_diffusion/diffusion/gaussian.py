"""Data whose ideal denoiser is known in closed form: Gaussians and their mixtures.

With x0 ~ sum_k w_k N(mu_k, S_k) the noised x_t = alpha x0 + sigma eps is a mixture again, and so is x0 given x_t:

    x_t ~ sum_k w_k N(alpha mu_k, alpha² S_k + sigma² I)
    E[x0 | x_t, k] = mu_k + alpha S_k (alpha² S_k + sigma² I)^-1 (x_t - alpha mu_k)

A sampler that gets this denoiser has only its own error to show.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from traj_diffusion.diffusion.checks import align, whole
from traj_diffusion.diffusion.parameterisations import Denoiser
from traj_diffusion.diffusion.schedules import Schedule


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """K Gaussians in D dimensions; all in float64. `gaussian` makes one of a single Gaussian."""

    weight: Float64[Tensor, " K"]
    mean: Float64[Tensor, "K D"]
    covariance: Float64[Tensor, "K D D"]

    def __post_init__(self) -> None:
        size, width = len(self.weight), self.mean.shape[-1]
        if self.mean.shape != (size, width) or self.covariance.shape != (size, width, width):
            raise ValueError(
                f"weight {list(self.weight.shape)}, mean {list(self.mean.shape)} and covariance "
                f"{list(self.covariance.shape)} do not fit: [K], [K, D] and [K, D, D] are wanted"
            )
        if not (torch.linalg.eigvalsh(self.covariance) > 0).all():
            raise ValueError("a covariance must be symmetric with positive eigenvalues")
        if not ((self.weight > 0).all() and abs(float(self.weight.sum()) - 1) < 1e-9):
            raise ValueError(f"weights must be positive and add up to 1, got {self.weight.tolist()}")

    @classmethod
    def gaussian(cls, mean: Float[Tensor, " D"], covariance: Float[Tensor, "D D"]) -> "GaussianMixture":
        """Return N(mean, covariance)."""
        return cls(torch.ones(1, dtype=torch.float64), mean.double()[None], covariance.double()[None])

    def draw(self, n: int, generator: torch.Generator) -> Float64[Tensor, "n D"]:
        """Return n points."""
        which = torch.multinomial(self.weight, n, replacement=True, generator=generator)
        unit = torch.randn(n, self.mean.shape[1], generator=generator, dtype=torch.float64)
        root = torch.linalg.cholesky(self.covariance)
        return self.mean[which] + torch.einsum("nij,nj->ni", root[which], unit)

    def nearest(self, x: Float[Tensor, "n D"]) -> Int[Tensor, " n"]:
        """Return the component most likely to have made each point."""
        zero = x.new_zeros((), dtype=torch.float64)
        return self._posterior(x.double(), zero + 1, zero)[0].argmax(0)

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """Return (x_t, t) -> E[x0 | x_t], the one with the least squared error. x_t is [..., D]; t is of any shape that
        fits it, down to one level per element."""

        def denoise(x_t: Float[Tensor, "*shape"], t: Tensor) -> Float[Tensor, "*shape"]:
            if x_t.shape[-1] != self.mean.shape[1]:
                raise ValueError(f"x_t has shape {list(x_t.shape)}: its last axis must be {self.mean.shape[1]}")
            alpha = align(schedule.alpha(t), x_t).double()
            sigma = align(schedule.sigma(t), x_t).double()
            log_weight, x0 = self._posterior(x_t.double(), alpha, sigma)
            return (log_weight.softmax(0)[..., None] * x0).sum(0).to(x_t.dtype)

        return denoise

    def _posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(k, x_t) up to a constant [K, ...] and E[x0 | x_t, k] [K, ..., D]."""
        one_level = alpha.ndim == 0 or alpha.shape[-1] == 1
        parts = self._one_level if one_level else self._own_levels
        found = [parts(k, x, alpha, sigma) for k in range(len(self.weight))]
        log_prior = self.weight.log().reshape(-1, *[1] * (x.ndim - 1))
        return log_prior + torch.stack([a for a, _ in found]), torch.stack([b for _, b in found])

    def _one_level(self, k: int, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        # In the axes of S_k everything is diagonal.
        value, vector = torch.linalg.eigh(self.covariance[k])
        away = (x - alpha * self.mean[k]) @ vector
        variance = alpha**2 * value + sigma**2
        log_density = -(away**2 / variance + variance.log()).sum(-1) / 2
        return log_density, self.mean[k] + (alpha * value / variance * away) @ vector.T

    def _own_levels(self, k: int, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        # alpha and sigma are diagonal matrices now.
        alpha, sigma = alpha.expand(x.shape), sigma.expand(x.shape)
        away = x - alpha * self.mean[k]
        covariance = alpha[..., :, None] * self.covariance[k] * alpha[..., None, :] + torch.diag_embed(sigma**2)
        solved = torch.linalg.solve(covariance, away)
        log_density = -((away * solved).sum(-1) + torch.logdet(covariance)) / 2
        return log_density, self.mean[k] + (alpha * solved) @ self.covariance[k]


def ring(modes: int = 8, radius: float = 2.0, std: float = 0.2) -> GaussianMixture:
    """Return round Gaussians in two dimensions on a circle, weights rising along it from 1 to 3 parts.

    >>> ring(2).weight.tolist()
    [0.25, 0.75]
    """
    whole(modes, "modes", 1)
    angle = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
    weight = torch.linspace(1, 3, modes, dtype=torch.float64)
    mean = radius * torch.stack([angle.cos(), angle.sin()], -1)
    covariance = std**2 * torch.eye(2, dtype=torch.float64).expand(modes, 2, 2)
    return GaussianMixture(weight / weight.sum(), mean, covariance.contiguous())
