"""Hold our WOSAC score against goldens made with the official package, and print how far they are apart, as JSON.

    python -P tools/wosac_parity.py GOLDENS SCENES

GOLDENS is a folder of `<scene id>__<kind>` .json, .npz and .rollouts.npz; SCENES, as commands take it, has the scenes.
"""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from traj_diffusion.datasets import read_scenes
from traj_diffusion.metrics import wosac
from traj_diffusion.scene import Rollouts, Scene

OUR_NAME = {
    "challenge_2025_sim_agents": "sim_agents_2025",
    "challenge_2025_scenario_gen": "scenario_gen_2025",
    "challenge_2024": "sim_agents_2024",
    "challenge_2024_run_with_1_6_4_code": "sim_agents_2024_leaderboard",
    "challenge_2023_plus_zero_weight_traffic_light": "sim_agents_2023",
}
KINEMATICS = ("linear_speed", "linear_acceleration", "angular_speed", "angular_acceleration")
FLAGS = {
    "collision_indication": "collision_per_step",
    "offroad_indication": "offroad_per_step",
    "traffic_light_violation": "traffic_light_violation_per_step",
}
DISTANCES = ("distance_to_nearest_object", "distance_to_road_edge")


def golden_rollouts(folder: Path, name: str, scene: Scene) -> Rollouts:
    """Return the input of a golden; its arrays are agent-major."""
    arrays = np.load(folder / f"{name}.rollouts.npz")
    generation = name.endswith("scenariogen")

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


def parity(folder: Path, name: str, scene: Scene) -> dict[str, Any]:
    """Return how far our score and features of one golden are from the official ones."""
    figures, arrays = json.loads((folder / f"{name}.json").read_text()), np.load(folder / f"{name}.npz")
    rollouts = golden_rollouts(folder, name, scene)
    features = wosac.extract(scene, rollouts, name.endswith("scenariogen"))
    fields: dict[str, float] = {}
    for official, entry in figures["configs"].items():
        if official not in OUR_NAME:
            continue
        score = wosac.score_features(features, OUR_NAME[official])
        for message, ours in (("metrics", score.fields), ("bucketed", score.buckets)):
            for field, value in entry.get(message, {}).items():
                if field != "scenario_id":
                    fields[f"{official}.{message}.{field}"] = abs(ours[field] - value)
    apart = {"kinematic_samples": 0, "flags": 0}
    largest = {"time_to_collision": 0.0} | dict.fromkeys(DISTANCES, 0.0)
    samples = 0
    for side, ours in (("log_", features.logged), ("sim_", features.simulated)):
        runs = len(arrays[f"{side}valid"])  # the goldens of scenario generation hold the first 8 only
        samples += arrays[f"{side}valid"].size
        for feature in KINEMATICS:
            same = np.isclose(getattr(ours, feature)[:runs], arrays[side + feature], rtol=0, atol=0, equal_nan=True)
            apart["kinematic_samples"] += int((~same).sum())
        for feature, official in FLAGS.items():
            apart["flags"] += int((getattr(ours, feature)[:runs] != arrays[side + official]).sum())
        for feature in largest:
            gap = np.abs(getattr(ours, feature)[:runs].astype(np.float64) - arrays[side + feature]).max()
            largest[feature] = max(largest[feature], float(gap))
    worst = max(fields, key=lambda field: fields[field])
    return {
        "golden": name,
        "same_agents": features.agent_id.tolist() == arrays["object_id"].tolist(),
        "fields_compared": len(fields),
        "largest_field_difference": fields[worst],
        "in_field": worst,
        "samples_per_feature": samples,
        "kinematic_samples_apart": apart["kinematic_samples"],
        "flags_apart": apart["flags"],
        "largest_time_to_collision_difference_s": largest["time_to_collision"],
        "largest_nearest_object_difference_m": largest["distance_to_nearest_object"],
        "largest_road_edge_difference_m": largest["distance_to_road_edge"],
        "float32_step_m": float(np.spacing(np.float32(np.abs(rollouts.position).max()))),
    }


@click.command(help=__doc__)
@click.argument("goldens", type=click.Path(exists=True, path_type=Path))
@click.argument("scenes")
def main(goldens: Path, scenes: str) -> None:
    """Print one JSON list."""
    names = sorted(file.stem for file in goldens.glob("*__*.json"))
    reports = []
    for scene in read_scenes(scenes):
        reports += [parity(goldens, name, scene) for name in names if name.partition("__")[0] == scene.id]
    print(json.dumps(sorted(reports, key=lambda report: str(report["golden"])), indent=1))


if __name__ == "__main__":
    main()
