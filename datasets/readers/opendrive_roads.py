"""OpenDRIVE's roads, sections, lanes and junctions as plain Python, and which lane goes on in which.

ASAM OpenDRIVE 1.4 to 1.8. A lane's key is (road, number of its section, its id): ids count from the reference line,
positive to the left of it. Errors are ValueErrors naming the element.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
from jaxtyping import Float64

from traj_diffusion.datasets.readers.opendrive_curves import Cubics, ReferenceLine, read_curve
from traj_diffusion.datasets.readers.xml_tree import attribute, integer, number, place

Key = tuple[str, int, int]
_SPEEDS = {"m/s": 1.0, "km/h": 1 / 3.6, "mph": 0.44704}
START, END = 0, 1


@dataclass(frozen=True)
class Lane:
    """One lane of one section."""

    id: int
    kind: str
    width: Cubics
    border: Cubics | None  # t of its outer limit, where the file gives that instead of a width
    marks: tuple[tuple[float, str, str], ...]  # of its outer limit: from where in the section, type, colour
    limits: tuple[tuple[float, float], ...]  # from where in the section, m/s (NaN: none)
    predecessors: tuple[int, ...]
    successors: tuple[int, ...]
    reversed: bool


@dataclass(frozen=True)
class Section:
    """A stretch of a road with the same lanes."""

    s: float
    end: float
    lanes: dict[int, Lane]

    def limits(self, s: Float64[np.ndarray, " S"], offset: Cubics) -> dict[int, Float64[np.ndarray, " S"]]:
        """Return the t of each lane's outer limit; that of lane 0 is the lane offset."""
        found = {0: offset(s)}
        for side in (1, -1):
            t = found[0]
            for name in sorted((name for name in self.lanes if name * side > 0), key=abs):
                lane = self.lanes[name]
                outer = found[0] + lane.border(s - self.s) if lane.border else t + side * lane.width(s - self.s)
                t = np.maximum(outer, t) if side > 0 else np.minimum(outer, t)
                found[name] = t
        return found


@dataclass(frozen=True)
class Road:
    """One road."""

    id: str
    length: float
    junction: str | None
    left_hand: bool
    line: ReferenceLine
    elevation: Cubics
    roll: Cubics
    offset: Cubics
    types: tuple[tuple[float, str, float], ...]  # from s: type, m/s (NaN: none)
    sections: tuple[Section, ...]
    links: dict[str, tuple[str, str, int]]  # predecessor, successor -> element type, its id, the end that is touched
    element: Element

    def forward(self, lane: Lane) -> bool:
        """Return whether traffic in a lane drives towards growing s."""
        return ((lane.id < 0) != self.left_hand) != lane.reversed

    def at(self, s: Float64[np.ndarray, " S"], t: Float64[np.ndarray, " S"]) -> Float64[np.ndarray, "S 3"]:
        """Return the points at s and t, with the height of the road and its bank."""
        xy, heading = self.line(s)
        roll = self.roll(s)
        across = (t * np.cos(roll))[:, None] * np.stack([-np.sin(heading), np.cos(heading)], -1)
        return np.column_stack([xy + across, self.elevation(s) + t * np.sin(roll)])

    def kind_at(self, s: float) -> tuple[str, float]:
        """Return the type of road at s, and its speed limit in m/s or NaN."""
        found = [(kind, limit) for start, kind, limit in self.types if start <= s + 1e-6]
        return found[-1] if found else ("unknown", float("nan"))


def read_roads(root: Element) -> dict[str, Road]:
    """Return all roads by id. Raises ValueError."""
    roads = {}
    for element in root.iter("road"):
        road = _road(element)
        if road.id in roads:
            raise ValueError(f"{place(element)} is there twice")
        roads[road.id] = road
    return roads


def _road(element: Element) -> Road:
    length = number(element, "length")
    curves = tuple(sorted((read_curve(e) for e in element.iterfind("planView/geometry")), key=lambda curve: curve.s))
    if not curves or not 0 <= length < 1e6:
        raise ValueError(f"{place(element)}: {len(curves)} geometries over {length} m make no road")
    links = {}
    for name in ("predecessor", "successor"):
        link = element.find(f"link/{name}")
        if link is not None:
            end = END if link.get("contactPoint") == "end" else START
            links[name] = (link.get("elementType", "road"), attribute(link, "elementId"), end)
    lanes = element.find("lanes")
    found = [] if lanes is None else sorted(lanes.iterfind("laneSection"), key=lambda e: number(e, "s"))
    starts = [max(number(e, "s"), 0.0) for e in found]
    ends = [*starts[1:], length]
    junction = element.get("junction", "-1")
    return Road(
        id=attribute(element, "id"),
        length=length,
        junction=None if junction == "-1" else junction,
        left_hand=element.get("rule") == "LHT",
        line=ReferenceLine(curves),
        elevation=Cubics.of(element.findall("elevationProfile/elevation")),
        roll=Cubics.of(element.findall("lateralProfile/superelevation")),
        offset=Cubics.of(element.findall("lanes/laneOffset")),
        types=tuple(
            sorted(
                (number(e, "s"), e.get("type", "unknown"), _limit(e.find("speed"))) for e in element.iterfind("type")
            )
        ),
        sections=tuple(_section(e, start, min(end, length)) for e, start, end in zip(found, starts, ends, strict=True)),
        links=links,
        element=element,
    )


