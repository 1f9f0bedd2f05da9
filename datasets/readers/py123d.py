"""py123d's Arrow logs: a folder with `sync.arrow`, read with pyarrow alone. Extra: [av2].

Format: py123d 0.7 `api/scene/arrow` and `api/map/arrow`; it converts nuPlan, PandaSet, KITTI-360, CARLA and others,
whose licences the logs keep.

Read: the ego, all boxes, lights, and the map: `map.arrow` of the log, or its place's in `maps/` beside `logs/`.
Of each 0.1 s the nearest sweep is taken; slower logs are resampled; the log is cut into windows. Derived: velocities
that are not recorded; road edges and lane links where the map has none. Not read: sensors, routes, lane groups,
intersections, walkways, car parks. A light's stop point is the start of its lane.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from traj_diffusion.datasets.derive import upright, with_edges, with_links
from traj_diffusion.datasets.readers.arrow import is_arrow, read_arrow
from traj_diffusion.datasets.readers.assemble import (
    MAX_STATES,
    STEP,
    Features,
    Report,
    add,
    check_size,
    grid,
    step_length,
    windows,
)
from traj_diffusion.datasets.readers.msgpack import unpack
from traj_diffusion.errors import BadFile, BadRecord, BadScene
from traj_diffusion.scene import (
    AgentKind,
    Agents,
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
    resample_scene,
    velocity_of_motion,
)

NAME = "py123d Arrow log"
PATTERNS = ("sync.arrow",)
MICROSECONDS = 1e-6
_EGO, _BOXES, _LIGHTS = "ego_state_se3", "box_detections_se3", "traffic_light_detections"
_STATES = {0: LightState.GO, 1: LightState.CAUTION, 2: LightState.STOP}  # `TrafficLightStatus`; 3 is off
_LANE, _CROSSWALK, _ROAD_EDGE, _ROAD_LINE, _SPEED_BUMP = 0, 3, 8, 9, 10  # `MapLayer`
_LANE_TYPES = {1: LaneType.FREEWAY, 2: LaneType.SURFACE_STREET, 3: LaneType.BIKE_LANE, 4: LaneType.SURFACE_STREET}
_LINES = {  # `RoadLineType`
    2: LineType.PASSING_DOUBLE_YELLOW, 3: LineType.BROKEN_SINGLE_WHITE, 4: LineType.BROKEN_SINGLE_WHITE,
    5: LineType.BROKEN_SINGLE_YELLOW, 6: LineType.SOLID_DOUBLE_YELLOW, 7: LineType.SOLID_DOUBLE_WHITE,
    8: LineType.BROKEN_DOUBLE_YELLOW, 9: LineType.BROKEN_SINGLE_WHITE, 10: LineType.SOLID_SINGLE_YELLOW,
    11: LineType.SOLID_SINGLE_WHITE, 12: LineType.BROKEN_SINGLE_WHITE, 13: LineType.PASSING_DOUBLE_YELLOW,
}  # fmt: skip
# `parser/registry.py`: which labels of each class are vehicles, cyclists (two-wheelers), and persons.
_LABELS: dict[str, tuple[set[int], set[int], set[int]]] = {
    "DefaultBoxDetectionLabel": ({0, 1, 2}, {3}, {4}),
    "AV2SensorBoxDetectionLabel": ({1, 5, 6, 10, 14, 17, 18, 19, 24, 25, 26}, {3, 29}, {15, 16, 28}),
    "GriffinBoxDetectionLabel": ({1, 2, 3}, {4, 5}, {0}),
    "KITTI360BoxDetectionLabel": ({2, 3, 4, 14, 15, 17}, {0, 6}, {7, 9}),
    "NuPlanBoxDetectionLabel": ({0}, {1}, {2}),
    "NuScenesBoxDetectionLabel": (set(range(8)), {8, 9}, set(range(10, 17))),
    "NureasoningBoxDetectionLabel": ({0, 7, 8}, {1, 9, 10}, {2, 11}),
    "PandasetBoxDetectionLabel": ({3, 4, 7, 8, 11, 12, 13, 17, 21, 24, 25, 26}, {2, 9, 10}, {14, 15}),
    "PhysicalAIAVBoxDetectionLabel": ({0, 2, 3, 4, 8, 10, 11}, {6}, {1}),
    "WODMotionBoxDetectionLabel": ({1}, {3}, {2}),
    "WODPerceptionBoxDetectionLabel": ({1}, {4}, {2}),
}


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is an Arrow file with the columns of py123d's sync table."""
    return is_arrow(head, b"sync.uuid", b"sync.timestamp_us")


