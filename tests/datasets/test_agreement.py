"""The same recordings in another format say the same. No scene is in both womd/ and gpudrive_json/; ten are in
scenarionet/, from which their records were made: a check of every field that does not go through our own writer."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import read_scenes
from traj_diffusion.scene import Scene

ALLOWED = {"ndarray": np.ndarray, "dtype": np.dtype, "_reconstruct": np.empty(0).__reduce__()[0], "int": int}


class Restricted(pickle.Unpickler):
    """Loads numpy arrays and builtin containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "defaultdict":
            return __import__("collections").defaultdict
        if name in ALLOWED:
            return ALLOWED[name]
        raise pickle.UnpicklingError(f"{module}.{name}")


@pytest.fixture(scope="module")
def pairs(shared: Path) -> list[tuple[Scene, dict[str, Any]]]:
    scenes = {scene.id: scene for scene in read_scenes(shared / "data" / "womd")}
    found = []
    for path in sorted((shared / "data" / "scenarionet").glob("waymo*/*.pkl")):
        with path.open("rb") as file:
            document = Restricted(file).load()
        found.append((scenes[document["metadata"]["scenario_id"]], document))
    assert len(found) == 10
    return found


@pytest.mark.data
def test_agents_are_those_of_the_pickles(pairs: list[tuple[Scene, dict[str, Any]]]) -> None:
    kinds = {1: "VEHICLE", 2: "PEDESTRIAN", 3: "CYCLIST"}
    for scene, document in pairs:
        assert {str(number) for number in scene.agents.id} == set(document["tracks"])
        for row, number in enumerate(scene.agents.id.tolist()):
            track, valid = document["tracks"][str(number)], scene.agents.valid[row]
            assert kinds.get(int(scene.agents.kind[row]), "OTHER") in (track["type"], "OTHER")
            state = track["state"]
            assert np.array_equal(valid, state["valid"].astype(bool))
            size = np.stack([state[name].reshape(-1) for name in ("length", "width", "height")], -1)
            for ours, theirs in (
                (scene.agents.position[row], state["position"]),
                (scene.agents.heading[row], state["heading"]),
                (scene.agents.velocity[row], state["velocity"]),
                (scene.agents.size[row], size),
            ):
                assert np.array_equal(ours[valid].astype(np.float32), theirs[valid].astype(np.float32)), number
        assert scene.agents.id[scene.ego] == int(document["metadata"]["sdc_id"])


@pytest.mark.data
def test_lane_links_and_speed_limits_are_those_of_the_pickles(pairs: list[tuple[Scene, dict[str, Any]]]) -> None:
    checked = 0
    for scene, document in pairs:
        rows = {str(number): row for row, number in enumerate(scene.map.id.tolist())}
        for name, feature in document["map_features"].items():
            if "exit_lanes" not in feature:
                continue
            row = rows[name]
            links = scene.map.links
            for ours, theirs in ((links.successors, "exit_lanes"), (links.predecessors, "entry_lanes")):
                inside = [rows[str(lane)] for lane in feature[theirs] if str(lane) in rows]
                assert ours[row].tolist() == inside
            assert scene.map.speed_limit[row] == pytest.approx(feature["speed_limit_mph"] * 0.44704)
            assert np.array_equal(scene.map.polyline(row).astype(np.float32), feature["polyline"].astype(np.float32))
            checked += 1
    assert checked > 1000
