"""The parts of a scene from anything that numpy reads as arrays, for `Scene.from_arrays`; misfits are named."""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from traj_diffusion.errors import BadInput, BadScene
from traj_diffusion.scene.csr import Csr
from traj_diffusion.scene.kinds import USUAL_SIZE, AgentKind, EdgeType, LaneType, LightState, LineType, MapKind, Origin
from traj_diffusion.scene.motion import heading_of_motion, velocity_of_motion
from traj_diffusion.scene.scene import Agents, Lights, Links, Map

MAX_STATES = 20_000_000  # agents times steps
AGENT_NAMES: dict[str, int] = {kind.name.lower(): int(kind) for kind in AgentKind}
LIGHT_NAMES: dict[str, int] = {state.name.lower(): int(state) for state in LightState}
# What a map line can be called: a kind, or more exactly one of its types.
MAP_NAMES: dict[str, tuple[MapKind, int]] = {
    **{kind.name.lower(): (kind, 0) for kind in MapKind},
    **{line.name.lower(): (MapKind.ROAD_LINE, int(line)) for line in LineType if line},
    **{edge.name.lower(): (MapKind.ROAD_EDGE, int(edge)) for edge in EdgeType if edge},
    **{lane.name.lower(): (MapKind.LANE, int(lane)) for lane in LaneType if lane},
    "lane": (MapKind.LANE, int(LaneType.SURFACE_STREET)),
    "road_edge": (MapKind.ROAD_EDGE, int(EdgeType.BOUNDARY)),
}


@np.errstate(over="ignore", invalid="ignore")  # absurd values are `check_scene`'s to name
def agents_from_arrays(
    where: str, dt: float, *, position: Any, heading: Any, velocity: Any, valid: Any, kind: Any, size: Any,
    agent_id: Any, to_predict: Any, report: dict[str, int],
) -> Agents:  # fmt: skip
    """Return the agents of arrays as `Scene.from_arrays` takes them; what was filled in is counted."""
    place = _number_array(where, "position", position)
    if place.ndim != 3 or place.shape[2] not in (2, 3) or not place.shape[1]:
        raise BadScene(
            f"{where}: position has shape {list(place.shape)}; [agents, steps, 2 or 3] with a step or more would fit"
        )
    count, steps = place.shape[:2]
    if count * steps > MAX_STATES:
        raise BadScene(f"{where}: {count:,} agents over {steps:,} steps; at most {MAX_STATES:,} states fit")
    if place.shape[2] == 2:
        place = np.pad(place, ((0, 0), (0, 0), (0, 1)))
    seen = np.isfinite(place).all(-1) if valid is None else fit_array(where, "valid", valid, np.bool_, (count, steps))
    place = np.where(seen[..., None], place, 0.0)
    if velocity is None:
        speed = velocity_of_motion(place[..., :2], seen, dt)
        _add(report, "agents without velocities, taken from their motion", count)
    else:
        speed = fit_array(where, "velocity", velocity, np.float64, (count, steps, 2))
    if heading is None:
        angle, ever = heading_of_motion(velocity_of_motion(place[..., :2], seen, dt), seen)
        _add(report, "agents without headings, taken from their motion", count)
        _add(report, "agents without headings that never move, turned east", int((~ever).sum()))
    else:
        angle = fit_array(where, "heading", heading, np.float32, (count, steps))
    kinds = np.array(_named(where, "kind", kind, AGENT_NAMES, count), np.uint8)
    boxes: np.ndarray
    if size is None:
        boxes = np.array([USUAL_SIZE[AgentKind(number)] for number in kinds], np.float32).reshape(count, 3)
        _add(report, "agents without a size, the usual one of their kind assumed", count)
    else:
        boxes = _number_array(where, "size", size)
    if boxes.ndim == 2 and len(boxes) == count:
        boxes = boxes[:, None, :]
    if boxes.ndim == 3 and boxes.shape[1] == 1:
        boxes = np.broadcast_to(boxes, (count, steps, boxes.shape[2]))
    boxes = fit_array(where, "size", boxes, np.float32, (count, steps, 3))
    ids, texts = _ids(where, agent_id, count)
    return Agents(
        id=ids,
        kind=kinds,
        position=place,
        heading=np.where(seen, angle, np.float32(0)),
        velocity=np.where(seen[..., None], speed, 0.0).astype(np.float32),
        size=np.where(seen[..., None], boxes, np.float32(0)),
        valid=seen,
        to_predict=fit_array(where, "to_predict", to_predict, np.bool_, (count,)),
        source_id=texts,
    )


