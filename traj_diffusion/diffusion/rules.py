"""Step rules: one step of a sampler, from the level it is at to the next one down.

All are written in terms of the denoiser's x0. With lambda = log alpha²/sigma² / 2 (half the log SNR, as the papers on
DPM-Solver have it) and h = lambda_there - lambda_here. A rule gets two `Level`s, whose alpha and sigma are numbers, or
one number per element. At the clean end sigma = 0 and h is infinite; the formulas then return x0.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from traj_diffusion.diffusion.checks import make, number
from traj_diffusion.diffusion.schedules import Schedule


@dataclass(frozen=True)
class Level:
    """A time and its alpha and sigma. All are 0-dimensional, or all broadcast to x."""

    t: Shaped[Tensor, "..."]
    alpha: Float[Tensor, "..."]
    sigma: Float[Tensor, "..."]

    @property
    def half_log_snr(self) -> Float[Tensor, "..."]:
        """lambda of the papers on DPM-Solver."""
        return self.alpha.log() - self.sigma.log()


@dataclass(frozen=True)
class Ask:
    """What a rule may ask for while it steps."""

    x0: Callable[[Tensor, Level], Tensor]  # the denoiser's x0 of x at a level
    noise: Callable[[], Tensor]  # fresh unit normal noise in the shape of x
    schedule: Schedule
    steps: int  # of the whole grid


Past = tuple[Level, Tensor]


class Rule(ABC):
    """One step. A rule keeps nothing between steps; what it saw at the previous level comes in as `past`."""

    evaluations: ClassVar[int] = 1  # of the network, in each step but the last
    per_element: ClassVar[bool] = True  # works where each element has levels of its own

    @property
    def stochastic(self) -> bool:
        """Whether the rule asks for noise."""
        return False

    def misfit(self, schedule: Schedule) -> str | None:
        """Return what would fit, where this rule does not fit the schedule."""
        return None

    @abstractmethod
    def __call__(self, x: Tensor, here: Level, there: Level, ask: Ask, past: Past | None) -> tuple[Tensor, Tensor]:
        """Return x at the next level, and the x0 that was estimated at this one."""


@dataclass(frozen=True)
class Ddpm(Rule):
    """Ancestral sampling: a draw from q(x_s | x_t, x0) (Ho et al. 2020, eq. 7; for any alpha and sigma Kingma et al.
    2021, eq. 25)."""

    @property
    def stochastic(self) -> bool:
        """Ancestral sampling draws at every step but the last."""
        return True

    def __call__(self, x: Tensor, here: Level, there: Level, ask: Ask, past: Past | None) -> tuple[Tensor, Tensor]:
        """Return the posterior mean plus noise."""
        x0 = ask.x0(x, here)
        ratio = here.alpha / there.alpha
        added = here.sigma**2 - ratio**2 * there.sigma**2  # variance of q(x_t | x_s)
        mean = to(x, ratio * (there.sigma / here.sigma) ** 2) * x + to(x, there.alpha * added / here.sigma**2) * x0
        return _with_noise(mean, added.clamp(min=0).sqrt() * there.sigma / here.sigma, ask), x0


@dataclass(frozen=True)
class Ddim(Rule):
    """DDIM: eta = 0 is deterministic, eta = 1 has the variance of ancestral sampling (Song et al. 2021, eq. 12, 16)."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        number(self.eta, "eta", 0.0, 1.0)

    @property
    def stochastic(self) -> bool:
        """Noise is drawn for eta > 0."""
        return self.eta > 0

    def __call__(self, x: Tensor, here: Level, there: Level, ask: Ask, past: Past | None) -> tuple[Tensor, Tensor]:
        """Return x0 and eps mixed at the next level, part of eps being fresh."""
        x0 = ask.x0(x, here)
        eps = (x - to(x, here.alpha) * x0) / to(x, here.sigma)
        added = here.sigma**2 - (here.alpha / there.alpha) ** 2 * there.sigma**2
        fresh = self.eta * added.clamp(min=0).sqrt() * there.sigma / here.sigma
        kept = (there.sigma**2 - fresh**2).clamp(min=0).sqrt()
        return _with_noise(to(x, there.alpha) * x0 + to(x, kept) * eps, fresh, ask), x0


@dataclass(frozen=True)
class DpmSolver(Rule):
    """DPM-Solver++ of order 1 or 2 (multistep), as ODE or as SDE (Lu et al. 2022b, eq. 9, alg. 2, appendix A).

    Order 1 of the ODE is DDIM, order 1 of the SDE ancestral sampling. The first and the last step are of order 1.
    """

    order: int = 2
    sde: bool = False

    def __post_init__(self) -> None:
        if self.order not in (1, 2) or not isinstance(self.sde, bool):
            raise ValueError(f"DPM-Solver++ has order 1 or 2 and sde true or false, got {self.order} and {self.sde!r}")

    @property
    def per_element(self) -> bool:  # type: ignore[override]
        """The second order needs what it saw one step ago, at the same places."""
        return self.order == 1

    @property
    def stochastic(self) -> bool:
        """The SDE draws noise."""
        return self.sde

    def __call__(self, x: Tensor, here: Level, there: Level, ask: Ask, past: Past | None) -> tuple[Tensor, Tensor]:
        """Return the exact solution with x0 held (order 1) or extrapolated to the middle of the step (order 2)."""
        x0 = ask.x0(x, here)
        h = there.half_log_snr - here.half_log_snr
        middle = x0
        if self.order == 2 and past is not None and bool(torch.isfinite(h)):
            before, x0_before = past
            r = (here.half_log_snr - before.half_log_snr) / h  # infinite after a start from pure noise: order 1 then
            middle = x0 + to(x, 1 / (2 * r)) * (x0 - x0_before)
        times = 2 if self.sde else 1
        keep = there.sigma / here.sigma * (torch.exp(-h) if self.sde else 1)
        mean = to(x, keep) * x - to(x, there.alpha * torch.expm1(-times * h)) * middle
        if not self.sde:
            return mean, x0
        return _with_noise(mean, there.sigma * (-torch.expm1(-2 * h)).clamp(min=0).sqrt(), ask), x0


