"""GPUDrive and Nocturne: WOMD scenes as JSON, plain or gzip, one scene a file.

Two schemas are about. The newer one has radians, z, heights, agent ids and `metadata`; the older has degrees and none
of those. Neither has lights, lane links (they are derived) or speed limits, nor says which step is the current one: it
is WOMD's 10.
Schema: gpudrive `data_utils/process_waymo_files.py` and nocturne `utils/waymo_dataset_construction.py`.
"""

import json
import math
import re
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from traj_diffusion.datasets.derive import upright, with_links
from traj_diffusion.datasets.readers.assemble import Report, add
from traj_diffusion.datasets.readers.unpack import read_bytes
from traj_diffusion.errors import BadFile, BadRecord, BadScene
from traj_diffusion.scene import (
    AgentKind,
    Agents,
    EdgeType,
    LaneType,
    Lights,
    LineType,
    Links,
    Map,
    MapKind,
    Origin,
    Routes,
    Scene,
    check_scene,
)
from traj_diffusion.scene.kinds import USUAL_SIZE

NAME = "GPUDrive or Nocturne JSON"
PATTERNS = ("*tfrecord*.json", "*tfrecord*.json.gz")
MAX_BYTES = 64 * 2**20  # of text; parsed it takes some twenty times as much
DT = 0.1
CURRENT_INDEX = 10
SENTINEL = -10_000.0  # what invalid steps hold in every field
_KINDS = {"vehicle": AgentKind.VEHICLE, "pedestrian": AgentKind.PEDESTRIAN, "cyclist": AgentKind.CYCLIST}
# Map kind, the type that its subtypes are of, and what to take off `map_element_id` to get WOMD's own number.
_FEATURES: dict[str, tuple[MapKind, type[IntEnum] | None, int]] = {
    "lane": (MapKind.LANE, LaneType, 0),
    "road_line": (MapKind.ROAD_LINE, LineType, 5),
    "road_edge": (MapKind.ROAD_EDGE, EdgeType, 14),
    "stop_sign": (MapKind.STOP_SIGN, None, 0),
    "crosswalk": (MapKind.CROSSWALK, None, 0),
    "speed_bump": (MapKind.SPEED_BUMP, None, 0),
    "driveway": (MapKind.DRIVEWAY, None, 0),
}


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is a JSON object whose first entries name a scene's agents or roads."""
    return head.lstrip()[:1] == b"{" and re.search(rb'"(objects|roads)"\s*:\s*\[', head) is not None


