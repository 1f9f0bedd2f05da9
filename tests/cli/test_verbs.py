"""What the verbs do when all is well."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from traj_diffusion.cli import main
from traj_diffusion.datasets.womd_writer import write_womd
from traj_diffusion.scene import Rollouts, save_scene
from traj_diffusion.testing import straight_road

Run = Callable[..., CompletedProcess[str]]
CV = ("--policy", "constant_velocity")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Return what a command prints; it must end well and say nothing on stderr, which is no terminal."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    assert err == ""
    return out


def test_rollout_writes_files_and_ends_with_scores_and_paths(
    tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shown = printed(capsys, "rollout", scene_file, *CV, "--futures", "8", "--rollouts", "2", "--out", out)
    assert {file.name for file in out.iterdir()} == {
        "crossing.rollouts.npz",
        "crossing.png",
        "crossing.html",
        "index.html",
    }
    made = Rollouts.load(out / "crossing.rollouts.npz")
    assert (made.runs, len(made.agent_id), made.provenance["futures"]) == (2, 3, 8)
    table, _, paths = shown.partition("\n\n")
    assert "joint minADE@2, m" in table
    assert f"players and pictures: {out / 'index.html'}" in paths
    assert all(Path(line.partition(": ")[2]).exists() for line in paths.splitlines())


def test_rollout_without_pictures(tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    shown = printed(capsys, "rollout", scene_file, *CV, "--rollouts", "1", "--no-pictures", "--out", out)
    assert [file.name for file in out.iterdir()] == ["crossing.rollouts.npz"]
    assert f"rollouts: {out}" in shown


def test_rollout_of_a_scene_that_ends_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_womd(tmp_path / "short.tfrecord", [straight_road(steps=11)])
    out = tmp_path / "out"
    shown = printed(capsys, "rollout", path, *CV, "--rollouts", "1", "--out", out)
    assert "collision rate" in shown
    assert "minADE" not in shown
    assert (out / "made.png").stat().st_size > 1000


def test_evaluate_goes_on_where_it_was(tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("evaluate", scene_file, *CV, "--runs", "2", "--out", tmp_path / "rows", "--all")
    first = printed(capsys, *command)
    rows = tmp_path / "rows" / "constant_velocity.rows.jsonl"
    settings, row = rows.read_text().splitlines()
    kept = json.loads(row)
    kept["tallies"]["collision_rate"] = [42.0, 1]
    rows.write_text(f"{settings}\n{json.dumps(kept)}\n{row[:40]}")  # a kill cut the last line off
    second = printed(capsys, *command)
    assert "42 [42, 42]" in second  # taken from the file, not computed again
    assert "42 [42, 42]" not in first
    assert rows.read_text().count("\n") == 2


def test_evaluate_refuses_rows_of_other_settings(
    tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed(capsys, "evaluate", scene_file, *CV, "--runs", "1", "--out", tmp_path)
    with pytest.raises(SystemExit):
        main(["evaluate", str(scene_file), *CV, "--runs", "2", "--out", str(tmp_path)])
    assert "rows of other settings" in capsys.readouterr().err


def test_evaluate_scores_files_of_anybody_and_again_when_they_change(
    tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, summary = tmp_path / "mine", tmp_path / "summary.json"
    command = ("evaluate", scene_file, "--rollouts", folder, "--out", tmp_path / "rows", "--json", summary)
    roll = ("rollout", scene_file, "--rollouts", "1", "--no-pictures", "--out", folder, "--policy")
    printed(capsys, *roll, "constant_velocity")
    assert "mine" in printed(capsys, *command)
    assert json.loads(summary.read_text())["mine"]["means"]["mean_ade@1/8s"]["mean"] == pytest.approx(0, abs=1e-5)
    printed(capsys, *roll, "stationary")
    printed(capsys, *command)
    assert json.loads(summary.read_text())["mine"]["means"]["mean_ade@1/8s"]["mean"] > 10


def test_evaluate_puts_several_beside_each_other_with_wosac_and_writes_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = save_scene(straight_road(), tmp_path / "road.scene.npz")
    card = tmp_path / "card.html"
    command = ("evaluate", scene, *CV, "--policy", "log_noise", "--runs", "4", "--out", tmp_path, "--report", card)
    shown = printed(capsys, *command)
    assert "constant_velocity: WOSAC sim_agents_2025; R = 4 rollouts, K = 1, replanned at 2 Hz; 1 scenes" in shown
    assert "realism meta-metric" in shown
    assert "red lights run                -" in shown  # absent, not 0: the road has no lights
    assert card.read_text().count("<img ") > 3


def test_evaluate_names_the_scenes_that_have_no_rollouts(
    tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_scene(straight_road(scene_id="road"), scene_file.parent / "road.scene.npz")
    folder = tmp_path / "mine"
    printed(capsys, "rollout", scene_file, *CV, "--rollouts", "1", "--no-pictures", "--out", folder)
    command = ["evaluate", scene_file.parent, "--rollouts", folder, "--out", tmp_path / "rows"]
    shown = printed(capsys, *command, "--allow-missing")
    assert "mine: no rollouts for 1 of 2 scenes: road" in shown


def test_the_years_of_wosac_and_the_benchmarks_are_those_that_are_known() -> None:
    from traj_diffusion.cli.scores import BENCHMARKS, CONFIGS
    from traj_diffusion.evaluation.benchmark import NAMES
    from traj_diffusion.metrics import wosac

    assert set(CONFIGS) == set(wosac.CONFIGS)
    assert BENCHMARKS == NAMES


def test_inspect_shows_a_table_and_draws(tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "inspect", scene_file, "--picture", tmp_path / "scene.png")
    assert "3: 2 vehicle, 1 pedestrian" in shown
    assert (tmp_path / "scene.png").read_bytes().startswith(b"\x89PNG")


def test_prepare_packs_scenes_into_a_cache(
    tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = printed(capsys, "prepare", scene_file, "--out", tmp_path / "cache")
    assert "1 files, 1 of them with scenes: 1 scenes, 1 whole windows, 3 agents" in shown
    assert json.loads((tmp_path / "cache" / "report.json").read_text())["files"][0]["file"] == str(scene_file)


def test_the_command_works_in_a_process_of_its_own(run: Run, scene_file: Path) -> None:
    done = run("inspect", scene_file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "scene" in done.stdout
