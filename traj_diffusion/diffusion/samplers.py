"""One loop for all samplers: a grid of times, a step rule, a denoiser."""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from traj_diffusion.diffusion.checks import all_finite, same_shape, tensor
from traj_diffusion.diffusion.grids import check_grid
from traj_diffusion.diffusion.parameterisations import Denoiser
from traj_diffusion.diffusion.rules import Ask, Level, Past, Rule
from traj_diffusion.diffusion.schedules import Schedule, check_schedule

# Where noise comes from: (draw, shape) -> unit normal noise, with draw = 0, 1, ... counting the calls (one per step in
# rules that draw at each), so that callers can key it; or a generator; or None for rules that draw none.
Noise = Callable[[int, torch.Size], Tensor] | torch.Generator | None


@torch.no_grad()
def sample(
    denoise: Denoiser,
    x_T: Float[Tensor, "*shape"],
    schedule: Schedule,
    grid: Shaped[Tensor, "..."],
    rule: Rule,
    noise: Noise = None,
) -> Float[Tensor, "*shape"]:
    """Return x at the end of the grid: x0 where it ends at `schedule.clean`.

    `x_T` is x at the first time of the grid: pure noise sigma(t) eps at t_max (`initial_noise`), or a warm start, x_t
    of something known (`add_noise`) on a grid that starts at that t. `denoise` is asked with a t of shape [B], integer
    for a discrete schedule, else in the dtype of x (float32 at least). Nothing is remembered for a backward pass.

    ValueError: a rule that does not fit the schedule, a grid that does not, no noise for a rule that draws some, and
    an x_T, an answer of the denoiser or noise that are not finite.
    """
    check_grid(schedule, grid)
    check_rule(rule, schedule, noise)
    all_finite(tensor(x_T, "x_T"), "x_T")
    levels = grid_levels(schedule, grid)
    ask = Ask(asking(denoise), drawing(noise, x_T), schedule, len(grid) - 1)
    x: Tensor = x_T
    past: Past | None = None
    for here, there in pairwise(levels):
        x, x0 = rule(x, here, there, ask, past)
        past = (here, x0)
    return x


def initial_noise(eps: Float[Tensor, "*shape"], schedule: Schedule, t: float | None = None) -> Float[Tensor, "*shape"]:
    """Return pure noise at the scale of the schedule, sigma(t) eps; t = None is t_max."""
    check_schedule(schedule)
    all_finite(tensor(eps, "eps"), "eps")
    at = schedule.t_max if t is None else t
    if schedule.discrete and at != int(at):
        raise ValueError(f"t = {at:g}: {schedule} has whole times 0..{schedule.t_max}")
    sigma = schedule.sigma(torch.tensor(int(at) if schedule.discrete else float(at)))
    return sigma.to(eps) * eps


def grid_levels(schedule: Schedule, grid: Shaped[Tensor, " times"]) -> list[Level]:
    """Return the levels of a grid, alpha and sigma in float64 on the CPU: numbers that keep dtype and device of x."""
    alpha, sigma = schedule.levels(grid.cpu())
    return [Level(*level) for level in zip(grid.cpu(), alpha, sigma, strict=True)]


def check_rule(rule: Rule, schedule: Schedule, noise: Noise) -> None:
    """Raise ValueError where the rule does not fit the schedule, or lacks noise."""
    if not isinstance(rule, Rule):
        raise ValueError(f"a step rule is wanted, such as Ddim() or make_rule('ddim'), got {rule!r}")
    wanted = rule.misfit(schedule)
    if wanted is not None:
        raise ValueError(f"{rule} does not fit {schedule}: it wants {wanted}. Ddim, Ddpm and DpmSolver fit any")
    if noise is not None and not callable(noise) and not isinstance(noise, torch.Generator):
        raise ValueError(f"noise is a torch.Generator or a function (draw, shape) -> eps, got {noise!r}")
    if rule.stochastic and noise is None:
        raise ValueError(f"{rule} draws noise: pass noise=, a torch.Generator or a function (draw, shape) -> eps")


def asking(denoise: Denoiser) -> Callable[[Tensor, Level], Tensor]:
    """Return the denoiser as rules ask it: t is spread out over the batch, or over all leading axes that it has."""

    def ask(x: Tensor, level: Level) -> Tensor:
        t = level.t.to(x.device)
        if t.is_floating_point():  # never in half precision, which would name another level
            t = t.to(torch.promote_types(x.dtype, torch.float32))
        x0 = denoise(x, t.expand(x.shape[: max(t.ndim, 1)]))
        same_shape(tensor(x0, "the denoiser's x0"), x, "the denoiser's x0", "x_t")
        all_finite(x0, "the denoiser's x0")
        return x0

    return ask


def drawing(noise: Noise, like: Float[Tensor, "..."]) -> Callable[[], Tensor]:
    """Return a function that draws noise in shape, dtype and device of `like`, counting the draws."""
    count = iter(range(2**62))

    def draw() -> Tensor:
        if isinstance(noise, torch.Generator):
            drawn = torch.randn(like.shape, generator=noise, device=noise.device, dtype=like.dtype)
        elif noise is None:
            raise ValueError("noise is needed: pass a torch.Generator or a function (draw, shape) -> eps")
        else:
            drawn = noise(next(count), like.shape)
            same_shape(tensor(drawn, "the noise"), like, "the noise", "x")
            all_finite(drawn, "the noise")
        return drawn.to(like)

    return draw
