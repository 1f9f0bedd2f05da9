"""What stands beside OpenDRIVE's roads and matters to traffic: lights, stop signs, crosswalks."""

import math
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
from jaxtyping import Float64

from traj_diffusion.datasets.readers.assemble import Report, add
from traj_diffusion.datasets.readers.opendrive_roads import Key, Road
from traj_diffusion.datasets.readers.xml_tree import integer, number, place

# Signal types of OpenDRIVE's own catalogue that are for those on foot or on bicycles: their lights stop no lane.
_NOT_FOR_CARS = frozenset({"1000002", "1000007", "1000013", "1000014"})
_STOP_SIGNS = frozenset({"206", "R1-1"})
AT_JUNCTION = 30.0  # m before its lane's end, up to which a signal is the next junction's


@dataclass(frozen=True)
class Light:
    """A lane that obeys a traffic light, and where its traffic stops."""

    lane: Key
    stop_point: Float64[np.ndarray, " 3"]


@dataclass(frozen=True)
class StopSign:
    """Where the sign stands, and the lanes that begin at its line."""

    point: Float64[np.ndarray, " 3"]
    lanes: tuple[Key, ...]


@dataclass(frozen=True)
class Crossing:
    """The outline of a crosswalk."""

    outline: Float64[np.ndarray, "P 3"]


def read_signals(
    roads: dict[str, Road], centres: dict[Key, np.ndarray], after: dict[Key, list[Key]], report: Report
) -> list[Light | StopSign | Crossing]:
    """Return what the roads' signals and objects say; `centres` are the lanes of the map, along their traffic.

    As in WOMD, a signal belongs to the lanes that begin at its stop line. Raises ValueError.
    """
    catalogue = {e.get("id", ""): e for road in roads.values() for e in road.element.iterfind("signals/signal")}
    found: list[Light | StopSign | Crossing] = []
    for road in roads.values():
        for element in road.element.iterfind("signals/*"):
            signal = catalogue.get(element.get("id", "")) if element.tag == "signalReference" else element
            if signal is None or element.tag not in ("signal", "signalReference"):
                continue
            lit = signal.get("dynamic") == "yes" and signal.get("type") not in _NOT_FOR_CARS
            sign = signal.get("dynamic") != "yes" and signal.get("type") in _STOP_SIGNS
            if not (lit or sign):
                add(report, "signals that are neither lights for cars nor stop signs, dropped")
                continue
            begin = _begin_at(element, road, centres, after)
            if not begin:
                add(report, "signals that no lane obeys, dropped")
            elif lit:
                found += [Light(lane, point) for lane, point in begin.items()]
            else:
                s, t = np.array([number(element, "s")]), np.array([number(element, "t")])
                found.append(StopSign(road.at(s, t)[0], tuple(begin)))
        for element in road.element.iterfind("objects/object"):
            if element.get("type") == "crosswalk":
                outline = _outline(element, road)
                if outline is None:
                    add(report, "crosswalks without an outline, dropped")
                else:
                    found.append(Crossing(outline))
    return found


def _begin_at(
    element: Element, road: Road, centres: dict[Key, np.ndarray], after: dict[Key, list[Key]]
) -> dict[Key, np.ndarray]:
    """Return the lanes that begin at a signal's stop line, and that point of each."""
    s = min(max(number(element, "s"), 0.0), road.length)
    way = element.get("orientation", "none")
    ranges = [(integer(e, "fromLane"), integer(e, "toLane")) for e in element.iterfind("validity")]
    numbers = [i for i, section in enumerate(road.sections) if section.s <= s + 1e-6]
    if not numbers:
        return {}
    number_, section = numbers[-1], road.sections[numbers[-1]]
    begin: dict[Key, np.ndarray] = {}
    for name, lane in section.lanes.items():
        key = (road.id, number_, name)
        forward = road.forward(lane)
        if key not in centres or (way in ("+", "-") and (way == "+") != forward):
            continue
        if ranges and not any(min(pair) <= name <= max(pair) for pair in ranges):
            continue
        before = s - section.s if forward else section.end - s
        rest = section.end - section.s - before
        onward = [lane for lane in after.get(key, []) if lane in centres]
        if road.junction is not None:
            begin[key] = centres[key][0]  # stands inside the junction: the lane's traffic stops before it
        elif onward and rest <= AT_JUNCTION:
            begin |= {lane: centres[lane][0] for lane in onward}
        else:
            begin[key] = _point_along(centres[key], before)
    return begin


def _point_along(line: np.ndarray, distance: float) -> np.ndarray:
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line[:, :2], axis=0), axis=1))])
    return np.array([np.interp(distance, along, line[:, axis]) for axis in range(3)])


def _outline(element: Element, road: Road) -> np.ndarray | None:
    """Return the corners of an object: its outline in road or local coordinates, or the rectangle of its size."""
    outline = element.find("outline") if element.find("outlines/outline") is None else element.find("outlines/outline")
    corners = [] if outline is None else [e for e in outline if e.tag in ("cornerRoad", "cornerLocal")]
    at_road = [e for e in corners if e.tag == "cornerRoad"]
    if len(at_road) > 2:
        s = np.array([number(e, "s") for e in at_road])
        return road.at(s, np.array([number(e, "t") for e in at_road]))
    local = np.array([(number(e, "u"), number(e, "v")) for e in corners if e.tag == "cornerLocal"]).reshape(-1, 2)
    if len(local) < 3:
        half = np.array([number(element, "length", 0.0), number(element, "width", 0.0)]) / 2
        local = half * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        if not (half > 0).all():
            return None
    along = number(element, "s")
    if not 0 <= along <= road.length + 1:
        raise ValueError(f"{place(element)}: s is {along}, its road is {road.length} m long")
    origin = road.at(np.array([along]), np.array([number(element, "t")]))[0]
    turn = float(road.line(np.array([along]))[1][0]) + number(element, "hdg", 0.0)
    cos, sin = math.cos(turn), math.sin(turn)
    xy = origin[:2] + local @ np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([xy, np.full(len(xy), origin[2])])
