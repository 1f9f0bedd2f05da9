"""Argoverse 2 motion forecasting: `scenario_<id>.parquet` with `log_map_archive_<id>.json` beside it. Extra: [av2].

Format: av2-api `datasets/motion_forecasting/data_schema.py` and `map/map_api.py`. Licence: CC BY-NC-SA 4.0.

Read: all tracks with kinds, focal and scored ones to be predicted, the AV as ego; lanes with links, painted lines,
crossings, and the outline of the drivable ground as road edges. Not in the data: sizes (those usual for a class stand
in), heights (the scene is flat, z = 0), lights, speed limits.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import shapely

from traj_diffusion.datasets.readers.assemble import Features, Report, add, check_size, numbers
from traj_diffusion.errors import BadFile, BadRecord, BadScene, MissingExtra
from traj_diffusion.scene import (
    AgentKind,
    Agents,
    EdgeType,
    LaneType,
    Lights,
    LineType,
    Map,
    MapKind,
    Origin,
    Routes,
    Scene,
    check_scene,
)

NAME = "Argoverse 2 forecasting parquet"
PATTERNS = ("scenario_*.parquet",)
DT = 0.1
MAX_ROWS = 1_000_000
MAX_BYTES = 256 * 2**20  # of the columns, unpacked
MAX_MAP_BYTES = 64 * 2**20
SCORED = 2  # `object_category`: fragment, unscored, scored, focal
_TEXT = ("track_id", "object_type", "scenario_id")
_NUMBERS = ("timestep", "object_category", "position_x", "position_y", "heading", "velocity_x", "velocity_y")
# Kind and usual length, width, height [m]: about what the annotated cuboids of Argoverse 2's sensor data set measure.
_CLASSES = {
    "vehicle": (AgentKind.VEHICLE, (4.4, 1.9, 1.7)),
    "bus": (AgentKind.VEHICLE, (11.6, 2.9, 3.0)),
    "motorcyclist": (AgentKind.VEHICLE, (2.0, 0.7, 1.5)),
    "cyclist": (AgentKind.CYCLIST, (1.7, 0.6, 1.7)),
    "pedestrian": (AgentKind.PEDESTRIAN, (0.7, 0.8, 1.8)),
    "riderless_bicycle": (AgentKind.OTHER, (1.6, 0.6, 1.2)),
}
_OTHER = (AgentKind.OTHER, (1.0, 1.0, 1.0))
_LANES = {"VEHICLE": LaneType.SURFACE_STREET, "BUS": LaneType.SURFACE_STREET, "BIKE": LaneType.BIKE_LANE}
_LINES = {
    "DASHED_WHITE": LineType.BROKEN_SINGLE_WHITE,
    "DOUBLE_DASH_WHITE": LineType.BROKEN_SINGLE_WHITE,
    "DASH_SOLID_WHITE": LineType.BROKEN_SINGLE_WHITE,
    "SOLID_DASH_WHITE": LineType.BROKEN_SINGLE_WHITE,
    "SOLID_WHITE": LineType.SOLID_SINGLE_WHITE,
    "DOUBLE_SOLID_WHITE": LineType.SOLID_DOUBLE_WHITE,
    "DASHED_YELLOW": LineType.BROKEN_SINGLE_YELLOW,
    "DOUBLE_DASH_YELLOW": LineType.BROKEN_DOUBLE_YELLOW,
    "SOLID_YELLOW": LineType.SOLID_SINGLE_YELLOW,
    "DOUBLE_SOLID_YELLOW": LineType.SOLID_DOUBLE_YELLOW,
    "DASH_SOLID_YELLOW": LineType.PASSING_DOUBLE_YELLOW,
    "SOLID_DASH_YELLOW": LineType.PASSING_DOUBLE_YELLOW,
}


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is parquet whose last bytes, where the columns are named, name a forecasting scenario's."""
    if not head.startswith(b"PAR1"):
        return False
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 2**16))
            tail = file.read(2**16)
    except OSError:
        return False
    return path.match("scenario_*.parquet") or (b"focal_track_id" in tail and b"object_category" in tail)


