"""Checks that need no model: schedules known to be good or bad, and bugs in the forward process."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from traj_diffusion.diffusion import make_schedule
from traj_diffusion.doctor import Report, Verdict, examine, plain_subject
from traj_diffusion.doctor.findings import judged
from traj_diffusion.doctor.install import ROOMS, judge_places, places, top_level
from traj_diffusion.doctor.process import kolmogorov_smirnov
from traj_diffusion.errors import BadConfig


def verdicts(report: Report) -> dict[str, Verdict]:
    return {finding.check: finding.verdict for finding in report.findings}


def failing(report: Report) -> set[str]:
    return {check for check, verdict in verdicts(report).items() if verdict is Verdict.FAIL}


@pytest.mark.parametrize("name", ["cosine", "flow", "edm", "linear_beta", "cosine_beta"])
@pytest.mark.parametrize("parameterisation", ["x0", "v", "eps"])
def test_the_known_schedules_raise_no_alarm(name: str, parameterisation: str) -> None:
    if parameterisation == "eps" and name in ("cosine", "flow"):
        parameterisation = "u"  # eps says nothing where alpha = 0
    assert examine(plain_subject(make_schedule(name), parameterisation)).alarms() == ()


def test_the_textbook_schedule_of_100_steps_is_too_weak() -> None:
    report = examine(plain_subject(make_schedule("linear_beta", n=100, beta_start=1e-4, beta_end=0.02)))
    found = {finding.check: finding for finding in report.findings}
    assert failing(report) == {"schedule.terminal_snr", "schedule.strength", "forward.prior"}
    assert "alpha_bar = 0.364" in found["schedule.terminal_snr"].finding
    assert "too weak" in found["schedule.strength"].remedy


def test_ten_times_its_betas_are_too_aggressive() -> None:
    report = examine(plain_subject(make_schedule("linear_beta", beta_start=1e-3, beta_end=0.2)))
    found = {finding.check: finding for finding in report.findings}
    assert failing(report) == {"schedule.strength"}
    assert "too aggressive" in found["schedule.strength"].remedy


@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_schedule_of_few_steps_is_judged_not_crashed(n: int) -> None:
    assert not [f for f in examine(plain_subject(make_schedule("cosine_beta", n=n))).findings if "broke" in f.finding]


def test_a_forward_process_that_returns_nan_fails() -> None:
    subject = plain_subject(make_schedule("cosine"))
    assert "forward.closed_form" in failing(
        examine(replace(subject, add_noise=lambda x0, eps, t: torch.full_like(x0, torch.nan)))
    )


def test_kolmogorov_smirnov_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for scale in (1.0, 1.05, 1.3):
        x = scale * torch.randn(500, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        distance, p = kolmogorov_smirnov(x)
        wanted = stats.kstest(x.numpy(), "norm")
        assert distance == pytest.approx(wanted.statistic, abs=1e-12)
        assert p == pytest.approx(wanted.pvalue, rel=0.05, abs=1e-6)


def test_shadowing_tells_two_installations_and_a_hidden_package() -> None:
    own = places()
    assert judge_places(own, lambda name: None).verdict is Verdict.OK
    hidden = judge_places(own, lambda name: own["traj_diffusion.datasets"] if name == "datasets" else None)
    assert hidden.verdict is Verdict.WARN
    assert "import datasets" in hidden.finding
    two = judge_places(own | {f"traj_diffusion.{ROOMS[0]}": Path("/elsewhere/datasets")}, lambda name: None)
    assert two.verdict is Verdict.FAIL
    assert top_level("no_such_package_at_all") is None


@pytest.mark.parametrize(
    ("figure", "warn", "fail", "verdict"),
    [
        (1.0, 1.0, 2.0, Verdict.OK),
        (1.5, 1.0, 2.0, Verdict.WARN),
        (2.1, 1.0, 2.0, Verdict.FAIL),
        (0.5, 0.4, 0.3, Verdict.OK),
        (0.35, 0.4, 0.3, Verdict.WARN),
        (0.2, 0.4, 0.3, Verdict.FAIL),
        (float("nan"), 1.0, 2.0, Verdict.FAIL),
    ],
)
def test_thresholds_work_in_both_directions(figure: float, warn: float, fail: float, verdict: Verdict) -> None:
    finding = judged("x", figure, warn, fail, "found", "do")
    assert finding.verdict is verdict
    assert (finding.remedy == "") == (verdict is Verdict.OK)


def test_an_unknown_check_names_the_nearest() -> None:
    with pytest.raises(BadConfig, match=r"did you mean 'model.timestep'"):
        examine(plain_subject(make_schedule("cosine")), ["model.timesteps"])


def test_without_a_model_the_other_checks_say_why_they_are_skipped() -> None:
    report = examine(plain_subject(make_schedule("cosine")))
    skipped = [finding for finding in report.findings if finding.verdict is Verdict.SKIPPED]
    assert len(skipped) == 22
    assert {finding.finding for finding in skipped} == {"needs a checkpoint"}


def test_without_time_checks_are_skipped() -> None:
    assert {f.verdict for f in examine(plain_subject(make_schedule("cosine")), seconds=0.0).findings} == {
        Verdict.SKIPPED
    }
