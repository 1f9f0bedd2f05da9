"""Our WOSAC numbers are the official ones: every field, feature and flag of the goldens, made with package 1.6.7."""

import importlib.util
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


def _tool() -> Any:
    """tools/wosac_parity.py, which also makes the figures of docs/wosac.md."""
    path = Path(__file__).resolve().parents[2] / "tools" / "wosac_parity.py"
    spec = importlib.util.spec_from_file_location("wosac_parity", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()


@pytest.fixture(scope="session")
def scenes(shared: Path) -> dict[str, Scene]:
    """The scenes that goldens and baselines are of."""
    folder = shared / "golden" / "wosac"
    baselines = json.loads((folder / "baselines.json").read_text())["scenes"]
    wanted = {name.partition("__")[0] for name in GOLDENS} | {entry["scenario_id"] for entry in baselines}
    index = json.loads((shared / "data" / "womd_index.json").read_text())
    entries = [Entry(shared / "data" / "womd" / item["file"], item["id"]) for item in index if item["id"] in wanted]
    return {scene.id: scene for scene in read_scenes(entries)}


@pytest.mark.parametrize("name", GOLDENS)
def test_every_field_and_every_step_of_every_feature_agree(shared: Path, scenes: dict[str, Scene], name: str) -> None:
    found = TOOL.parity(shared / "golden" / "wosac", name, scenes[name.partition("__")[0]])
    assert found["same_agents"]
    assert found["fields_compared"] >= 24
    assert found["largest_field_difference"] <= 1e-5, found["in_field"]
    assert found["kinematic_samples_apart"] == found["flags_apart"] == 0
    assert found["largest_time_to_collision_difference_s"] <= 1e-5
    # Corners lie on the grid of global float32; the last bit of a cosine moves one by a step of it.
    few_steps = max(5e-4, 2 * found["float32_step_m"])
    assert found["largest_nearest_object_difference_m"] <= few_steps
    assert found["largest_road_edge_difference_m"] <= few_steps


def test_threads_change_no_digit(shared: Path, scenes: dict[str, Scene]) -> None:
    scene = scenes["637f20cafde22ff8"]
    rollouts = TOOL.golden_rollouts(shared / "golden" / "wosac", "637f20cafde22ff8__adversarial", scene)
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
