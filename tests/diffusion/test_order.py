"""The error of each deterministic rule falls at its claimed order, against a fine solution by another method."""

import math

import numpy as np
import pytest
import torch

from traj_diffusion.diffusion import (
    CosineVP,
    Ddim,
    Denoiser,
    DpmSolver,
    Edm,
    FlowEuler,
    FlowHeun,
    Heun,
    Rule,
    Schedule,
    StraightFlow,
    ring,
    sample,
)

BEGIN, END = 0.8, 0.3  # alpha and sigma are above 0 here, so that the order is not hidden by the ends
CASES = [
    (CosineVP(), Ddim(), 1),
    (StraightFlow(), Ddim(), 1),
    (Edm(), Ddim(), 1),
    (CosineVP(), DpmSolver(1), 1),
    (StraightFlow(), FlowEuler(), 1),
    (CosineVP(), DpmSolver(2), 2),
    (StraightFlow(), DpmSolver(2), 2),
    (Edm(), DpmSolver(2), 2),
    (Edm(), Heun(), 2),
    (StraightFlow(), FlowHeun(), 2),
]


def by_runge_kutta(denoise: Denoiser, x: torch.Tensor, schedule: Schedule, steps: int = 128) -> torch.Tensor:
    """Solve the probability flow d(x / alpha) / d(sigma / alpha) = eps with the classical method of order 4, in t."""

    def slope(t: float, scaled: torch.Tensor) -> torch.Tensor:
        at = torch.tensor([t, t + 1e-5, t - 1e-5], dtype=torch.float64)
        alpha, ratio = schedule.alpha(at), schedule.sigma(at) / schedule.alpha(at)
        x = alpha[0] * scaled
        eps = (x - alpha[0] * denoise(x, at[0])) / (ratio[0] * alpha[0])
        return eps * (ratio[1] - ratio[2]) / 2e-5

    t, h = BEGIN, (END - BEGIN) / steps
    y = x / schedule.alpha(torch.tensor(BEGIN, dtype=torch.float64))
    for _ in range(steps):
        a = slope(t, y)
        b = slope(t + h / 2, y + h / 2 * a)
        c = slope(t + h / 2, y + h / 2 * b)
        d = slope(t + h, y + h * c)
        y, t = y + h / 6 * (a + 2 * b + 2 * c + d), t + h
    return y * schedule.alpha(torch.tensor(END, dtype=torch.float64))


@pytest.mark.parametrize(("schedule", "rule", "order"), CASES, ids=repr)
def test_the_error_falls_at_the_claimed_order(schedule: Schedule, rule: Rule, order: int) -> None:
    denoise = ring(3, radius=1.0, std=0.5).denoiser(schedule)
    begin = torch.tensor(BEGIN, dtype=torch.float64)
    scale = (schedule.alpha(begin) ** 2 + schedule.sigma(begin) ** 2).sqrt()
    x = scale * torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fine = by_runge_kutta(denoise, x, schedule)
    steps = [24, 48, 96, 192]
    errors = []
    for n in steps:
        grid = torch.linspace(BEGIN, END, n + 1, dtype=torch.float64)
        errors.append((sample(denoise, x, schedule, grid, rule) - fine).norm().item())
    slope, _ = np.polyfit(np.log(steps), np.log(errors), 1)
    assert -slope == pytest.approx(order, abs=0.15), errors
    assert errors[-1] < 0.05 * math.sqrt(32)