def map_from_lines(
    where: str, lines: Iterable[Any], kinds: Any, ids: Any, speed_limits: Any, lane_links: Iterable[Any]
) -> Map:
    """Return a map of polylines [P, 2 or 3], each with the name of its kind; links are (from id, to id) of lanes."""
    points = []
    for row, line in enumerate(lines):
        found = _number_array(where, f"map line {row}", line)
        if found.ndim != 2 or found.shape[1] not in (2, 3) or not len(found):
            raise BadScene(f"{where}: map line {row} has shape {list(found.shape)}; [points, 2 or 3] would fit")
        points.append(np.pad(found, ((0, 0), (0, 3 - found.shape[1]))))
    count = len(points)
    if not count:
        return Map.empty()
    named = _named(where, "map_kinds", kinds, MAP_NAMES, count)
    numbers = fit_array(where, "map_ids", np.arange(count) if ids is None else ids, np.int64, (count,))
    if len(np.unique(numbers)) < count:
        raise BadScene(f"{where}: map_ids holds a number twice; each map line needs one of its own")
    kind = np.array([kind for kind, _ in named], np.uint8)
    limits = np.full(count, np.nan) if speed_limits is None else speed_limits
    edges = bool((kind == MapKind.ROAD_EDGE).any())
    return Map(
        points=np.concatenate(points),
        start=np.concatenate([[0], np.cumsum([len(line) for line in points])]).astype(np.int64),
        kind=kind,
        subtype=np.array([subtype for _, subtype in named], np.uint8),
        id=numbers,
        speed_limit=fit_array(where, "speed_limits", limits, np.float32, (count,)),
        links=_links(where, kind, numbers, list(lane_links)),
        edge_origin=Origin.RECORDED if edges else Origin.ABSENT,
    )


def _links(where: str, kind: np.ndarray, ids: np.ndarray, pairs: list[Any]) -> Links:
    rows = {int(ids[row]): int(row) for row in np.flatnonzero(kind == MapKind.LANE)}
    after: list[list[int]] = [[] for _ in ids]
    before: list[list[int]] = [[] for _ in ids]
    for pair in pairs:
        if not isinstance(pair, Sequence | np.ndarray) or len(pair) != 2 or any(end not in rows for end in pair):
            raise BadScene(f"{where}: lane link {pair!r}; a pair (from, to) of the map_ids of lanes would fit")
        after[rows[int(pair[0])]].append(rows[int(pair[1])])
        before[rows[int(pair[1])]].append(rows[int(pair[0])])
    none = Csr.empty(len(ids))
    origin = Origin.RECORDED if pairs else Origin.ABSENT
    return Links(Csr.from_lists(after), Csr.from_lists(before), none, none, none, origin)