def _section(element: Element, start: float, end: float) -> Section:
    lanes = {}
    for lane in element.iter("lane"):
        made = _lane(lane)
        if made.id in lanes:
            raise ValueError(f"{place(lane)} is there twice in its section")
        lanes[made.id] = made
    return Section(start, end, lanes)


def _lane(element: Element) -> Lane:
    widths, borders = element.findall("width"), element.findall("border")

    def ids(name: str) -> tuple[int, ...]:
        return tuple(integer(link, "id") for link in element.iterfind(f"link/{name}"))

    return Lane(
        id=integer(element, "id"),
        kind=element.get("type", "none"),
        width=Cubics.of(widths, "sOffset"),
        border=Cubics.of(borders, "sOffset") if borders and not widths else None,
        marks=tuple(
            sorted(
                (number(mark, "sOffset"), mark.get("type", "none"), mark.get("color", "standard"))
                for mark in element.iterfind("roadMark")
            )
        ),
        limits=tuple(sorted((number(e, "sOffset", 0.0), _limit(e)) for e in element.iterfind("speed"))),
        predecessors=ids("predecessor"),
        successors=ids("successor"),
        reversed=element.get("direction") == "reversed",
    )


def _limit(element: Element | None) -> float:
    """Return a <speed> as m/s, NaN where there is none or it is "no limit" or "undefined"."""
    if element is None or element.get("max") in (None, "no limit", "undefined"):
        return float("nan")
    value = number(element, "max")
    return value * _SPEEDS.get(element.get("unit", "m/s"), 1.0) if value > 0 else float("nan")


def joints(root: Element, roads: dict[str, Road]) -> Iterator[tuple[tuple[Key, int], tuple[Key, int]]]:
    """Yield pairs of lane ends that the file says are joined; an end is START or END in the direction of s.

    A pair may come twice, for both sides may name it; ends of lanes that are not there may be in it.
    """
    for road in roads.values():
        for i, section in enumerate(road.sections):
            for lane in section.lanes.values():
                for end, others in ((START, lane.predecessors), (END, lane.successors)):
                    beyond = _beyond(roads, road, i, end)
                    if beyond is not None:
                        for other in others:
                            yield ((road.id, i, lane.id), end), ((*beyond[0], other), beyond[1])
    for junction in root.iter("junction"):
        for connection in junction.iterfind("connection"):
            arriving = roads.get(connection.get("incomingRoad", ""))
            leaving = roads.get(connection.get("connectingRoad", connection.get("linkedRoad", "")))
            if arriving is None or leaving is None:
                continue
            far = END if connection.get("contactPoint") == "end" else START
            near = _end_at(arriving, junction.get("id", ""), leaving, far)
            if near is None:
                continue
            for link in connection.iterfind("laneLink"):
                one, other = integer(link, "from"), integer(link, "to")
                yield ((*_outermost(arriving, near), one), near), ((*_outermost(leaving, far), other), far)


def _outermost(road: Road, end: int) -> tuple[str, int]:
    return road.id, 0 if end == START else len(road.sections) - 1


def _beyond(roads: dict[str, Road], road: Road, section: int, end: int) -> tuple[tuple[str, int], int] | None:
    """Return the road and section beyond an end of a section, and its end there; None at junctions and dead ends."""
    following = section + (1 if end == END else -1)
    if 0 <= following < len(road.sections):
        return (road.id, following), START if end == END else END
    kind, name, contact = road.links.get("successor" if end == END else "predecessor", ("", "", START))
    if kind != "road" or name not in roads or not roads[name].sections:
        return None
    return _outermost(roads[name], contact), contact


def _end_at(arriving: Road, junction: str, leaving: Road, far: int) -> int | None:
    """Return the end of a road that touches a junction, and the connecting road where both ends do."""
    touching = [
        end
        for end, name in ((START, "predecessor"), (END, "successor"))
        if arriving.links.get(name, ("", "", 0))[:2] == ("junction", junction)
    ]
    if len(touching) == 1:
        return touching[0]
    kind, name, contact = leaving.links.get("predecessor" if far == START else "successor", ("", "", START))
    return contact if (kind, name) == ("road", arriving.id) else None
