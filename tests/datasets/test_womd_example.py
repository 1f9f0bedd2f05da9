"""WOMD tf.Example records: the flat features become the scene that they were made of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import read_file
from traj_diffusion.datasets.tf_example import ExampleFault, decode_example
from traj_diffusion.datasets.tfrecord import write_records
from traj_diffusion.datasets.wire import bytes_field, float_field, integer_field
from traj_diffusion.errors import BadRecord
from traj_diffusion.scene import MapKind, Origin, Scene
from traj_diffusion.testing import crossing
from traj_diffusion.testing.foreign import example_bytes, example_features


def read(tmp_path: Path, features: dict[str, Any]) -> Scene:
    (scene,) = read_file(write_records(tmp_path / "x.tfrecord", [example_bytes(features)]))
    return scene


def test_a_made_scene_comes_back_as_float32_and_without_its_padding(tmp_path: Path) -> None:
    wanted = crossing()
    scene = read(tmp_path, example_features(wanted))
    assert (scene.id, scene.ego, scene.current_index, scene.dt) == (wanted.id, wanted.ego, 10, 0.1)
    for name in ("id", "kind", "valid", "to_predict"):
        assert np.array_equal(getattr(scene.agents, name), getattr(wanted.agents, name)), name
    valid = wanted.agents.valid
    for name in ("position", "heading", "velocity", "size"):
        ours, theirs = getattr(scene.agents, name), getattr(wanted.agents, name)
        assert np.array_equal(ours[valid], theirs[valid].astype(np.float32)), name
        assert not ours[~valid].any(), name
    assert np.array_equal(scene.map.points, wanted.map.points.astype(np.float32))
    for name in ("start", "kind", "subtype", "id"):
        assert np.array_equal(getattr(scene.map, name), getattr(wanted.map, name)), name
    for name in ("lane_id", "state", "observed"):
        assert np.array_equal(getattr(scene.lights, name), getattr(wanted.lights, name)), name
    seen = wanted.lights.observed
    assert np.array_equal(scene.lights.stop_point[seen], wanted.lights.stop_point[seen].astype(np.float32))
    assert scene.map.links.origin == (Origin.DERIVED if len(wanted.map.links.successors.index) else Origin.ABSENT)
    assert np.array_equal(scene.map.links.successors.index, wanted.map.links.successors.index)
    assert scene.report == ()


def test_a_record_without_a_future_ends_now(tmp_path: Path) -> None:
    features = {name: values for name, values in example_features(crossing()).items() if "/future/" not in name}
    scene = read(tmp_path, features)
    assert (scene.steps, scene.current_index, scene.lights.state.shape[1]) == (11, 10, 11)


def test_samples_of_one_id_are_one_feature_though_others_lie_between(tmp_path: Path) -> None:
    features = example_features(crossing())
    xyz = np.array([[0, 0, 0], [9, 9, 9], [1, 0, 0], [8, 8, 8], [7, 7, 7]], np.float32)
    features |= {
        "roadgraph_samples/xyz": xyz.reshape(-1),
        "roadgraph_samples/id": np.array([5, 3, 5, 3, 3]),
        "roadgraph_samples/type": np.array([2, 15, 2, 15, 15]),
        "roadgraph_samples/valid": np.array([1, 1, 1, 1, 0]),
    }
    map_ = read(tmp_path, features).map
    assert map_.id.tolist() == [5, 3]
    assert map_.kind.tolist() == [MapKind.LANE, MapKind.ROAD_EDGE]
    assert map_.polyline(0)[:, 0].tolist() == [0, 1]
    assert map_.polyline(1)[:, 0].tolist() == [9, 8]


def test_a_full_map_is_marked_for_it_may_be_cut(tmp_path: Path) -> None:
    scene = read(tmp_path, example_features(crossing(), padding=0))
    assert dict(scene.report) == {"the map fills its record and may have been cut": 1}


def test_lists_may_be_packed_or_not_and_come_in_any_order() -> None:
    def feature(name: bytes, kind: int, values: bytes) -> bytes:
        return bytes_field(1, bytes_field(2, bytes_field(kind, values)) + bytes_field(1, name))

    plain = integer_field(1, -1) + integer_field(1, 300)
    packed = bytes_field(1, b"\x05\x06")
    content = feature(b"a", 3, plain + packed) + feature(b"b", 2, float_field(1, 1.5) + bytes_field(1, b"\0" * 8))
    found = decode_example(bytes_field(1, content + feature(b"c", 1, bytes_field(1, b"x") + bytes_field(1, b""))))
    assert np.asarray(found["a"]).tolist() == [-1, 300, 5, 6]
    assert np.asarray(found["b"]).tolist() == [1.5, 0, 0]
    assert found["c"] == [b"x", b""]


@pytest.mark.parametrize("content", [b"\x0a\x05abc", b"\x0a\x02\x0a\x09", b"\x0a\x06\x0a\x04\x12\x02\x1a\x09", b"\x00"])
def test_a_message_that_is_cut_is_an_error(content: bytes) -> None:
    with pytest.raises(ExampleFault):
        decode_example(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("state/id"), "no feature 'state/id' of numbers"),
        (lambda f: f.pop("roadgraph_samples/xyz"), "no feature 'roadgraph_samples/xyz'"),
        (
            lambda f: f.update({"state/past/x": np.zeros(3, np.float32)}),
            "x' holds 3 numbers, wanted are 50",
        ),
        (lambda f: f.update({"state/current/valid": np.zeros(4, np.int64)}), "4 numbers for 5 agents"),
        (lambda f: f["state/current/x"].__setitem__(0, np.nan), "position is"),
        (lambda f: f["state/id"].__setitem__(0, np.inf), "id is no number"),
        (lambda f: f["state/id"].__setitem__(0, f["state/id"][1]), "more than once"),
    ],
)
def test_what_is_broken_is_one_error_that_names_file_and_record(change: Any, message: str, tmp_path: Path) -> None:
    good = example_features(crossing())
    bad = {name: values.copy() for name, values in good.items()}
    change(bad)
    path = write_records(tmp_path / "x.tfrecord", [example_bytes(good), example_bytes(bad)])
    scenes = read_file(path)
    assert next(scenes).id == "crossing"
    with pytest.raises(BadRecord, match=rf"x\.tfrecord, record 1: .*{message}"):
        next(scenes)


@pytest.mark.data
def test_the_recorded_example_is_read_plain_and_gzip(shared: Path) -> None:
    folder = shared / "data" / "womd_tf_example"
    for path in sorted(folder.iterdir()):
        (scene,) = read_file(path)
        assert (scene.id, scene.steps, scene.current_index) == ("a3bb37c25ce56418", 91, 10)
        agents = scene.agents
        assert (len(agents), len(scene.sim_agents), int(agents.to_predict.sum())) == (128, 73, 8)
        assert len(scene.lights) == 21
        # Samples are half a metre apart: no polyline runs across to another feature.
        gaps = [np.hypot(*np.diff(scene.map.polyline(row)[:, :2], axis=0).T) for row in range(len(scene.map))]
        assert np.percentile(np.concatenate(gaps), 99.9) < 0.51
        step = np.diff(agents.position[..., :2], axis=1)
        moving = agents.valid[:, 1:] & agents.valid[:, :-1] & (np.hypot(*np.moveaxis(step, -1, 0)) > 0.5)
        off = agents.heading[:, 1:][moving] - np.arctan2(step[..., 1], step[..., 0])[moving]
        assert np.cos(off).mean() > 0.99
