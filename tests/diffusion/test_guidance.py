"""Guidance, inpainting and rolling denoising on Gaussian data, where the answers are known on paper."""

import math
from collections.abc import Callable

import pytest
import torch

from traj_diffusion.diffusion import (
    CosineVP,
    Ddim,
    Ddpm,
    DpmSolver,
    Edm,
    FlowHeun,
    GaussianMixture,
    RollingWindow,
    Schedule,
    StraightFlow,
    add_noise,
    classifier_free,
    guided,
    initial_noise,
    inpaint,
    linear_beta,
    ring,
    sample,
    uniform_grid,
)
from traj_diffusion.diffusion.inpainting import resampling_walk


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def gaussian(mean: list[float], covariance: list[list[float]]) -> GaussianMixture:
    return GaussianMixture.gaussian(torch.tensor(mean), torch.tensor(covariance))


def covariance_of(places: int, rho: float) -> torch.Tensor:
    index = torch.arange(places, dtype=torch.float64)
    return rho ** (index[:, None] - index).abs()


class TestIdealDenoiser:
    @pytest.mark.parametrize("schedule", [CosineVP(), StraightFlow(), Edm(), linear_beta()], ids=repr)
    def test_one_level_and_one_level_per_element_agree(self, schedule: Schedule) -> None:
        denoise, x = ring(3).denoiser(schedule), normal(6, 2, seed=1)
        t = torch.linspace(0.2, 0.9, 6, dtype=torch.float64)
        t = (t * schedule.t_max).long() if schedule.discrete else t
        assert torch.allclose(denoise(x, t), denoise(x, t[:, None].expand(6, 2)), atol=1e-8)

    def test_it_has_the_least_squared_error_of_its_neighbours(self) -> None:
        data, schedule, t = ring(4), CosineVP(), torch.tensor(0.5, dtype=torch.float64)
        x0 = data.draw(20_000, generator(2))
        x_t = add_noise(x0, normal(20_000, 2, seed=3), t, schedule)
        x0_hat = data.denoiser(schedule)(x_t, t)
        error = ((x0_hat - x0) ** 2).mean()
        for worse in (1.05 * x0_hat, 0.95 * x0_hat, x0_hat + 0.05):
            assert ((worse - x0) ** 2).mean() > error
        # E[(x0 - x0_hat) f(x_t)] = 0 for every f: the error knows nothing of x_t.
        assert ((x0_hat - x0) * torch.sin(3 * x_t)).mean().abs() < 4 * (error / 20_000).sqrt()

    def test_weights_that_are_none_are_refused(self) -> None:
        with pytest.raises(ValueError, match="add up to 1"):
            GaussianMixture(torch.tensor([0.5, 0.4]).double(), torch.zeros(2, 1).double(), torch.ones(2, 1, 1).double())


