"""Noise schedules: x_t = alpha(t) x0 + sigma(t) eps, and lambda(t) = log alpha²/sigma², the log signal-to-noise ratio.

Time runs from clean data to noise. A discrete t is an integer 0..n-1 and t = 0 already carries beta_0 (as in DDPM);
a continuous t is a real number in [0, 1], where 0 is clean. `family` says what alpha and sigma obey:

    "vp"    alpha² + sigma² = 1       variance preserving: DDPM, cosine
    "flow"  alpha + sigma = 1         straight line from noise to data
    "edm"   alpha = 1                 variance exploding, as Karras et al. use it
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

from traj_diffusion.diffusion.checks import make, number, whole


class Schedule(ABC):
    """How much signal and how much noise there is at each t.

    `alpha`, `sigma` and `log_snr` take a t of any shape and return that shape, in the dtype of t (the default one for
    the integers of a discrete schedule). A t out of range is a ValueError.
    """

    family: ClassVar[str]
    discrete: ClassVar[bool] = False

    @property
    def t_max(self) -> int | float:
        """The noisiest time."""
        return 1.0

    @property
    def clean(self) -> int | float:
        """The time of clean data, where alpha = 1 and sigma = 0. A grid ends there; no network is asked there.

        It is 0 in continuous time and -1 in discrete time, because a discrete t = 0 is noisy already.
        """
        return 0.0

    def alpha(self, t: Shaped[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """Return the factor of the signal."""
        return self._alpha(self._checked(t))

    def sigma(self, t: Shaped[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """Return the standard deviation of the noise."""
        return self._sigma(self._checked(t))

    def log_snr(self, t: Shaped[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """Return lambda = 2 log(alpha / sigma); infinite where there is no noise or no signal."""
        t = self._checked(t)
        return 2 * (self._alpha(t).log() - self._sigma(t).log())

    @abstractmethod
    def t_of_log_snr(self, log_snr: Float[Tensor, "*axes"]) -> Shaped[Tensor, "*axes"]:
        """Return the t at which `log_snr(t)` is as given: the inverse. Ratios that are never reached give the end."""

    def levels(self, grid: Shaped[Tensor, " n"]) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """Return alpha and sigma in float64 at the times of a grid, which may end at `clean`."""
        return self.alpha(grid.double()), self.sigma(grid.double())

    @abstractmethod
    def _alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _sigma(self, t: Tensor) -> Tensor: ...

    def _checked(self, t: Tensor) -> Tensor:
        if not isinstance(t, Tensor):
            raise ValueError(f"t has type {type(t).__name__}: a torch tensor is wanted, such as torch.tensor(0.5)")
        if not t.is_floating_point():
            raise ValueError(f"t of {self} is a real number in [0, 1], this one has dtype {t.dtype}")
        inside = (t >= 0) & (t <= 1)
        if not inside.all():
            raise ValueError(f"t = {t[~inside][0].item():g} is out of range: {self} takes t in [0, 1]")
        return t


def check_schedule(schedule: object) -> None:
    """Raise ValueError unless it is a schedule."""
    if not isinstance(schedule, Schedule):
        raise ValueError(f"a schedule is wanted, such as make_schedule('cosine'), got {schedule!r}")


def check_table(schedule: object) -> None:
    """Raise ValueError unless it is a discrete table."""
    if not isinstance(schedule, DiscreteVP):
        raise ValueError(f"a DiscreteVP is wanted, such as linear_beta() or cosine_beta(), got {schedule!r}")


@dataclass(frozen=True)
class CosineVP(Schedule):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2): the cosine without offset (Hoogeboom et al. 2023, eq. 3)."""

    family: ClassVar[str] = "vp"

    def t_of_log_snr(self, log_snr: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """Return t = (2 / pi) atan exp(-lambda / 2)."""
        return (2 / math.pi) * torch.atan(torch.exp(-log_snr / 2))

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * (1 - t))  # unlike the cosine exactly 0 at t = 1, and never below

    def _sigma(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * t)