def lights_from_arrays(where: str, steps: int, lanes: Any, stops: Any, states: Any, map_: Map) -> Lights:
    """Return signals: the map ids of their lanes, stop points [S, 2 or 3], states [S, T] by name; None is unseen."""
    ids = fit_array(where, "light_lanes", lanes, np.int64, (-1,))
    count = len(ids)
    if not count:
        return Lights.none(steps)
    known = set(map_.id[map_.rows(MapKind.LANE)].tolist())
    if known and (odd := [lane for lane in ids.tolist() if lane not in known]):
        raise BadScene(f"{where}: light_lanes names {odd[0]}, which is no lane of the map; one of map_ids would fit")
    place = _number_array(where, "light_stops", stops)
    if place.ndim == 2 and place.shape[1] == 2:
        place = np.pad(place, ((0, 0), (0, 1)))
    stop = fit_array(where, "light_stops", place, np.float64, (count, 3))
    rows = list(states)
    if len(rows) != count or any(isinstance(row, str) or len(row) != steps for row in rows):
        raise BadScene(f"{where}: light_states does not hold {count} rows of {steps} states, one per light and step")
    flat = [value for row in rows for value in row]
    observed = np.array([value is not None for value in flat]).reshape(count, steps)
    shown = [LightState.UNKNOWN if value is None else value for value in flat]
    state = np.array(_named(where, "light_states", shown, LIGHT_NAMES, len(flat)), np.uint8).reshape(count, steps)
    return Lights(ids, np.where(observed[..., None], stop[:, None], 0.0), state, observed)


def fit_array(
    where: str, name: str, value: Any, dtype: type, shape: tuple[int, ...], error_class: type[BadInput] = BadScene
) -> Any:
    """Return a copy as an array of that type and shape; -1 stands for any length, a short value fits all rows."""
    try:
        raw = np.asarray(value)
        if (raw.size == 0 and 0 in shape) or (shape == (-1,) and raw.size == 0):
            return np.zeros([max(length, 0) for length in shape], dtype)
        if raw.dtype.kind not in "biuf" or (np.issubdtype(dtype, np.integer) and not _whole(raw, dtype)):
            raise ValueError(f"values of type {raw.dtype} do not fit {np.dtype(dtype)}")
        if shape != (-1,) and raw.ndim < len(shape):
            raw = np.broadcast_to(raw, shape)
        if raw.ndim != len(shape) or any(want not in (-1, got) for want, got in zip(shape, raw.shape, strict=True)):
            raise ValueError(f"its shape is {list(raw.shape)}")
        with np.errstate(over="ignore", invalid="ignore"):  # the checks name what became infinite
            return raw.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        wanted = "A" if shape == (-1,) else " ".join(str(length) for length in shape)
        raise error_class(f"{where}: {name} does not fit [{wanted}]: {error}") from None


def _whole(raw: np.ndarray, dtype: type) -> bool:
    """Return whether all values are whole numbers that the type holds."""
    if raw.dtype.kind == "f" and not (np.isfinite(raw).all() and (raw == np.floor(raw)).all()):
        return False
    bounds = np.iinfo(dtype)
    return bool((raw >= bounds.min).all() and (raw <= bounds.max).all())


def _number_array(where: str, name: str, value: Any) -> np.ndarray:
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise BadScene(f"{where}: {name} is no array of numbers: {error}") from None
    return found


def _named(where: str, name: str, value: Any, names: Mapping[str, Any], count: int) -> list[Any]:
    """Return what the names, or members of an enum, stand for; one alone stands for all rows."""
    values = [value] * count if isinstance(value, str | int | IntEnum) else list(value)
    if len(values) != count:
        raise BadScene(f"{where}: {name} has {len(values)} entries; one, or {count} would fit")
    found = []
    for row, entry in enumerate(values):
        key = entry.name if isinstance(entry, IntEnum) else entry
        if not isinstance(key, str) or key.lower() not in names:
            raise BadScene(f"{where}: {name} {row} is {entry!r}; known are {', '.join(names)}")
        found.append(names[key.lower()])
    return found


def _ids(where: str, agent_id: Any, count: int) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return the ids as numbers, and as texts where that is what they are."""
    if agent_id is None:
        return np.arange(count, dtype=np.int64), None
    if len(agent_id) == count and all(isinstance(value, str) for value in agent_id):
        texts = tuple(str(value) for value in agent_id)
        if len(set(texts)) < count:
            raise BadScene(f"{where}: agent_id holds a name twice; each agent needs one of its own")
        return np.arange(count, dtype=np.int64), texts
    return fit_array(where, "agent_id", agent_id, np.int64, (count,)), None


def _add(report: dict[str, int], what: str, count: int) -> None:
    if count:
        report[what] = report.get(what, 0) + count
