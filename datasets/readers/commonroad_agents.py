"""CommonRoad's obstacles and planning problems: shapes and states as tracks. Errors are ValueErrors."""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
from jaxtyping import Float64

from traj_diffusion.datasets.readers.assemble import Report, add
from traj_diffusion.datasets.readers.commonroad_map import read_points
from traj_diffusion.datasets.readers.xml_tree import attribute, place, text_number
from traj_diffusion.geometry import rotate
from traj_diffusion.scene import AgentKind

MAX_STEP = 10_000_000
# Length and width of the vehicle that CommonRoad's own tools assume for the ego (vehicle model 2, a BMW 320i).
EGO_SIZE = (4.508, 1.610)
_KINDS = {
    **dict.fromkeys(("car", "truck", "bus", "taxi", "motorcycle", "priorityVehicle", "parkedVehicle", "train"), 1),
    "pedestrian": 2,
    "bicycle": 3,
}
_HEIGHTS = {"truck": 3.5, "bus": 3.2, "train": 3.5, "pedestrian": 1.7, "bicycle": 1.7, "motorcycle": 1.5, "car": 1.5}


@dataclass(frozen=True)
class Track:
    """One obstacle: its states at its own times [s], or one state for good."""

    id: str
    kind: AgentKind
    size: tuple[float, float, float]
    static: bool
    time: Float64[np.ndarray, " S"]
    centre: Float64[np.ndarray, "S 3"]
    heading: Float64[np.ndarray, " S"]
    speed: Float64[np.ndarray, " S"]


def read_tracks(root: Element, dt: float, report: Report) -> Iterator[Track]:
    """Yield obstacles in order; 2018b has a role in each, 2020a an element for each role. Raises ValueError."""
    for element in root:
        if element.tag in ("environmentObstacle", "phantomObstacle"):
            add(report, f"obstacles of role {element.tag.removesuffix('Obstacle')}, dropped")
        if element.tag not in ("obstacle", "dynamicObstacle", "staticObstacle"):
            continue
        role = (element.findtext("role") or "").strip()
        static = element.tag == "staticObstacle" or role == "static"
        if element.find("occupancySet") is not None:
            add(report, "predictions as occupied areas, dropped: agents of which only the first state is known")
        yield _track(element, static, dt, report)


def _track(element: Element, static: bool, dt: float, report: Report) -> Track:
    shape, first = element.find("shape"), element.find("initialState")
    if shape is None or first is None:
        raise ValueError(f"{place(element)} has no shape or no initial state")
    corners = _corners(shape)
    low, high = corners.min(0), corners.max(0)
    name = (element.findtext("type") or "").strip()
    kind = AgentKind(_KINDS.get(name, AgentKind.OTHER))
    add(report, "agents of a type without a kind, read as OTHER", int(kind == AgentKind.OTHER))
    add(report, "agents without a height, the usual one of their type assumed")
    track = read_states(
        attribute(element, "id"), [first, *([] if static else element.iterfind("trajectory/state"))], dt, report
    )
    return Track(
        id=track.id,
        kind=kind,
        size=(float(high[0] - low[0]), float(high[1] - low[1]), _HEIGHTS.get(name, 1.5)),
        static=static,
        time=track.time,
        # The box around a shape need not be centred where the position is.
        centre=track.centre
        + np.pad(rotate(np.tile((low + high) / 2, (len(track.time), 1)), track.heading), ((0, 0), (0, 1))),
        heading=track.heading,
        speed=track.speed,
    )


def read_states(name: str, states: list[Element], dt: float, report: Report) -> Track:
    """Return the states of somebody as a track of no size; intervals become their middle. Raises ValueError."""
    step = np.array([_needed(state, "time") for state in states])
    if not (np.abs(step) <= MAX_STEP).all():
        raise ValueError(f"obstacle {name}: a state's time step is {step[np.abs(step).argmax()]:g}")
    order = np.argsort(step, kind="stable")
    kept = order[np.append(np.diff(step[order]) > 0, True)]
    add(report, "states given twice for an agent and step, the later kept", len(step) - len(kept))
    states, time = [states[i] for i in kept], np.round(step[kept] * dt, 6)
    centre = np.array([_position(state, name) for state in states])
    went = np.gradient(centre[:, :2], time, axis=0) if len(time) > 1 else np.zeros((1, 2))
    headings = [_value(state, "orientation") for state in states]
    speeds = [_value(state, "velocity") for state in states]
    add(report, "states without an orientation, taken from the motion", sum(value is None for value in headings))
    if len(time) > 1:
        add(report, "states without a velocity, taken from the motion", sum(value is None for value in speeds))
    direction, rate = np.arctan2(went[:, 1], went[:, 0]), np.hypot(went[:, 0], went[:, 1])
    return Track(
        id=name,
        kind=AgentKind.VEHICLE,
        size=(*EGO_SIZE, 1.5),
        static=False,
        time=time,
        centre=centre,
        heading=np.array([d if h is None else h for h, d in zip(headings, direction, strict=True)]),
        speed=np.array([r if s is None else s for s, r in zip(speeds, rate, strict=True)]),
    )


def _value(state: Element, name: str) -> float | None:
    """Return a value of a state, exact or the middle of its interval; None where there is none."""
    element = state.find(name)
    if element is None:
        return None
    if element.find("exact") is not None:
        return text_number(element, "exact")
    return (text_number(element, "intervalStart") + text_number(element, "intervalEnd")) / 2


def _needed(state: Element, name: str) -> float:
    value = _value(state, name)
    if value is None:
        raise ValueError(f"{place(state)} has no {name}")
    return value


def _position(state: Element, name: str) -> np.ndarray:
    """Return a position: a point, or the middle of the area in which it lies."""
    element = state.find("position")
    if element is None:
        raise ValueError(f"obstacle {name}: a <{state.tag}> has no position")
    point = element.find("point")
    if point is not None:
        return read_points([point])[0]
    corners = _corners(element)
    return np.append((corners.min(0) + corners.max(0)) / 2, 0.0)


def _corners(element: Element) -> Float64[np.ndarray, "P 2"]:
    """Return the outermost points of all shapes in an element: rectangles, circles, polygons. Raises ValueError."""
    found = [shape_corners(shape) for shape in element if shape.tag in ("rectangle", "circle", "polygon")]
    if not found:
        raise ValueError(f"{place(element)} has no rectangle, circle or polygon")
    return np.concatenate(found)


def shape_corners(shape: Element) -> Float64[np.ndarray, "P 2"]:
    """Return the corners of a rectangle or polygon, or of the square around a circle. Raises ValueError."""
    if shape.tag == "polygon":
        points = read_points(shape.iterfind("point"))[:, :2]
        if len(points) < 3:
            raise ValueError(f"a <polygon> has {len(points)} points, wanted are 3 or more")
        return points
    middle = shape.find("center")
    centre = np.zeros(2) if middle is None else read_points([middle])[0, :2]
    square = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    if shape.tag == "circle":
        return centre + square * text_number(shape, "radius")
    turn = text_number(shape, "orientation") if shape.find("orientation") is not None else 0.0
    half = np.array([text_number(shape, "length"), text_number(shape, "width")]) / 2
    return centre + rotate(square * half, np.full(4, turn))