@dataclass(frozen=True)
class StraightFlow(Schedule):
    """alpha = 1 - t, sigma = t: rectified flow, conditional optimal transport (Lipman et al. 2023, eq. 20 with time
    turned round; Liu et al. 2023, eq. 1)."""

    family: ClassVar[str] = "flow"

    def t_of_log_snr(self, log_snr: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """Return t = 1 / (1 + exp(lambda / 2))."""
        return torch.sigmoid(-log_snr / 2)

    def _alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def _sigma(self, t: Tensor) -> Tensor:
        return t


@dataclass(frozen=True)
class Edm(Schedule):
    """alpha = 1, sigma = sigma_max t^rho: the warped noise scale of Karras et al. 2022 (eq. 5 with sigma_min = 0)."""

    sigma_max: float = 80.0
    rho: float = 7.0
    family: ClassVar[str] = "edm"

    def __post_init__(self) -> None:
        number(self.sigma_max, "sigma_max", low=1e-6)
        number(self.rho, "rho", low=1e-3)

    def t_of_log_snr(self, log_snr: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """Return t = (exp(-lambda / 2) / sigma_max)^(1 / rho), at most 1."""
        return (torch.exp(-log_snr / 2) / self.sigma_max).clamp(max=1) ** (1 / self.rho)

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * t**self.rho


@dataclass(frozen=True, eq=False, repr=False)
class DiscreteVP(Schedule):
    """A table of alpha_bar[t] = alpha²(t) for t = 0..n-1, falling, below 1 (Ho et al. 2020, eq. 4)."""

    alpha_bar: Float64[Tensor, " n"]
    name: str = "table"
    family: ClassVar[str] = "vp"
    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.alpha_bar, Tensor) or self.alpha_bar.dtype != torch.float64 or self.alpha_bar.ndim != 1:
            raise ValueError("alpha_bar must be a tensor [n] of dtype float64")
        whole(len(self.alpha_bar), "the number of steps of a table", 1)
        padded = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bar])
        if not ((padded.diff() < 0).all() and self.alpha_bar[-1] >= 0):
            raise ValueError("alpha_bar must fall strictly from below 1 to 0 or above")

    def __repr__(self) -> str:
        return f"DiscreteVP({self.name}, n={len(self.alpha_bar)})"

    @property
    def n(self) -> int:
        """Number of times."""
        return len(self.alpha_bar)

    @property
    def t_max(self) -> int:
        """The noisiest time, n - 1."""
        return self.n - 1

    @property
    def clean(self) -> int:
        """The time before the first one."""
        return -1

    def t_of_log_snr(self, log_snr: Float[Tensor, "*axes"]) -> Int[Tensor, "*axes"]:
        """Return the t whose log_snr is nearest."""
        rising = self.log_snr(torch.arange(self.n)).double().flip(0).to(log_snr.device)
        middle = (rising[:-1] + rising[1:]) / 2
        return self.n - 1 - torch.searchsorted(middle, log_snr.double().contiguous())

    def levels(self, grid: Shaped[Tensor, " n"]) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """Return alpha and sigma in float64 at the times of a grid, which may end at `clean` = -1."""
        at_clean = grid == self.clean
        alpha_bar = torch.where(at_clean, 1.0, self.alpha_bar[self._checked(torch.where(at_clean, 0, grid))])
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def _alpha(self, t: Tensor) -> Tensor:
        return self.alpha_bar.sqrt().to(t.device, torch.get_default_dtype())[t]

    def _sigma(self, t: Tensor) -> Tensor:
        return (1 - self.alpha_bar).sqrt().to(t.device, torch.get_default_dtype())[t]

    def _checked(self, t: Tensor) -> Tensor:
        if not isinstance(t, Tensor):
            raise ValueError(f"t has type {type(t).__name__}: a torch tensor is wanted, such as torch.tensor(3)")
        if t.is_floating_point() or t.dtype == torch.bool:
            raise ValueError(f"t of {self} is an integer 0..{self.n - 1}, this one has dtype {t.dtype}")
        inside = (t >= 0) & (t < self.n)
        if not inside.all():
            raise ValueError(f"t = {t[~inside][0].item()} is out of range: {self} takes t in 0..{self.n - 1}")
        return t.long()


