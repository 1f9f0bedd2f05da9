"""The WOMD reader against Google's parser, against our own writer, and against broken bytes."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import list_sources, read_file
from traj_diffusion.datasets.readers.womd import scenario_to_scene
from traj_diffusion.datasets.readers.womd_decode import WireFault
from traj_diffusion.datasets.tfrecord import read_records, write_records
from traj_diffusion.datasets.wire import (
    SPAN,
    bytes_field,
    double_field,
    float_field,
    integer_field,
    packed_floats_field,
    varint,
)
from traj_diffusion.datasets.womd_writer import scenario_bytes, write_womd
from traj_diffusion.errors import BadRecord
from traj_diffusion.scene import Csr, Lights, LightState, Links, Map, MapKind, Origin, Scene
from traj_diffusion.testing import crossing, make_scene, straight_road
from traj_diffusion.testing.womd_reference import reference_scene, scenario_class


def differences(one: Any, other: Any, name: str = "scene") -> list[str]:
    """Return the names of the fields that differ, bit for bit, NaN equal to NaN."""
    if is_dataclass(one):
        return [
            found
            for field in fields(one)
            if field.name not in ("report", "origin", "edge_origin", "source")
            for found in differences(getattr(one, field.name), getattr(other, field.name), f"{name}.{field.name}")
        ]
    if isinstance(one, np.ndarray):
        same = one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        return [] if same else [name]
    return [] if one == other else [name]


def rich_scene() -> Scene:
    """A scene with everything WOMD has: every kind of feature, links, lights that come and go, gaps in tracks."""
    scene = crossing()
    lines = [scene.map.polyline(row) for row in range(4)] + [np.array([[1.0, 2, 3]]), np.eye(3), np.zeros((0, 3))]
    kinds = [MapKind.LANE] * 3 + [MapKind.CROSSWALK, MapKind.STOP_SIGN, MapKind.ROAD_EDGE, MapKind.ROAD_LINE]
    ragged = Csr.from_lists
    links = Links(
        successors=ragged([[1, 2], [], [0], [], [], [], []]),
        predecessors=ragged([[2], [0], [0], [], [], [], []]),
        left=ragged([[1], [], [1, 1], [], [], [], []]),
        right=ragged([[], [0, 2], [], [], [], [], []]),
        controls=ragged([[], [], [], [], [2, 0], [], []]),
        origin=Origin.RECORDED,
    )
    features = Map(
        points=np.concatenate(lines),
        start=np.cumsum([0, *map(len, lines)]),
        kind=np.array(kinds, np.uint8),
        subtype=np.array([2, 1, 3, 0, 0, 2, 8], np.uint8),
        id=np.array([7, 5, 3, 1000, 2**40, 6, 0]),
        speed_limit=np.array([11.176, np.nan, 0, np.nan, np.nan, np.nan, np.nan], np.float32),
        links=links,
    )
    observed = np.zeros((2, 91), bool)
    observed[0, 3:40] = observed[1, 2:90:3] = True  # row 1 is seen first, hence comes first when read
    state = np.where(observed, LightState.GO, 0).astype(np.uint8)
    lights = Lights(np.array([5, 7]), 4.5 * np.repeat(observed[..., None], 3, 2), state, observed)
    agents = replace(scene.agents, valid=scene.agents.valid.copy(), to_predict=np.array([True, False, True]))
    agents.valid[1, :30] = False
    agents.heading[0] = 17.25  # as recorded, outside [-pi, pi)
    return replace(scene, map=features, lights=lights, agents=agents, ego=2)


def reversed_fields(message: bytes, inner: dict[int, Any]) -> bytes:
    """Return a message with its fields in descending order, its sub-messages likewise; repeated ones keep theirs."""
    found, at = [], 0
    while at < len(message):
        start = at
        key, at = read_int(message, at)
        wire = key & 7
        if wire == SPAN:
            length, at = read_int(message, at)
            value = message[at : at + length]
            at += length
            if key >> 3 in inner:
                found.append((-(key >> 3), bytes_field(key >> 3, reversed_fields(value, inner[key >> 3]))))
                continue
        elif wire == 0:
            _, at = read_int(message, at)
        else:
            at += 8 if wire == 1 else 4
        found.append((-(key >> 3), message[start:at]))
    return b"".join(field for _, field in sorted(found, key=lambda pair: pair[0]))


def read_int(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


POINT: dict[int, Any] = {}
FEATURE = {3: {8: POINT, 11: {}, 12: {}}, 4: {2: POINT}, 5: {2: POINT}, 7: {2: POINT}, 8: {1: POINT}}
SCENARIO = {2: {3: {}}, 7: {1: {3: POINT}}, 8: FEATURE, 11: {}}


@pytest.mark.data
def test_every_recorded_scene_equals_googles_parser_field_for_field(shared: Path) -> None:
    scenario, seen = scenario_class(), 0
    for entry in list_sources(shared / "data" / "womd"):
        for record, scene in zip(read_records(entry.file), read_file(entry.file), strict=True):
            assert differences(scene, reference_scene(record, scenario)) == [], scene.id
            seen += 1
    assert seen == 37


@pytest.mark.parametrize("make", [crossing, straight_road, rich_scene])
def test_a_scene_written_as_womd_reads_back_the_same(make: Any) -> None:
    scene = make()
    again = scenario_to_scene(scenario_bytes(scene))
    order = np.argsort(np.argmax(scene.lights.observed, axis=1), kind="stable") if len(scene.lights) else []
    lights = scene.lights
    if len(order):
        lights = Lights(lights.lane_id[order], lights.stop_point[order], lights.state[order], lights.observed[order])
    assert differences(replace(scene, lights=lights), again) == []


def test_googles_parser_reads_what_we_write_alike() -> None:
    record = scenario_bytes(rich_scene())
    assert differences(scenario_to_scene(record), reference_scene(record, scenario_class())) == []


def test_field_order_does_not_matter() -> None:
    record = scenario_bytes(rich_scene())
    turned = reversed_fields(record, SCENARIO)
    assert turned != record
    assert turned[0] >> 3 == 11
    assert differences(scenario_to_scene(turned), scenario_to_scene(record)) == []


def test_fields_of_later_schemas_are_skipped() -> None:
    strange = integer_field(77, 2**63) + double_field(78, 1.0) + float_field(79, 1.0) + bytes_field(12, b"lidar")
    scene = rich_scene()
    record = scenario_bytes(scene)
    assert differences(scenario_to_scene(strange + record + strange), scenario_to_scene(record)) == []
    nested = reversed_fields(record, SCENARIO)
    assert differences(scenario_to_scene(nested + bytes_field(4, b"\x01\x02")), scenario_to_scene(record)) == []


def test_links_out_of_the_map_are_dropped_and_counted() -> None:
    scene = rich_scene()
    lane = integer_field(1, 1) + bytes_field(3, bytes_field(10, varint(999) + varint(3)))
    read = scenario_to_scene(scenario_bytes(scene) + bytes_field(8, lane))
    assert read.map.links.successors[7].tolist() == [2]
    assert dict(read.report) == {"links to lanes outside the map, dropped": 1}


def test_a_type_that_is_unset_is_other_and_an_unknown_feature_is_dropped() -> None:
    track = b"".join(bytes_field(3, b"") for _ in range(91))
    read = scenario_to_scene(
        scenario_bytes(rich_scene())
        + bytes_field(2, integer_field(1, 99) + track)
        + bytes_field(8, integer_field(1, 4))
    )
    assert read.agents.kind[-1] == 4
    assert not read.agents.valid[-1].any()
    assert len(read.map) == 7
    assert read.map.id.tolist() == rich_scene().map.id.tolist()
    assert [count for _, count in read.report] == [1, 1]


def test_a_test_split_record_without_a_future_and_a_20_s_record_are_read() -> None:
    past = straight_road().history_only()
    assert scenario_to_scene(scenario_bytes(past)).steps == 11
    long = make_scene(np.zeros((1, 2)), np.ones((1, 2)), steps=199, current_index=0)
    assert scenario_to_scene(scenario_bytes(long)).steps == 199


@pytest.mark.parametrize("agents", [0, 1])
def test_few_agents_and_no_map_are_scenes_too(agents: int) -> None:
    scene = make_scene(np.zeros((agents, 2)), np.ones((agents, 2)))
    again = scenario_to_scene(scenario_bytes(scene))
    assert differences(scene, again) == []
    assert len(again.map) == 0


def test_a_scene_with_nobody_at_the_current_index_is_read() -> None:
    scene = straight_road()
    scene.agents.valid[:, 10] = False
    assert len(scenario_to_scene(scenario_bytes(scene)).sim_agents) == 0


def test_irregular_timestamps_are_reported() -> None:
    record = scenario_bytes(straight_road(steps=5, current_index=2))
    late = record.replace(double_field(1, 4 * 0.1), double_field(1, 0.9))
    assert dict(scenario_to_scene(late).report) == {"steps whose timestamps are more than 10 % off the step": 1}


ONE_TRACK = bytes_field(2, bytes_field(3, b""))
BROKEN = {
    "ends inside a value": scenario_bytes(straight_road())[:-3],
    "track 0: .* beyond the end": bytes_field(2, bytes_field(3, b"")[:-1] + b"\x05"),
    "longer than 10 bytes": b"\x50" + b"\xff" * 11,
    "unknown wire type": b"\x7b",
    "another wire type": float_field(5, 1.0),
    "number 0": b"\x00\x00",
    "map feature 0: .* two kinds": bytes_field(8, bytes_field(4, b"") + bytes_field(5, b"")),
    "map feature 1: .* another wire type": bytes_field(8, bytes_field(4, b""))
    + bytes_field(8, bytes_field(3, integer_field(8, 1))),
    "track 1: .* inside a value": ONE_TRACK + bytes_field(2, bytes_field(3, double_field(2, 1.0)[:-1])),
    "dynamic map state 0: .* another wire": ONE_TRACK + bytes_field(7, bytes_field(1, double_field(1, 1.0))),
    "track 1: it has 2 states": ONE_TRACK + bytes_field(2, 2 * bytes_field(3, b"")),
    "neither timestamps nor tracks": b"",
    "track_index 1 is to be predicted": ONE_TRACK + bytes_field(11, integer_field(1, 1)),
    "current index 7": ONE_TRACK + integer_field(10, 7),
    "current index -1": ONE_TRACK + integer_field(10, -1),
    "ego row 3 of 1": ONE_TRACK + integer_field(6, 3),
    "only 1 steps": ONE_TRACK + 2 * bytes_field(7, b""),
    "time does not rise": double_field(1, np.nan) * 2,
    "more than once": 2 * ONE_TRACK,
    "position is": bytes_field(2, bytes_field(3, double_field(2, np.nan) + integer_field(11, 1))),
    "map point is not finite": ONE_TRACK + bytes_field(8, bytes_field(4, bytes_field(2, double_field(1, np.inf)))),
}


@pytest.mark.parametrize("message", BROKEN)
def test_what_is_broken_is_named_with_file_and_record(message: str, tmp_path: Path) -> None:
    good = scenario_bytes(straight_road())
    path = write_records(tmp_path / "x.tfrecord", [good, BROKEN[message]])
    scenes = read_file(path)
    assert next(scenes).id == "made"
    with pytest.raises(BadRecord, match=rf"(?s)x\.tfrecord, record 1: .*{message}"):
        next(scenes)


def test_a_count_that_the_bytes_cannot_hold_asks_for_no_memory() -> None:
    with pytest.raises(WireFault, match="beyond the end"):
        scenario_to_scene(varint(2 << 3 | SPAN) + varint(2**62))
    many = packed_floats_field(1, np.zeros(10**5, np.float32))  # timestamps: bounded by the bytes that are there
    with pytest.raises(WireFault, match="states"):
        scenario_to_scene(many + ONE_TRACK)


def test_a_file_of_several_scenes_survives_being_written(tmp_path: Path) -> None:
    path = write_womd(tmp_path / "two.tfrecord", [straight_road(), crossing()])
    assert [scene.id for scene in read_file(path)] == ["made", "crossing"]
