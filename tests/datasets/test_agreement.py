"""The same recordings in another format say the same. No scene is in both womd/ and gpudrive_json/; ten are in
scenarionet/, from which their records were made: a check of every field that does not go through our own writer."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import read_file, read_scenes
from traj_diffusion.datasets.summary import summarise
from traj_diffusion.datasets.tfrecord import write_records
from traj_diffusion.datasets.womd_writer import write_womd
from traj_diffusion.scene import Origin, Scene, save_scene
from traj_diffusion.testing import straight_road
from traj_diffusion.testing.foreign import (
    example_bytes,
    example_features,
    scenarionet_document,
    write_nuplan,
    write_smarts,
)

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


@pytest.mark.data
def test_no_other_recording_is_in_two_formats(shared: Path) -> None:
    """The pairs above are all that there are: ids of WOMD scenes, as their indexes and file names have them."""
    data = shared / "data"
    womd = {row["id"] for row in json.loads((data / "womd_index.json").read_text())}
    drive = {row["id"] for row in json.loads((data / "gpudrive_json_index.json").read_text()) if row["id"]}
    pickles = {path.stem.rpartition("_")[2] for path in (data / "scenarionet").glob("waymo*/*.pkl")}
    examples = {path.name.split("_")[2].split(".")[0] for path in (data / "womd_tf_example").glob("*")}
    assert len(womd) == 37
    assert len(drive) > 100
    assert examples == {"a3bb37c25ce56418"}
    assert pickles <= womd
    assert not (drive & womd) | (drive & examples) | (womd & examples)


@pytest.mark.data
def test_scenes_of_pickles_are_those_of_the_records(pairs: list[tuple[Scene, dict[str, Any]]], shared: Path) -> None:
    """Through both readers, all of a scene that both formats have."""
    records = {scene.id: scene for scene, _ in pairs}
    for folder in ("waymo", "waymo_20s"):
        for scene in read_scenes(shared / "data" / "scenarionet" / folder):
            other = records[scene.id]
            assert (scene.current_index, scene.steps, scene.dt) == (other.current_index, other.steps, other.dt)
            order = np.argsort(scene.agents.id)[np.argsort(np.argsort(other.agents.id))]
            for name in ("id", "kind", "valid", "to_predict"):
                assert np.array_equal(getattr(scene.agents, name)[order], getattr(other.agents, name)), name
            valid = other.agents.valid
            for name in ("position", "heading", "velocity", "size"):
                ours, theirs = getattr(scene.agents, name)[order][valid], getattr(other.agents, name)[valid]
                assert np.array_equal(ours.astype(np.float32), theirs.astype(np.float32)), name
            assert scene.agents.id[scene.ego] == other.agents.id[other.ego]
            assert sorted(scene.lights.lane_id.tolist()) == sorted(other.lights.lane_id.tolist())
            assert scene.map.links.origin == other.map.links.origin == Origin.RECORDED
            assert {int(number) for number in scene.map.id} == {int(number) for number in other.map.id}


def test_one_scene_through_every_format_is_one_scene(tmp_path: Path) -> None:
    wanted = straight_road()
    files = {
        "womd": write_womd(tmp_path / "a", [wanted]),
        "example": write_records(tmp_path / "b", [example_bytes(example_features(wanted))]),
        "nuplan": write_nuplan(tmp_path / "c", wanted),
        "smarts": write_smarts(tmp_path / "d", wanted),
        "archive": save_scene(wanted, tmp_path / "e"),
    }
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(scenarionet_document(wanted)))
    files["scenarionet"] = tmp_path / "f.pkl"
    for name, path in files.items():
        (scene,) = read_file(path)
        assert (scene.steps, scene.current_index, scene.dt, scene.ego) == (91, 10, 0.1, 0), name
        assert np.array_equal(scene.agents.valid, wanted.agents.valid), name
        assert scene.agents.position[..., :2] == pytest.approx(wanted.agents.position[..., :2], abs=1e-4), name
        assert scene.agents.velocity == pytest.approx(wanted.agents.velocity, abs=1e-4), name
        assert np.cos(scene.agents.heading - wanted.agents.heading) == pytest.approx(1), name
        assert scene.agents.size[1, :, :2] == pytest.approx(wanted.agents.size[1, :, :2]), name


def test_a_scene_without_history_is_a_scene() -> None:
    scene = Scene.from_arrays(straight_road().agents.position, dt=0.1, current_index=0, ego=0)
    assert dict(summarise(scene))["current index"] == "0, 90 steps of future"
    past = scene.history_only()
    assert (past.steps, past.current_index, len(past.agents)) == (1, 0, 2)
