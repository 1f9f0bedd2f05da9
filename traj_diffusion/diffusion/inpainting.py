"""Inpainting without training: part of x0 is given, the sampler fills in the rest (RePaint, Lugmayr et al. 2022)."""

from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from traj_diffusion.diffusion.checks import all_finite, same_shape, tensor, whole
from traj_diffusion.diffusion.grids import check_grid
from traj_diffusion.diffusion.parameterisations import Denoiser
from traj_diffusion.diffusion.rules import Ask, Level, Past, Rule, to
from traj_diffusion.diffusion.samplers import Noise, asking, check_rule, drawing, grid_levels
from traj_diffusion.diffusion.schedules import Schedule


@torch.no_grad()
def inpaint(
    denoise: Denoiser,
    x_T: Float[Tensor, "*shape"],
    schedule: Schedule,
    grid: Shaped[Tensor, "..."],
    rule: Rule,
    noise: Noise,
    given: Float[Tensor, "..."],
    is_given: Bool[Tensor, "..."],
    resamples: int = 1,
    jump: int = 1,
) -> Float[Tensor, "*shape"]:
    """Return x0 that equals `given` where `is_given`, and fits it elsewhere.

    At each level the given part is `given` noised to that level (eq. 8a), the rest is the sampler's (eq. 8b). Because
    each step knows only the past of the other part, the seam is rough; walking `jump` steps up again by forward noise
    and down, `resamples` times in all, harmonises it (algorithm 1). Costs about `resamples` times the evaluations.
    Values of `given` elsewhere are not read. Other arguments and errors as in `sample`.
    """
    check_grid(schedule, grid)
    check_rule(rule, schedule, noise)
    all_finite(tensor(x_T, "x_T"), "x_T")
    same_shape(tensor(given, "given"), x_T, "given", "x_T")
    same_shape(is_given, x_T, "is_given", "x_T")
    if is_given.dtype != torch.bool:
        raise ValueError(f"is_given has dtype {is_given.dtype}: true or false is wanted for each element")
    whole(resamples, "resamples", 1)
    whole(jump, "jump", 1)
    known = torch.where(is_given, given, 0).to(x_T)
    all_finite(known, "given, where is_given,")
    levels = grid_levels(schedule, grid)
    draw = drawing(noise, x_T)
    ask = Ask(asking(denoise), draw, schedule, len(grid) - 1)

    def noised(level: Level) -> Tensor:
        return known * to(known, level.alpha) + (draw() * to(known, level.sigma) if level.sigma > 0 else 0)

    x = torch.where(is_given, noised(levels[0]), x_T)
    past: Past | None = None
    walk = resampling_walk(len(grid) - 1, resamples, jump)
    for i, j in pairwise(walk):
        here, there = levels[i], levels[j]
        if j > i:
            x, x0 = rule(x, here, there, ask, past)
            past = (here, x0)
            x = torch.where(is_given, noised(there), x)
        else:
            ratio = there.alpha / here.alpha  # one step up, q(x_t | x_s)
            x = ratio * x + (there.sigma**2 - ratio**2 * here.sigma**2).clamp(min=0).sqrt() * draw()
            past = None
    return x


def resampling_walk(n: int, resamples: int, jump: int) -> list[int]:
    """Return the indices into a grid of n steps in the order they are visited; a falling index is a step up in noise.

    >>> resampling_walk(4, 2, 2)
    [0, 1, 2, 1, 0, 1, 2, 3, 4, 3, 2, 3, 4]
    """
    walk = [0]
    for begin in range(0, n, jump):
        end = min(begin + jump, n)
        walk += range(begin + 1, end + 1)
        for _ in range(resamples - 1):
            walk += [*range(end - 1, begin - 1, -1), *range(begin + 1, end + 1)]
    return walk
