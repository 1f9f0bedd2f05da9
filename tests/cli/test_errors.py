"""Bad input ends with exit code 2 and one line on stderr that names what is wrong, and where."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from traj_diffusion.cli import main
from traj_diffusion.datasets.sources import known_formats
from traj_diffusion.datasets.womd_writer import write_womd
from traj_diffusion.evaluation import RunSettings, roll_out
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import Rollouts, Scene, save_scene
from traj_diffusion.testing import crossing, straight_road

CV = ("--policy", "constant_velocity")


def failure(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Return the one line on stderr of a command that must end with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("traj-diffusion: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


def nobody_now(scene: Scene, scene_id: str) -> Scene:
    valid = scene.agents.valid.copy()
    valid[:, scene.current_index] = False
    return replace(scene, id=scene_id, agents=replace(scene.agents, valid=valid))


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.tfrecord: no such file" in failure(
        capsys, "rollout", tmp_path / "nowhere.tfrecord", *CV, "--out", tmp_path
    )


@pytest.mark.parametrize("verb", ["rollout", "inspect", "evaluate", "prepare"])
def test_an_unknown_format(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poem = tmp_path / "poem"
    poem.write_text("Whan that Aprille")
    options = {"rollout": [*CV, "--out", tmp_path / "out"], "inspect": [], "prepare": ["--out", tmp_path / "cache"]}
    line = failure(capsys, verb, poem, *options.get(verb, [*CV, "--out", tmp_path / "rows"]))
    assert f"{poem}: not in a format that can be read" in line
    assert known_formats() in line


def test_a_folder_without_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path}: none of its 0 files" in failure(capsys, "inspect", tmp_path)


def test_a_truncated_tfrecord(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_womd(tmp_path / "cut.tfrecord", [crossing()])
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path}, record 0: " in failure(capsys, "rollout", path, *CV, "--out", tmp_path / "out")


def test_a_broken_scene_ends_the_work_and_what_was_done_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = replace(straight_road(), id="good")
    path = write_womd(tmp_path / "two.tfrecord", [good, nobody_now(crossing(), "empty")])
    line = failure(capsys, "rollout", path, *CV, "--rollouts", "1", "--out", tmp_path / "out")
    assert f"{path}: scene empty: no agent is valid at its current index 10, nobody to simulate" in line
    made = {file.name for file in (tmp_path / "out").iterdir()}
    assert made == {"good.rollouts.npz", "good.png", "good.html", "index.html"}


def test_an_ego_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_scene(replace(crossing(), ego=None), tmp_path / "crossing.scene.npz")
    line = failure(capsys, "rollout", path, *CV, "--ego", "log", "--out", tmp_path / "out")
    assert f"{path}: scene crossing: " in line
    assert "no ego" in line


def test_values_that_are_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = crossing()
    scene.agents.position[1, 5, 0] = np.nan
    path = save_scene(scene, tmp_path / "nan.scene.npz")
    assert f"{path}, record 0: scene crossing: agent 2, step 5: position" in failure(capsys, "inspect", path)


def test_a_scene_that_comes_twice(scene_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scene_file.parent / "copy.scene.npz").write_bytes(scene_file.read_bytes())
    line = failure(capsys, "evaluate", scene_file.parent, *CV, "--out", scene_file.parent.parent)
    assert "scene crossing came already" in line


def test_an_unknown_policy(tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(capsys, "rollout", scene_file, "--policy", "tinny", "--out", tmp_path / "out")
    assert "tinny" in line
    assert "constant_velocity" in line


def test_an_unknown_id(scene_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'xyz'" in failure(capsys, "inspect", scene_file, "--id", "xyz")


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("stepz=3", "did you mean 'steps'"),
        ("steps=a", "wants int"),
        ("steps", "write key=value"),
        ("steps=[", "no YAML"),
    ],
)
def test_an_unknown_setting(setting: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(capsys, "train", "--cache", tmp_path / "cache", "--out", tmp_path / "run", setting)
    assert what in line


def test_an_unknown_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(capsys, "train", "--config", "huge", "--cache", tmp_path, "--out", tmp_path)
    assert "'huge'" in line
    assert "small" in line


def test_a_folder_that_is_no_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path}: not a finished cache" in failure(capsys, "train", "--cache", tmp_path, "--out", tmp_path)


def test_rollouts_that_are_missing(tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("evaluate", scene_file, "--out", tmp_path / "rows", "--rollouts")
    assert "'none'" in failure(capsys, *command, "none").replace(str(tmp_path), "")
    (tmp_path / "empty").mkdir()
    assert "empty: no rollouts for 1 of 1 scenes: crossing (" in failure(capsys, *command, tmp_path / "empty")
    save_scene(straight_road(), scene_file.parent / "made.scene.npz")
    roll_out(crossing(), ConstantVelocity(), RunSettings(rollouts=1)).save(tmp_path / "half")
    line = failure(capsys, "evaluate", scene_file.parent, "--out", tmp_path / "rows", "--rollouts", tmp_path / "half")
    assert "half: no rollouts for 1 of 2 scenes: made (" in line
    assert "--allow-missing" in line


def changed(made: Rollouts, how: str) -> Rollouts:
    """Return rollouts that do not fit their scene."""
    position = made.position.copy()
    position[0, 1, 5, 0] = np.nan
    return {
        "nan": lambda: replace(made, position=position),
        "wrong ids": lambda: replace(made, agent_id=made.agent_id + 40),
        "an id twice": lambda: replace(made, agent_id=made.agent_id[[0, 0, 2]]),
        "too short": lambda: replace(
            made, position=made.position[:, :, :50], heading=made.heading[:, :, :50], valid=made.valid[:, :, :50]
        ),
        "wrong start": lambda: replace(made, first_step=12),
        "another scene": lambda: replace(made, scene_id="other"),
        "no run": lambda: replace(made, position=made.position[:0], heading=made.heading[:0], valid=made.valid[:0]),
    }[how]()


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("nan", "finite"),
        ("wrong ids", "3 agents are missing (ids [1, 2, 3]), 3 do not belong"),
        ("an id twice", "agent ids repeat"),
        ("too short", "50 steps per run; 80 or more"),
        ("wrong start", "first_step is 12; 11 fits"),
        ("another scene", "the scene at hand is crossing"),
        ("no run", "there is no run in them"),
    ],
)
def test_rollouts_that_do_not_fit(
    how: str, what: str, tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = roll_out(crossing(), ConstantVelocity(), RunSettings(rollouts=2))
    bad = changed(replace(made, size=None), how)
    written = bad.save(tmp_path / "bad")
    if how == "another scene":
        written.rename(written.with_name("crossing.rollouts.npz"))
    line = failure(capsys, "evaluate", scene_file, "--rollouts", tmp_path / "bad", "--out", tmp_path / "rows")
    assert what in line


def test_a_file_that_holds_no_rollouts(tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "crossing.rollouts.npz").write_bytes(b"PK not really")
    line = failure(capsys, "evaluate", scene_file, "--rollouts", folder, "--out", tmp_path / "rows")
    assert str(folder / "crossing.rollouts.npz") in line
    poem = tmp_path / "poem.binproto"
    poem.write_text("Whan that Aprille")
    assert str(poem) in failure(capsys, "evaluate", scene_file, "--rollouts", poem, "--out", tmp_path / "rows")


def test_the_official_engine_where_it_is_not_installed(
    tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAJ_DIFFUSION_OFFICIAL", str(tmp_path / "nowhere"))
    line = failure(capsys, "evaluate", scene_file, *CV, "--engine", "official", "--out", tmp_path / "rows")
    assert f"not installed at {tmp_path / 'nowhere'}; make it" in line
    assert "python -m traj_diffusion.evaluation.official" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["rollout"],
        ["rollout", "bundled", "--out", "out", "--futures", "0"],
        ["rollout", "bundled", "--out", "out", "--seed", "-1"],
        ["evaluate", "bundled"],
        ["evaluate", "bundled", "--policy", "constant_velocity", "--rollouts", "out"],
        ["evaluate", "bundled", "--policy", "idm", "--policy", "idm"],
        ["roll"],
    ],
)
def test_wrong_usage_points_to_the_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "--help" in failure(capsys, *arguments)


def test_a_folder_that_cannot_be_written(tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in failure(capsys, "rollout", scene_file, *CV, "--out", tmp_path / "file" / "out")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from traj_diffusion.cli.main import cli

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli.commands["inspect"], "callback", broken)
    assert isinstance(CliRunner().invoke(cli, ["inspect", "x"]).exception, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        main(["inspect", "x"])


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    # `traj-diffusion inspect bundled | head -1`, with a pipe whose other end is closed before anything is written.
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-P", "-c", "from traj_diffusion.cli import main; main()", "inspect", "bundled"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.stderr == ""
