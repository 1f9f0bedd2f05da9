"""A log that py123d itself wrote (tools/write_py123d_log.py), on a map that its own OpenDRIVE parser converted."""

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import list_sources, read_file
from traj_diffusion.datasets.readers.msgpack import unpack
from traj_diffusion.errors import BadFile
from traj_diffusion.scene import AgentKind, LightState, MapKind, Origin, Scene

LOG = Path(__file__).resolve().parents[1] / "data" / "py123d" / "straight"
TIME = np.arange(91) * 0.1


@pytest.fixture
def arrow() -> Any:
    return pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra [av2] is not tested")


@pytest.fixture
def log(arrow: Any, tmp_path: Path) -> Path:
    shutil.copytree(LOG, tmp_path / "straight")
    return tmp_path / "straight"


def read(folder: Path) -> Scene:
    (scene,) = read_file(folder / "sync.arrow")
    return scene


def test_everybody_moves_as_was_written(arrow: Any) -> None:
    scene = read(LOG)
    agents = scene.agents
    assert (scene.id, scene.source, scene.steps, scene.current_index) == ("straight.0", "py123d made", 91, 10)
    assert (scene.ego, agents.source_id) == (0, ("ego", "van", "walker"))
    assert agents.kind.tolist() == [AgentKind.VEHICLE, AgentKind.VEHICLE, AgentKind.PEDESTRIAN]
    assert agents.position[0, :, 0] == pytest.approx(-60 + 10 * TIME)
    assert agents.position[0, :, 1:] == pytest.approx(np.tile([-1.75, 5.75], (91, 1)))  # the centre, not the IMU
    assert agents.velocity[0] == pytest.approx(np.tile([10.0, 0.0], (91, 1)))
    assert agents.size[0, 0].tolist() == pytest.approx([4.6, 2.0, 1.5])
    assert np.abs(agents.heading[1]) == pytest.approx(np.pi)
    assert np.flatnonzero(agents.valid[2])[0] == 20
    assert agents.position[2, 20:, 1] == pytest.approx(-6 + 1.2 * TIME[20:])
    assert agents.velocity[2, 20:, 1] == pytest.approx(1.2)  # every other one is not recorded
    assert agents.heading[2, 20:] == pytest.approx(np.pi / 2)
    assert dict(scene.report) == {
        "agents without velocities at some steps, taken from their motion": 1,
        "steps at the end, too few for a window, dropped": 9,
    }


def test_the_map_has_lanes_with_links_limits_edges_and_a_light(arrow: Any) -> None:
    scene = read(LOG)
    lanes = scene.map.rows(MapKind.LANE)
    assert len(lanes) == 4
    assert np.allclose(scene.map.points[:, 2], 5)
    assert (scene.map.links.origin, scene.map.edge_origin) == (Origin.RECORDED, Origin.RECORDED)
    assert len(scene.map.rows(MapKind.ROAD_EDGE))
    assert len(scene.map.rows(MapKind.ROAD_LINE)) == 2
    linked = [(int(row), int(after)) for row in lanes for after in scene.map.links.successors[int(row)]]
    assert len(linked) == 2
    for before, after in linked:
        assert scene.map.polyline(before)[-1] == pytest.approx(scene.map.polyline(after)[0], abs=1e-6)
    assert scene.map.speed_limit[lanes] == pytest.approx(13.9, abs=0.1)
    (light,) = scene.lights.lane_id
    row = int(np.flatnonzero(scene.map.id == light)[0])
    assert scene.lights.stop_point[0, 0] == pytest.approx(scene.map.polyline(row)[0])
    assert scene.lights.state[0, [49, 50]].tolist() == [LightState.STOP, LightState.GO]


def test_in_a_folder_the_log_is_one_source(log: Path) -> None:
    assert [entry.file.name for entry in list_sources(log)] == ["sync.arrow"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("map", "no map file with the log, read without a map"),
        ("box_detections_se3", None),
        ("traffic_light_detections", None),
        ("ego_state_se3", None),
    ],
)
def test_a_log_that_lacks_a_file_is_read_without_it(log: Path, name: str, what: str | None) -> None:
    (log / f"{name}.arrow").unlink()
    scene = read(log)
    assert what is None or dict(scene.report)[what] == 1
    assert (scene.ego is None) == (name == "ego_state_se3")
    assert len(scene.agents) == {"box_detections_se3": 1, "ego_state_se3": 2}.get(name, 3)


def test_a_slower_log_is_resampled(log: Path, arrow: Any) -> None:
    import pyarrow.ipc

    with pyarrow.OSFile(str(log / "sync.arrow"), "rb") as source:
        table = pyarrow.ipc.open_file(source).read_all()
    sink = pyarrow.OSFile(str(log / "sync.arrow"), "wb")
    with sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.take(list(range(0, 100, 5))))
    scene = read(log)
    assert (scene.dt, scene.steps) == (0.1, 91)
    assert scene.agents.position[0, :, 0] == pytest.approx(-60 + 10 * TIME)
    assert dict(scene.report)["steps recorded, resampled to 0.1 s"] == 20


def test_a_damaged_map_is_one_error_that_names_the_log(log: Path) -> None:
    (log / "map.arrow").write_bytes((LOG / "map.arrow").read_bytes()[:4000])
    with pytest.raises(BadFile, match=r"sync\.arrow: .*map\.arrow: not a readable Arrow file"):
        read(log)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x07", 7),
        (b"\xff", -1),
        (b"\xcd\x01\x00", 256),
        (b"\xd1\xff\x00", -256),
        (b"\xcb" + struct.pack(">d", 1.5), 1.5),
        (b"\xa2hi", "hi"),
        (b"\xc4\x01\x09", b"\x09"),
        (b"\x92\xc0\xc3", [None, True]),
        (b"\x81\xa1a\x90", {"a": []}),
        (b"\xdc\x00\x01\xc2", [False]),
        (b"\xde\x00\x01\x01\x02", {1: 2}),
    ],
)
def test_messagepack_is_read_as_its_specification_says(data: bytes, value: Any) -> None:
    assert unpack(data) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x07\x07",
        b"\xdf\xff\xff\xff\xff",
        b"\xa2h",
        b"\x91" * 40,
        b"\x81\x90\x01",
        b"\xd4\x01\x01",
        b"\x84\xc4\x0b__ndarray__\xc3\xc4\x05dtype\xa2|O\xc4\x05shape\x91\x01\xc4\x04data\xc4\x08" + bytes(8),
    ],
)
def test_messagepack_that_is_none_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not readable MessagePack"):
        unpack(data)
