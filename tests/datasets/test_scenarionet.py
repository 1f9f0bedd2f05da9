"""ScenarioNet pickles: read without running anything in them, and alike with the same scenes in womd/."""

import gzip
import os
import pickle
import struct
from collections import OrderedDict, defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import read_file, read_scenes
from traj_diffusion.datasets.readers import unpickle
from traj_diffusion.datasets.readers.unpickle import Unreadable, load
from traj_diffusion.errors import BadFile, BadRecord
from traj_diffusion.scene import Links, MapKind, Origin, Scene
from traj_diffusion.testing import crossing
from traj_diffusion.testing.foreign import scenarionet_document


def read(tmp_path: Path, document: object, protocol: int = 4) -> list[Scene]:
    path = tmp_path / "some.pkl"
    path.write_bytes(pickle.dumps(document, protocol))
    return list(read_file(path))


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, np.ndarray):
        return ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    return type(ours) is type(theirs) and bool(ours == theirs)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_and_arrays_come_back_as_they_were_pickled(protocol: int) -> None:
    counts: defaultdict[str, int] = defaultdict(int, a=1)
    shared = [1.5, None, "ä", b"\x00\xff", 2**40, -3, True]
    value = {
        "numbers": [np.arange(6, dtype=">f4").reshape(2, 3), np.asfortranarray(np.eye(3)[:2]), np.array(["a", "bc"])],
        "twice": [shared, shared],
        "tuples": (1, (2,), (), (1, 2, 3, 4)),
        "scalar": np.float32(1.5).item(),
        "set": {1, "x"},
        "ordered": OrderedDict(a=1),
        "counts": counts,
        "empty": np.zeros((0, 3)),
    }
    assert same(load(pickle.dumps(value, protocol)), value)
    assert load(pickle.dumps(np.float32(1.5), protocol)) == 1.5


class Attack:
    def __reduce__(self) -> Any:
        return os.system, ("touch attacked",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_with_code_in_it_is_refused_and_says_what_it_wanted(protocol: int, tmp_path: Path) -> None:
    document = scenarionet_document(crossing()) | {"more": Attack()}
    wanted = "nt" if os.name == "nt" else "posix"
    with pytest.raises(BadFile, match=rf"some\.pkl: .*wants to load '{wanted}\.system'"):
        read(tmp_path, document, protocol)
    assert not Path("attacked").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(np.array([None, {}], object)), "element type 'O8'"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.", "ends inside a value"),
        (b"\x80\x04})" + b"\x85" * 100_000 + b"Ns.", "a key is tuple"),  # its hash recurses that often
        (b"\x80\x04" + b"}" * 1001 + b".", "more than 1,000 steps"),
        (b"\x80\x04h\x05.", "never kept"),
        (b"\x80\x04.", "not there"),
        (b"\x80\x04cbuiltins\neval\n.", "wants to load 'builtins.eval'"),
        (b"\x80\x04cbuiltins\nint\n)R.", "only fills a default"),
        (b"\x80\x04cbuiltins\nint\n.", "a type stands"),
        (b"\x80\x04]cnumpy\nndarray\n)Ra.", "never filled"),
        (b"(dp0\n.", "protocol 2 to 5"),
    ],
)
def test_what_would_cost_memory_or_crash_ends_in_one_error(
    content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "1,000" in message:
        monkeypatch.setattr(unpickle, "MAX_STEPS", 1000)
    with pytest.raises(Unreadable, match=message):
        load(content)


def test_a_memo_index_costs_what_it_holds() -> None:
    # Python's own unpickler asks for 32 GiB here.
    assert load(b"\x80\x04]r" + struct.pack("<I", 2**32 - 1) + b".") == []


def test_arrays_that_claim_more_than_their_bytes_are_refused() -> None:
    good = pickle.dumps(np.arange(4.0))
    with pytest.raises(Unreadable, match="does not fit its 32 bytes"):
        load(good.replace(b"K\x04\x85", b"K\xff\x85"))


def test_a_made_scene_comes_back_whole(tmp_path: Path) -> None:
    wanted = crossing()
    (scene,) = read(tmp_path, scenarionet_document(wanted))
    agents = wanted.agents
    assert (scene.id, scene.ego, scene.current_index, scene.dt) == (wanted.id, wanted.ego, 10, 0.1)
    for name in ("id", "kind", "valid", "to_predict"):
        assert np.array_equal(getattr(scene.agents, name), getattr(agents, name)), name
    for name in ("position", "heading", "velocity", "size"):
        assert np.array_equal(getattr(scene.agents, name)[agents.valid], getattr(agents, name)[agents.valid]), name
    for name in ("points", "start", "kind", "subtype", "id"):
        assert np.array_equal(getattr(scene.map, name), getattr(wanted.map, name)), name
    for name in ("lane_id", "state", "observed", "stop_point"):
        assert np.array_equal(getattr(scene.lights, name), getattr(wanted.lights, name)), name
    assert scene.map.links.successors.index.tolist() == wanted.map.links.successors.index.tolist()
    assert scene.report == ()


def test_a_gzip_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(pickle.dumps(scenarionet_document(crossing()))))
    (scene,) = read_file(path)
    assert scene.id == "crossing"


