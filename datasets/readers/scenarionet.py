"""ScenarioNet and MetaDrive: one pickled scene a file, plain or gzip, converted from Waymo, nuScenes and others.

Format: MetaDrive `scenario/scenario_description.py`. The pickle is read by `unpickle`, which builds numpy arrays and
plain values only; a file that wants anything else loaded is refused and says what. Licence: that of the data set that
was converted (Waymo: non-commercial; nuScenes: CC BY-NC-SA 4.0).

Read: all tracks, the map with its links, lights. Lost: lane widths and boundaries, sidewalk outlines, metadata.
Scenes that say which step is the current one are kept whole, 20 s too; others are cut into windows.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from traj_diffusion.datasets.derive import upright, with_edges, with_links
from traj_diffusion.datasets.readers.assemble import (
    STEP,
    Features,
    Report,
    add,
    check_size,
    numbers,
    step_length,
    windows,
)
from traj_diffusion.datasets.readers.unpack import read_bytes
from traj_diffusion.datasets.readers.unpickle import Unreadable, load
from traj_diffusion.errors import BadFile, BadRecord, BadScene
from traj_diffusion.scene import (
    AgentKind,
    Agents,
    EdgeType,
    LaneType,
    Lights,
    LightState,
    LineType,
    Map,
    MapKind,
    Origin,
    Routes,
    Scene,
    check_scene,
)

NAME = "ScenarioNet pickle"
PATTERNS = ("sd_*.pkl", "sd_*.pkl.gz")
MAX_BYTES = 128 * 2**20
METRES_PER_SECOND = 0.44704  # one mile per hour
_KINDS = {"VEHICLE": AgentKind.VEHICLE, "PEDESTRIAN": AgentKind.PEDESTRIAN, "CYCLIST": AgentKind.CYCLIST}
_LIGHTS = {
    **{f"LANE_STATE_{state.name}": state for state in LightState},
    "TRAFFIC_LIGHT_RED": LightState.STOP,
    "TRAFFIC_LIGHT_YELLOW": LightState.CAUTION,
    "TRAFFIC_LIGHT_GREEN": LightState.GO,
    "TRAFFIC_LIGHT_UNKNOWN": LightState.UNKNOWN,
}
_SIDEWALK = "ROAD_EDGE_SIDEWALK"
_FEATURES: dict[str, tuple[MapKind, int]] = {
    **{f"ROAD_LINE_{line.name}": (MapKind.ROAD_LINE, int(line)) for line in LineType},
    "UNKNOWN_LINE": (MapKind.ROAD_LINE, LineType.UNKNOWN),
    "UNKNOWN": (MapKind.ROAD_LINE, LineType.UNKNOWN),
    **{f"ROAD_EDGE_{edge.name}": (MapKind.ROAD_EDGE, int(edge)) for edge in EdgeType},
    "LANE_FREEWAY": (MapKind.LANE, LaneType.FREEWAY),
    "LANE_SURFACE_STREET": (MapKind.LANE, LaneType.SURFACE_STREET),
    "LANE_SURFACE_UNSTRUCTURE": (MapKind.LANE, LaneType.SURFACE_STREET),
    "LANE_BIKE_LANE": (MapKind.LANE, LaneType.BIKE_LANE),
    "LANE_UNKNOWN": (MapKind.LANE, LaneType.UNDEFINED),
    "STOP_SIGN": (MapKind.STOP_SIGN, 0),
    "CROSSWALK": (MapKind.CROSSWALK, 0),
    "SPEED_BUMP": (MapKind.SPEED_BUMP, 0),
    "DRIVEWAY": (MapKind.DRIVEWAY, 0),
}
_RELATIONS = {
    "exit_lanes": "successors",
    "entry_lanes": "predecessors",
    "left_neighbor": "left",
    "right_neighbor": "right",
}


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is a pickle with the key `tracks`, or one that is named like a scene."""
    if head[:1] != b"\x80" or head[1:2] not in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return False
    return b"\x06tracks" in head or b"X\x06\x00\x00\x00tracks" in head or path.match("sd_*.pkl*")


