"""Scenes as files of other formats have them, for tests of readers where no recordings are at hand."""

from typing import Any

import numpy as np

from traj_diffusion.datasets.wire import bytes_field, packed_floats_field, packed_integers_field
from traj_diffusion.scene import AgentKind, EdgeType, LaneType, LightState, LineType, MapKind, Scene

_LANES = {
    LaneType.UNDEFINED: "LANE_UNKNOWN",
    LaneType.FREEWAY: "LANE_FREEWAY",
    LaneType.SURFACE_STREET: "LANE_SURFACE_STREET",
    LaneType.BIKE_LANE: "LANE_BIKE_LANE",
}


def scenarionet_document(scene: Scene) -> dict[str, Any]:
    """Return a scene as ScenarioNet pickles it, in the layout of its Waymo converter."""
    agents = scene.agents
    tracks = {}
    for row, number in enumerate(agents.id.tolist()):
        length, width, height = agents.size[row].T
        state = {
            "position": agents.position[row],
            "heading": agents.heading[row],
            "velocity": agents.velocity[row],
            "length": length,
            "width": width,
            "height": height,
            "valid": agents.valid[row],
        }
        tracks[str(number)] = {"type": AgentKind(agents.kind[row]).name, "state": state, "metadata": {}}
    lights = {
        str(lane): {
            "type": "TRAFFIC_LIGHT",
            "lane": lane,
            "state": {
                "object_state": [
                    f"LANE_STATE_{LightState(int(value)).name}" if seen else None
                    for value, seen in zip(scene.lights.state[row], scene.lights.observed[row], strict=True)
                ]
            },
            "stop_point": scene.lights.stop_point[row, int(scene.lights.observed[row].argmax())],
        }
        for row, lane in enumerate(scene.lights.lane_id.tolist())
    }
    predicted = agents.id[agents.to_predict].tolist()
    metadata = {
        "dataset": "waymo",
        "scenario_id": scene.id,
        "ts": np.arange(scene.steps) * scene.dt,
        "sdc_id": None if scene.ego is None else str(agents.id[scene.ego]),
        "current_time_index": scene.current_index,
        "tracks_to_predict": {str(number): {"track_id": str(number)} for number in predicted},
    }
    return {
        "id": scene.id,
        "version": "v1.2",
        "length": scene.steps,
        "tracks": tracks,
        "dynamic_map_states": lights,
        "map_features": _map_features(scene),
        "metadata": metadata,
    }


def _map_features(scene: Scene) -> dict[str, dict[str, Any]]:
    features, ids = {}, scene.map.id.tolist()
    links = scene.map.links
    for row, number in enumerate(ids):
        kind, subtype = MapKind(scene.map.kind[row]), int(scene.map.subtype[row])
        points = scene.map.polyline(row)
        if kind == MapKind.LANE:
            feature = {
                "type": _LANES[LaneType(subtype)],
                "polyline": points,
                "exit_lanes": [ids[lane] for lane in links.successors[row]],
                "entry_lanes": [ids[lane] for lane in links.predecessors[row]],
                "left_neighbor": [{"feature_id": str(ids[lane])} for lane in links.left[row]],
                "right_neighbor": [{"feature_id": str(ids[lane])} for lane in links.right[row]],
            }
            if np.isfinite(scene.map.speed_limit[row]):
                feature["speed_limit_mph"] = float(scene.map.speed_limit[row]) / 0.44704
        elif kind == MapKind.STOP_SIGN:
            feature = {"type": kind.name, "position": points[0], "lane": [ids[lane] for lane in links.controls[row]]}
        elif kind in (MapKind.ROAD_LINE, MapKind.ROAD_EDGE):
            name = LineType(subtype).name if kind == MapKind.ROAD_LINE else EdgeType(subtype).name
            feature = {"type": f"{kind.name}_{name}", "polyline": points}
        else:
            feature = {"type": kind.name, "polygon": points}
        features[str(number)] = feature
    return features