@dataclass(frozen=True)
class Heun(Rule):
    """Heun's method on dx/dsigma = (x - x0) / sigma, with churn: noise is added before a step (Karras et al. 2022,
    alg. 2). `churn` is their S_churn, shared out among the steps; 0 is deterministic, of order 2."""

    churn: float = 0.0
    churn_from: float = 0.05  # S_min
    churn_to: float = 50.0  # S_max
    noise_scale: float = 1.0  # S_noise
    evaluations: ClassVar[int] = 2
    per_element: ClassVar[bool] = False

    def __post_init__(self) -> None:
        number(self.churn, "churn", 0.0)
        number(self.churn_from, "churn_from", 0.0)
        number(self.noise_scale, "noise_scale", 0.0)
        if not self.churn_to >= self.churn_from:
            raise ValueError(f"churn_to must not be below churn_from, got {self.churn_to} and {self.churn_from}")

    @property
    def stochastic(self) -> bool:
        """Churn draws noise."""
        return self.churn > 0

    def misfit(self, schedule: Schedule) -> str | None:
        """It wants alpha = 1."""
        return None if schedule.family == "edm" else "an Edm schedule (alpha = 1)"

    def __call__(self, x: Tensor, here: Level, there: Level, ask: Ask, past: Past | None) -> tuple[Tensor, Tensor]:
        """Return x after an Euler step, corrected by the mean of both slopes unless it ends at sigma = 0."""
        if self.churn > 0 and self.churn_from <= float(here.sigma) <= self.churn_to:
            x, here = self._churned(x, here, ask)
        x0 = ask.x0(x, here)
        return _heun(x, x0, here, there, ask), x0

    def _churned(self, x: Tensor, here: Level, ask: Ask) -> tuple[Tensor, Level]:
        gamma = min(self.churn / ask.steps, math.sqrt(2) - 1)
        largest = ask.schedule.sigma(here.t.new_tensor(ask.schedule.t_max))
        sigma = (here.sigma * (1 + gamma)).clamp(max=largest)
        level = Level(ask.schedule.t_of_log_snr(-2 * sigma.log()), here.alpha, sigma)
        return x + (sigma**2 - here.sigma**2).clamp(min=0).sqrt() * self.noise_scale * ask.noise(), level


@dataclass(frozen=True)
class FlowEuler(Rule):
    """Euler's method on dx/dt = u = eps - x0 (Lipman et al. 2023; Liu et al. 2023)."""

    def misfit(self, schedule: Schedule) -> str | None:
        """It wants a straight line."""
        return None if schedule.family == "flow" else "a StraightFlow schedule (alpha + sigma = 1)"

    def __call__(self, x: Tensor, here: Level, there: Level, ask: Ask, past: Past | None) -> tuple[Tensor, Tensor]:
        """Return x + (s - t) u."""
        x0 = ask.x0(x, here)
        return x + to(x, (there.sigma - here.sigma) / here.sigma) * (x - x0), x0


@dataclass(frozen=True)
class FlowHeun(Rule):
    """Heun's method on dx/dt = u = eps - x0 = (x - x0) / t; order 2. The step to t = 0 is Euler's."""

    evaluations: ClassVar[int] = 2
    per_element: ClassVar[bool] = False

    def misfit(self, schedule: Schedule) -> str | None:
        """It wants a straight line."""
        return FlowEuler().misfit(schedule)

    def __call__(self, x: Tensor, here: Level, there: Level, ask: Ask, past: Past | None) -> tuple[Tensor, Tensor]:
        """Return x + (s - t) times the mean of u at both ends."""
        x0 = ask.x0(x, here)
        return _heun(x, x0, here, there, ask), x0


def to(x: Tensor, factor: Tensor) -> Tensor:
    """Return a factor that was computed in float64 as one that leaves dtype and device of x alone."""
    return factor if factor.ndim == 0 else factor.to(x)


def _heun(x: Tensor, x0: Tensor, here: Level, there: Level, ask: Ask) -> Tensor:
    """Both families have slope (x - x0) / sigma against sigma: in EDM by definition, in a flow as sigma = t."""
    slope = (x - x0) / to(x, here.sigma)
    step = to(x, there.sigma - here.sigma)
    euler = x + step * slope
    if there.sigma == 0:
        return euler
    return x + step * (slope + (euler - ask.x0(euler, there)) / to(x, there.sigma)) / 2


def _with_noise(mean: Tensor, std: Tensor, ask: Ask) -> Tensor:
    return mean + to(mean, std) * ask.noise() if bool((std > 0).any()) else mean


RULES: Mapping[str, Callable[..., Rule]] = {
    "ddpm": Ddpm,
    "ddim": Ddim,
    "dpm": DpmSolver,
    "heun": Heun,
    "flow_euler": FlowEuler,
    "flow_heun": FlowHeun,
}


def make_rule(name: str, **options: Any) -> Rule:
    """Return the step rule of that name, as a configuration file spells it.

    >>> make_rule("dpm", order=2, sde=True)
    DpmSolver(order=2, sde=True)
    """
    return make(name, RULES, "step rule", options)
