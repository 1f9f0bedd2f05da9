"""WOMD's Scenario read the slow and certain way: Google's protobuf parser and Python loops. Needs `protobuf`.

It shares no line with `traj_diffusion.datasets.readers.womd`, so that the two can check each other; and it is what the
reader's speed is measured against.
"""

from typing import Any

import numpy as np

from traj_diffusion.errors import MissingExtra
from traj_diffusion.scene import Agents, Csr, Lights, Links, Map, Origin, Routes, Scene

# Message -> field -> (number, type), "*" marks repeated and "*p" packed ones; from scenario.proto and map.proto.
_MESSAGES = {
    "ObjectState": {
        **{f"center_{axis}": (2 + i, "double") for i, axis in enumerate("xyz")},
        **{name: (5 + i, "float") for i, name in enumerate(("length", "width", "height", "heading"))},
        "velocity_x": (9, "float"),
        "velocity_y": (10, "float"),
        "valid": (11, "bool"),
    },
    "Track": {"id": (1, "int32"), "object_type": (2, "int32"), "states": (3, "ObjectState*")},
    "MapPoint": {axis: (1 + i, "double") for i, axis in enumerate("xyz")},
    "LaneNeighbor": {"feature_id": (1, "int64")},
    "LaneCenter": {
        "speed_limit_mph": (1, "double"),
        "type": (2, "int32"),
        "polyline": (8, "MapPoint*"),
        "entry_lanes": (9, "int64*p"),
        "exit_lanes": (10, "int64*p"),
        "left_neighbors": (11, "LaneNeighbor*"),
        "right_neighbors": (12, "LaneNeighbor*"),
    },
    "Line": {"type": (1, "int32"), "polyline": (2, "MapPoint*")},
    "StopSign": {"lane": (1, "int64*"), "position": (2, "MapPoint")},
    "Polygon": {"polygon": (1, "MapPoint*")},
    "MapFeature": {
        "id": (1, "int64"),
        "lane": (3, "LaneCenter"),
        "road_line": (4, "Line"),
        "road_edge": (5, "Line"),
        "stop_sign": (7, "StopSign"),
        "crosswalk": (8, "Polygon"),
        "speed_bump": (9, "Polygon"),
        "driveway": (10, "Polygon"),
    },
    "LaneState": {"lane": (1, "int64"), "state": (2, "int32"), "stop_point": (3, "MapPoint")},
    "DynamicMapState": {"lane_states": (1, "LaneState*")},
    "RequiredPrediction": {"track_index": (1, "int32")},
    "Scenario": {
        "timestamps_seconds": (1, "double*"),
        "tracks": (2, "Track*"),
        "scenario_id": (5, "string"),
        "sdc_track_index": (6, "int32"),
        "dynamic_map_states": (7, "DynamicMapState*"),
        "map_features": (8, "MapFeature*"),
        "current_time_index": (10, "int32"),
        "tracks_to_predict": (11, "RequiredPrediction*"),
    },
}


def scenario_class() -> Any:
    """Return protobuf's class for a Scenario with the fields that this package reads."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise MissingExtra("protobuf", "dev") from None
    file = descriptor_pb2.FileDescriptorProto(name="womd.proto", package="womd", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            base, star, packed = kind.partition("*")
            new = message.field.add(name=field, number=number, label=3 if star else 1)
            if base in _MESSAGES:
                new.type, new.type_name = new.TYPE_MESSAGE, f".womd.{base}"
            else:
                new.type = getattr(new, f"TYPE_{base.upper()}")
            if packed:
                new.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("womd.Scenario"))


def reference_scene(record: bytes, scenario: Any) -> Scene:
    """Return the scene of a serialised Scenario; `scenario` is the class that `scenario_class` made."""
    message = scenario.FromString(record)
    steps = len(message.timestamps_seconds)
    to_predict = {entry.track_index for entry in message.tracks_to_predict}
    tracks = message.tracks
    states = [[state for state in track.states] for track in tracks]

    def values(names: str, dtype: type) -> np.ndarray:
        rows = [[[getattr(state, name) for name in names.split()] for state in track] for track in states]
        return np.array(rows, dtype).reshape(len(tracks), steps, len(names.split()))

    agents = Agents(
        id=np.array([track.id for track in tracks], np.int64),
        kind=np.array([track.object_type or 4 for track in tracks], np.uint8),
        position=values("center_x center_y center_z", np.float64),
        heading=values("heading", np.float32)[..., 0],
        velocity=values("velocity_x velocity_y", np.float32),
        size=values("length width height", np.float32),
        valid=values("valid", bool)[..., 0],
        to_predict=np.array([row in to_predict for row in range(len(tracks))], bool),
    )
    return Scene(
        id=message.scenario_id,
        source="womd",
        dt=0.1,
        current_index=message.current_time_index,
        ego=message.sdc_track_index if message.HasField("sdc_track_index") else None,
        agents=agents,
        map=_map(message),
        lights=_lights(message, steps),
        routes=Routes.absent(len(tracks)),
    )


def _map(message: Any) -> Map:
    lines, kinds, subtypes, ids, speeds = [], [], [], [], []
    lanes = {f.id: row for row, f in enumerate(message.map_features) if f.HasField("lane")}
    links: dict[str, list[list[int]]] = {name: [] for name in ("after", "before", "left", "right", "controls")}
    for feature in message.map_features:
        ((descriptor, data),) = [pair for pair in feature.ListFields() if pair[0].name != "id"]
        name = descriptor.name
        lane, sign = name == "lane", name == "stop_sign"
        points = data.polygon if descriptor.number >= 8 else [data.position] if sign else data.polyline
        lines += [[(point.x, point.y, point.z) for point in points]]
        kinds.append(descriptor.number)
        subtypes.append(data.type if descriptor.number <= 5 else 0)
        ids.append(feature.id)
        speeds.append(data.speed_limit_mph * 0.44704 if lane and data.HasField("speed_limit_mph") else np.nan)
        targets = {
            "after": data.exit_lanes if lane else (),
            "before": data.entry_lanes if lane else (),
            "left": [other.feature_id for other in data.left_neighbors] if lane else (),
            "right": [other.feature_id for other in data.right_neighbors] if lane else (),
            "controls": data.lane if sign else (),
        }
        for relation, found in targets.items():
            links[relation].append([lanes[target] for target in found if target in lanes])
    csr = {relation: Csr.from_lists(rows) for relation, rows in links.items()}
    return Map(
        points=np.array([point for line in lines for point in line], np.float64).reshape(-1, 3),
        start=np.cumsum([0, *(len(line) for line in lines)]).astype(np.int64),
        kind=np.array(kinds, np.uint8),
        subtype=np.array(subtypes, np.uint8),
        id=np.array(ids, np.int64),
        speed_limit=np.array(speeds, np.float32),
        links=Links(csr["after"], csr["before"], csr["left"], csr["right"], csr["controls"], origin=Origin.RECORDED),
    )


def _lights(message: Any, steps: int) -> Lights:
    entries = [(step, light) for step, moment in enumerate(message.dynamic_map_states) for light in moment.lane_states]
    rows: dict[int, int] = {}
    for _, light in entries:
        rows.setdefault(light.lane, len(rows))
    stop_point, state = np.zeros((len(rows), steps, 3)), np.zeros((len(rows), steps), np.uint8)
    observed = np.zeros((len(rows), steps), bool)
    for step, light in entries:
        at = rows[light.lane], step
        point = light.stop_point
        stop_point[at], state[at], observed[at] = (point.x, point.y, point.z), light.state, True
    return Lights(np.array(list(rows), np.int64), stop_point, state, observed)