def example_features(scene: Scene, padding: int = 2) -> dict[str, Any]:
    """Return the features of a scene's WOMD tf.Example, with a few padded agents, road samples and light slots."""
    now, agents, lights = scene.current_index, scene.agents, scene.lights
    parts = {"past": slice(0, now), "current": slice(now, now + 1), "future": slice(now + 1, scene.steps)}
    valid = agents.valid
    states = {
        **{name: agents.position[..., axis] for axis, name in enumerate("xyz")},
        **{name: agents.size[..., axis] for axis, name in enumerate(("length", "width", "height"))},
        **{f"velocity_{name}": agents.velocity[..., axis] for axis, name in enumerate("xy")},
        "bbox_yaw": agents.heading,
        "timestamp_micros": np.broadcast_to(np.arange(scene.steps) * round(1e6 * scene.dt), valid.shape),
        "valid": valid.astype(np.int64),
    }
    features: dict[str, Any] = {"scenario/id": [scene.id.encode()]}

    def pad(values: np.ndarray, fill: int = -1) -> np.ndarray:
        """Return rows with padding below, flat; -1 stands where nothing is."""
        width = ((0, padding), *((0, 0) for _ in values.shape[1:]))
        return np.pad(values, width, constant_values=fill).reshape(-1)

    for part, steps in parts.items():
        for name, values in states.items():
            whole = name in ("valid", "timestamp_micros")
            shown = np.where(valid, values, 0 if name == "valid" else -1)[:, steps]
            features[f"state/{part}/{name}"] = pad(shown.astype(np.int64 if whole else np.float32))
        slots = {
            "id": np.broadcast_to(lights.lane_id[:, None], lights.state.shape),
            "state": lights.state.astype(np.int64),
            "valid": lights.observed.astype(np.int64),
            **{name: lights.stop_point[..., axis].astype(np.float32) for axis, name in enumerate("xyz")},
        }
        for name, values in slots.items():
            table = np.pad(values[:, steps], ((0, padding), (0, 0)), constant_values=0 if name == "valid" else -1)
            features[f"traffic_light_state/{part}/{name}"] = table.T.reshape(-1)
    features["state/id"] = pad(agents.id.astype(np.float32))
    features["state/type"] = pad(agents.kind.astype(np.float32))
    features["state/is_sdc"] = pad((np.arange(len(agents)) == scene.ego).astype(np.int64))
    features["state/tracks_to_predict"] = pad(agents.to_predict.astype(np.int64))
    offset = {MapKind.LANE: 0, MapKind.ROAD_LINE: 5, MapKind.ROAD_EDGE: 14}
    alone = {MapKind.STOP_SIGN: 17, MapKind.CROSSWALK: 18, MapKind.SPEED_BUMP: 19, MapKind.DRIVEWAY: 20}
    number = [
        alone.get(MapKind(kind), offset.get(MapKind(kind), 0) + int(subtype))
        for kind, subtype in zip(scene.map.kind, scene.map.subtype, strict=True)
    ]
    count = np.diff(scene.map.start)
    features["roadgraph_samples/type"] = pad(np.repeat(np.array(number, np.int64), count))
    features["roadgraph_samples/id"] = pad(np.repeat(scene.map.id, count))
    features["roadgraph_samples/valid"] = pad(np.ones(len(scene.map.points), np.int64), 0)
    features["roadgraph_samples/xyz"] = pad(scene.map.points.astype(np.float32))
    return features


def example_bytes(features: dict[str, Any]) -> bytes:
    """Return features as a serialised tf.Example."""
    encoded = b""
    for name, values in features.items():
        if isinstance(values, list):
            feature = bytes_field(1, b"".join(bytes_field(1, value) for value in values))
        elif values.dtype.kind == "f":
            feature = bytes_field(2, packed_floats_field(1, values))
        else:
            feature = bytes_field(3, packed_integers_field(1, values.tolist()))
        encoded += bytes_field(1, bytes_field(1, name.encode()) + bytes_field(2, feature))
    return bytes_field(1, encoded)


def av2_columns(scene: Scene) -> dict[str, list[Any]]:
    """Return the rows of a scene's Argoverse 2 forecasting parquet, one per valid state, as columns."""
    types = {1: "vehicle", 2: "pedestrian", 3: "cyclist"}
    agents = scene.agents
    rows, steps = np.nonzero(agents.valid)
    names = ["AV" if row == scene.ego else str(number) for row, number in enumerate(agents.id.tolist())]
    return {
        "observed": (steps <= scene.current_index).tolist(),
        "track_id": [names[row] for row in rows],
        "object_type": [types.get(int(agents.kind[row]), "static") for row in rows],
        "object_category": [3 if agents.to_predict[row] else 0 for row in rows],
        "timestep": steps.tolist(),
        "position_x": agents.position[rows, steps, 0].tolist(),
        "position_y": agents.position[rows, steps, 1].tolist(),
        "heading": agents.heading[rows, steps].astype(float).tolist(),
        "velocity_x": agents.velocity[rows, steps, 0].astype(float).tolist(),
        "velocity_y": agents.velocity[rows, steps, 1].astype(float).tolist(),
        "scenario_id": [scene.id] * len(rows),
        "num_timestamps": [scene.steps] * len(rows),
        "focal_track_id": [names[0]] * len(rows),
    }


def av2_map() -> dict[str, Any]:
    """Return the map archive of two lanes, one behind the other, 40 m of road 8 m wide, and a crossing."""

    def line(*points: tuple[int, int]) -> list[dict[str, int]]:
        return [{"x": x, "y": y, "z": 20} for x, y in points]

    def lane(number: int, x: int, links: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": number,
            "centerline": line((x, 2), (x + 20, 2)),
            "lane_type": "VEHICLE",
            "left_lane_boundary": line((x, 4), (x + 20, 4)),
            "left_lane_mark_type": "DOUBLE_SOLID_YELLOW",
            "right_lane_boundary": line((x, 0), (x + 20, 0)),
            "right_lane_mark_type": "NONE",
            "left_neighbor_id": None,
            "right_neighbor_id": None,
            "successors": [],
            "predecessors": [],
        } | links

    lanes = [lane(7, 0, {"successors": [8]}), lane(8, 20, {"predecessors": [7], "successors": [99]})]
    return {
        "lane_segments": {str(entry["id"]): entry for entry in lanes},
        "pedestrian_crossings": {"5": {"id": 5, "edge1": line((9, 0), (9, 8)), "edge2": line((12, 0), (12, 8))}},
        "drivable_areas": {
            "1": {"id": 1, "area_boundary": line((0, 0), (0, 8), (25, 8), (25, 0))},
            "2": {"id": 2, "area_boundary": line((20, 0), (20, 8), (40, 8), (40, 0))},
        },
    }