@dataclass(frozen=True)
class TableVP(Schedule):
    """A discrete table in continuous time: t = (i + 1) / n has the level of step i, alpha_bar is linear in between.

    A network trained on the n steps serves continuous samplers this way.
    """

    table: DiscreteVP
    family: ClassVar[str] = "vp"

    def __post_init__(self) -> None:
        check_table(self.table)

    def t_of_log_snr(self, log_snr: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """Return t by the inverse of the piecewise linear table; SNR = alpha_bar / (1 - alpha_bar)."""
        noise_share = torch.sigmoid(-log_snr.double())  # 1 - alpha_bar, precise where alpha_bar is nearly 1
        share = self._noise_share(log_snr.device)
        right = torch.searchsorted(share, noise_share.contiguous()).clamp(1, self.table.n)
        low, high = share[right - 1], share[right]
        t = (right - 1 + ((noise_share - low) / (high - low)).clamp(0, 1)) / self.table.n
        return t.to(log_snr.dtype)

    def _noise_share(self, device: torch.device) -> Tensor:
        return torch.cat([torch.zeros(1, dtype=torch.float64), 1 - self.table.alpha_bar]).to(device)

    def _sigma2(self, t: Tensor) -> Tensor:
        share = self._noise_share(t.device)
        at = t.double() * self.table.n
        left = at.floor().clamp(max=self.table.n - 1).long()
        return torch.lerp(share[left], share[left + 1], at - left)

    def _alpha(self, t: Tensor) -> Tensor:
        return (1 - self._sigma2(t)).sqrt().to(t.dtype)

    def _sigma(self, t: Tensor) -> Tensor:
        return self._sigma2(t).sqrt().to(t.dtype)


def linear_beta(n: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> DiscreteVP:
    """Return the schedule of DDPM: beta rises linearly (Ho et al. 2020, section 4)."""
    whole(n, "n", 2)
    number(beta_start, "beta_start")
    number(beta_end, "beta_end")
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(f"linear_beta wants 0 < beta_start <= beta_end < 1, got {beta_start} and {beta_end}")
    beta = torch.linspace(beta_start, beta_end, n, dtype=torch.float64)
    return DiscreteVP(torch.cumprod(1 - beta, 0), "linear_beta")


def cosine_beta(n: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> DiscreteVP:
    """Return the cosine schedule of Nichol and Dhariwal 2021 (eq. 17), betas cut at `beta_max`."""
    whole(n, "n", 2)
    number(offset, "offset", 0.0, 1.0)
    number(beta_max, "beta_max", 1e-6, 1.0 - 1e-6)
    at = torch.arange(n + 1, dtype=torch.float64) / n
    f = torch.cos((at + offset) / (1 + offset) * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=beta_max)
    return DiscreteVP(torch.cumprod(1 - beta, 0), "cosine_beta")


def zero_terminal_snr(schedule: DiscreteVP) -> DiscreteVP:
    """Return the schedule shifted and scaled in alpha so that its last step is pure noise (Lin et al. 2024, alg. 1).

    The first step keeps its level. At the last one eps says nothing about x0, so networks must predict v or x0.
    """
    check_table(schedule)
    if len(schedule.alpha_bar) < 2:
        raise ValueError("a table of one step cannot keep its first level and end in noise: take two steps or more")
    alpha = schedule.alpha_bar.sqrt()
    scaled = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
    return DiscreteVP(scaled**2, f"{schedule.name}, zero terminal SNR")


def _discrete(maker: Callable[..., DiscreteVP]) -> Callable[..., DiscreteVP]:
    def made(zero_terminal: bool = False, **options: Any) -> DiscreteVP:
        if not isinstance(zero_terminal, bool):
            raise ValueError(f"zero_terminal is true or false, got {zero_terminal!r}")
        schedule = maker(**options)
        return zero_terminal_snr(schedule) if zero_terminal else schedule

    return made


SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "cosine": CosineVP,
    "flow": StraightFlow,
    "edm": Edm,
    "linear_beta": _discrete(linear_beta),
    "cosine_beta": _discrete(cosine_beta),
}


def make_schedule(name: str, **options: Any) -> Schedule:
    """Return the schedule of that name, as a configuration file spells it.

    >>> make_schedule("cosine")
    CosineVP()
    >>> make_schedule("linear_beta", n=100, zero_terminal=True).t_max
    99
    """
    return make(name, SCHEDULES, "schedule", options)
