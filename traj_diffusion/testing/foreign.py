"""Scenes as files of other formats have them, for tests of readers where no recordings are at hand."""

import sqlite3
from pathlib import Path
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
        feature: dict[str, Any]
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


def av2_sensor_tables(scene: Scene, start: int = 315_966_000_000_000_000) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of a scene's Argoverse 2 sensor log: cuboids in the frame of the ego, and the ego's poses.

    The ego, row 0, is no cuboid; its pose is that of its rear axle, 1.339 m behind and 0.438 m below its centre.
    """
    types = {1: "REGULAR_VEHICLE", 2: "PEDESTRIAN", 3: "BICYCLIST", 4: "BOLLARD"}
    agents = scene.agents
    rows, steps = np.nonzero(agents.valid)
    rows, steps = rows[rows > 0], steps[rows > 0]
    angle = agents.heading[0].astype(float)
    ahead = np.stack([np.cos(angle), np.sin(angle)], -1)
    axle = agents.position[0] - np.concatenate([1.339 * ahead, np.full((scene.steps, 1), 0.438)], 1)
    off = agents.position[rows, steps] - axle[steps]
    along, left = ahead[steps], np.stack([-ahead[steps, 1], ahead[steps, 0]], -1)
    turn = agents.heading[rows, steps].astype(float) - angle[steps]
    time = start + np.arange(scene.steps) * 100_000_000
    nothing = np.zeros(len(rows))
    names = ("length_m", "width_m", "height_m")
    cuboids = {
        "timestamp_ns": time[steps],
        "track_uuid": [f"track-{agents.id[row]}" for row in rows],
        "category": [types[int(agents.kind[row])] for row in rows],
        **{name: agents.size[rows, steps, axis].astype(float) for axis, name in enumerate(names)},
        **{"qw": np.cos(turn / 2), "qx": nothing, "qy": nothing, "qz": np.sin(turn / 2)},
        **{"tx_m": (off[:, :2] * along).sum(-1), "ty_m": (off[:, :2] * left).sum(-1), "tz_m": off[:, 2]},
        "num_interior_pts": np.ones(len(rows), int),
    }
    poses = {
        "timestamp_ns": time,
        **{"qw": np.cos(angle / 2), "qx": 0 * angle, "qy": 0 * angle, "qz": np.sin(angle / 2)},
        **{"tx_m": axle[:, 0], "ty_m": axle[:, 1], "tz_m": axle[:, 2]},
    }
    return cuboids, poses


def write_nuplan(path: Path, scene: Scene, rate: int = 2) -> Path:
    """Write a scene as a nuPlan log, its ego and boxes at `rate` sweeps per step, and return the path.

    Between two steps everybody stands where they were at the first; lights are rows of their lane.
    """
    agents, lights = scene.agents, scene.lights
    ego = scene.ego or 0
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    database.executescript(
        """CREATE TABLE ego_pose (token BLOB, timestamp INTEGER, x FLOAT, y FLOAT, z FLOAT, qw FLOAT, qx FLOAT,
        qy FLOAT, qz FLOAT, vx FLOAT, vy FLOAT);
        CREATE TABLE lidar_pc (token BLOB, ego_pose_token BLOB, timestamp INTEGER);
        CREATE TABLE category (token BLOB, name TEXT); CREATE TABLE track (token BLOB, category_token BLOB);
        CREATE TABLE lidar_box (lidar_pc_token BLOB, track_token BLOB, x FLOAT, y FLOAT, z FLOAT, yaw FLOAT, vx FLOAT,
        vy FLOAT, length FLOAT, width FLOAT, height FLOAT);
        CREATE TABLE traffic_light_status (lidar_pc_token BLOB, lane_connector_id INTEGER, status TEXT);"""
    )
    names = {1: "vehicle", 2: "pedestrian", 3: "bicycle", 4: "barrier"}
    database.executemany("INSERT INTO category VALUES (?, ?)", [(bytes([kind]), name) for kind, name in names.items()])
    others = [row for row in range(len(agents)) if row != ego]
    tracks = [(agents.id[row].tobytes(), bytes([agents.kind[row]])) for row in others]
    database.executemany("INSERT INTO track VALUES (?, ?)", tracks)
    colours = {LightState.STOP: "red", LightState.CAUTION: "yellow", LightState.GO: "green"}
    for sweep in range(scene.steps * rate):
        step, token = sweep // rate, sweep.to_bytes(4, "big")
        time = 1_600_000_000_000_000 + round(sweep * 1e6 * scene.dt / rate)
        heading = float(agents.heading[ego, step])
        turn, (vx, vy) = np.exp(-1j * heading), agents.velocity[ego, step].astype(float)
        own = (vx + 1j * vy) * turn
        x, y, z = agents.position[ego, step] - 1.461 * np.array([np.cos(heading), np.sin(heading), 0])
        pose = (token, time, x, y, z, np.cos(heading / 2), 0.0, 0.0, np.sin(heading / 2), own.real, own.imag)
        database.execute(f"INSERT INTO ego_pose VALUES ({'?, ' * 10}?)", pose)
        database.execute("INSERT INTO lidar_pc VALUES (?, ?, ?)", (token, token, time))
        for row in others:
            if agents.valid[row, step]:
                numbers = (*agents.position[row, step], agents.heading[row, step])
                numbers = (*numbers, *agents.velocity[row, step], *agents.size[row, step])
                box = (token, agents.id[row].tobytes(), *map(float, numbers))
                database.execute(f"INSERT INTO lidar_box VALUES ({'?, ' * 10}?)", box)
        for row in np.flatnonzero(lights.observed[:, step]).tolist():
            status = colours.get(LightState(int(lights.state[row, step])), "unknown")
            light = (token, int(lights.lane_id[row]), status)
            database.execute("INSERT INTO traffic_light_status VALUES (?, ?, ?)", light)
    database.commit()
    database.close()
    return path


def write_smarts(path: Path, scene: Scene) -> Path:
    """Write a scene as a SMARTS traffic history and return the path; it has no heights."""
    agents = scene.agents
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    database.executescript(
        """CREATE TABLE Spec (key TEXT, value TEXT); CREATE TABLE Vehicle (id INTEGER, type INTEGER, length REAL,
        width REAL, height REAL, is_ego_vehicle INTEGER); CREATE TABLE TrafficLightState (sim_time REAL, state INTEGER,
        stop_point_x REAL, stop_point_y REAL, lane INTEGER); CREATE TABLE Trajectory (vehicle_id INTEGER, sim_time REAL,
        position_x REAL, position_y REAL, heading_rad REAL, speed REAL, lane_id INTEGER);"""
    )
    types = {1: 2, 2: 4, 3: 1, 4: 9}
    for row, number in enumerate(agents.id.tolist()):
        first = int(agents.valid[row].argmax())
        length, width = agents.size[row, first, :2].astype(float)
        vehicle = (number, types[int(agents.kind[row])], length, width, None, int(row == scene.ego))
        database.execute("INSERT INTO Vehicle VALUES (?, ?, ?, ?, ?, ?)", vehicle)
        for step in np.flatnonzero(agents.valid[row]).tolist():
            x, y = agents.position[row, step, :2].tolist()
            north = float(agents.heading[row, step]) - np.pi / 2
            speed = float(np.hypot(*agents.velocity[row, step]))
            state = (number, 7.9 + step * scene.dt, x, y, north, speed, 0)
            database.execute("INSERT INTO Trajectory VALUES (?, ?, ?, ?, ?, ?, ?)", state)
    database.commit()
    database.close()
    return path