def nuscenes(steps: int = 200) -> dict[str, Any]:
    """Return a scene with what is odd about those of nuScenes: no current step, tokens, columns, a swapped ego."""
    document = scenarionet_document(crossing())
    document["metadata"] |= {"dataset": "nuscenes", "sdc_id": "ego", "ts": np.arange(steps) * 0.1}
    del document["metadata"]["current_time_index"]
    document["dynamic_map_states"] = {}
    document["metadata"]["tracks_to_predict"] = {}
    for track in document["tracks"].values():
        for name, values in track["state"].items():
            track["state"][name] = np.concatenate([values, values, values])[:steps]
        for name in ("length", "width", "height"):
            track["state"][name] = track["state"][name][:, None]
        track["state"]["valid"] = track["state"]["valid"].astype(float)
    names = ["ego", "0b2ba0", "cone"]
    document["tracks"] = dict(zip(names, document["tracks"].values(), strict=True))
    ego = document["tracks"]["ego"]["state"]
    ego["length"], ego["width"] = ego["width"], ego["length"]
    document["tracks"]["cone"]["type"] = "TRAFFIC_CONE"
    document["map_features"] = {
        "a-lane": {
            "type": "LANE_SURFACE_STREET",
            "polyline": [(0.0, 0.0, 1.57), (0.0, 5.0, 1.57)],
            "exit_lanes": ["b"],
        },
        "b": {"type": "LANE_SURFACE_UNSTRUCTURE", "polyline": np.ones((4, 3)), "speed_limit_kmh": 100},
        "walk": {"type": "ROAD_EDGE_SIDEWALK", "polygon": np.zeros((5, 2))},
        "zebra": {"type": "CROSSWALK", "polygon": np.array([[0.0, 0], [1, 0], [1, 1], [0, 0]])},
        "wall": {"type": "GUARDRAIL", "polyline": np.zeros((2, 2))},
    }
    return document


def test_a_recording_without_a_current_step_is_cut_into_windows(tmp_path: Path) -> None:
    first, second = read(tmp_path, nuscenes())
    assert (first.id, second.id) == ("crossing.0", "crossing.91")
    assert first.steps == second.steps == 91
    assert first.current_index == second.current_index == 10
    assert dict(second.report)["steps at the end, too few for a window, dropped"] == 18
    (short,) = read(tmp_path, nuscenes(steps=60))
    assert (short.steps, short.current_index) == (60, 10)


def test_what_the_nuscenes_converter_does_is_put_right_or_marked(tmp_path: Path) -> None:
    scene = read(tmp_path, nuscenes())[0]
    assert scene.agents.source_id == ("ego", "0b2ba0", "cone")
    length, width = scene.agents.size[0, 0, :2]
    assert length > width
    assert scene.map.edge_origin == Origin.DERIVED
    assert scene.map.polyline(0).tolist() == [[0, 0, 0], [0, 5, 0]]  # the third number was a direction
    assert len(scene.map.polyline(2)) == 3
    assert np.isnan(scene.map.speed_limit).all()
    assert scene.map.links.successors[0].tolist() == [1]
    assert [what for what, _ in scene.report] == [
        "agents of a type without a kind, read as OTHER",
        "vehicles with length and width swapped, put right",
        "speed limits that the converter assumed, dropped",
        "sidewalk outlines, which are no road edges, dropped",
        "map features of no known kind, dropped",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("metadata"), "no entry 'metadata'"),
        (lambda d: d["tracks"]["1"]["state"].pop("width"), "no entry 'width'"),
        (lambda d: d["tracks"]["1"]["state"].update(heading=np.zeros(90)), r"track 1: heading has shape \(90,\)"),
        (lambda d: d["tracks"]["1"]["state"].update(valid=["x"] * 91), "something else than numbers"),
        (lambda d: d["tracks"]["1"]["state"].update(position=np.full((91, 3), np.nan)), "position is"),
        (lambda d: d["metadata"].update(current_time_index=91), "current index 91"),
        (lambda d: d["metadata"].update(tracks_to_predict={"77": {}}), "there is no such track"),
        (lambda d: d["map_features"]["100"].update(polyline=[[0, 0], [1, 2, 3, 4]]), "two or three numbers"),
        (lambda d: d["map_features"]["100"].update(polyline=None), "NoneType"),
        (lambda d: d.update(tracks=7), "int"),
    ],
)
def test_what_is_broken_is_one_error_that_names_the_file(change: Any, message: str, tmp_path: Path) -> None:
    document = scenarionet_document(crossing())
    change(document)
    with pytest.raises(BadRecord, match=rf"(?s)some\.pkl, record 0: .*{message}"):
        read(tmp_path, document)


