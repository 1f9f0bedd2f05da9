"""Rows hold what was scored, survive a kill, and make tables that name their rules."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.datasets import read_scenes
from traj_diffusion.errors import BadInput, BadRollouts
from traj_diffusion.evaluation.log_baselines import log_rollouts
from traj_diffusion.evaluation.run import RunSettings, roll_out
from traj_diffusion.evaluation.tables import run_figures, run_table, wosac_summary
from traj_diffusion.evaluation.wosac_rows import Run, SceneRow, evaluate_wosac, load_run, maker, score_row
from traj_diffusion.metrics import wosac
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import Rollouts, Scene, save_scene
from traj_diffusion.sim_adapter import rollout
from traj_diffusion.testing import make_scene, straight_road

FEW = RunSettings(rollouts=4)


def noisy(scene: Scene) -> Rollouts:
    return log_rollouts(scene, 4, noise=2.0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of three scenes."""
    for number in range(3):
        scene = straight_road(speeds=(10.0, 8.0 + number), scene_id=f"road{number}")
        save_scene(scene, tmp_path / "scenes" / f"road{number}.scene.npz")
    return tmp_path / "scenes"


def test_a_row_holds_the_official_score_and_all_other_figures() -> None:
    scene = straight_road()
    row = score_row(scene, noisy(scene))
    assert row.wosac is not None
    assert row.wosac.fields == wosac.score(scene, noisy(scene)).fields
    assert min(row.joint_ade) == pytest.approx(row.metrics["joint_min_ade@4/8s"])
    assert np.mean(row.joint_ade) == pytest.approx(row.metrics["mean_ade@4/8s"])
    assert [sum(row.ranks[axis]) for axis in ("along", "across")] == pytest.approx([2, 2])


def test_a_row_goes_through_json_and_aggregates_the_same() -> None:
    scenes = [straight_road(speeds=(10.0, speed), scene_id=str(speed)) for speed in (5.0, 8.0, 9.0)]
    rows = [score_row(scene, noisy(scene)) for scene in scenes]
    again = [SceneRow.from_row(json.loads(json.dumps(row.to_row(), allow_nan=False))) for row in rows]
    assert [replace(row, wosac=None) for row in again] == [replace(row, wosac=None) for row in rows]
    whole = wosac.aggregate([row.wosac for row in rows if row.wosac is not None])
    assert wosac.aggregate([row.wosac for row in again if row.wosac is not None]) == whole


def test_a_scene_that_wosac_cannot_score_says_why_and_has_all_else() -> None:
    scene = make_scene(np.array([[0.0, 0]]), np.array([[9.0, 0]]))  # a map without road edges
    row = SceneRow.from_row(score_row(scene, noisy(scene)).to_row())
    assert row.wosac is None
    assert "no road edge" in row.wosac_absent
    assert row.metrics["joint_min_ade@4/8s"] > 0
    run = Run("noisy", {}, [row])
    assert wosac_summary(run) is None
    assert "no WOSAC for 1 scenes" in run_table([run])


def test_every_table_names_year_rate_r_and_k() -> None:
    scene = straight_road()
    driven = Run("cv", {}, [score_row(scene, rollout(scene, ConstantVelocity(), rollouts=4, replan_every=1))])
    replayed = Run("log", {}, [score_row(scene, log_rollouts(scene, 4))])
    text = run_table([driven, replayed])
    assert "cv: WOSAC sim_agents_2025; R = 4 rollouts, K = 1, replanned at 10 Hz; 1 scenes" in text
    assert "log: WOSAC sim_agents_2025; R = 4 rollouts, K = 1, never replanned; 1 scenes" in text
    assert json.loads(json.dumps(run_figures(driven), allow_nan=False))["wosac"]["metametric"]["scenes"] == 1


def test_an_evaluation_goes_on_where_it_was_killed(tmp_path: Path, source: Path) -> None:
    class Counting(ConstantVelocity):
        """Counts how many scenes it drives."""

        def encode(self, scene: Scene) -> None:
            made.append(scene.id)

    path, made = tmp_path / "rows.jsonl", list[str]()
    whole = evaluate_wosac(source, Counting(), FEW, path)
    text = path.read_text()
    path.write_text(text[:-30])  # the last row was being written
    again = evaluate_wosac(source, Counting(), FEW, path)
    assert made == ["road0", "road1", "road2", "road2"]
    assert path.read_text() == text
    assert [row.to_row() for row in again.rows] == [row.to_row() for row in whole.rows]
    assert [row.to_row() for row in load_run(path).rows] == [row.to_row() for row in whole.rows]


def test_rows_of_other_settings_or_broken_ones_are_refused(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "rows.jsonl"
    evaluate_wosac(source, "log_noise", FEW, path)
    with pytest.raises(BadInput, match="other settings"):
        evaluate_wosac(source, "log_noise", replace(FEW, seed=1), path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"scene_id": "x"}', *lines[2:]]) + "\n")
    with pytest.raises(BadInput, match="line 2"):
        load_run(path)
    path.write_text("no rows\n")
    with pytest.raises(BadInput, match="not a file of rows"):
        load_run(path)


def test_a_policy_and_the_files_it_left_score_the_same(tmp_path: Path, source: Path) -> None:
    policy, folder = ConstantVelocity(), tmp_path / "rollouts"
    driven = evaluate_wosac(source, policy, FEW, tmp_path / "a.jsonl")
    for scene in read_scenes(source):
        roll_out(scene, policy, FEW).save(folder)
    read = evaluate_wosac(source, folder, FEW, tmp_path / "b.jsonl")
    assert read.name == "rollouts"
    assert [row.to_row() for row in read.rows] == [row.to_row() for row in driven.rows]
    next(folder.iterdir()).unlink()
    with pytest.raises(BadInput, match="other settings"):  # the files are not those that the rows were made of
        evaluate_wosac(source, folder, FEW, tmp_path / "b.jsonl")
    with pytest.raises(BadRollouts, match="one file of rollouts for each scene"):
        evaluate_wosac(source, folder, FEW, tmp_path / "c.jsonl")


def test_the_log_baselines_are_known_by_name() -> None:
    scene = straight_road()
    assert (maker("log_replay", FEW)(scene).position == log_rollouts(scene, 4).position).all()
    assert maker("log_noise", FEW)(scene).provenance["model"] == "log_noise"
    with pytest.raises(ValueError, match="known: log_replay, log_noise"):
        maker("log", FEW)
