"""Maps of Argoverse 2: `log_map_archive_*.json`, of its forecasting scenarios and of its sensor logs alike.

Format: av2-api `map/map_api.py`. Lanes with links, painted lines, crossings; road edges are derived: the outline of all
drivable areas together. No lights, no speed limits.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from traj_diffusion.datasets.derive import outlines
from traj_diffusion.datasets.readers.assemble import Features, Report, add
from traj_diffusion.datasets.readers.unpack import read_bytes
from traj_diffusion.errors import BadFile, BadRecord
from traj_diffusion.scene import EdgeType, LaneType, LineType, Map, MapKind, Origin

MAX_BYTES = 64 * 2**20
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


def read_map(path: Path, folder: Path, name: str, heights: bool, report: Report) -> Map:
    """Return the map archive in `folder`, of that log if there are several, for the recording in the file `path`.

    An empty map, counted, where there is none. `heights`: whether z is kept. Raises BadFile or BadRecord.
    """
    found = sorted(folder.glob("log_map_archive_*.json"))
    found = [file for file in found if file.stem.startswith(f"log_map_archive_{name}")] or found
    if len(found) != 1:
        add(report, "no map file beside the scenario, read without a map")
        return Map.empty()
    try:
        document = json.loads(read_bytes(found[0], MAX_BYTES, "a map"))
    except BadFile as error:
        raise BadFile(f"{path}: its map: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path}: its map {found[0].name}: not readable JSON ({error})") from error
    try:
        return map_of(document, heights, report)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, shapely.errors.ShapelyError) as error:
        said = f"no entry {error}" if isinstance(error, KeyError) else error
        raise BadRecord(f"{path}, record 0: its map: {said}") from error


def _xyz(points: Any) -> np.ndarray:
    return np.array([(point["x"], point["y"], point.get("z", 0.0)) for point in points], np.float64).reshape(-1, 3)


@np.errstate(over="ignore", invalid="ignore")  # absurd values are `check_scene`'s to name
def map_of(document: Any, heights: bool, report: Report) -> Map:
    """Return the map of a parsed archive. Raises whatever is missing or malformed in it."""

    def line_of(points: Any) -> np.ndarray:
        return _xyz(points) * [1.0, 1.0, float(heights)]

    built = Features()
    lines: list[tuple[LineType, np.ndarray]] = []
    painted: set[tuple[bytes, ...]] = set()
    for lane in document["lane_segments"].values():
        sides = [line_of(lane[f"{side}_lane_boundary"]) for side in ("left", "right")]
        centre = line_of(lane["centerline"]) if "centerline" in lane else _between(*sides)
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
        for side, line in zip(("left", "right"), sides, strict=True):
            mark = lane[f"{side}_lane_mark_type"]
            key = tuple(sorted((line.tobytes(), line[::-1].tobytes())))  # neighbours share it, maybe the other way
            if mark != "NONE" and key not in painted:
                painted.add(key)
                lines.append((_LINES.get(mark, LineType.UNKNOWN), line))
    for subtype, line in lines:
        built.add(None, MapKind.ROAD_LINE, subtype, line)
    for crossing in document["pedestrian_crossings"].values():
        built.add(None, MapKind.CROSSWALK, 0, _crossing(line_of(crossing["edge1"]), line_of(crossing["edge2"])))
    areas = [line_of(area["area_boundary"]) for area in document["drivable_areas"].values()]
    add(report, "drivable areas of less than three points, dropped", sum(len(area) < 3 for area in areas))
    raised = np.concatenate(areas) if areas and heights else None
    for ring in outlines([area[:, :2] for area in areas], raised):
        built.add(None, MapKind.ROAD_EDGE, EdgeType.BOUNDARY, ring)
    return built.build(report, Origin.DERIVED)


def _between(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the line midway between a lane's boundaries, for maps that leave centre lines out."""
    sides = [shapely.LineString(side) for side in (left, right)]
    along = np.linspace(0, 1, 2 + int(min(max(side.length for side in sides) / 2, 1000)))
    points = [shapely.line_interpolate_point(side, along, normalized=True) for side in sides]
    one, other = (shapely.get_coordinates(point, include_z=True) for point in points)
    middle: np.ndarray = (one + other) / 2
    return middle


def _crossing(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return the outline between two edges that may run the same way or against each other."""
    rings = [np.concatenate([one, edge]) for edge in (two, two[::-1])]

    def area(ring: np.ndarray) -> float:
        x, y = (ring - ring[0])[:, :2].T
        return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()))

    return max(rings, key=area)