def test_polylines_that_share_one_list_do_not_add_up_to_any_memory(tmp_path: Path) -> None:
    document = scenarionet_document(crossing())
    shared = np.zeros((200_000, 3))
    document["map_features"] = {str(row): {"type": "UNKNOWN", "polyline": shared} for row in range(100)}
    with pytest.raises(BadRecord, match="more than 5,000,000 points"):
        read(tmp_path, document)


@pytest.mark.data
def test_the_waymo_scenes_are_those_of_womd(shared: Path) -> None:
    wanted = {scene.id: scene for scene in read_scenes(shared / "data" / "womd")}
    checked = 0
    for folder in ("waymo", "waymo_20s"):
        for scene in read_scenes(shared / "data" / "scenarionet" / folder):
            other = wanted[scene.id]
            assert (scene.ego, scene.current_index, scene.steps, scene.dt) == (
                other.ego,
                other.current_index,
                other.steps,
                other.dt,
            )
            valid = other.agents.valid
            for name in ("id", "valid", "to_predict"):
                assert np.array_equal(getattr(scene.agents, name), getattr(other.agents, name))
            for name in ("position", "heading", "velocity", "size"):
                assert np.array_equal(getattr(scene.agents, name)[valid], getattr(other.agents, name)[valid])
            for name in ("points", "start", "kind", "subtype", "id"):
                assert np.array_equal(getattr(scene.map, name), getattr(other.map, name)), (scene.id, name)
            assert np.array_equal(scene.map.speed_limit, other.map.speed_limit, equal_nan=True)
            for field in fields(Links)[:5]:
                ours, theirs = getattr(scene.map.links, field.name), getattr(other.map.links, field.name)
                assert np.array_equal(ours.start, theirs.start)
                assert np.array_equal(ours.index, theirs.index)
            rows = [scene.lights.lane_id.tolist().index(lane) for lane in other.lights.lane_id.tolist()]
            assert len(rows) == len(scene.lights)
            for name in ("state", "observed", "stop_point"):
                assert np.array_equal(getattr(scene.lights, name)[rows], getattr(other.lights, name))
            checked += 1
    assert checked == 10


@pytest.mark.data
def test_the_nuscenes_scenes_are_cut_in_two_and_their_ego_is_longer_than_wide(shared: Path) -> None:
    scenes = list(read_scenes(shared / "data" / "scenarionet" / "nuscenes"))
    assert [scene.id for scene in scenes] == ["scene-0757.0", "scene-0757.91", "scene-1100.0", "scene-1100.91"]
    for scene in scenes:
        assert scene.ego is not None
        assert scene.agents.size[scene.ego, 10, :2] == pytest.approx([4.08, 1.73])
        ego = scene.agents.position[scene.ego, 10, :2]
        assert np.hypot(*(scene.map.points[:, :2] - ego).T).min() < 2
        assert not len(scene.lights)
        assert scene.map.edge_origin == Origin.DERIVED
        # Drivable ground lies to the left of the nearest edge, where the ego is.
        points = [scene.map.polyline(int(row))[:, :2] for row in scene.map.rows(MapKind.ROAD_EDGE)]
        first = np.concatenate([line[:-1] for line in points])
        step = np.concatenate([np.diff(line, axis=0) for line in points])
        share = np.clip(((ego - first) * step).sum(-1) / (step**2).sum(-1), 0, 1)
        off = ego - first - share[:, None] * step
        near = np.hypot(*off.T).argmin()
        assert step[near, 0] * off[near, 1] - step[near, 1] * off[near, 0] > 0
        assert scene.map.links.origin == (Origin.RECORDED if "0757" in scene.id else Origin.DERIVED)
