"""Schedules and the forward process against the formulas of their papers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from traj_diffusion.diffusion import (
    CosineVP,
    DiscreteVP,
    Edm,
    Schedule,
    StraightFlow,
    TableVP,
    add_noise,
    cosine_beta,
    linear_beta,
    make_schedule,
    noise_one_step,
    zero_terminal_snr,
)

CONTINUOUS = [CosineVP(), StraightFlow(), Edm(), TableVP(linear_beta()), TableVP(zero_terminal_snr(cosine_beta()))]
DISCRETE = [linear_beta(), cosine_beta(), zero_terminal_snr(linear_beta()), linear_beta(n=50, beta_end=0.3)]


def times(schedule: Schedule) -> torch.Tensor:
    if isinstance(schedule, DiscreteVP):
        return torch.arange(schedule.n)
    return torch.linspace(0, 1, 501, dtype=torch.float64)


@pytest.mark.parametrize("schedule", CONTINUOUS + DISCRETE, ids=repr)
def test_the_signal_to_noise_ratio_falls_strictly(schedule: Schedule) -> None:
    assert (schedule.log_snr(times(schedule)).double().diff() < 0).all()


@pytest.mark.parametrize("schedule", CONTINUOUS + DISCRETE, ids=repr)
def test_each_family_obeys_its_law(schedule: Schedule) -> None:
    t = times(schedule)
    alpha, sigma = schedule.alpha(t).double(), schedule.sigma(t).double()
    law = {"vp": alpha**2 + sigma**2, "flow": alpha + sigma, "edm": alpha}[schedule.family]
    tolerance = 2e-7 if schedule.discrete else 1e-14
    assert (law - 1).abs().max() < tolerance


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=repr)
def test_continuous_time_starts_clean(schedule: Schedule) -> None:
    zero = torch.zeros(())
    assert schedule.alpha(zero) == 1
    assert schedule.sigma(zero) == 0
    assert schedule.log_snr(zero) == math.inf


@pytest.mark.parametrize("schedule", [CosineVP(), StraightFlow(), TableVP(zero_terminal_snr(linear_beta()))], ids=repr)
def test_the_end_is_pure_noise(schedule: Schedule) -> None:
    for dtype in (torch.float32, torch.float64):
        one = torch.ones((), dtype=dtype)
        assert schedule.alpha(one) == 0
        assert schedule.sigma(one) == 1


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=repr)
def test_log_snr_and_its_inverse_undo_each_other(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 301, dtype=torch.float64)
    assert (schedule.t_of_log_snr(schedule.log_snr(t)) - t).abs().max() < 1e-9


@pytest.mark.parametrize("schedule", DISCRETE, ids=repr)
def test_the_discrete_inverse_finds_the_nearest_step(schedule: DiscreteVP) -> None:
    t = torch.arange(schedule.n)
    log_snr = schedule.log_snr(t).double()
    assert torch.equal(schedule.t_of_log_snr(log_snr), t)
    asked = torch.linspace(-8, 8, 57, dtype=torch.float64)
    slow = (log_snr[None] - asked[:, None]).abs().argmin(1)
    assert torch.equal(schedule.t_of_log_snr(asked), slow)


def test_the_linear_table_is_that_of_ddpm() -> None:
    schedule = linear_beta()
    assert schedule.alpha_bar[0] == 1 - 1e-4  # t = 0 carries beta_0 already
    assert schedule.alpha_bar[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)


def test_zero_terminal_snr_keeps_the_first_step_and_ends_in_noise() -> None:
    before = linear_beta()
    after = zero_terminal_snr(before)
    assert after.alpha_bar[-1] == 0
    assert after.alpha_bar[0].item() == pytest.approx(before.alpha_bar[0].item(), abs=1e-15)


def test_a_table_in_continuous_time_passes_through_its_steps() -> None:
    table = cosine_beta(100)
    t = (torch.arange(100, dtype=torch.float64) + 1) / 100
    assert (TableVP(table).alpha(t) ** 2 - table.alpha_bar).abs().max() < 1e-12


def test_walking_step_by_step_gives_the_closed_form_in_distribution() -> None:
    generator = torch.Generator().manual_seed(1)
    schedule = linear_beta(n=20, beta_start=0.01, beta_end=0.3)
    x0 = torch.full((40_000, 1), 1.5, dtype=torch.float64)
    x = x0
    for step in range(12):
        eps = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x = noise_one_step(x, eps, torch.tensor(step), schedule)
    t = torch.tensor(11)
    sigma = schedule.sigma(t).item()
    assert x.mean().item() == pytest.approx(1.5 * schedule.alpha(t).item(), abs=4 * sigma / 200)
    assert x.std().item() == pytest.approx(sigma, rel=4 / math.sqrt(2 * 40_000))


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    which=st.sampled_from(CONTINUOUS + DISCRETE),
    data=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_add_noise_follows_the_leading_axes(
    shape: list[int], dtype: torch.dtype, which: Schedule, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    x0, eps = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    axes = data.draw(st.integers(0, len(shape)))
    t_shape = [data.draw(st.sampled_from([1, size])) for size in shape[:axes]]
    unit = torch.rand(t_shape, generator=generator, dtype=torch.float64)
    t = (unit * which.t_max).long() if which.discrete else unit
    x_t = add_noise(x0, eps, t, which)
    assert x_t.dtype == dtype
    everywhere = t.reshape(*t_shape, *[1] * (len(shape) - axes)).expand(shape)
    slow = which.alpha(everywhere).double() * x0.double() + which.sigma(everywhere).double() * eps.double()
    assert torch.allclose(x_t.double(), slow, rtol=1e-6, atol=1e-6 * (1 + slow.abs().max().item()))


@pytest.mark.parametrize("schedule", [CosineVP(), StraightFlow(), TableVP(linear_beta())], ids=repr)
@pytest.mark.parametrize("t", [-0.01, 1.01, math.nan])
def test_continuous_time_out_of_range_names_the_range(schedule: Schedule, t: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        schedule.alpha(torch.tensor([0.5, t]))


@pytest.mark.parametrize("t", [-1, 1000])
def test_discrete_time_out_of_range_names_the_range(t: int) -> None:
    # A table would take -1 for its last entry.
    x0 = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"0\.\.999"):
        add_noise(x0, x0, torch.tensor([0, t]), linear_beta())


def test_time_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="integer"):
        linear_beta().alpha(torch.tensor(0.5))
    with pytest.raises(ValueError, match="real number"):
        CosineVP().alpha(torch.tensor(1))


@pytest.mark.parametrize(
    ("x_shape", "t_shape"),
    [((4, 3), (3,)), ((3, 4, 2), (4,)), ((4, 4, 2), (4, 2, 2)), ((4,), (4, 1)), ((4, 2), (2, 1))],
)
def test_a_t_that_would_fall_on_another_axis_is_refused(x_shape: tuple[int, ...], t_shape: tuple[int, ...]) -> None:
    x0 = torch.zeros(x_shape)
    with pytest.raises(ValueError, match="leading axes"):
        add_noise(x0, x0, torch.full(t_shape, 0.5), CosineVP())


def test_a_level_per_row_falls_on_rows_even_where_columns_would_fit() -> None:
    x0, t = torch.ones(3, 3, 2), torch.tensor([0.0, 0.5, 1.0])
    assert add_noise(x0, torch.zeros_like(x0), t, StraightFlow())[:, 0, 0].tolist() == [1.0, 0.5, 0.0]


def test_eps_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        add_noise(torch.zeros(4, 2), torch.zeros(4, 1), torch.tensor(0.5), CosineVP())


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        make_schedule("cosin")
    with pytest.raises(ValueError, match="steps"):
        make_schedule("linear_beta", steps=3)


@pytest.mark.parametrize("table", [[0.9, 0.9], [1.0, 0.5], [0.5, -0.1]])
def test_a_table_that_is_no_schedule_is_refused(table: list[float]) -> None:
    with pytest.raises(ValueError, match="fall strictly"):
        DiscreteVP(torch.tensor(table, dtype=torch.float64))