def read(path: Path) -> Iterator[Scene]:
    """Yield the one scene of a file. Raises BadFile, BadRecord where the scene is broken, MissingExtra."""
    columns = _columns(Path(path))
    report: Report = {}
    document, where = _map_document(Path(path), columns, report), f"{path}, record 0"
    try:
        map_ = _map(document, report) if document is not None else Map.empty()
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, shapely.errors.ShapelyError) as error:
        raise BadRecord(f"{where}: its map: {_said(error)}") from error
    try:
        yield _scene(columns, map_, report)
    except (BadScene, LookupError, ValueError, OverflowError) as error:
        raise BadRecord(f"{where}: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"no entry {error}" if isinstance(error, KeyError) else str(error)


def _parquet() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "av2") from error
    return pyarrow, pyarrow.parquet


def _columns(path: Path) -> dict[str, np.ndarray]:
    """Return the columns that are needed: float64, or text as objects."""
    arrow, parquet = _parquet()
    try:
        with parquet.ParquetFile(path, thrift_string_size_limit=2**24, thrift_container_size_limit=2**20) as file:
            wanted = [*_TEXT, *_NUMBERS, "observed"]
            lacking = [name for name in wanted if name not in file.schema_arrow.names]
            if lacking:
                raise BadFile(f"{path}: no column {lacking[0]!r}; an Argoverse 2 scenario has {', '.join(wanted)}")
            details = file.metadata
            size = sum(details.row_group(group).total_byte_size for group in range(details.num_row_groups))
            if details.num_rows > MAX_ROWS or size > MAX_BYTES:
                raise BadFile(f"{path}: {details.num_rows:,} rows, {size:,} bytes unpacked, too many for one scenario")
            table = file.read(columns=wanted)
            for name in _TEXT:
                if not arrow.types.is_string(table[name].type) and not arrow.types.is_large_string(table[name].type):
                    raise BadFile(f"{path}: column {name!r} holds {table[name].type}, not text")
            columns = {name: table[name].to_numpy() for name in wanted}
            return {name: values if name in _TEXT else values.astype(np.float64) for name, values in columns.items()}
    except (arrow.ArrowException, OSError, ValueError, TypeError, MemoryError, OverflowError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(f"{path}: not readable parquet ({' '.join(str(error).split())[:200]})") from error


def _map_document(path: Path, columns: dict[str, np.ndarray], report: Report) -> Any:
    """Return the parsed map file beside a scenario; None, and a count, where there is none."""
    name = str(columns["scenario_id"][0]) if len(columns["scenario_id"]) else ""
    found = sorted(path.parent.glob("log_map_archive_*.json"))
    found = [file for file in found if file.stem == f"log_map_archive_{name}"] or found
    if len(found) != 1:
        add(report, "no map file beside the scenario, read without a map")
        return None
    try:
        with found[0].open("rb") as file:
            text = file.read(MAX_MAP_BYTES + 1)
        if len(text) > MAX_MAP_BYTES:
            raise ValueError(f"more than {MAX_MAP_BYTES:,} bytes")
        return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"{path}: its map {found[0].name}: not readable JSON ({error})") from error


@np.errstate(over="ignore", invalid="ignore")  # absurd values are `check_scene`'s to name
def _scene(columns: dict[str, np.ndarray], map_: Map, report: Report) -> Scene:
    step = columns["timestep"]
    if not len(step):
        raise ValueError("it holds no states")
    if not (np.isfinite(step).all() and step.min() >= 0 and step.max() < MAX_ROWS and (step % 1 == 0).all()):
        raise ValueError("a timestep is no number of a step")
    step, steps = step.astype(np.int64), int(step.max()) + 1
    texts, first, row = np.unique(columns["track_id"].astype(str), return_index=True, return_inverse=True)
    order = np.argsort(first)
    row = np.argsort(order)[row]
    ids, first = texts[order].tolist(), first[order]
    check_size(len(ids), steps)
    if len(np.unique(row * steps + step)) < len(row):
        raise ValueError("a track has two states at one step")
    valid = np.zeros((len(ids), steps), bool)
    position, velocity = np.zeros((len(ids), steps, 3)), np.zeros((len(ids), steps, 2), np.float32)
    heading = np.zeros((len(ids), steps), np.float32)
    valid[row, step] = True
    position[row, step, :2] = np.stack([columns["position_x"], columns["position_y"]], -1)
    velocity[row, step] = np.stack([columns["velocity_x"], columns["velocity_y"]], -1)
    heading[row, step] = columns["heading"]
    classes = [_CLASSES.get(str(name), _OTHER) for name in columns["object_type"][first]]
    kind = np.array([kind for kind, _ in classes], np.uint8)
    size = np.where(valid[..., None], np.array([size for _, size in classes], np.float32)[:, None], np.float32(0))
    add(report, "agents without a size, the usual one of their class assumed", len(ids))
    add(report, "agents of a type without a kind, read as OTHER", int((kind == AgentKind.OTHER).sum()))
    add(report, "agents and map without heights, laid flat at z = 0")
    number = numbers(ids)
    observed = step[columns["observed"] == 1]
    return check_scene(
        Scene(
            id=str(columns["scenario_id"][0]),
            source="av2",
            dt=DT,
            current_index=int(observed.max()) if len(observed) else 0,
            ego=ids.index("AV") if "AV" in ids else None,
            agents=Agents(
                id=number,
                kind=kind,
                position=position,
                heading=heading,
                velocity=velocity,
                size=size,
                valid=valid,
                to_predict=columns["object_category"][first] >= SCORED,
                source_id=tuple(ids),
            ),
            map=map_,
            lights=Lights.none(steps),
            routes=Routes.absent(len(ids)),
            report=tuple(report.items()),
        )
    )


