"""Step grids: the times that a sampler visits, from a start down to clean data.

A grid of n steps is a tensor [n + 1] of times: integers for a discrete schedule, float64 for a continuous one. The
network is asked at the first n; the last is `schedule.clean`. Any falling tensor will do, so that one may stop early.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from traj_diffusion.diffusion.checks import known, number, whole
from traj_diffusion.diffusion.schedules import Schedule, check_schedule


def uniform_grid(schedule: Schedule, n: int, start: float | None = None) -> Shaped[Tensor, " times"]:
    """Return n steps equal in t. Discrete times are rounded ("trailing" spacing: Lin et al. 2024, table 2)."""
    begin = _start(schedule, n, start)
    times = torch.linspace(begin, schedule.clean, n + 1, dtype=torch.float64)
    return _settled(schedule, times)


def power_grid(schedule: Schedule, n: int, start: float | None = None, power: float = 1.5) -> Shaped[Tensor, " times"]:
    """Return n steps equal in t^(1 / power): above 1, they are shorter the less noise is left.

    With few steps, samples come out narrower than the data. For a Gaussian of half the unit's spread under the cosine
    schedule, four steps of DPM-Solver++ leave .71 of it on a uniform grid, and .82 with a power of 1.5.
    """
    number(power, "power")
    if power <= 0:
        raise ValueError(f"power must be positive, got {power:g}")
    begin = _start(schedule, n, start)
    ramp = torch.linspace(1, 0, n + 1, dtype=torch.float64) ** power
    return _settled(schedule, schedule.clean + (begin - schedule.clean) * ramp)


def log_snr_grid(
    schedule: Schedule,
    n: int,
    start: float | None = None,
    log_snr_min: float = -10.0,
    log_snr_max: float = 10.0,
) -> Shaped[Tensor, " times"]:
    """Return n - 1 steps equal in log SNR, up to `log_snr_max`, and a last one to clean data (Lu et al. 2022).

    The first time is `start` whatever its ratio; where that is below `log_snr_min`, spacing starts from there.
    """
    begin = _start(schedule, n, start)
    number(log_snr_min, "log_snr_min")
    number(log_snr_max, "log_snr_max")
    low = max(_log_snr(schedule, begin), log_snr_min)
    if low >= log_snr_max:
        raise ValueError(f"start = {begin:g} has log SNR {low:.3g} already, log_snr_max is {log_snr_max:g}")
    return _through(schedule, torch.linspace(low, log_snr_max, n, dtype=torch.float64), begin)


def karras_grid(
    schedule: Schedule,
    n: int,
    start: float | None = None,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Shaped[Tensor, " times"]:
    """Return n - 1 steps equal in (sigma / alpha)^(1 / rho), and a last one to clean data (Karras et al. 2022, eq. 5).

    The first time is `start` whatever its sigma / alpha; where that is above `sigma_max`, spacing starts from there.
    """
    begin = _start(schedule, n, start)
    number(sigma_max, "sigma_max")
    number(rho, "rho", low=1e-3)
    high = min(float(torch.tensor(-_log_snr(schedule, begin) / 2).exp()), sigma_max)
    if not 0 < sigma_min < high:
        raise ValueError(f"sigma_min must lie in (0, {high:.3g}), where start = {begin:g} is, got {sigma_min:g}")
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    ratio = (high ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - high ** (1 / rho))) ** rho
    return _through(schedule, -2 * ratio.log(), begin)


GRIDS: Mapping[str, Callable[..., Tensor]] = {
    "uniform": uniform_grid,
    "power": power_grid,
    "log_snr": log_snr_grid,
    "karras": karras_grid,
}


def make_grid(name: str, schedule: Schedule, n: int, **options: Any) -> Shaped[Tensor, " times"]:
    """Return the grid of that name, as a configuration file spells it.

    >>> from traj_diffusion.diffusion import make_schedule
    >>> make_grid("uniform", make_schedule("flow"), 4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    maker = GRIDS[known(name, GRIDS, "grid")]
    try:
        return maker(schedule, n, **options)
    except TypeError as error:
        raise ValueError(f"grid {name!r}: {str(error).splitlines()[0]}") from error


def check_grid(schedule: Schedule, grid: Shaped[Tensor, "..."]) -> None:
    """Raise ValueError unless the grid falls strictly and stays within the schedule's times."""
    check_schedule(schedule)
    if not isinstance(grid, Tensor):
        raise ValueError(f"a grid is a tensor [n + 1] of times, such as make_grid('uniform', ...), got {grid!r}")
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f"a grid is a tensor [n + 1] of times with n >= 1, this one has shape {list(grid.shape)}")
    if schedule.discrete == grid.is_floating_point():
        wanted = "integers" if schedule.discrete else "real numbers"
        raise ValueError(f"the times of {schedule} are {wanted}, this grid has dtype {grid.dtype}")
    if not (grid.diff() < 0).all():
        raise ValueError("the times of a grid must fall strictly, from noise to data")
    if grid[0] > schedule.t_max or grid[-1] < schedule.clean:
        raise ValueError(
            f"the grid runs from {grid[0].item():g} to {grid[-1].item():g}, out of range: {schedule} has times from "
            f"{schedule.t_max} down to {schedule.clean} (clean)"
        )


def _start(schedule: Schedule, n: int, start: float | None) -> float:
    check_schedule(schedule)
    begin = schedule.t_max if start is None else start
    whole(n, "n, the number of steps,", 1)
    if not isinstance(begin, int | float):
        raise ValueError(f"start is a number, got {begin!r}")
    if not schedule.clean < begin <= schedule.t_max:
        raise ValueError(
            f"start = {begin:g} is out of range: {schedule} takes a start in ({schedule.clean}, {schedule.t_max}]"
        )
    if schedule.discrete and (begin != int(begin) or n > begin + 1):
        raise ValueError(f"start = {begin:g}, n = {n}: {schedule} wants a whole start and at most start + 1 steps")
    return float(begin)


def _log_snr(schedule: Schedule, t: float) -> float:
    alpha, sigma = schedule.levels(torch.tensor([int(t) if schedule.discrete else t]))
    return float(2 * (alpha.log() - sigma.log()))


def _through(schedule: Schedule, log_snr: Tensor, begin: float) -> Tensor:
    times = schedule.t_of_log_snr(log_snr).double()
    times[0] = begin
    return _settled(schedule, torch.cat([times, times.new_tensor([schedule.clean])]))


def _settled(schedule: Schedule, times: Tensor) -> Tensor:
    if not schedule.discrete:
        return times
    # Rounding may name one step twice: push doubles down, then up again where they would pass the clean end.
    steps = [int(t) for t in times.round().tolist()]
    for i in range(1, len(steps)):
        steps[i] = min(steps[i], steps[i - 1] - 1)
    steps[-1] = int(schedule.clean)
    for i in range(len(steps) - 2, -1, -1):
        steps[i] = max(steps[i], steps[i + 1] + 1)
    return torch.tensor(steps)