def read(path: Path) -> Iterator[Scene]:
    """Yield the windows of a log. Raises BadFile, BadRecord where what it holds is broken, MissingExtra."""
    path, report = Path(path), Report()
    sync = read_arrow(path, ["sync.timestamp_us"])
    try:
        for window in windows(resample_scene(_scene(path, sync, report))):
            yield check_scene(window)
    except BadFile as error:
        raise error if str(path) in str(error) else BadFile(f"{path}: {error}") from error
    except (BadScene, LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        said = f"no entry {error}" if isinstance(error, KeyError) else error
        raise BadRecord(f"{path}, record 0: {said}") from error
    except shapely.errors.ShapelyError as error:
        raise BadRecord(f"{path}, record 0: its map: {error}") from error


@np.errstate(over="ignore", invalid="ignore")  # absurd values are `check_scene`'s to name
def _scene(path: Path, sync: Any, report: Report) -> Scene:
    details = _details(sync)
    time = sync["sync.timestamp_us"].to_numpy()
    if time.dtype.kind not in "iu" or not len(time):
        raise ValueError("it has no sweeps with a time in microseconds")
    start, time = int(time[0]), (time - time[0]) * MICROSECONDS
    dt = step_length(np.diff(time), Report())
    # A sweep faster than a step stands for it; slower ones are steps of their own and resampled.
    chosen = grid(time * (STEP / max(dt, STEP)), report)
    dt = max(dt, STEP)
    map_, ids = _map(path, details, report)
    agents, ego = _agents(path.parent, time, start, chosen, dt, report)
    return Scene(
        id=str(details.get("log_name") or path.parent.name),
        source=f"py123d {details.get('dataset') or ''}".strip(),
        dt=dt,
        current_index=0,
        ego=ego,
        agents=agents,
        map=map_,
        lights=_lights(path.parent, time, start, chosen, map_, ids, report),
        routes=Routes.absent(len(agents)),
        report=tuple(report.items()),
    )


def _details(table: Any) -> dict[str, Any]:
    """Return the metadata that py123d packs into a file's schema."""
    found = unpack((table.schema.metadata or {}).get(b"metadata", b"\x80"))
    if not isinstance(found, dict):
        raise ValueError("its metadata is no table of names")
    return found


def _rows(table: Any, key: str, time: np.ndarray, start: int) -> np.ndarray:
    """Return which row of a modality is nearest to each sweep, -1 for none within half a step."""
    own = table[f"{key}.timestamp_us"].to_numpy()
    if own.dtype.kind not in "iu":
        raise ValueError(f"{key} has rows without a time in microseconds")
    own = (own - start) * MICROSECONDS
    if not len(own):
        return np.full(len(time), -1)
    order = np.argsort(own, kind="stable")
    after = np.clip(np.searchsorted(own[order], time), 0, len(own) - 1)
    before = np.maximum(after - 1, 0)
    near = np.where(np.abs(own[order][before] - time) <= np.abs(own[order][after] - time), before, after)
    row = order[near]
    return np.where(np.abs(own[row] - time) <= STEP / 2, row, -1)


def _modality(folder: Path, key: str, columns: list[str]) -> Any:
    """Return a modality's table, None where the log has none."""
    path = folder / f"{key}.arrow"
    return read_arrow(path, [f"{key}.{name}" for name in columns]) if path.is_file() else None


def _floats(column: Any, width: int) -> np.ndarray:
    """Return lists of that many floats [rows, width]; NaN where a row is null."""
    array = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    array = array.chunk(0) if hasattr(array, "chunk") else array
    if f"[{width}]" not in str(array.type) or "double" not in str(array.type):
        raise ValueError(f"a column holds {array.type}; lists of {width} doubles would fit")
    null = np.asarray(array.is_null())
    flat = array.values.to_numpy(zero_copy_only=False).astype(np.float64)
    flat = flat[array.offset * width :][: len(array) * width].reshape(len(array), width)
    return np.where(null[:, None], np.nan, flat)


def _agents(
    folder: Path, time: np.ndarray, start: int, chosen: np.ndarray, dt: float, report: Report
) -> tuple[Agents, int | None]:
    """Return the ego, where the log has one, in row 0, and the tracks below it."""
    steps = len(chosen)
    ego = _modality(folder, _EGO, ["timestamp_us", "imu_se3", "dynamic_state_se3"])
    boxes = _modality(folder, _BOXES, ["timestamp_us", "bounding_box_se3", "track_token", "label", "velocity_3d"])
    if ego is None and boxes is None:
        raise ValueError("the log has neither an ego nor boxes")
    names = ["ego"] if ego is not None else []
    parts = []
    if boxes is not None:
        row_of, found = _boxes(boxes, time, start, chosen, len(names), report)
        names += list(row_of)
        parts.append(found)
    check_size(len(names), steps)
    values, valid = np.zeros((len(names), steps, 9)), np.zeros((len(names), steps), bool)
    kind = np.full(len(names), AgentKind.VEHICLE, np.uint8)
    for row, step, table, kinds in parts:
        values[row, step], valid[row, step], kind[row] = table, True, kinds
    if ego is not None:
        row_at = _rows(ego, _EGO, time, start)
        there = np.flatnonzero((chosen >= 0) & (row_at[chosen] >= 0))
        values[0, there] = _ego_states(ego)[row_at[chosen[there]]]
        valid[0, there] = True
    add(report, "agents of a type without a kind, read as OTHER", int((kind == AgentKind.OTHER).sum()))
    moved = velocity_of_motion(values[..., :2], valid, dt)
    unknown = valid & ~np.isfinite(values[..., 4:6]).all(-1)
    add(report, "agents without velocities at some steps, taken from their motion", int(unknown.any(1).sum()))
    values[unknown, 4:6] = moved[unknown]
    size = np.where(valid[..., None], values[..., 6:], 0).astype(np.float32)
    add(report, "vehicles with length and width swapped, put right", upright(size, valid, kind == AgentKind.VEHICLE))
    return Agents(
        id=np.arange(len(names), dtype=np.int64),
        kind=kind,
        position=np.where(valid[..., None], values[..., :3], 0.0),
        heading=np.where(valid, values[..., 3], 0).astype(np.float32),
        velocity=np.where(valid[..., None], values[..., 4:6], 0).astype(np.float32),
        size=size,
        valid=valid,
        to_predict=np.zeros(len(names), bool),
        source_id=tuple(names),
    ), 0 if ego is not None else None


def _yaw(quaternion: np.ndarray) -> np.ndarray:
    w, x, y, z = quaternion.T
    angle: np.ndarray = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y**2 + z**2))
    return angle


