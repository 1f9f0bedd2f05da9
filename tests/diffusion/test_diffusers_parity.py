"""Step for step the same numbers as the schedulers of Hugging Face diffusers, from the same network and noise."""

from typing import Any

import diffusers
import pytest
import torch

from traj_diffusion.diffusion import (
    Ddim,
    Ddpm,
    DpmSolver,
    FlowEuler,
    Rule,
    Schedule,
    StraightFlow,
    add_noise,
    as_denoiser,
    linear_beta,
    sample,
    target,
)

# diffusers hands a tensor to numpy in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SHAPE = (4, 3, 2)


def network(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Return something smooth and of order one that depends on x and on the level (0..1)."""
    return 0.6 * torch.sin(x + level) + 0.3 * x


def by_diffusers(scheduler: Any, x: torch.Tensor, seed: int, **options: Any) -> list[torch.Tensor]:
    generator, visited = torch.Generator().manual_seed(seed), [x]
    if "generator" not in scheduler.step.__code__.co_varnames:
        generator = None
    for t in scheduler.timesteps:
        prediction = network(x, t.float() / 1000)
        extra = {"generator": generator} if generator is not None else {}
        x = scheduler.step(prediction, t, x, **extra, **options).prev_sample
        visited.append(x)
    return visited


def by_us(schedule: Schedule, grid: torch.Tensor, rule: Rule, name: str, x: torch.Tensor, seed: int) -> list:
    visited = []

    def asked(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        visited.append(x_t)
        return network(x_t, t.float()[:, None, None] / (1000 if schedule.discrete else 1))

    out = sample(as_denoiser(asked, name, schedule), x, schedule, grid, rule, torch.Generator().manual_seed(seed))
    return [*visited, out]


def start() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(11))


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs)
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert (a - b).abs().max() < 1e-5 * max(1.0, b.abs().max().item()), f"step {step}"


TABLE = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
PREDICTION = [("eps", "epsilon"), ("v", "v_prediction"), ("x0", "sample")]
CASES = [
    (Ddpm(), lambda p: diffusers.DDPMScheduler(**TABLE, prediction_type=p, clip_sample=False), {}),
    (Ddim(0.0), lambda p: diffusers.DDIMScheduler(**TABLE, prediction_type=p, clip_sample=False), {"eta": 0.0}),
    (Ddim(1.0), lambda p: diffusers.DDIMScheduler(**TABLE, prediction_type=p, clip_sample=False), {"eta": 1.0}),
    *[
        (
            DpmSolver(order, sde=kind.startswith("sde")),
            lambda p, order=order, kind=kind: diffusers.DPMSolverMultistepScheduler(
                **TABLE, prediction_type=p, algorithm_type=kind, solver_order=order
            ),
            {},
        )
        for order in (1, 2)
        for kind in ("dpmsolver++", "sde-dpmsolver++")
    ],
]


@pytest.mark.parametrize(("rule", "make", "options"), CASES, ids=lambda p: repr(p) if isinstance(p, Rule) else "")
@pytest.mark.parametrize(("ours", "theirs"), PREDICTION)
def test_vp_samplers_agree_with_diffusers(rule: Rule, make: Any, options: dict, ours: str, theirs: str) -> None:
    scheduler = make(theirs)
    scheduler.set_timesteps(20)
    grid = torch.cat([scheduler.timesteps.long(), torch.tensor([-1])])
    x = start()
    assert_same(by_us(linear_beta(), grid, rule, ours, x, 5), by_diffusers(scheduler, x, 5, **options))


def test_the_flow_sampler_agrees_with_diffusers() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(20)
    x = start()
    ours = by_us(StraightFlow(), scheduler.sigmas.double(), FlowEuler(), "u", x, 0)
    assert_same(ours, by_diffusers(scheduler, x, 0))


def test_added_noise_and_velocity_agree_with_diffusers() -> None:
    scheduler, schedule = diffusers.DDPMScheduler(**TABLE), linear_beta()
    x0, eps = start(), torch.randn(SHAPE, generator=torch.Generator().manual_seed(12))
    t = torch.tensor([0, 17, 500, 999])
    # diffusers takes 1 - alpha_bar in float32, which costs it two digits at t = 0.
    assert (add_noise(x0, eps, t, schedule) - scheduler.add_noise(x0, eps, t)).abs().max() < 1e-5
    v = target("v", x0, eps, schedule.alpha(t), schedule.sigma(t))
    assert (v - scheduler.get_velocity(x0, eps, t)).abs().max() < 1e-5