def _xy(points: Any) -> np.ndarray:
    return np.array([(point["x"], point["y"]) for point in points], np.float64).reshape(-1, 2)


@np.errstate(over="ignore", invalid="ignore")
def _map(document: Any, report: Report) -> Map:
    built = Features()
    lines: list[tuple[LineType, np.ndarray]] = []
    painted: set[tuple[bytes, ...]] = set()
    for lane in document["lane_segments"].values():
        centre = _xy(lane["centerline"]) if "centerline" in lane else _between(lane)
        built.add(str(lane["id"]), MapKind.LANE, _LANES.get(lane["lane_type"], LaneType.UNDEFINED), centre)
        for relation, others in (
            ("successors", lane["successors"]),
            ("predecessors", lane["predecessors"]),
            ("left", [lane["left_neighbor_id"]]),
            ("right", [lane["right_neighbor_id"]]),
        ):
            for other in others:
                if other is not None:
                    built.link(relation, str(other))
        for side in ("left", "right"):
            mark = lane[f"{side}_lane_mark_type"]
            line = _xy(lane[f"{side}_lane_boundary"])
            key = tuple(sorted((line.tobytes(), line[::-1].tobytes())))  # neighbours share it, maybe the other way
            if mark != "NONE" and key not in painted:
                painted.add(key)
                lines.append((_LINES.get(mark, LineType.UNKNOWN), line))
    for subtype, line in lines:
        built.add(None, MapKind.ROAD_LINE, subtype, line)
    for crossing in document["pedestrian_crossings"].values():
        built.add(None, MapKind.CROSSWALK, 0, _crossing(_xy(crossing["edge1"]), _xy(crossing["edge2"])))
    for ring in _edges([_xy(area["area_boundary"]) for area in document["drivable_areas"].values()], report):
        built.add(None, MapKind.ROAD_EDGE, EdgeType.BOUNDARY, ring)
    return built.build(report, Origin.DERIVED)


def _between(lane: Any) -> np.ndarray:
    """Return the line midway between a lane's boundaries, for maps that leave centre lines out."""
    sides = [shapely.LineString(_xy(lane[f"{side}_lane_boundary"])) for side in ("left", "right")]
    along = np.linspace(0, 1, 2 + int(min(max(side.length for side in sides) / 2, 1000)))
    points = [shapely.get_coordinates(shapely.line_interpolate_point(side, along, normalized=True)) for side in sides]
    return (points[0] + points[1]) / 2


def _crossing(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return the outline between two edges that may run the same way or against each other."""
    rings = [np.concatenate([one, edge]) for edge in (two, two[::-1])]

    def area(ring: np.ndarray) -> float:
        x, y = (ring - ring[0]).T
        return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()))

    return max(rings, key=area)


def _edges(areas: list[np.ndarray], report: Report) -> list[np.ndarray]:
    """Return the closed outlines of all drivable ground together, which lies to their left."""
    polygons = []
    for ring in areas:
        if len(ring) < 3 or not np.isfinite(ring).all():
            add(report, "drivable areas of less than three points, dropped")
            continue
        polygons.append(shapely.make_valid(shapely.Polygon(ring)))
    parts: np.ndarray = shapely.get_parts(shapely.union_all(polygons))
    rings = []
    for part in parts:
        if isinstance(part, shapely.Polygon) and not part.is_empty:
            whole = shapely.geometry.polygon.orient(part)
            rings += [shapely.get_coordinates(ring) for ring in (whole.exterior, *whole.interiors)]
    return rings
