"""Scenes as WOMD `Scenario` messages, so that anything that reads WOMD reads them. What WOMD has no field for is lost:
text ids, routes, the report, and what was derived instead of recorded."""

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from traj_diffusion.datasets.tfrecord import write_records
from traj_diffusion.datasets.wire import bytes_field, double_field, integer_field, packed_integers_field
from traj_diffusion.scene import MapKind, Scene

MILES_PER_HOUR = 1 / 0.44704  # one m/s
_STATE = struct.Struct("<BB BdBdBd BfBfBfBfBfBf BB")
_POINT = struct.Struct("<BdBdBd")
_POINTS_FIELD = {MapKind.LANE: 8, MapKind.ROAD_LINE: 2, MapKind.ROAD_EDGE: 2, MapKind.STOP_SIGN: 2}
_SUBTYPE_FIELD = {MapKind.LANE: 2, MapKind.ROAD_LINE: 1, MapKind.ROAD_EDGE: 1}


def write_womd(path: Path, scenes: Iterable[Scene]) -> Path:
    """Write scenes as one TFRecord file of Scenario messages, whole or not at all, and return its path."""
    return write_records(path, (scenario_bytes(scene) for scene in scenes))


def scenario_bytes(scene: Scene) -> bytes:
    """Return a scene as a serialised Scenario (waymo_open_dataset/protos/scenario.proto)."""
    agents = scene.agents
    parts = [double_field(1, step * scene.dt) for step in range(scene.steps)]
    parts += [bytes_field(2, _track(scene, row)) for row in range(len(agents))]
    parts += [bytes_field(5, scene.id.encode())]
    parts += [integer_field(6, scene.ego)] if scene.ego is not None else []
    parts += [bytes_field(7, _light_step(scene, step)) for step in range(scene.steps)]
    parts += [bytes_field(8, _feature(scene, row)) for row in range(len(scene.map))]
    parts += [integer_field(10, scene.current_index)]
    parts += [bytes_field(11, integer_field(1, int(row))) for row in np.flatnonzero(agents.to_predict)]
    return b"".join(parts)


def _track(scene: Scene, row: int) -> bytes:
    agents = scene.agents
    parts = [integer_field(1, int(agents.id[row])), integer_field(2, int(agents.kind[row]))]
    floats = np.concatenate([agents.size[row], agents.heading[row, :, None], agents.velocity[row]], 1).tolist()
    states = zip(agents.position[row].tolist(), floats, agents.valid[row].tolist(), strict=True)
    for (x, y, z), (length, width, height, heading, speed_x, speed_y), valid in states:
        parts.append(
            # Each field's key (number << 3 | wire type) stands before its value: fields 2 to 4, 5 to 10, 11.
            _STATE.pack(
                *(0x1A, 59, 0x11, x, 0x19, y, 0x21, z),
                *(0x2D, length, 0x35, width, 0x3D, height, 0x45, heading, 0x4D, speed_x, 0x55, speed_y),
                *(0x58, valid),
            )
        )
    return b"".join(parts)


def _point(xyz: np.ndarray) -> bytes:
    x, y, z = xyz.tolist()
    return _POINT.pack(0x09, x, 0x11, y, 0x19, z)


def _feature(scene: Scene, row: int) -> bytes:
    features, links = scene.map, scene.map.links
    kind = MapKind(int(features.kind[row]))
    data = b""
    if kind == MapKind.LANE and not np.isnan(features.speed_limit[row]):
        data += double_field(1, float(features.speed_limit[row]) * MILES_PER_HOUR)
    if kind in _SUBTYPE_FIELD:
        data += integer_field(_SUBTYPE_FIELD[kind], int(features.subtype[row]))
    if kind == MapKind.STOP_SIGN:
        data += b"".join(integer_field(1, int(features.id[lane])) for lane in links.controls[row])
    data += b"".join(bytes_field(_POINTS_FIELD.get(kind, 1), _point(xyz)) for xyz in features.polyline(row))
    if kind == MapKind.LANE:
        data += packed_integers_field(9, features.id[links.predecessors[row]].tolist())
        data += packed_integers_field(10, features.id[links.successors[row]].tolist())
        for field, side in ((11, links.left), (12, links.right)):
            data += b"".join(bytes_field(field, integer_field(1, int(features.id[lane]))) for lane in side[row])
    return integer_field(1, int(features.id[row])) + bytes_field(kind, data)


def _light_step(scene: Scene, step: int) -> bytes:
    lights = scene.lights
    return b"".join(
        bytes_field(
            1,
            integer_field(1, int(lights.lane_id[row]))
            + integer_field(2, int(lights.state[row, step]))
            + bytes_field(3, _point(lights.stop_point[row, step])),
        )
        for row in np.flatnonzero(lights.observed[:, step])
    )
