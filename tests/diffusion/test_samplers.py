"""Every sampler, with the denoiser that is ideal for its data, draws from these data."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from traj_diffusion.diffusion import (
    GRIDS,
    CosineVP,
    Ddim,
    Ddpm,
    DpmSolver,
    Edm,
    FlowEuler,
    FlowHeun,
    GaussianMixture,
    Heun,
    Rule,
    Schedule,
    StraightFlow,
    TableVP,
    add_noise,
    cosine_beta,
    initial_noise,
    linear_beta,
    make_grid,
    make_rule,
    ring,
    sample,
    uniform_grid,
    zero_terminal_snr,
)

RULES = [
    (Ddpm(), 200),
    (Ddim(), 200),
    (Ddim(0.5), 200),
    (Ddim(1.0), 200),
    (DpmSolver(1), 200),
    (DpmSolver(2), 50),
    (DpmSolver(1, sde=True), 200),
    (DpmSolver(2, sde=True), 100),
    (Heun(), 40),
    (Heun(churn=20.0), 100),
    (FlowEuler(), 200),
    (FlowHeun(), 40),
]
ENDING_IN_NOISE = [CosineVP(), StraightFlow(), Edm(sigma_max=40.0), zero_terminal_snr(linear_beta())]
SCHEDULES = [*ENDING_IN_NOISE, linear_beta()]
PAIRS = [(s, r, n) for s in ENDING_IN_NOISE for r, n in RULES if r.misfit(s) is None]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("schedule", "rule", "steps"), PAIRS, ids=lambda p: repr(p))
def test_mean_and_covariance_of_a_gaussian_are_reached(schedule: Schedule, rule: Rule, steps: int) -> None:
    mean = torch.tensor([0.8, -0.5], dtype=torch.float64)
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    data = GaussianMixture.gaussian(mean, covariance)
    n = 4000
    x_T = initial_noise(torch.randn(n, 2, generator=generator(1)), schedule)
    x0 = sample(data.denoiser(schedule), x_T, schedule, uniform_grid(schedule, steps), rule, generator(2)).double()
    # Four standard errors of n draws, and 0.01 for the steps and for a prior that is not quite pure noise.
    assert (x0.mean(0) - mean).abs().max() < 4 * math.sqrt(0.5 / n) + 0.01
    assert (x0.T.cov() - covariance).abs().max() < 4 * 0.5 * math.sqrt(2 / n) + 0.01


@pytest.mark.parametrize(
    ("schedule", "rule", "steps"),
    [
        (CosineVP(), Ddpm(), 100),
        (TableVP(cosine_beta()), Ddim(), 60),
        (StraightFlow(), DpmSolver(2, sde=True), 60),
        (linear_beta(), DpmSolver(2), 40),
        (Edm(), Heun(), 30),
        (Edm(), Heun(churn=10.0), 40),
        (StraightFlow(), FlowHeun(), 40),
        (StraightFlow(), FlowEuler(), 60),
    ],
    ids=repr,
)
def test_the_modes_of_a_mixture_get_their_weights(schedule: Schedule, rule: Rule, steps: int) -> None:
    data, n = ring(5), 4000
    x_T = initial_noise(torch.randn(n, 2, generator=generator(3)), schedule)
    x0 = sample(data.denoiser(schedule), x_T, schedule, uniform_grid(schedule, steps), rule, generator(4)).double()
    which = data.nearest(x0)
    share = torch.bincount(which, minlength=5) / n
    assert (share - data.weight).abs().max() < 4 * math.sqrt(0.25 / n)
    away = (x0 - data.mean[which]).norm(dim=-1)
    assert (away < 6 * 0.2).all()  # nothing between the modes


@given(
    pair=st.sampled_from(PAIRS),
    name=st.sampled_from(list(GRIDS)),
    steps=st.integers(1, 6),
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=100, deadline=None)
def test_where_all_answers_are_one_point_every_sampler_ends_there(
    pair: tuple[Schedule, Rule, int], name: str, steps: int, shape: list[int], dtype: torch.dtype
) -> None:
    schedule, rule, _ = pair
    point = torch.randn(shape, generator=generator(1), dtype=dtype)
    x_T = initial_noise(torch.randn(shape, generator=generator(2), dtype=dtype), schedule)
    out = sample(lambda x_t, t: point, x_T, schedule, make_grid(name, schedule, steps), rule, generator(3))
    assert out.dtype == dtype
    assert (out - point).abs().max() < 1000 * torch.finfo(dtype).eps  # sigma is at most 40, for a few steps


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("schedule", [*SCHEDULES, TableVP(linear_beta())], ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_a_grid_has_its_steps_and_ends_clean(name: str, schedule: Schedule, steps: int) -> None:
    grid = make_grid(name, schedule, steps)
    assert len(grid) == steps + 1
    assert grid[0] == schedule.t_max
    assert grid[-1] == schedule.clean
    assert (grid.diff() < 0).all()


def test_a_discrete_grid_of_all_steps_is_all_steps() -> None:
    assert torch.equal(uniform_grid(linear_beta(20), 20), torch.arange(19, -2, -1))
    assert torch.equal(make_grid("karras", linear_beta(20), 20), torch.arange(19, -2, -1))


def test_a_log_snr_grid_is_even_in_log_snr() -> None:
    schedule = CosineVP()
    log_snr = schedule.log_snr(make_grid("log_snr", schedule, 12)[1:-1])
    assert log_snr.diff().std() < 1e-9


def test_a_karras_grid_is_that_of_the_paper() -> None:
    schedule = Edm(sigma_max=80.0)
    sigma = schedule.sigma(make_grid("karras", schedule, 5))
    i = torch.arange(5, dtype=torch.float64)
    paper = (80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert torch.allclose(sigma[:-1], paper, rtol=1e-9)


@pytest.mark.parametrize("rule", [DpmSolver(1), FlowEuler()], ids=repr)
def test_first_order_rules_are_ddim_in_other_words(rule: Rule) -> None:
    schedule = StraightFlow()
    denoise = ring().denoiser(schedule)
    x_T = torch.randn(50, 2, generator=generator(5), dtype=torch.float64)
    grid = uniform_grid(schedule, 9)
    a, b = (sample(denoise, x_T, schedule, grid, r) for r in (Ddim(), rule))
    assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize("rule", [Ddim(1.0), DpmSolver(1, sde=True)], ids=repr)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_first_order_stochastic_rules_are_ancestral_sampling(rule: Rule, schedule: Schedule) -> None:
    denoise = ring().denoiser(schedule)
    x_T = initial_noise(torch.randn(50, 2, generator=generator(6), dtype=torch.float64), schedule)
    grid = uniform_grid(schedule, 9)
    a, b = (sample(denoise, x_T, schedule, grid, r, generator(7)) for r in (Ddpm(), rule))
    assert (a - b).abs().max() < 1e-9


def test_a_warm_start_stays_near_what_it_started_from() -> None:
    schedule, data = CosineVP(), ring(8)
    x0 = data.draw(500, generator(8))
    t = torch.tensor(0.2, dtype=torch.float64)
    x_t = add_noise(x0, torch.randn(500, 2, generator=generator(9), dtype=torch.float64), t, schedule)
    out = sample(data.denoiser(schedule), x_t, schedule, uniform_grid(schedule, 20, start=0.2), DpmSolver(2))
    assert (data.nearest(out) == data.nearest(x0)).double().mean() > 0.95


def test_noise_by_draw_makes_a_row_independent_of_its_batch() -> None:
    schedule, data = CosineVP(), ring()

    def noise(draw: int, shape: torch.Size) -> torch.Tensor:
        rows = [torch.randn(2, generator=generator(1000 * draw + row), dtype=torch.float64) for row in range(shape[0])]
        return torch.stack(rows)

    x_T = noise(999, torch.Size([6, 2]))
    few, many = (
        sample(data.denoiser(schedule), x_T[:n], schedule, uniform_grid(schedule, 8), Ddpm(), noise) for n in (3, 6)
    )
    assert torch.allclose(few, many[:3], rtol=0, atol=1e-12)


def test_the_draws_are_counted_from_zero_one_per_step() -> None:
    schedule, seen = linear_beta(100), []

    def noise(draw: int, shape: torch.Size) -> torch.Tensor:
        seen.append(draw)
        return torch.zeros(shape)

    sample(lambda x, t: x, torch.zeros(2, 1), schedule, uniform_grid(schedule, 6), Ddpm(), noise)
    assert seen == [0, 1, 2, 3, 4]  # the last step ends at clean data and draws nothing


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_the_denoiser_gets_one_time_per_row_in_the_schedules_type(schedule: Schedule) -> None:
    seen = []

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t)
        return x_t

    grid = uniform_grid(schedule, 4)
    sample(denoise, torch.zeros(3, 2), schedule, grid, Ddim())
    assert [t.shape for t in seen] == [(3,)] * 4
    assert {t.dtype for t in seen} == {torch.int64 if schedule.discrete else torch.float32}
    assert [t[0].item() for t in seen] == pytest.approx(grid[:-1].tolist())


def test_float32_stays_float32() -> None:
    for schedule, rule, _ in PAIRS:
        x_T = initial_noise(torch.randn(4, 2, generator=generator(1)), schedule)
        out = sample(lambda x, t: 0.5 * x, x_T, schedule, uniform_grid(schedule, 3), rule, generator(2))
        assert out.dtype == torch.float32


@pytest.mark.parametrize("schedule", [CosineVP(), linear_beta()], ids=repr)
def test_half_precision_data_keep_their_times_precise(schedule: Schedule) -> None:
    seen = []

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t[0].item())
        return 0.5 * x_t

    grid = uniform_grid(schedule, 7)
    out = sample(denoise, torch.zeros(2, 2, dtype=torch.bfloat16), schedule, grid, DpmSolver(2))
    assert out.dtype == torch.bfloat16
    assert seen == pytest.approx(grid[:-1].tolist(), rel=1e-6)


def test_churn_never_passes_the_noisiest_level() -> None:
    schedule, seen = Edm(sigma_max=10.0), []

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t.max().item())
        return 0.1 * x_t

    x_T = torch.zeros(2, 2, dtype=torch.float64)
    sample(denoise, x_T, schedule, uniform_grid(schedule, 5), Heun(churn=100.0), generator(1))
    assert max(seen) == 1
    assert len(seen) == 9  # two evaluations a step, one in the last


class TestRefusals:
    schedule = CosineVP()
    x_T = torch.zeros(2, 2)

    def refused(self, match: str, **changes: object) -> None:
        arguments = {
            "denoise": lambda x, t: x,
            "x_T": self.x_T,
            "schedule": self.schedule,
            "grid": uniform_grid(self.schedule, 4),
            "rule": Ddim(),
        } | changes
        with pytest.raises(ValueError, match=match):
            sample(**arguments)  # type: ignore[arg-type]

    def test_a_rule_that_does_not_fit(self) -> None:
        self.refused("StraightFlow schedule", rule=FlowEuler())
        self.refused("StraightFlow schedule", rule=FlowHeun())
        self.refused("Edm schedule", rule=Heun())

    def test_noise_that_is_missing_or_of_another_shape(self) -> None:
        self.refused("pass noise=", rule=Ddpm())
        self.refused("same shape", rule=Ddpm(), noise=lambda draw, shape: torch.zeros(1))

    def test_a_start_that_is_not_finite(self) -> None:
        self.refused("first at index \\[1, 0\\]", x_T=torch.tensor([[0.0, 1.0], [math.nan, 0.0]]))
        self.refused("NaN or infinite", x_T=torch.full((1, 1), math.inf))

    def test_a_denoiser_that_answers_in_another_shape(self) -> None:
        self.refused("same shape", denoise=lambda x, t: x[:1])

    def test_a_grid_that_is_none(self) -> None:
        self.refused("fall strictly", grid=torch.tensor([0.5, 0.5, 0.0]))
        self.refused("fall strictly", grid=torch.tensor([0.0, 0.5, 1.0]))
        self.refused("out of range", grid=torch.tensor([1.5, 0.0]))
        self.refused("out of range", schedule=linear_beta(10), grid=torch.tensor([10, 0, -1]))
        self.refused("real numbers", grid=torch.tensor([1, 0]))
        self.refused("integers", schedule=linear_beta(10), grid=torch.tensor([9.0, -1.0]))
        self.refused(r"\[n \+ 1\]", grid=torch.zeros(1))

    def test_grid_arguments(self) -> None:
        for options in ({"n": 0}, {"n": 3, "start": 1.2}, {"n": 3, "start": 0.0}):
            with pytest.raises(ValueError, match=r"from 1 to|out of range"):
                make_grid("uniform", self.schedule, **options)
        with pytest.raises(ValueError, match=r"at most start \+ 1 steps"):
            make_grid("uniform", linear_beta(10), 11)
        with pytest.raises(ValueError, match="already"):
            make_grid("log_snr", self.schedule, 3, start=1e-4)
        with pytest.raises(ValueError, match="did you mean 'karras'"):
            make_grid("karas", self.schedule, 3)
        with pytest.raises(ValueError, match="rh"):
            make_grid("karras", self.schedule, 3, rh=3)

    def test_rule_arguments(self) -> None:
        with pytest.raises(ValueError, match="did you mean 'ddim'"):
            make_rule("dim")
        with pytest.raises(ValueError, match="order 1 or 2"):
            make_rule("dpm", order=3)
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            make_rule("ddim", eta=2.0)
        with pytest.raises(ValueError, match="etta"):
            make_rule("ddim", etta=0.0)