class TestGuidance:
    def test_classifier_free_guidance_is_linear_between_its_two(self) -> None:
        x = normal(5, 2, seed=1)
        with_, without = (lambda x, t: x + 1), (lambda x, t: 2 * x)
        for scale, wanted in ((0.0, 2 * x), (1.0, x + 1), (3.0, 2 * x + 3 * (1 - x))):
            assert torch.allclose(classifier_free(with_, without, scale)(x, torch.tensor(0.5)), wanted)

    @pytest.mark.parametrize("schedule", [CosineVP(), StraightFlow(), Edm(sigma_max=40.0)], ids=repr)
    @pytest.mark.parametrize("through", [True, False])
    def test_a_linear_weight_moves_a_unit_normal_by_its_slope(self, schedule: Schedule, through: bool) -> None:
        # exp(w x) N(0, 1) is N(w, 1) up to a constant. With unit variance both kinds of guidance are exact.
        data, slope, n = gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1.5, -0.7]).double(), 4000
        denoise = guided(data.denoiser(schedule), lambda x0: x0 @ slope, schedule, through_denoiser=through)
        x_T = initial_noise(normal(n, 2, seed=4), schedule)
        out = sample(denoise, x_T, schedule, uniform_grid(schedule, 60), DpmSolver(2))
        assert (out.mean(0) - slope).abs().max() < 4 / math.sqrt(n) + 0.02
        assert (out.var(0) - 1).abs().max() < 4 * math.sqrt(2 / n) + 0.02

    def test_through_the_denoiser_the_data_keep_their_own_covariance(self) -> None:
        # exp(w x) N(0, S) is N(S w, S): only the Jacobian knows S.
        data, schedule, n = gaussian([0.0, 0.0], [[0.5, 0.3], [0.3, 0.4]]), CosineVP(), 4000
        slope = torch.tensor([1.0, 2.0]).double()
        denoise = guided(data.denoiser(schedule), lambda x0: x0 @ slope, schedule)
        out = sample(denoise, normal(n, 2, seed=5), schedule, uniform_grid(schedule, 100), DpmSolver(2))
        assert (out.mean(0) - torch.tensor([1.1, 1.1])).abs().max() < 4 * math.sqrt(0.5 / n) + 0.02

    def test_one_number_for_all_rows_guides_as_one_per_row(self) -> None:
        x, t, schedule = normal(5, 2, seed=1), torch.tensor(0.5, dtype=torch.float64), CosineVP()
        denoise = ring().denoiser(schedule)
        each = guided(denoise, lambda x0: x0.square().sum(-1), schedule)(x, t)
        assert torch.equal(each, guided(denoise, lambda x0: x0.square().sum(), schedule)(x, t))

    @pytest.mark.parametrize(
        ("log_weight", "match"),
        [
            (lambda x0: x0, "one number is wanted, or one per row"),
            (lambda x0: torch.ones(3), "no gradient"),
            (lambda x0: (x0.sum(-1) - 100).log(), "NaN"),
            (lambda x0: (x0 * 0).sum(-1).sqrt(), "gradient of log_weight"),
        ],
    )
    def test_a_weight_that_cannot_guide_is_refused(self, log_weight: Callable, match: str) -> None:
        denoise = guided(lambda x, t: x, log_weight, CosineVP())
        with pytest.raises(ValueError, match=match):
            denoise(torch.ones(3, 2), torch.tensor(0.5))

    def test_a_denoiser_without_a_gradient_is_named(self) -> None:
        denoise = guided(lambda x, t: x.detach(), lambda x0: x0.sum(-1), CosineVP())
        with pytest.raises(ValueError, match="through_denoiser=False"):
            denoise(torch.ones(3, 2), torch.tensor(0.5))


class TestInpainting:
    def fill(self, resamples: int, jump: int = 1, steps: int = 60) -> torch.Tensor:
        data, n = gaussian([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]]), 4000
        schedule = CosineVP()
        given = torch.tensor([1.2, math.nan], dtype=torch.float64).expand(n, 2)
        is_given = torch.tensor([True, False]).expand(n, 2)
        return inpaint(
            data.denoiser(schedule),
            normal(n, 2, seed=6),
            schedule,
            uniform_grid(schedule, steps),
            Ddpm(),
            generator(7),
            given,
            is_given,
            resamples,
            jump,
        )

    def test_the_given_part_is_kept_exactly(self) -> None:
        assert (self.fill(1, steps=5)[:, 0] == 1.2).all()

    def test_resampling_reaches_the_conditional_mean(self) -> None:
        # x1 | x0 = 1.2 is N(0.96, 0.36). Plain replacement is known to fall short; resampling closes the gap.
        rough, fine = (abs(self.fill(r, jump).mean(0)[1].item() - 0.96) for r, jump in ((1, 1), (8, 4)))
        assert fine < 0.06
        assert fine < rough / 2

    def test_the_walk_ends_clean_and_moves_one_step_at_a_time(self) -> None:
        for n, resamples, jump in ((1, 1, 1), (7, 3, 2), (5, 2, 9)):
            walk = torch.tensor(resampling_walk(n, resamples, jump))
            assert walk[0] == 0
            assert walk[-1] == n
            assert (walk.diff().abs() == 1).all()
            assert (walk.diff() == 1).sum() == resamples * n

    def test_a_rule_forgets_its_past_at_a_step_up(self) -> None:
        # Extrapolating from a lower level to a higher one and down again would be nonsense.
        had_past = []

        class Spy(Ddim):
            def __call__(self, x, here, there, ask, past):  # type: ignore[no-untyped-def]
                had_past.append(past is not None)
                return super().__call__(x, here, there, ask, past)

        schedule, x = CosineVP(), torch.zeros(2, 2)
        inpaint(lambda x, t: x, x, schedule, uniform_grid(schedule, 4), Spy(), generator(1), x, x > 0, 2, 2)
        assert had_past == [False, True, False, True, True, True, False, True]

    def test_bad_arguments_are_refused(self) -> None:
        schedule, x = CosineVP(), torch.zeros(2, 2)
        grid = uniform_grid(schedule, 3)
        for given, is_given, resamples, match in (
            (x[:1], x > 0, 1, "same shape"),
            (x, x[:1] > 0, 1, "same shape"),
            (x, x > 0, 0, "resamples is a whole number from 1"),
            (x * math.nan, x == 0, 1, "NaN"),
        ):
            with pytest.raises(ValueError, match=match):
                inpaint(lambda x, t: x, x, schedule, grid, Ddim(), generator(1), given, is_given, resamples)


