"""Rolling denoising: a window whose noise rises along a horizon, so that each shift costs a few steps, not all.

The horizon of H places is cut into W chunks. With a grid of n = W s steps from noise to clean, chunk w (0 is the
nearest) stands at index (W - 1 - w) s of the grid when a shift begins. The shift walks every chunk s steps down: chunk
0 comes out clean, all others stand where their predecessor stood, and fresh noise is appended: n / W evaluations a
shift instead of n (Ruhe et al. 2024, section 3; Chen et al. 2024 call it a pyramid).

What came out is no longer in the window. The denoiser must know it by its conditioning, bound anew for each shift;
otherwise the next chunk is right by itself but forgets, across the seam, what it should follow.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from traj_diffusion.diffusion.checks import align, all_finite, same_shape, tensor, whole
from traj_diffusion.diffusion.grids import check_grid
from traj_diffusion.diffusion.parameterisations import Denoiser
from traj_diffusion.diffusion.rules import Ask, Level, Rule
from traj_diffusion.diffusion.samplers import Noise, asking, check_rule, drawing
from traj_diffusion.diffusion.schedules import Schedule


@dataclass(frozen=True, eq=False)
class RollingWindow:
    """How the levels of a window [B, ..., H, ...] rise along its axis `axis`, for chunks of `chunk` places.

    The network must have been trained with a t of its own for each place; it is asked with t [B, ..., H].
    """

    schedule: Schedule
    grid: Shaped[Tensor, " times"]
    horizon: int
    chunk: int
    axis: int = 1

    def __post_init__(self) -> None:
        check_grid(self.schedule, self.grid)
        whole(self.axis, "axis (0 is the batch)", 1)
        whole(self.horizon, "horizon", 1)
        whole(self.chunk, "chunk", 1)
        if self.horizon % self.chunk:
            raise ValueError(f"a horizon of {self.horizon} places cannot be cut into chunks of {self.chunk}")
        if self.grid[-1] != self.schedule.clean:
            raise ValueError(f"the grid must end at clean data, t = {self.schedule.clean}")
        if (len(self.grid) - 1) % self.chunks:
            raise ValueError(
                f"{len(self.grid) - 1} steps cannot be shared out among {self.chunks} chunks: take a multiple"
            )

    @property
    def chunks(self) -> int:
        """Number of chunks W."""
        return self.horizon // self.chunk

    @property
    def steps(self) -> int:
        """Network evaluations of one shift, s."""
        return (len(self.grid) - 1) // self.chunks

    def level(self, step: int) -> Level:
        """Return the level of each place after `step` of the s steps of a shift, [1, ..., H] up to the axis."""
        chunk = torch.arange(self.horizon) // self.chunk
        index = (self.chunks - 1 - chunk) * self.steps + step
        grid = self.grid.cpu()
        alpha, sigma = self.schedule.levels(grid)
        shape = [1] * self.axis + [self.horizon]
        return Level(grid[index].reshape(shape), alpha[index].reshape(shape), sigma[index].reshape(shape))

    def begin(self, x0: Float[Tensor, "*shape"], eps: Float[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Return the window at the beginning of a shift, from clean values of all places, such as a first sample."""
        same_shape(tensor(eps, "eps"), tensor(x0, "x0"), "eps", "x0")
        self._check(x0)
        all_finite(x0, "x0")
        all_finite(eps, "eps")
        level = self.level(0)
        return align(level.alpha, x0).to(x0) * x0 + align(level.sigma, x0).to(x0) * eps

    @torch.no_grad()
    def shift(
        self, denoise: Denoiser, x: Float[Tensor, "*shape"], rule: Rule, noise: Noise
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "*shape"]]:
        """Return the first chunk, clean, and the window moved on by one chunk, ready for the next shift.

        `noise` is drawn in the shape of the whole window: once for each step of a stochastic rule, and at last once
        for the end of the window. Errors as in `sample`, and for rules that need one level for all.
        """
        check_rule(rule, self.schedule, noise)
        if not rule.per_element:
            raise ValueError(f"{rule} needs one level for all places; Ddim, Ddpm, DpmSolver(order=1), FlowEuler fit")
        self._check(tensor(x, "the window"))
        all_finite(x, "the window")
        ask = Ask(asking(denoise), drawing(noise, x), self.schedule, self.steps)
        for step in range(self.steps):
            here, there = (self._spread(self.level(at), x) for at in (step, step + 1))
            x, _ = rule(x, here, there, ask, None)
        done = x.narrow(self.axis, 0, self.chunk)
        kept = x.narrow(self.axis, self.chunk, self.horizon - self.chunk)
        fresh = ask.noise().narrow(self.axis, 0, self.chunk)
        first = self.schedule.levels(self.grid[:1].cpu())[1]
        return done, torch.cat([kept, first.to(x) * fresh], self.axis)

    def _spread(self, level: Level, x: Tensor) -> Level:
        return Level(level.t, align(level.alpha, x), align(level.sigma, x))

    def _check(self, x: Tensor) -> None:
        if x.ndim <= self.axis or x.shape[self.axis] != self.horizon:
            raise ValueError(
                f"the window has {self.horizon} places along axis {self.axis}, x has shape {list(x.shape)}"
            )
