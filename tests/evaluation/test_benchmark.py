"""The benchmark is frozen, reproducible, and takes a policy or anybody's files."""

import json
from pathlib import Path

import pytest

from traj_diffusion.datasets import read_scenes
from traj_diffusion.errors import BadFile, BadRollouts
from traj_diffusion.evaluation import benchmark as module
from traj_diffusion.evaluation.benchmark import COMPARED, FROZEN, NAME, PROTOCOL, benchmark, check_frozen
from traj_diffusion.evaluation.log_baselines import log_rollouts
from traj_diffusion.evaluation.run import RunSettings, roll_out
from traj_diffusion.policies import ConstantVelocity


def test_the_bundled_scenes_and_the_protocol_are_those_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    check_frozen()
    assert (NAME, len(FROZEN)) == ("bundled-1", 6)
    assert RunSettings(rollouts=32, futures=1, replan_every=5, ego="model", lights="hold", seed=0) == PROTOCOL
    monkeypatch.setattr(module, "FROZEN", {**FROZEN, "sumo-9000-3-3.scene.npz": "0" * 16})
    with pytest.raises(BadFile, match=r"sumo-9000-3-3.*frozen"):
        check_frozen()


def test_missing_files_of_an_entry_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadRollouts, match=r"empty: no rollouts for 6 of 6 scenes: sumo-9000-12-1, .*rollouts.npz"):
        benchmark(tmp_path / "empty", tmp_path / "out")


@pytest.mark.slow
def test_an_entry_stands_beside_all_baselines(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for scene in read_scenes("bundled"):
        roll_out(scene, ConstantVelocity(), PROTOCOL).save(folder)
    seen: list[str] = []
    found = json.loads(json.dumps(benchmark(folder, tmp_path / "out", seen.append), allow_nan=False))
    assert list(found["runs"]) == ["mine", *COMPARED]
    assert len(seen) == 6 * len(found["runs"])
    assert found["runs"]["mine"]["wosac"] == found["runs"]["constant_velocity"]["wosac"]
    assert found["runs"]["log_replay"]["wosac"]["average_displacement_error"]["mean"] == 0
    assert "R = 32 rollouts, K = 1, replanned at 2 Hz; 6 scenes" in found["table"]
    again = benchmark(ConstantVelocity(), tmp_path / "out")
    assert again["entry"] == "constant_velocity"
    assert again["runs"]["idm"] == found["runs"]["idm"]


def test_log_replay_has_no_error_on_any_scene_of_it() -> None:
    for scene in read_scenes("bundled"):
        found = log_rollouts(scene, 1)
        seen = scene.agents.valid[scene.sim_agents, 11:]
        assert (found.position[0][seen] == scene.agents.position[scene.sim_agents, 11:][seen]).all()
