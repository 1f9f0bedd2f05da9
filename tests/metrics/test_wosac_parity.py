"""Our WOSAC numbers are the official ones: every field, feature and flag of the goldens, made with package 1.6.7."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import read_scenes
from traj_diffusion.datasets.sources import Entry
from traj_diffusion.metrics import wosac
from traj_diffusion.scene import Rollouts, Scene

pytestmark = pytest.mark.data

GOLDENS = (
    "10c3969f1eb158d__adversarial",
    "16d4f837fb57ff1__adversarial",
    "16d4f837fb57ff1__scenariogen",
    "1a7143a44e480ca6__cvnoise",
    "1a7143a44e480ca6__lognoise",
    "1a7143a44e480ca6__scenariogen",
    "2a1e44d405a6833f__lognoise",
    "34fccd1d9c89b251__adversarial",
    "637f20cafde22ff8__adversarial",
    "637f20cafde22ff8__cvnoise",
    "637f20cafde22ff8__lognoise",
    "7e21cb7ea347ecaa__cvnoise",
    "ee519cf571686d19__lognoise",
    "f5fc4dc2f679e063__cvnoise",
)
OUR_NAME = {
    "challenge_2025_sim_agents": "sim_agents_2025",
    "challenge_2025_scenario_gen": "scenario_gen_2025",
    "challenge_2024": "sim_agents_2024",
    "challenge_2023_plus_zero_weight_traffic_light": "sim_agents_2023",
}
KINEMATICS = ("linear_speed", "linear_acceleration", "angular_speed", "angular_acceleration")
FLAGS = {
    "collision_indication": "collision_per_step",
    "offroad_indication": "offroad_per_step",
    "traffic_light_violation": "traffic_light_violation_per_step",
}


@pytest.fixture(scope="session")
def scenes(shared: Path) -> dict[str, Scene]:
    """The scenes that goldens and baselines are of."""
    folder = shared / "golden" / "wosac"
    baselines = json.loads((folder / "baselines.json").read_text())["scenes"]
    wanted = {name.partition("__")[0] for name in GOLDENS} | {entry["scenario_id"] for entry in baselines}
    index = json.loads((shared / "data" / "womd_index.json").read_text())
    entries = [Entry(shared / "data" / "womd" / item["file"], item["id"]) for item in index if item["id"] in wanted]
    return {scene.id: scene for scene in read_scenes(entries)}


def golden_rollouts(path: Path, scene: Scene, generation: bool) -> Rollouts:
    """The input of a golden; its arrays are agent-major."""
    arrays = np.load(path)

    def runs_first(*names: str) -> np.ndarray:
        return np.stack([np.swapaxes(arrays[name], 0, 1) for name in names], -1)

    heading = runs_first("heading")[..., 0]
    ids = arrays["sim_agent_ids"].astype(np.int64)
    return Rollouts(
        scene_id=scene.id,
        first_step=0 if generation else 11,
        dt=0.1,
        agent_id=ids,
        kind=scene.agents.kind[np.searchsorted(scene.agents.id, ids, sorter=np.argsort(scene.agents.id))],
        position=runs_first("x", "y", "z").astype(np.float64),
        heading=heading,
        valid=np.ones(heading.shape, bool),
        size=runs_first("length", "width", "height").astype(np.float32) if generation else None,
    )


def within(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    return found.shape == wanted.shape and bool((np.abs(found.astype(float) - wanted) <= tolerance).all())


@pytest.fixture(scope="session", params=GOLDENS)
def golden(request: Any, shared: Path, scenes: dict[str, Scene]) -> tuple[dict, Any, wosac.SceneFeatures, float]:
    """A golden's figures and per-step features, our features, and what one float32 step of its coordinates is [m]."""
    folder, name = shared / "golden" / "wosac", request.param
    figures = json.loads((folder / f"{name}.json").read_text())
    scene, generation = scenes[figures["scenario_id"]], name.endswith("scenariogen")
    rollouts = golden_rollouts(folder / f"{name}.rollouts.npz", scene, generation)
    grid = float(np.spacing(np.float32(np.abs(rollouts.position).max())))
    return figures, np.load(folder / f"{name}.npz"), wosac.extract(scene, rollouts, generation), grid