class TestRolling:
    def test_a_stationary_process_rolls_on_with_its_law(self) -> None:
        # AR(1) with unit variance: its correlation rho must hold across the seams between chunks as well. The denoiser
        # is bound to the last value that came out, as a model is to its history; x | last = N(c last, C - c c^T).
        rho, horizon, n = 0.7, 6, 3000
        schedule = CosineVP()
        window = RollingWindow(schedule, uniform_grid(schedule, 120), horizon, chunk=2)
        c = rho ** torch.arange(1, horizon + 1, dtype=torch.float64)
        rest = GaussianMixture.gaussian(torch.zeros(horizon), covariance_of(horizon, rho) - c[:, None] * c)
        x0 = gaussian([0.0] * (horizon + 1), covariance_of(horizon + 1, rho).tolist()).draw(n, generator(8))
        done, x = [x0[:, :1]], window.begin(x0[:, 1:], normal(n, horizon, seed=9))
        for shift in range(4):
            mean = c * done[-1][:, -1:]

            def denoise(x_t: torch.Tensor, t: torch.Tensor, mean: torch.Tensor = mean) -> torch.Tensor:
                return mean + rest.denoiser(schedule)(x_t - schedule.alpha(t) * mean, t)

            chunk, x = window.shift(denoise, x, Ddpm(), generator(10 + shift))
            done.append(chunk)
        out = torch.cat(done, 1)[:, 1:]
        assert out.shape == (n, 8)
        assert out.mean(0).abs().max() < 4 / math.sqrt(n)
        assert (out.T.cov().diagonal() - 1).abs().max() < 4 * math.sqrt(2 / n) + 0.05
        neighbours = out.T.corrcoef().diagonal(1)
        assert (neighbours - rho).abs().max() < 4 / math.sqrt(n) + 0.05

    def test_a_shift_costs_its_share_of_the_evaluations_and_levels_rise(self) -> None:
        asked = []

        def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            asked.append(t)
            return 0.5 * x_t

        schedule = linear_beta()
        window = RollingWindow(schedule, uniform_grid(schedule, 20), horizon=8, chunk=2, axis=2)
        done, rest = window.shift(denoise, normal(3, 5, 8, 2, seed=1), Ddim(), generator(1))
        assert done.shape == (3, 5, 2, 2)
        assert rest.shape == (3, 5, 8, 2)
        assert len(asked) == window.steps == 5
        assert asked[0].shape == (3, 5, 8)
        assert (asked[0].reshape(-1, 8)[:, ::2].diff() > 0).all()
        assert asked[0][0, 0, -1] == 999

    def test_the_levels_after_a_shift_are_those_before_one(self) -> None:
        schedule = StraightFlow()
        window = RollingWindow(schedule, uniform_grid(schedule, 12), horizon=6, chunk=2)
        before, after = window.level(0).t[0], window.level(window.steps).t[0]
        assert torch.equal(after[2:], before[:-2])
        assert (after[:2] == schedule.clean).all()

    def test_what_does_not_fit_is_refused(self) -> None:
        schedule = StraightFlow()
        grid = uniform_grid(schedule, 12)
        for arguments, match in (
            ((schedule, grid, 7, 2), "cut into chunks"),
            ((schedule, uniform_grid(schedule, 10), 6, 2), "take a multiple"),
            ((schedule, grid[:-1], 6, 2), "end at clean"),
            ((schedule, grid, 6, 2, 0), "axis"),
        ):
            with pytest.raises(ValueError, match=match):
                RollingWindow(*arguments)
        window = RollingWindow(schedule, grid, 6, 2)
        for rule in (FlowHeun(), DpmSolver(2)):
            with pytest.raises(ValueError, match="one level for all"):
                window.shift(lambda x, t: x, torch.zeros(2, 6), rule, generator(1))
        with pytest.raises(ValueError, match="6 places along axis 1"):
            window.shift(lambda x, t: x, torch.zeros(2, 5), Ddim(), generator(1))
        with pytest.raises(ValueError, match="NaN"):
            window.shift(lambda x, t: x, torch.full((2, 6), math.nan), Ddim(), generator(1))
