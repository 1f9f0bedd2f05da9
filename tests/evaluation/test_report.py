"""The report card holds the figures of its rows, loads nothing, and refuses rows that do not compare."""

import re
from pathlib import Path

import pytest

from traj_diffusion.errors import BadInput
from traj_diffusion.evaluation import Run, report_plots, score_row
from traj_diffusion.evaluation.log_baselines import log_rollouts
from traj_diffusion.evaluation.report import report_card, write_report
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.sim_adapter import rollout
from traj_diffusion.testing import straight_road


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Log with noise and constant velocity on two roads."""
    scenes = [straight_road(speeds=(10.0, speed), scene_id=f"road {speed}") for speed in (7.0, 9.0)]
    noisy = [score_row(scene, log_rollouts(scene, 4, noise=2.0)) for scene in scenes]
    held = [score_row(scene, rollout(scene, ConstantVelocity(), rollouts=4)) for scene in scenes]
    return [Run("<noisy>", {}, noisy), Run("cv", {}, held)]


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path, runs: list[Run]) -> None:
    text = write_report(runs, tmp_path / "card.html").read_text()
    assert text.count("<img ") == 7
    links = re.findall(r'(?:src|href)="([^"]{0,26})', text)
    assert set(links) == {"data:image/svg+xml;base64,"}
    assert "{{" not in text
    assert "<noisy>" not in text
    assert "&lt;noisy&gt;" in text
    mean = sum(row.wosac.metametric for row in runs[0].rows if row.wosac is not None) / 2
    assert f"{mean:.3f} <small>[" in text
    assert "R = 4 rollouts, K = 1, replanned at 2 Hz" in text


def test_the_same_rows_give_the_same_page(tmp_path: Path, runs: list[Run]) -> None:
    assert write_report(runs, tmp_path / "a.html").read_bytes() == write_report(runs, tmp_path / "b.html").read_bytes()


def test_what_rows_lack_is_left_out_not_drawn_as_zero(tmp_path: Path, runs: list[Run]) -> None:
    assert report_plots.coverage(runs[1:]) is None  # rollouts that are all the same have no spread
    assert report_plots.coverage(runs) is not None
    one = straight_road()
    single = Run("single", {}, [score_row(one, log_rollouts(one, 1))])
    assert report_plots.pareto([single]) is None  # one rollout has no other to differ from
    assert write_report([single], tmp_path / "single.html").read_text().count("<img ") == 4


def test_rows_that_do_not_compare_are_refused(tmp_path: Path, runs: list[Run]) -> None:
    with pytest.raises(BadInput, match=r"differ in 1 scenes, road 9\.0"):
        write_report([runs[0], Run("cv", {}, runs[1].rows[:1])], tmp_path / "card.html")
    with pytest.raises(BadInput, match="give each once"):
        write_report([runs[0], runs[0]], tmp_path / "card.html")
    with pytest.raises(BadInput, match="at least one file"):
        report_card([], tmp_path / "card.html")
    with pytest.raises(BadInput, match="no finished row"):
        write_report([Run("cv", {}, [])], tmp_path / "card.html")
    assert not list(tmp_path.iterdir())
