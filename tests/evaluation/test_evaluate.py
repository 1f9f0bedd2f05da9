"""Rows hold what was scored, survive a kill, and make tables that name their rules."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.datasets import read_scenes
from traj_diffusion.datasets.submissions import Declaration, write_submission
from traj_diffusion.errors import BadInput, BadRollouts
from traj_diffusion.evaluation import (
    Run,
    RunSettings,
    SceneRow,
    evaluate,
    load_run,
    roll_out,
    run_figures,
    run_table,
    score_row,
)
from traj_diffusion.evaluation.evaluate import rollouts_of, unpacked
from traj_diffusion.evaluation.log_baselines import log_rollouts
from traj_diffusion.evaluation.tables import wosac_summary
from traj_diffusion.metrics import AgentSet, wosac
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import Lights, Rollouts, Scene, save_scene
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


def test_a_row_holds_the_meta_metric_of_another_year_of_the_same_rollouts() -> None:
    scene = straight_road()
    row = SceneRow.from_row(score_row(scene, noisy(scene)).to_row())
    other = wosac.score(scene, noisy(scene), "sim_agents_2024_leaderboard")
    assert row.wosac is not None
    assert row.metrics["metametric_2024"] == other.metametric != row.wosac.metametric
    bare = make_scene(np.array([[0.0, 0]]), np.array([[9.0, 0]]))  # a map without road edges
    assert "no road edge" in score_row(bare, noisy(bare)).metrics.absent["metametric_2024"]


def test_displacement_is_given_for_six_samples_too() -> None:
    scene = straight_road()
    found = score_row(scene, log_rollouts(scene, 8, noise=2.0)).metrics
    few = log_rollouts(scene, 6, noise=2.0)  # the first ones of those
    for seconds in (3, 5, 8):
        assert found[f"joint_min_ade@6/{seconds}s"] == score_row(scene, few).metrics[f"joint_min_ade@6/{seconds}s"]
        assert found[f"joint_min_ade@6/{seconds}s"] >= found[f"joint_min_ade@8/{seconds}s"]


def test_a_recording_of_six_seconds_is_scored_over_six_and_the_table_says_so() -> None:
    whole = straight_road()
    scene = shortened(whole, 71)
    row = SceneRow.from_row(score_row(scene, rollout(scene, ConstantVelocity(), rollouts=4)).to_row())
    assert row.protocol.seconds == 6.0
    assert "joint_min_ade@4/5s" in row.metrics
    assert row.metrics.absent["joint_min_ade@4/8s"] == "the rollouts end after 6 s"
    assert "replanned at 2 Hz, scored over 6 s" in run_table([Run("cv", {}, [row])])
    replayed = score_row(scene, log_rollouts(scene, 4))  # which hold no more than the recording
    assert replayed.metrics["joint_min_ade@4/5s"] == 0
    with pytest.raises(BadRollouts, match="10 steps per run; 60 or more fit"):
        score_row(scene, rollout(scene, ConstantVelocity(), rollouts=4, seconds=1.0))


def shortened(scene: Scene, steps: int) -> Scene:
    names = ("position", "heading", "velocity", "size", "valid")
    agents = replace(scene.agents, **{name: getattr(scene.agents, name)[:, :steps] for name in names})
    return replace(scene, agents=agents, lights=Lights.none(steps))


def test_all_simulated_agents_count_where_they_are_asked_for() -> None:
    scene = straight_road()
    scene = replace(scene, ego=None, agents=replace(scene.agents, to_predict=np.zeros(len(scene.agents), bool)))
    rollouts = rollout(scene, ConstantVelocity(), rollouts=4)
    assert "joint_min_ade@4/8s" not in score_row(scene, rollouts).metrics
    row = score_row(scene, rollouts, agents=AgentSet.SIMULATED)
    assert row.metrics["joint_min_ade@4/8s"] == pytest.approx(0, abs=1e-6)
    assert len(row.joint_ade) == 4
    run = Run("cv", {"agents": str(AgentSet.SIMULATED)}, [row])
    assert "beside WOSAC all simulated agents count" in run.protocol


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
    assert "cv: WOSAC warns for 1 scenes, the first: 4 rollouts" in text  # official numbers are those of 32
    assert json.loads(json.dumps(run_figures(driven), allow_nan=False))["wosac"]["metametric"]["scenes"] == 1


def test_an_evaluation_goes_on_where_it_was_killed(tmp_path: Path, source: Path) -> None:
    class Counting(ConstantVelocity):
        """Counts how many scenes it drives."""

        def encode(self, scene: Scene) -> None:
            made.append(scene.id)

    path, made = tmp_path / "rows.jsonl", list[str]()
    whole = evaluate(source, Counting(), FEW, path)
    text = path.read_text()
    path.write_text(text[:-30])  # the last row was being written
    again = evaluate(source, Counting(), FEW, path)
    assert made == ["road0", "road1", "road2", "road2"]
    assert path.read_text() == text
    assert [row.to_row() for row in again.rows] == [row.to_row() for row in whole.rows]
    assert [row.to_row() for row in load_run(path).rows] == [row.to_row() for row in whole.rows]


def test_a_killed_process_loses_no_finished_row(tmp_path: Path, source: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from traj_diffusion.evaluation import RunSettings, evaluate\n"
        "stop = lambda scene: os.kill(os.getpid(), signal.SIGKILL) if scene == 'road1' else None\n"
        "evaluate(sys.argv[1], 'log_noise', RunSettings(rollouts=4), Path(sys.argv[2]), progress=stop)\n"
    )
    path = tmp_path / "rows.jsonl"
    killed = subprocess.run([sys.executable, "-P", "-c", code, str(source), str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    before = path.read_text()
    assert [row.scene_id for row in load_run(path).rows] == ["road0", "road1"]
    again = evaluate(source, "log_noise", FEW, path)
    assert path.read_text().startswith(before)
    whole = evaluate(source, "log_noise", FEW, tmp_path / "whole.jsonl")
    assert [row.to_row() for row in again.rows] == [row.to_row() for row in whole.rows]
    assert run_table([again]) == run_table([whole])


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path, source: Path) -> None:
    code = (
        "import multiprocessing, os, signal, sys\n"
        "from pathlib import Path\n"
        "from traj_diffusion.evaluation import RunSettings, evaluate\n"
        "def stop(scene):\n"
        "    print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    evaluate(sys.argv[1], 'log_noise', RunSettings(rollouts=2), Path(sys.argv[2]), workers=2, progress=stop)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    command = [sys.executable, "-P", str(script), str(source), str(tmp_path / "rows.jsonl")]
    # Workers inherit the pipe, so that its end comes when the last of them is gone.
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=200, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(done.stdout.split()) >= 2


def test_processes_change_nothing(tmp_path: Path, source: Path) -> None:
    alone = evaluate(source, "log_noise", FEW, tmp_path / "a.jsonl", workers=1)
    shared = evaluate(source, "log_noise", FEW, tmp_path / "b.jsonl", workers=2)
    assert [row.to_row() for row in shared.rows] == [row.to_row() for row in alone.rows]


def test_a_scene_that_changed_under_its_id_is_scored_anew(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = evaluate(source, ConstantVelocity(), FEW, path)
    save_scene(straight_road(speeds=(2.0, 1.0), scene_id="road0"), source / "road0.scene.npz")
    again = evaluate(source, ConstantVelocity(), FEW, path)
    assert first.rows[0].to_row() != again.rows[0].to_row()
    assert [row.to_row() for row in first.rows[1:]] == [row.to_row() for row in again.rows[1:]]
    assert [row.to_row() for row in load_run(path).rows] == [row.to_row() for row in again.rows]


def test_rows_of_other_settings_or_broken_ones_are_refused(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "rows.jsonl"
    evaluate(source, "log_noise", FEW, path)
    with pytest.raises(BadInput, match="other settings"):
        evaluate(source, "log_noise", replace(FEW, seed=1), path)
    with pytest.raises(BadInput, match="other settings"):
        evaluate(source, "log_noise", FEW, path, config="sim_agents_2024")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"scene_id": "x"}', *lines[2:]]) + "\n")
    with pytest.raises(BadInput, match="line 2"):
        load_run(path)
    path.write_text("no rows\n")
    with pytest.raises(BadInput, match="not a file of rows"):
        load_run(path)


def test_a_policy_and_the_files_it_left_score_the_same(tmp_path: Path, source: Path) -> None:
    policy, folder = ConstantVelocity(), tmp_path / "rollouts"
    driven = evaluate(source, policy, FEW, tmp_path / "a.jsonl")
    for scene in read_scenes(source):
        roll_out(scene, policy, FEW).save(folder)
    read = evaluate(source, folder, FEW, tmp_path / "b.jsonl")
    assert read.name == "rollouts"
    assert [row.to_row() for row in read.rows] == [row.to_row() for row in driven.rows]
    for scene in list(read_scenes(source))[:1]:
        log_rollouts(scene, 4).save(folder)
    again = evaluate(source, folder, FEW, tmp_path / "b.jsonl")  # one file changed
    assert again.rows[0].metrics["mean_ade@4/8s"] == 0
    assert [row.to_row() for row in again.rows[1:]] == [row.to_row() for row in driven.rows[1:]]


def test_scenes_without_rollouts_are_named_counted_and_accepted_only_when_asked(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "mine"
    scenes = list(read_scenes(source))
    log_rollouts(scenes[1], 4).save(folder)
    with pytest.raises(BadRollouts, match=r"mine: no rollouts for 2 of 3 scenes: road0, road2 .*--allow-missing"):
        evaluate(source, folder, FEW, tmp_path / "rows.jsonl")
    run = evaluate(source, folder, FEW, tmp_path / "rows.jsonl", allow_missing=True)
    assert ([row.scene_id for row in run.rows], list(run.missing)) == (["road1"], ["road0", "road2"])
    assert "mine: no rollouts for 2 of 3 scenes: road0, road2" in run_table([run])
    assert list(run_figures(run)["missing"]) == ["road0", "road2"]
    (tmp_path / "none").mkdir()
    with pytest.raises(BadRollouts, match=r"3 of 3 scenes: .*road2 \("):  # nothing at all is no evaluation
        evaluate(source, tmp_path / "none", FEW, tmp_path / "none.jsonl", allow_missing=True)


def test_a_scene_that_a_policy_cannot_drive_is_one_without_rollouts(tmp_path: Path, source: Path) -> None:
    scene = straight_road(scene_id="road9")
    valid = scene.agents.valid.copy()
    valid[:, scene.current_index] = False
    save_scene(replace(scene, agents=replace(scene.agents, valid=valid)), source / "road9.scene.npz")
    for workers in (1, 2):
        path = tmp_path / f"{workers}.jsonl"
        with pytest.raises(BadRollouts, match=r"1 of 4 scenes: road9 .*nobody to simulate"):
            evaluate(source, ConstantVelocity(), FEW, path, workers=workers)
        run = evaluate(source, ConstantVelocity(), FEW, path, workers=workers, allow_missing=True)
        assert (len(run.rows), list(run.missing)) == (3, ["road9"])


def test_a_submission_scores_as_the_files_it_was_made_of(tmp_path: Path, source: Path) -> None:
    full = replace(FEW, rollouts=32)
    declared = Declaration("a@b.c", "method", ("me",), "1K", False, False, False, True)
    made = [log_rollouts(scene, 32, noise=1.0) for scene in read_scenes(source)]
    file = write_submission(tmp_path / "mine.tar.gz", made, declared, shards=2)
    run = evaluate(source, unpacked(file, tmp_path / "unpacked"), full, tmp_path / "a.jsonl")
    known = evaluate(source, "log_noise", full, tmp_path / "b.jsonl")
    for one, other in zip(run.rows, known.rows, strict=True):
        assert one.wosac is not None
        assert other.wosac is not None
        assert dict(one.wosac.fields) == pytest.approx(dict(other.wosac.fields), abs=1e-5)  # float32 in the file


def test_rollouts_of_scenario_generation_have_that_score_and_no_other(tmp_path: Path, source: Path) -> None:
    for scene in read_scenes(source):
        rollouts, rows = log_rollouts(scene, 4), scene.sim_agents
        before = slice(0, scene.current_index + 1)

        def whole(recorded: np.ndarray, made: np.ndarray, before: slice = before) -> np.ndarray:
            return np.concatenate([np.repeat(recorded[None, :, before], 4, 0), made], 2)

        replace(
            rollouts,
            first_step=0,
            position=whole(scene.agents.position[rows], rollouts.position),
            heading=whole(scene.agents.heading[rows], rollouts.heading),
            valid=np.ones((4, len(rows), scene.steps), bool),
        ).save(tmp_path / "made")
    run = evaluate(source, tmp_path / "made", FEW, tmp_path / "a.jsonl", config="scenario_gen_2025")
    found = run_figures(run)
    assert found["wosac"]["metametric"]["mean"] > 0.5
    assert found["means"] == {}
    assert "WOSAC scenario_gen_2025" in run_table([run])


def test_the_log_baselines_are_known_by_name() -> None:
    scene = straight_road()
    assert (rollouts_of("log_replay", scene, FEW).position == log_rollouts(scene, 4).position).all()
    assert rollouts_of("log_noise", scene, FEW).provenance["model"] == "log_noise"
    with pytest.raises(ValueError, match="known: log_replay, log_noise"):
        rollouts_of("log", scene, FEW)
