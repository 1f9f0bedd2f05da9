"""The benchmarks are frozen, reproducible, and take a policy or anybody's files."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from traj_diffusion.datasets import read_scenes
from traj_diffusion.errors import BadConfig, BadFile, BadRollouts
from traj_diffusion.evaluation import benchmark as module
from traj_diffusion.evaluation import simulated
from traj_diffusion.evaluation.benchmark import (
    BUNDLED,
    COMPARED,
    FROZEN,
    NAMES,
    PROTOCOL,
    benchmark,
    check_frozen,
    frozen_scenes,
)
from traj_diffusion.evaluation.log_baselines import log_rollouts
from traj_diffusion.evaluation.run import RunSettings, roll_out
from traj_diffusion.evaluation.simulated import Frozen, content_digest, frozen, scene_numbers, simulated_scenes
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import Scene, load_scene, save_scene
from traj_diffusion.testing import crossing


def test_the_bundled_scenes_and_the_protocol_are_those_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    check_frozen()
    assert (BUNDLED, len(FROZEN)) == ("bundled-1", 6)
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


def test_the_page_shows_what_was_measured() -> None:
    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("benchmark_page", root / "tools" / "benchmark_page.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    figures = json.loads((root / "docs" / "figures" / "benchmark.json").read_text())
    text = (root / "docs" / "baselines.md").read_text(encoding="utf-8")
    assert tool.page(text, figures) == text
    assert (figures["benchmark"], figures["scenes"], list(figures["runs"])) == ("simulated-1", 48, list(COMPARED))


# Scenes that are made from a seed


def test_simulated_scenes_are_three_of_each_of_sixteen_towns() -> None:
    numbers = scene_numbers()
    assert len(numbers) == len(set(numbers)) == len(frozen().scenes) == 48
    assert list(frozen().scenes) == [f"sumo-9100-{number // 12}-{number % 12}" for number in numbers]
    assert sorted({number // 12 for number in numbers}) == list(range(16))
    assert NAMES == ("bundled-1", "simulated-1")
    with pytest.raises(BadConfig, match="known: bundled-1, simulated-1"):
        frozen_scenes("simulated-2")


def nudged(scene: Scene, metres: float) -> Scene:
    position = scene.agents.position.copy()
    position[0, 20, 0] += metres
    return replace(scene, agents=replace(scene.agents, position=position))


def test_a_digest_is_of_content_to_a_millimetre_and_not_of_the_file(tmp_path: Path) -> None:
    scene = crossing()
    digest = content_digest(scene)
    assert content_digest(load_scene(save_scene(scene, tmp_path / "a.scene.npz"))) == digest
    assert content_digest(nudged(scene, 1e-9)) == digest
    assert content_digest(nudged(scene, 2e-3)) != digest
    speed_limit = np.zeros_like(scene.map.speed_limit)  # not recorded is another thing than 0
    assert np.isnan(scene.map.speed_limit).all()
    assert content_digest(replace(scene, map=replace(scene.map, speed_limit=speed_limit))) != digest
    lights = replace(scene.lights, state=scene.lights.state + np.uint8(1))
    assert content_digest(replace(scene, lights=lights)) != digest
    assert content_digest(replace(scene, id="other")) != digest


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the scenes of a benchmark of two scenes, which are made by hand instead of by SUMO."""
    made = {f"sumo-9100-0-{window}": replace(crossing(), id=f"sumo-9100-0-{window}") for window in (0, 4)}
    digests = {name: content_digest(scene) for name, scene in made.items()}
    monkeypatch.setattr(simulated, "frozen", lambda: Frozen("1.2.3", 1, MappingProxyType(digests)))
    monkeypatch.setattr(simulated, "NETWORKS", 1)
    monkeypatch.setattr(simulated, "WINDOWS", (0, 4))
    for name, scene in made.items():
        save_scene(scene, tmp_path / "kept" / f"{name}.scene.npz")
    return tmp_path / "kept"


def test_scenes_that_were_copied_need_no_simulator(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "write_numbered", None)
    assert simulated_scenes(kept) == kept


def test_another_scene_is_refused_and_names_the_version_that_makes_the_right_one(kept: Path) -> None:
    path = kept / "sumo-9100-0-4.scene.npz"
    save_scene(nudged(load_scene(path), 0.01), path)
    with pytest.raises(BadFile, match=r"sumo-9100-0-4.*frozen to.*SUMO 1\.2\.3 makes it.*eclipse-sumo==1\.2\.3"):
        simulated_scenes(kept)
    assert path.exists()  # it is the user's, and may be another benchmark's


def test_scenes_that_another_simulator_made_are_not_left_behind(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kept / "sumo-9100-0-4.scene.npz"
    other = nudged(load_scene(path), 0.01)
    path.unlink()

    def other_sumo(out: Path, numbers: list[int], seed: int, workers: int, progress: object, mix: int) -> None:
        assert (numbers, seed, mix) == ([4], 9100, 1)
        save_scene(other, path)

    monkeypatch.setattr(simulated, "write_numbered", other_sumo)
    with pytest.raises(BadFile, match="frozen to"):
        simulated_scenes(kept)
    assert [file.name for file in kept.iterdir()] == ["sumo-9100-0-0.scene.npz"]


def test_a_foreign_file_among_them_is_refused(kept: Path) -> None:
    save_scene(crossing(), kept / "mine.scene.npz")
    with pytest.raises(BadFile, match=r"mine\.scene\.npz: is no scene of the benchmark simulated-1"):
        simulated_scenes(kept)


@pytest.mark.slow
def test_the_simulator_makes_the_frozen_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = simulated._installed_sumo()
    if installed != f"SUMO {frozen().sumo}":
        pytest.skip(f"{installed} is here; the scenes are frozen to {frozen().sumo}")
    monkeypatch.setattr(simulated, "NETWORKS", 1)
    told: list[tuple[int, int]] = []
    folder = simulated_scenes(tmp_path / "scenes", progress=lambda done, total: told.append((done, total)))
    assert len(list(folder.iterdir())) == 3
    assert told[-1] == (3, 3)