def test_every_official_field_agrees(golden: tuple) -> None:
    figures, _, features, _ = golden
    compared = 0
    for official, entry in figures["configs"].items():
        if official not in OUR_NAME:
            continue
        score = wosac.score_features(features, OUR_NAME[official])
        for theirs, ours in ((entry["metrics"], score.fields), (entry.get("bucketed", {}), score.buckets)):
            for field, value in theirs.items():
                if field != "scenario_id":
                    assert ours[field] == pytest.approx(value, abs=1e-5), (official, field)
                    compared += 1
    assert compared >= 24


def test_every_feature_agrees_step_by_step(golden: tuple) -> None:
    _, arrays, features, grid = golden
    assert features.agent_id.tolist() == arrays["object_id"].tolist()
    for side, ours in (("log_", features.logged), ("sim_", features.simulated)):
        runs = len(arrays[f"{side}valid"])  # the goldens of scenario generation hold the first 8 only
        for name in KINEMATICS:
            np.testing.assert_array_equal(getattr(ours, name)[:runs], arrays[side + name], side + name)
        for name, flag in FLAGS.items():
            np.testing.assert_array_equal(getattr(ours, name)[:runs], arrays[side + flag], side + name)
        assert within(ours.time_to_collision[:runs], arrays[side + "time_to_collision"], 1e-5)
        for name in ("distance_to_nearest_object", "distance_to_road_edge"):
            # Corners lie on the grid of global float32; a last bit of a cosine moves one by a step of it.
            assert within(getattr(ours, name)[:runs], arrays[side + name], max(5e-4, 2 * grid)), side + name


def test_threads_change_no_digit(shared: Path, scenes: dict[str, Scene]) -> None:
    scene = scenes["637f20cafde22ff8"]
    path = shared / "golden" / "wosac" / "637f20cafde22ff8__adversarial.rollouts.npz"
    rollouts = golden_rollouts(path, scene, False)
    one, three = wosac.score(scene, rollouts), wosac.score(scene, rollouts, threads=3)
    assert one.fields == three.fields
    for feature, log_p in one.log_likelihood.items():
        np.testing.assert_array_equal(log_p, three.log_likelihood[feature])


def constant_velocity(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    rows, agents = scene.sim_agents, scene.agents
    position, heading = agents.position[rows], agents.heading[rows]
    step = np.where(
        agents.valid[rows, 9][:, None],
        (position[:, 10] - position[:, 9])[:, :2],
        agents.velocity[rows, 10].astype(float) * 0.1,
    )
    future = np.repeat(position[:, 10:11], 80, 1)
    future[..., :2] += step[:, None] * np.arange(1, 81)[None, :, None]
    return future, np.repeat(heading[:, 10:11], 80, 1)


def log_replay(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    rows, agents = scene.sim_agents, scene.agents
    seen = np.maximum.accumulate(np.where(agents.valid[rows], np.arange(scene.steps), 0), axis=1)[:, 11:]
    return (
        np.take_along_axis(agents.position[rows], seen[..., None], 1),
        np.take_along_axis(agents.heading[rows], seen, 1),
    )


@pytest.mark.parametrize(("name", "drive"), [("cv", constant_velocity), ("log", log_replay)])
def test_constant_velocity_and_log_replay_score_as_they_officially_do(
    shared: Path, scenes: dict[str, Scene], name: str, drive: Any
) -> None:
    baselines = json.loads((shared / "golden" / "wosac" / "baselines.json").read_text())["scenes"]
    scores = []
    for entry in baselines:
        scene = scenes[entry["scenario_id"]]
        position, heading = drive(scene)
        rows = scene.sim_agents
        rollouts = Rollouts(
            scene_id=scene.id,
            first_step=11,
            dt=0.1,
            agent_id=scene.agents.id[rows],
            kind=scene.agents.kind[rows],
            position=np.repeat(position[None], 32, 0),
            heading=np.repeat(heading[None], 32, 0),
            valid=np.ones((32, *heading.shape), bool),
        )
        features = wosac.extract(scene, rollouts)
        for year in ("2025", "2024"):
            score = wosac.score_features(features, f"sim_agents_{year}")
            for field, value in entry[f"{name}_{year}"].items():
                if field != "scenario_id":
                    assert score.fields[field] == pytest.approx(value, abs=1e-5), (scene.id, year, field)
        scores.append(wosac.score_features(features))
    official = np.mean([entry[f"{name}_2025"]["metametric"] for entry in baselines])
    assert wosac.aggregate(scores).fields["metametric"].mean == pytest.approx(official, abs=1e-6)
