"""Argoverse 2 sensor logs: cuboids and poses become agents in the city's frame, the car itself among them."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import list_sources, read_file, read_scenes
from traj_diffusion.datasets.readers import arrow
from traj_diffusion.datasets.readers.av2 import _CLASSES
from traj_diffusion.errors import BadFile, BadRecord, MissingExtra
from traj_diffusion.geometry import wrap_angle
from traj_diffusion.scene import AgentKind, MapKind, Origin, Scene
from traj_diffusion.testing import crossing, straight_road
from traj_diffusion.testing.foreign import av2_map, av2_sensor_tables


@pytest.fixture
def feather() -> Any:
    return pytest.importorskip("pyarrow.feather", reason="pyarrow is not installed: the extra [av2] is not tested")


def write(feather: Any, folder: Path, cuboids: Any, poses: Any, compression: str = "lz4") -> Path:
    import pyarrow

    path = folder / "log" / "annotations.feather"
    (path.parent / "map").mkdir(parents=True, exist_ok=True)
    feather.write_feather(pyarrow.table(cuboids), path, compression=compression)
    feather.write_feather(pyarrow.table(poses), path.with_name("city_SE3_egovehicle.feather"))
    (path.parent / "map" / "log_map_archive_log____PIT_city_1.json").write_text(json.dumps(av2_map()))
    return path


def moving(scene: Scene) -> Scene:
    """Return a scene whose ego is turned and far from the origin, so that frames matter."""
    scene.agents.position[:] += [1500.0, -300.0, 20.0]
    scene.agents.heading[0] += np.float32(0.3)
    return scene


@pytest.mark.parametrize("compression", ["lz4", "zstd", "uncompressed"])
def test_a_made_log_comes_back_in_the_frame_of_the_city(feather: Any, tmp_path: Path, compression: str) -> None:
    wanted = moving(crossing())
    (scene,) = read_file(write(feather, tmp_path, *av2_sensor_tables(wanted), compression))
    agents, theirs = scene.agents, wanted.agents
    assert (scene.id, scene.steps, scene.current_index, scene.ego, scene.dt) == ("log.0", 91, 10, 0, 0.1)
    assert agents.source_id == ("ego", "track-2", "track-3")
    assert np.array_equal(agents.kind, theirs.kind)
    assert np.array_equal(agents.valid, theirs.valid)
    assert agents.position == pytest.approx(theirs.position, abs=1e-6)
    assert wrap_angle(agents.heading - theirs.heading) == pytest.approx(0, abs=1e-6)
    assert agents.velocity == pytest.approx(theirs.velocity, abs=1e-4)
    assert np.array_equal(agents.size[1:], theirs.size[1:])
    assert agents.size[0, 0].tolist() == pytest.approx([4.877, 2.0, 1.473])


def test_the_map_keeps_its_heights_and_its_edges_are_derived(feather: Any, tmp_path: Path) -> None:
    document = av2_map()
    for lane in document["lane_segments"].values():
        del lane["centerline"]
    path = write(feather, tmp_path, *av2_sensor_tables(crossing()))
    next(path.parent.glob("map/*.json")).write_text(json.dumps(document))
    (scene,) = read_file(path)
    assert (scene.map.points[:, 2] == 20).all()
    assert scene.map.edge_origin == Origin.DERIVED
    assert scene.map.polyline(0)[[0, -1], :2].tolist() == [[0, 2], [20, 2]]  # midway between y = 0 and y = 4


def test_an_ego_that_is_a_cuboid_is_not_added_and_lies_at_its_centre(feather: Any, tmp_path: Path) -> None:
    wanted = straight_road()
    cuboids, poses = av2_sensor_tables(wanted)
    own = {name: values[:91] for name, values in cuboids.items()}
    own |= {"category": ["EGO_VEHICLE"] * 91, "track_uuid": ["me"] * 91}
    own |= {name: np.zeros(91) for name in ("tx_m", "ty_m", "tz_m")}
    both = {name: [*cuboids[name], *own[name]] for name in cuboids}
    (scene,) = read_file(write(feather, tmp_path, both, poses))
    assert scene.agents.source_id == ("track-2", "me")
    assert scene.ego == 1
    assert scene.agents.position[1] == pytest.approx(wanted.agents.position[0], abs=1e-6)


def test_sweeps_that_are_missing_leave_a_gap_and_those_without_a_pose_are_dropped(feather: Any, tmp_path: Path) -> None:
    cuboids, poses = av2_sensor_tables(straight_road())
    time = cuboids["timestamp_ns"]
    kept = time != time[30]
    cuboids = {
        name: [value for value, keep in zip(values, kept, strict=True) if keep] for name, values in cuboids.items()
    }
    poses = {name: np.delete(values, 50) for name, values in poses.items()}
    (scene,) = read_file(write(feather, tmp_path, cuboids, poses))
    assert np.flatnonzero(~scene.agents.valid[1]).tolist() == [30, 50]
    assert dict(scene.report)["steps without a sweep, nobody valid there"] == 1
    assert dict(scene.report)["sweeps without a pose of the car, dropped"] == 1


def test_swapped_lengths_and_widths_are_put_right_and_counted(feather: Any, tmp_path: Path) -> None:
    cuboids, poses = av2_sensor_tables(straight_road())
    cuboids["length_m"], cuboids["width_m"] = cuboids["width_m"], cuboids["length_m"]
    (scene,) = read_file(write(feather, tmp_path, cuboids, poses))
    assert scene.agents.size[1, 0, :2].tolist() == [4.5, 2.0]
    assert dict(scene.report)["vehicles with length and width swapped, put right"] == 1


def late(time: Any) -> Any:
    """Return times of which the last lies three years later."""
    return np.where(time == np.max(time), time + 10**17, time)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c, p: c.pop("length_m"), BadFile, "not in a format"),
        (lambda c, p: c.pop("height_m"), BadFile, "no column 'height_m'"),
        (lambda c, p: p.pop("qw"), BadFile, "poses of its car: .*no column 'qw'"),
        (lambda c, p: c.update(tx_m=["x"] * len(c["tx_m"])), BadRecord, "could not convert"),
        (lambda c, p: c.update(timestamp_ns=-np.asarray(c["timestamp_ns"])), BadRecord, "else than nanoseconds"),
        (lambda c, p: c.update(timestamp_ns=late(c["timestamp_ns"])), BadRecord, "at most 4,000,000"),
        (lambda c, p: c.update(ty_m=np.full(len(c["ty_m"]), np.nan)), BadRecord, "position is"),
        (lambda c, p: c.update({name: values[:0] for name, values in c.items()}), BadRecord, "it holds 0 cuboids"),
        (lambda c, p: p.update({name: values[:0] for name, values in p.items()}), BadRecord, "no poses of its car"),
    ],
)
def test_broken_columns_are_one_error_that_names_the_file(
    feather: Any, tmp_path: Path, change: Any, error: type[BadFile], message: str
) -> None:
    cuboids, poses = av2_sensor_tables(straight_road(steps=15))
    change(cuboids, poses)
    with pytest.raises(error, match=rf"annotations\.feather.*({message})") as raised:
        list(read_file(write(feather, tmp_path, cuboids, poses)))
    assert "\n" not in str(raised.value)


def test_a_log_without_its_poses_or_without_its_map_says_so(feather: Any, tmp_path: Path) -> None:
    path = write(feather, tmp_path, *av2_sensor_tables(straight_road(steps=15)))
    next(path.parent.glob("map/*.json")).unlink()
    (scene,) = read_file(path)
    assert dict(scene.report)["no map file beside the scenario, read without a map"] == 1
    path.with_name("city_SE3_egovehicle.feather").unlink()
    with pytest.raises(BadFile, match=r"poses of its car.*cannot be read"):
        list(read_file(path))


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(
    feather: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow, "MAX_BYTES", 2**21)
    cuboids, poses = av2_sensor_tables(straight_road(steps=15))
    big = {name: np.resize(np.asarray(values)[:1], 200_000) for name, values in cuboids.items()}
    path = write(feather, tmp_path, big, poses, "zstd")
    assert path.stat().st_size < 2**21
    with pytest.raises(BadFile, match=r"claims more than 2,097,152 bytes unpacked"):
        list(read_file(path))
    path.write_bytes(gzip.compress(b"ARROW1\0\0 track_uuid category tx_m length_m" + bytes(2**22)))
    with pytest.raises(BadFile, match="more than 2,097,152 bytes of an Arrow file"):
        list(read_file(path))


def test_without_pyarrow_the_error_names_the_extra(
    feather: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(feather, tmp_path, *av2_sensor_tables(straight_road(steps=15)))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"traj-diffusion\[av2\]"):
        list(read_file(path))


@pytest.mark.data
def test_the_recorded_logs_are_read_with_the_car_on_its_lane(feather: Any, shared: Path) -> None:
    folder = shared / "data" / "av2" / "sensor"
    assert len(list_sources(folder)) == 2  # poses and maps are passed over
    for scene in read_scenes(folder):
        assert (scene.steps, scene.current_index) == (91, 10)
        assert scene.ego is not None
        agents = scene.agents
        lanes = np.concatenate([scene.map.polyline(int(row)) for row in scene.map.rows(MapKind.LANE)])
        near = np.hypot(*(lanes[:, :2] - agents.position[scene.ego, 10, :2]).T).argmin()
        assert np.linalg.norm(lanes[near] - agents.position[scene.ego, 10]) < 2.5
        step = np.diff(agents.position[..., :2], axis=1)
        going = agents.valid[:, 1:] & agents.valid[:, :-1] & (np.hypot(*np.moveaxis(step, -1, 0)) > 0.3)
        off = agents.heading[:, 1:][going] - np.arctan2(step[..., 1], step[..., 0])[going]
        assert np.cos(off).mean() > 0.99


@pytest.mark.data
def test_the_sizes_that_forecasting_scenarios_lack_are_the_medians_of_these_logs(feather: Any, shared: Path) -> None:
    categories = {"REGULAR_VEHICLE": "vehicle", "BUS": "bus", "MOTORCYCLE": "motorcyclist", "BICYCLE": "cyclist"}
    categories["PEDESTRIAN"] = "pedestrian"
    found: dict[str, dict[str, list[list[float]]]] = {}
    for path in sorted((shared / "data" / "av2" / "sensor").glob("*/annotations*.feather")):
        for row in feather.read_table(path).to_pylist():
            size = [row["length_m"], row["width_m"], row["height_m"]]
            found.setdefault(row["category"], {}).setdefault(row["track_uuid"], []).append(size)
    for category, name in categories.items():
        median = np.median([np.median(track, 0) for track in found[category].values()], 0)
        kind, assumed = _CLASSES[name]
        axes = 2 if category in ("MOTORCYCLE", "BICYCLE") else 3  # neither log has a rider
        assert assumed[:axes] == pytest.approx(median[:axes], abs=0.055), category
        assert kind != AgentKind.OTHER