def read(path: Path) -> Iterator[Scene]:
    """Yield the scenes of a file: one, or its windows. Raises BadFile, BadRecord where the scene is broken."""
    document = _load(path)
    try:
        for scene in document_to_scenes(document, Path(path).name.split(".pkl")[0]):
            yield check_scene(scene)
    except (BadScene, LookupError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        what = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        raise BadRecord(f"{path}, record 0: {what}") from error


def _load(path: Path) -> Any:
    try:
        return load(read_bytes(path, MAX_BYTES, "pickle"))
    except (Unreadable, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: not a pickle that can be read: {error}") from error


@np.errstate(over="ignore", invalid="ignore")  # absurd values are `check_scene`'s to name
def document_to_scenes(document: Any, name: str) -> Iterator[Scene]:
    """Yield the scenes of an unpickled file; `name` is the id where it states none.

    Raises BadScene, or the LookupError, TypeError or ValueError of what is missing or malformed.
    """
    report: Report = {}
    metadata = document["metadata"]
    flat, waymo = metadata.get("dataset") == "nuscenes", metadata.get("dataset") == "waymo"
    tracks = document["tracks"]
    ids = [str(key) for key in tracks]
    ego = ids.index(str(metadata["sdc_id"])) if str(metadata.get("sdc_id")) in ids else None
    agents = _agents(tracks, ids, waymo, report)
    for wanted in metadata.get("tracks_to_predict") or ():
        if str(wanted) not in ids:
            raise ValueError(f"track {str(wanted)[:40]!r} is to be predicted; there is no such track")
        agents.to_predict[ids.index(str(wanted))] = True
    steps = agents.valid.shape[1]
    features, outlines = map_features(document["map_features"], waymo, flat, report)
    map_ = with_links(features.build(report, Origin.RECORDED))
    map_ = map_ if waymo else with_edges(map_, list(outlines.values()), list(outlines))
    current = metadata.get("current_time_index")
    if current is not None and (isinstance(current, bool) or not isinstance(current, int)):
        raise ValueError(f"current_time_index is {str(current)[:40]}; a number would fit")
    scene = Scene(
        id=str(metadata.get("scenario_id") or document.get("id") or name),
        source="scenarionet",
        dt=_dt(metadata.get("ts"), report),
        current_index=current or 0,
        ego=ego,
        agents=agents,
        map=map_,
        lights=_lights(document["dynamic_map_states"], steps, features.names, map_, report),
        routes=Routes.absent(len(agents)),
        report=tuple(report.items()),
    )
    if current is None:
        yield from windows(scene)
    else:
        yield scene


def _array(value: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return a recorded array of numbers, those of (T, 1) as (T,); -1 in a shape stands for any size."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{what} holds something else than numbers")
    if len(shape) == 1 and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != len(shape) or any(want not in (-1, found) for want, found in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{what} has shape {array.shape}, wanted is {shape}")
    return array


def _agents(tracks: Any, ids: list[str], waymo: bool, report: Report) -> Agents:
    count = len(ids)
    steps = len(_array(next(iter(tracks.values()))["state"]["valid"], (-1,), "the first track: valid")) if count else 1
    check_size(count, steps)
    kind = np.zeros(count, np.uint8)
    position, velocity = np.zeros((count, steps, 3)), np.zeros((count, steps, 2), np.float32)
    heading, size = np.zeros((count, steps), np.float32), np.zeros((count, steps, 3), np.float32)
    valid = np.zeros((count, steps), bool)
    for row, (name, track) in enumerate(zip(ids, tracks.values(), strict=True)):
        state, what = track["state"], f"track {name[:40]}"
        kind[row] = _KINDS.get(str(track["type"]), AgentKind.OTHER)
        valid[row] = _array(state["valid"], (steps,), f"{what}: valid") != 0
        place = _array(state["position"], (steps, -1), f"{what}: position")
        position[row, :, : place.shape[1]] = place
        velocity[row] = _array(state["velocity"], (steps, 2), f"{what}: velocity")
        heading[row] = _array(state["heading"], (steps,), f"{what}: heading")
        for axis, name in enumerate(("length", "width", "height")):
            size[row, :, axis] = _array(state[name], (steps,), f"{what}: {name}")
    add(report, "agents of a type without a kind, read as OTHER", int((kind == AgentKind.OTHER).sum()))
    for values in (position, heading, velocity, size):
        values[~valid] = 0  # some converters leave an offset there
    if not waymo:  # whose records hold sizes as they were measured
        swapped = upright(size, valid, kind == AgentKind.VEHICLE)
        add(report, "vehicles with length and width swapped, put right", swapped)
    number = numbers(ids)
    return Agents(
        id=number,
        kind=kind,
        position=position,
        heading=heading,
        velocity=velocity,
        size=size,
        valid=valid,
        to_predict=np.zeros(count, bool),
        source_id=None if [str(value) for value in number] == ids else tuple(ids),
    )


def _dt(times: Any, report: Report) -> float:
    return STEP if times is None else step_length(np.diff(_array(times, (-1,), "ts").astype(np.float64)), report)


def map_features(features: Any, limits: bool, flat: bool, report: Report) -> tuple[Features, dict[int, np.ndarray]]:
    """Return the map, and the outlines [., 2] of the lanes that have one, by row.

    `limits`: speed limits are recorded ones; `flat`: a third coordinate is a lane's direction.
    """
    built, outlines = Features(), dict[int, np.ndarray]()
    for key, feature in features.items():
        kind = str(feature["type"])
        if kind == "UNKNOWN" and "entry_lanes" in feature:
            kind = "LANE_UNKNOWN"
        if kind == _SIDEWALK:
            add(report, "sidewalk outlines, which are no road edges, dropped")
            continue
        if kind not in _FEATURES:
            add(report, "map features of no known kind, dropped")
            continue
        limit = np.nan
        if "speed_limit_mph" in feature and limits:
            limit = float(feature["speed_limit_mph"]) * METRES_PER_SECOND
        elif "speed_limit_mph" in feature or "speed_limit_kmh" in feature:
            add(report, "speed limits that the converter assumed, dropped")
        points = _points(feature, f"map feature {str(key)[:40]}")
        built.add(str(key), *_FEATURES[kind], points[:, :2] if flat else points, limit)
        if _FEATURES[kind][0] == MapKind.LANE:
            if "polyline" in feature and "polygon" in feature:
                ring = _array(feature["polygon"], (-1, -1), f"map feature {str(key)[:40]}")
                outlines[len(built.names) - 1] = ring[:, :2].astype(np.float64)
            for field, relation in _RELATIONS.items():
                for other in feature.get(field) or ():
                    built.link(relation, str(other["feature_id"] if isinstance(other, dict) else other))
        for lane in (feature.get("lane") or ()) if kind == "STOP_SIGN" else ():
            built.link("controls", str(lane))
    return built, outlines


def _points(feature: Any, what: str) -> np.ndarray:
    """Return a feature's points; a polygon that repeats its first point at the end loses it."""
    for field in ("polyline", "polygon", "position"):
        if field in feature:
            break
    value = feature[field]
    if not isinstance(value, np.ndarray) and any(len(point) not in (2, 3) for point in value):
        raise ValueError(f"{what}: a point is not of two or three numbers")
    if field == "position":
        value = np.asarray(value)[None]
    points = _array(value, (-1, -1), what).astype(np.float64) if len(value) else np.zeros((0, 3))
    closed = field == "polygon" and len(points) > 1 and np.array_equal(points[0], points[-1])
    return points[:-1] if closed else points


def _lights(states: Any, steps: int, names: list[str | None], map_: Map, report: Report) -> Lights:
    count = len(states)
    check_size(count, steps)
    lane_id = np.zeros(count, np.int64)
    state, observed = np.zeros((count, steps), np.uint8), np.zeros((count, steps), bool)
    stop = np.zeros((count, steps, 3))
    ids = dict(zip(names, map_.id.tolist(), strict=False))  # derived features come last and have no names
    own = numbers([str(entry["lane"]) for entry in states.values()])
    for row, (key, entry) in enumerate(states.items()):
        what = f"light {str(key)[:40]}"
        lane = str(entry["lane"])
        if lane not in ids:
            add(report, "lights of lanes outside the map")
        lane_id[row] = ids.get(lane, int(own[row]))
        recorded = entry["state"]["object_state"]
        if len(recorded) != steps:
            raise ValueError(f"{what}: it has {len(recorded)} states, the scene has {steps} steps")
        for step, value in enumerate(recorded):
            if value is not None:
                if str(value) not in _LIGHTS:
                    add(report, "light states of unknown name, read as UNKNOWN")
                state[row, step] = _LIGHTS.get(str(value), LightState.UNKNOWN)
                observed[row, step] = True
        point = _array(entry["stop_point"], (-1,), f"{what}: stop_point")
        if len(point) not in (2, 3):
            raise ValueError(f"{what}: its stop point has {len(point)} coordinates")
        stop[row, :, : len(point)] = point
        stop[row, ~observed[row]] = 0
    return Lights(lane_id=lane_id, stop_point=stop, state=state, observed=observed)