def _ego_states(table: Any) -> np.ndarray:
    """Return x, y, z, heading, vx, vy, length, width, height of the ego's box [rows, 9]; its pose is an IMU's."""
    details = _details(table)
    centre = np.array(details["center_to_imu_se3"], np.float64)
    if centre.shape != (7,):
        raise ValueError(f"the centre of the ego is given by {centre.shape} numbers; 7 would fit")
    pose = _floats(table[f"{_EGO}.imu_se3"], 7)
    own = _floats(table[f"{_EGO}.dynamic_state_se3"], 9)[:, :2]  # in the ego's frame
    heading = _yaw(pose[:, 3:])
    cos, sin = np.cos(heading), np.sin(heading)
    x = pose[:, 0] + centre[0] * cos - centre[1] * sin
    y = pose[:, 1] + centre[0] * sin + centre[1] * cos
    velocity = (own[:, 0] * cos - own[:, 1] * sin, own[:, 0] * sin + own[:, 1] * cos)
    size = [np.full(len(pose), float(details[name])) for name in ("length", "width", "height")]
    return np.stack([x, y, pose[:, 2] + centre[2], heading + _yaw(centre[None, 3:]), *velocity, *size], -1)


def _boxes(
    table: Any, time: np.ndarray, start: int, chosen: np.ndarray, first: int, report: Report
) -> tuple[dict[str, int], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Return the row of each track, and for each box its row, step, values [., 9] and kind."""
    column = {name: table[f"{_BOXES}.{name}"].combine_chunks() for name in ("bounding_box_se3", "velocity_3d")}
    lists = {name: array.chunk(0) if hasattr(array, "chunk") else array for name, array in column.items()}
    counts = [len(entry or ()) for entry in table[f"{_BOXES}.track_token"].to_pylist()]
    tokens = [token for entry in table[f"{_BOXES}.track_token"].to_pylist() for token in entry or ()]
    labels = [label for entry in table[f"{_BOXES}.label"].to_pylist() for label in entry or ()]
    box, velocity = (
        _floats(lists[name].flatten(), width) for name, width in (("bounding_box_se3", 10), ("velocity_3d", 3))
    )
    if not len(tokens) == len(labels) == len(box) == len(velocity):
        raise ValueError("the columns of the boxes are not of one length")
    if len(tokens) > MAX_STATES:
        raise ValueError(f"it holds {len(tokens):,} boxes; at most {MAX_STATES:,} are read")
    row_at = _rows(table, _BOXES, time, start)
    step_of = np.full(len(counts), -1)
    taken = np.flatnonzero((chosen >= 0) & (row_at[chosen] >= 0))
    step_of[row_at[chosen[taken]]] = taken
    step = np.repeat(step_of, counts)
    used = step >= 0
    row_of: dict[str, int] = {}
    row = np.array([row_of.setdefault(str(token), first + len(row_of)) for token in tokens], np.int64)
    name = str(_details(table).get("box_detection_label_class", "")).rpartition(".")[2]
    if name not in _LABELS:
        add(report, "boxes labelled by a class that is not known, read as the default one", len(tokens))
    vehicles, cyclists, persons = _LABELS.get(name, _LABELS["DefaultBoxDetectionLabel"])
    kind_of = {label: AgentKind.VEHICLE for label in vehicles} | {label: AgentKind.CYCLIST for label in cyclists}
    kind_of |= {label: AgentKind.PEDESTRIAN for label in persons}
    kinds = np.array([kind_of.get(label, AgentKind.OTHER) for label in labels], np.uint8)
    values = np.concatenate([box[:, :3], _yaw(box[:, 3:7])[:, None], velocity[:, :2], box[:, 7:]], 1)
    return row_of, (row[used], step[used], values[used], kinds[used])


def _map(path: Path, details: dict[str, Any], report: Report) -> tuple[Map, dict[int, int]]:
    """Return the log's map, and the id in the scene of each of its lanes."""
    place = details.get("map_metadata") or {}
    name = f"{place.get('dataset')}_{place.get('location')}.arrow"
    shared = path.parents[3] / "maps" / str(place.get("dataset")) / name if len(path.parents) > 3 else path
    found = next((file for file in (path.with_name("map.arrow"), shared) if file != path and file.is_file()), None)
    if found is None:
        add(report, "no map file with the log, read without a map")
        return Map.empty(), {}
    table = read_arrow(found, ["object_id", "map_layer", "features", "wkb"])
    built, outlines = Features(), dict[int, np.ndarray]()
    columns = [table[name].to_pylist() for name in ("object_id", "map_layer", "features", "wkb")]
    lanes: dict[int, int] = {}
    for number, layer, packed, shape in zip(*columns, strict=True):
        if layer not in (_LANE, _CROSSWALK, _ROAD_EDGE, _ROAD_LINE, _SPEED_BUMP):
            continue
        feature = unpack(packed)
        if layer == _LANE:
            lanes[number] = len(built.names)
            limit = feature["speed_limit_mps"]
            kind = _LANE_TYPES.get(feature["lane_type"], LaneType.UNDEFINED)
            built.add(f"lane {number}", MapKind.LANE, kind, feature["centerline"], np.nan if limit is None else limit)
            outlines[len(built.names) - 1] = np.asarray(feature["outline"], np.float64)[:, :2]
            for relation, field in (("successors", "successor_ids"), ("predecessors", "predecessor_ids")):
                for other in feature[field]:
                    built.link(relation, f"lane {other}")
            for relation, field in (("left", "left_lane_id"), ("right", "right_lane_id")):
                if feature[field] is not None:
                    built.link(relation, f"lane {feature[field]}")
        elif layer in (_CROSSWALK, _SPEED_BUMP):
            outline = np.asarray(feature["outline"], np.float64)
            if len(outline) > 1 and np.array_equal(outline[0], outline[-1]):
                outline = outline[:-1]
            built.add(
                None,
                MapKind.CROSSWALK if layer == _CROSSWALK else MapKind.SPEED_BUMP,
                0,
                outline,
            )
        else:
            found_line = shapely.from_wkb(shape)
            line = shapely.get_coordinates(found_line, include_z=bool(shapely.has_z(found_line)))
            if layer == _ROAD_LINE:
                built.add(None, MapKind.ROAD_LINE, _LINES.get(feature["road_line_type"], LineType.UNKNOWN), line)
            else:
                subtype = feature["road_edge_type"]
                built.add(None, MapKind.ROAD_EDGE, subtype if subtype in (0, 1, 2) else 0, line)
    map_ = with_links(built.build(report, Origin.RECORDED))
    map_ = with_edges(map_, list(outlines.values()), list(outlines))
    return map_, {number: int(map_.id[row]) for number, row in lanes.items()}


def _lights(
    folder: Path, time: np.ndarray, start: int, chosen: np.ndarray, map_: Map, ids: dict[int, int], report: Report
) -> Lights:
    """Return one signal per lane of the map that ever has one; it stands where its lane starts."""
    steps = len(chosen)
    table = _modality(folder, _LIGHTS, ["timestamp_us", "lane_id", "status"])
    if table is None:
        return Lights.none(steps)
    row_at = _rows(table, _LIGHTS, time, start)
    lanes, states = table[f"{_LIGHTS}.lane_id"].to_pylist(), table[f"{_LIGHTS}.status"].to_pylist()
    seen = sorted({lane for entry in lanes for lane in entry or ()})
    known = [lane for lane in seen if lane in ids]
    add(report, "lights of lanes outside the map, dropped", len(seen) - len(known))
    check_size(len(known), steps)
    row_of = {lane: row for row, lane in enumerate(known)}
    state, observed = np.zeros((len(known), steps), np.uint8), np.zeros((len(known), steps), bool)
    for step, sweep in enumerate(chosen.tolist()):
        if sweep >= 0 and row_at[sweep] >= 0:
            for lane, value in zip(lanes[row_at[sweep]] or (), states[row_at[sweep]] or (), strict=True):
                if lane in row_of:
                    state[row_of[lane], step] = _STATES.get(value, LightState.UNKNOWN)
                    observed[row_of[lane], step] = True
    number = np.array([ids[lane] for lane in known], np.int64)
    rows = [int(np.flatnonzero(map_.id == lane)[0]) for lane in number]
    starts = np.array([map_.points[map_.start[row]] for row in rows]).reshape(-1, 1, 3)
    return Lights(number, np.where(observed[..., None], starts, 0.0), state, observed)