def read(path: Path) -> Iterator[Scene]:
    """Yield the one scene of a file. Raises BadFile where it is no JSON, BadRecord where the scene is broken."""
    document = _load(path)
    try:
        yield document_to_scene(document, Path(path).name.split(".json")[0])
    except (BadScene, LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        what = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        raise BadRecord(f"{path}, record 0: {what}") from error


def _load(path: Path) -> Any:
    try:
        return json.loads(read_bytes(path, MAX_BYTES, "JSON"))
    except BadFile:
        raise
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise BadFile(f"{path}: not readable JSON ({error})") from error


@np.errstate(over="ignore", invalid="ignore")  # absurd values are `check_scene`'s to name
def document_to_scene(document: Any, name: str) -> Scene:
    """Return the scene of a parsed file; `name` is its id where it states none.

    Raises BadScene, or the LookupError, TypeError or ValueError of what is missing or malformed.
    """
    report: Report = {}
    agents = _agents(document["objects"], report)
    count, steps = agents.valid.shape
    metadata = document.get("metadata") or {}
    for entry in metadata.get("tracks_to_predict") or []:
        agents.to_predict[_row(entry["track_index"], count)] = True
    ego = metadata.get("sdc_track_index")
    if document.get("route"):
        add(report, "routes given as points instead of lanes, dropped")
    if document.get("tl_states") or document.get("traffic_lights"):
        add(report, "traffic lights, whose layout is not known, dropped")
    return check_scene(
        Scene(
            id=str(document.get("scenario_id") or document.get("name") or name).removesuffix(".json"),
            source="gpudrive",
            dt=DT,
            current_index=min(CURRENT_INDEX, steps - 1),
            ego=None if ego is None else _row(ego, count),
            agents=agents,
            map=with_links(_map(document["roads"], report)),
            lights=Lights.none(steps),
            routes=Routes.absent(count),
            report=tuple(report.items()),
        )
    )


def _row(value: Any, count: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise ValueError(f"metadata names object {value!r}, found are {count} objects")
    return value


def _xyz(points: Any) -> np.ndarray:
    """Return points of {x, y} or {x, y, z} as [P, 3]; z is 0 where it is not given."""
    return np.array([(p["x"], p["y"], p.get("z", 0.0)) for p in points], np.float64).reshape(-1, 3)


def _agents(objects: Any, report: Report) -> Agents:
    count = len(objects)
    steps = len(objects[0]["valid"]) if objects else CURRENT_INDEX + 1
    kind = np.array([_KINDS.get(entry["type"], AgentKind.OTHER) for entry in objects], np.uint8)
    add(report, "agents of a type without a kind, read as OTHER", int((kind == AgentKind.OTHER).sum()))
    position, velocity = np.zeros((count, steps, 3)), np.zeros((count, steps, 2), np.float32)
    heading, size = np.zeros((count, steps)), np.zeros((count, steps, 3), np.float32)
    valid = np.zeros((count, steps), bool)
    for row, entry in enumerate(objects):
        track = _xyz(entry["position"])
        lengths = {len(track), len(entry["heading"]), len(entry["velocity"]), len(entry["valid"])}
        if lengths != {steps}:
            raise ValueError(f"object {row}: its lists have {sorted(lengths)} entries, those of object 0 have {steps}")
        if not all(isinstance(flag, bool) for flag in entry["valid"]):
            raise ValueError(f"object {row}: its `valid` holds something else than true and false")
        position[row], heading[row], valid[row] = track, entry["heading"], entry["valid"]
        velocity[row] = _xyz(entry["velocity"])[:, :2]
        size[row] = entry["length"], entry["width"], entry.get("height", USUAL_SIZE[AgentKind(kind[row])][2])
    add(report, "agents without a height, the usual one of their kind assumed", sum("height" not in o for o in objects))
    gone = valid & (position[..., :2] == SENTINEL).all(-1)
    add(report, "valid states at the place of the invalid ones, read as invalid", int(gone.sum()))
    valid &= ~gone
    if _in_degrees(position, heading, valid, report):
        heading = np.deg2rad(heading)
    for values in (position, heading, velocity, size):
        values[~valid] = 0
    add(report, "vehicles with length and width swapped, put right", upright(size, valid, kind == AgentKind.VEHICLE))
    return Agents(
        id=_ids([entry.get("id") for entry in objects], report, "agents"),
        kind=kind,
        position=position,
        heading=heading.astype(np.float32),
        velocity=velocity,
        size=size,
        valid=valid,
        to_predict=np.zeros(count, bool),
    )


def _ids(ids: list[Any], report: Report, what: str) -> np.ndarray:
    """Return the ids, or row numbers where not everybody has one."""
    if any(value is None for value in ids):
        add(report, f"{what} without an id, numbered in recorded order", len(ids))
        return np.arange(len(ids), dtype=np.int64)
    if not all(type(value) is int for value in ids):
        raise ValueError(f"{what}: an id is no integer")
    return np.array(ids, np.int64)


def _in_degrees(position: np.ndarray, heading: np.ndarray, valid: np.ndarray, report: Report) -> bool:
    """Return whether headings [N, T] are degrees: which reading lies along the agents' motion?

    Cars that reverse count as aligned too, at first. Where nobody moves, or both readings fit alike, an angle beyond
    one turn in radians decides, and the report says so.
    """
    step = np.diff(position[..., :2], axis=1)
    moving = valid[:, 1:] & valid[:, :-1] & (np.hypot(step[..., 0], step[..., 1]) > 0.1)
    direction = np.arctan2(step[..., 1], step[..., 0])[moving]
    said = heading[:, 1:][moving]
    if len(said):
        degrees, radians = np.cos(np.deg2rad(said) - direction), np.cos(said - direction)
        # West is pi, and pi degrees is almost east: the first measure cannot tell them apart, the second can.
        for measure in (np.abs, np.positive):
            better = float((measure(degrees) - measure(radians)).mean())
            if abs(better) > 0.05:
                return better > 0
    add(report, "unit of headings not to be told from motion, judged by magnitude")
    return bool(valid.any() and np.abs(heading[valid]).max() > 2 * math.pi)


def _map(roads: Any, report: Report) -> Map:
    known = [road for road in roads if road["type"] in _FEATURES]
    add(report, "map features of no known kind, dropped", len(roads) - len(known))
    kinds, subtypes, lines = [], [], []
    for road in known:
        kind, types, offset = _FEATURES[road["type"]]
        given = road.get("map_element_id")
        subtype = 0
        if types is not None and given is not None:
            if given - offset in [int(value) for value in types]:
                subtype = int(given - offset)
            else:
                add(report, "map features of unknown subtype, read as undefined")
        geometry = road["geometry"]
        lines.append(_xyz(geometry if isinstance(geometry, list) else [geometry]))
        kinds.append(int(kind))
        subtypes.append(subtype)
    edges = any(kind == MapKind.ROAD_EDGE for kind in kinds)
    return Map(
        points=np.concatenate(lines) if lines else np.zeros((0, 3)),
        start=np.concatenate([[0], np.cumsum([len(line) for line in lines])]).astype(np.int64),
        kind=np.array(kinds, np.uint8),
        subtype=np.array(subtypes, np.uint8),
        id=_ids([road.get("id") for road in known], report, "map features"),
        speed_limit=np.full(len(known), np.nan, np.float32),
        links=Links.none(len(known)),
        edge_origin=Origin.RECORDED if edges else Origin.ABSENT,
    )
