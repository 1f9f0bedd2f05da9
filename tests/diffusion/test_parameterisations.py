"""Targets convert into each other, and loss weights measure what they say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from traj_diffusion.diffusion import (
    LOSS_WEIGHTS,
    PARAMETERISATIONS,
    CosineVP,
    Edm,
    Schedule,
    StraightFlow,
    add_noise,
    as_denoiser,
    convert,
    loss_weight,
    target,
    target_factor,
    to_eps,
    to_x0,
    zero_terminal_snr,
)
from traj_diffusion.diffusion import linear_beta as linear

SCHEDULES = [CosineVP(), StraightFlow(), Edm()]


@given(
    schedule=st.sampled_from(SCHEDULES),
    source=st.sampled_from(PARAMETERISATIONS),
    to=st.sampled_from(PARAMETERISATIONS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_every_conversion_gives_the_target_it_names(
    schedule: Schedule, source: str, to: str, dtype: torch.dtype, shape: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    t = 0.2 + 0.6 * torch.rand(shape[:1], generator=generator, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_t = add_noise(x0, eps, t, schedule)
    found = convert(target(source, x0, eps, alpha, sigma), source, to, x_t, alpha, sigma)
    wanted = target(to, x0, eps, alpha, sigma)
    # Dividing by sigma or alpha magnifies rounding by their ratio, which is in the problem and not in the code.
    ratio = max((alpha / sigma).max().item(), (sigma / alpha).max().item())
    bound = 32 * torch.finfo(dtype).eps * (1 + ratio) ** 2 * (1 + sigma.max().item())
    assert (found - wanted).abs().max().item() < bound
    assert found.dtype == dtype


def test_v_and_u_work_at_both_ends() -> None:
    x0, eps = torch.tensor([0.3, -2.0]), torch.tensor([1.1, 0.4])
    for name in ("v", "u"):
        for alpha, sigma, x_t in ((1.0, 0.0, x0), (0.0, 1.0, eps)):
            a, s = torch.tensor(alpha), torch.tensor(sigma)
            prediction = target(name, x0, eps, a, s)
            assert torch.allclose(to_x0(name, prediction, x_t, a, s), x0)
            assert torch.allclose(to_eps(name, prediction, x_t, a, s), eps)


def test_a_singular_pair_names_what_works() -> None:
    x, zero, one = torch.ones(2), torch.zeros(()), torch.ones(())
    with pytest.raises(ValueError, match="predict v, u or x0"):
        convert(x, "eps", "x0", x, zero, one)
    with pytest.raises(ValueError, match="predict eps, v or u"):
        convert(x, "x0", "eps", x, one, zero)
    with pytest.raises(ValueError, match="predict v, u or x0"):
        as_denoiser(lambda x, t: x, "eps", zero_terminal_snr(linear()))(torch.ones(2, 1), torch.tensor([3, 999]))


@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_as_denoiser_returns_x0_whatever_the_network_predicts(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    x0, eps = (torch.randn(5, 2, generator=generator) for _ in range(2))
    schedule, t = CosineVP(), torch.linspace(0.1, 0.9, 5)
    prediction = target(name, x0, eps, schedule.alpha(t), schedule.sigma(t))
    denoise = as_denoiser(lambda x_t, t: prediction, name, schedule)
    assert torch.allclose(denoise(add_noise(x0, eps, t, schedule), t), x0, atol=1e-5)


def test_bad_arguments_are_refused() -> None:
    x, half = torch.ones(2, 2), torch.full((), 0.5)
    with pytest.raises(ValueError, match="did you mean 'eps'"):
        to_x0("epsilon", x, x, half, half)
    with pytest.raises(ValueError, match="same shape"):
        as_denoiser(lambda x, t: x[:, :1], "x0", CosineVP())(x, half)
    with pytest.raises(ValueError, match="same shape"):
        to_x0("v", x[:, :1], x, half, half)
    with pytest.raises(ValueError, match="leading axes"):
        to_x0("v", x, x, torch.ones(3), torch.ones(3))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_an_error_in_x0_and_in_another_target_differ_by_the_factor(schedule: Schedule, name: str) -> None:
    t = torch.linspace(0.3, 0.9, 7, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x0, x_t, error = (torch.randn(7, generator=torch.Generator().manual_seed(s)).double() for s in range(3))
    right, wrong = (convert(x, "x0", name, x_t, alpha, sigma) for x in (x0, x0 + error))
    measured = ((wrong - right) / error) ** 2
    assert torch.allclose(measured, target_factor(name, alpha, sigma), rtol=1e-6)


def test_the_weights_are_those_of_their_papers() -> None:
    log_snr = torch.linspace(-12, 12, 49, dtype=torch.float64)
    snr, sigma = log_snr.exp(), (-log_snr / 2).exp()
    assert torch.allclose(loss_weight("simple")(log_snr), snr)
    assert torch.allclose(loss_weight("min_snr", gamma=3.0)(log_snr), torch.minimum(snr, torch.tensor(3.0)))
    assert torch.allclose(
        loss_weight("edm", sigma_data=0.7)(log_snr), (sigma**2 + 0.49) / (sigma * 0.7) ** 2, rtol=1e-6
    )
    on_eps = 1 / (1 + torch.exp(log_snr - 0.5))
    assert torch.allclose(loss_weight("sigmoid", bias=0.5)(log_snr), snr * on_eps, rtol=1e-6)


@pytest.mark.parametrize("name", ["uniform", "min_snr", "sigmoid"])
def test_bounded_weights_stay_finite_at_clean_data(name: str) -> None:
    assert torch.isfinite(loss_weight(name)(torch.tensor([torch.inf, -torch.inf]))).all()


def test_an_unknown_weight_or_option_is_refused() -> None:
    assert set(LOSS_WEIGHTS) == {"simple", "uniform", "min_snr", "edm", "sigmoid"}
    with pytest.raises(ValueError, match="did you mean 'min_snr'"):
        loss_weight("min-snr")
    with pytest.raises(ValueError, match="gama"):
        loss_weight("min_snr", gama=5.0)
