"""Log replay is the log, its noise has the size it says, and both score as they officially do."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import read_scenes
from traj_diffusion.datasets.sources import Entry
from traj_diffusion.errors import BadScene
from traj_diffusion.evaluation.log_baselines import last_valid, log_rollouts
from traj_diffusion.metrics import score, wosac
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import Rollouts, Scene
from traj_diffusion.sim_adapter import rollout
from traj_diffusion.testing import make_scene, straight_road


def test_the_replay_is_the_log_and_has_no_error() -> None:
    scene = straight_road()
    replay = log_rollouts(scene, 3)
    assert (replay.position == scene.agents.position[:, 11:]).all()
    assert score(scene, replay)["joint_min_ade@3/8s"] == 0


def test_who_vanishes_is_held_where_it_was_last_seen() -> None:
    scene = straight_road()
    valid = scene.agents.valid.copy()
    valid[1, 40:60] = False
    valid[1, 70:] = False
    replay = log_rollouts(replace(scene, agents=replace(scene.agents, valid=valid)), 1)
    logged = scene.agents.position[1]
    assert replay.valid.all()
    assert (replay.position[0, 1, 29:49] == logged[39]).all()
    assert (replay.position[0, 1, 49:59] == logged[60:70]).all()
    assert (replay.position[0, 1, 59:] == logged[69]).all()


def test_the_last_valid_step_of_each() -> None:
    valid = np.array([[True, True, False, False, True]])
    assert last_valid(valid, 2).tolist() == [[1, 1, 4]]


def test_noise_grows_smoothly_to_the_deviation_asked_for() -> None:
    count = 400
    position = np.stack([np.zeros(count), 5.0 * np.arange(count)], -1)
    scene = make_scene(position, np.tile([10.0, 0.0], (count, 1)))
    off = log_rollouts(scene, 8, noise=2.0).position - scene.agents.position[:, 11:]
    assert off[..., -1, :2].std(axis=(0, 1)) == pytest.approx([2.0, 2.0], rel=0.05)
    assert off[..., 39, :2].std(axis=(0, 1)) == pytest.approx([0.25, 0.25], rel=0.05)  # half the time, an eighth
    assert np.abs(off[..., 0, :]).max() < 1e-4
    assert (off[..., 2] == 0).all()


def test_who_stands_does_not_drift() -> None:
    scene = make_scene(np.array([[0.0, 0], [9, 0]]), np.array([[0.0, 0], [5, 0]]))
    noisy = log_rollouts(scene, 2, noise=3.0)
    assert np.ptp(noisy.position[:, 0], axis=1).max() == 0
    assert np.ptp(noisy.position[:, 1, -1, 0]) > 0


def test_noise_is_keyed_by_seed_run_and_agent() -> None:
    scene = straight_road()
    few, many = (log_rollouts(scene, runs, noise=1.0) for runs in (2, 5))
    assert (many.position[:2] == few.position).all()
    assert (log_rollouts(scene, 2, noise=1.0, seed=1).position != few.position).any()
    order = np.array([1, 0])
    agents = scene.agents
    fields = ("id", "kind", "position", "heading", "velocity", "size", "valid", "to_predict")
    turned = replace(scene, agents=replace(agents, **{name: getattr(agents, name)[order] for name in fields}))
    assert (log_rollouts(turned, 2, noise=1.0).position == few.position[:, order]).all()


def test_no_future_is_refused_with_a_reason() -> None:
    with pytest.raises(BadScene, match="0 steps after it"):
        log_rollouts(straight_road().history_only(), 1)


OFFICIAL = {"log": lambda scene: log_rollouts(scene, 32), "cv": lambda scene: rollout(scene, ConstantVelocity())}


def official(shared: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((shared / "golden" / "wosac" / "baselines.json").read_text())["scenes"]
    return found


def recorded(shared: Path, wanted: list[str]) -> list[Scene]:
    index = json.loads((shared / "data" / "womd_index.json").read_text())
    entries = [Entry(shared / "data" / "womd" / item["file"], item["id"]) for item in index if item["id"] in wanted]
    return list(read_scenes(entries))


def agrees(scene: Scene, rollouts: Rollouts, wanted: dict[str, Any]) -> None:
    found = wosac.score(scene, rollouts).fields
    for field, value in wanted.items():
        if field != "scenario_id":
            assert found[field] == pytest.approx(value, abs=1e-5), (scene.id, field)


@pytest.mark.data
@pytest.mark.parametrize("name", OFFICIAL)
def test_three_small_scenes_score_as_they_officially_do(shared: Path, name: str) -> None:
    rows = sorted(official(shared), key=lambda row: row["n_sim_agents"])[:3]
    for scene in recorded(shared, [row["scenario_id"] for row in rows]):
        row = next(row for row in rows if row["scenario_id"] == scene.id)
        agrees(scene, OFFICIAL[name](scene), row[f"{name}_2025"])


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", OFFICIAL)
def test_all_scenes_score_as_they_officially_do(shared: Path, name: str) -> None:
    rows = {row["scenario_id"]: row for row in official(shared)}
    scenes = recorded(shared, list(rows))
    assert len({scene.id for scene in scenes}) == len(rows)
    for scene in scenes:
        agrees(scene, OFFICIAL[name](scene), rows[scene.id][f"{name}_2025"])
