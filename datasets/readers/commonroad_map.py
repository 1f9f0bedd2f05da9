"""CommonRoad's lanelets as a map: centre lines, links, lines, road edges, stop signs.

Format: commonroad.in.tum.de, XML 2018b and 2020a. Errors are ValueErrors naming the element.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
import shapely
from jaxtyping import Float64

from traj_diffusion.datasets.readers.assemble import MAX_POINTS, Features, Report, add
from traj_diffusion.datasets.readers.ground import drivable_ground, road_edges, strip
from traj_diffusion.datasets.readers.xml_tree import attribute, place, text_number
from traj_diffusion.geometry import arc_length, resample
from traj_diffusion.scene import EdgeType, LaneType, LineType, Map, MapKind, Origin

_ON_FOOT = {"sidewalk", "crosswalk"}
_FAST = {"highway", "interstate", "mainCarriageWay", "accessRamp", "exitRamp"}
_STREETS = {"urban", "country", "driveWay", "busLane", "busStop", "intersection", "border"}
# Signs of a highest speed [m/s] in the countries of CommonRoad's catalogue, and stop signs.
_SPEED_SIGNS = {"274", "R2-1", "C43", "B14", "B31", "R-32", "r301", "3.24", "50"}
_STOP_SIGNS = {"206", "R1-1"}
_MARKS = {
    "solid": LineType.SOLID_SINGLE_WHITE,
    "broad_solid": LineType.SOLID_SINGLE_WHITE,
    "dashed": LineType.BROKEN_SINGLE_WHITE,
    "broad_dashed": LineType.BROKEN_SINGLE_WHITE,
    "solid_solid": LineType.SOLID_DOUBLE_WHITE,
}
_UNPAINTED = {"no_marking", "curb", "lowered_curb"}


@dataclass(frozen=True)
class Lanelet:
    """One lanelet; bounds and centre line run in its driving direction."""

    id: str
    left: Float64[np.ndarray, "P 3"]
    right: Float64[np.ndarray, "Q 3"]
    centre: Float64[np.ndarray, "R 3"]
    successors: tuple[str, ...]
    predecessors: tuple[str, ...]
    beside: dict[str, tuple[str, bool]]  # left, right -> lanelet, and whether it is driven the same way
    types: frozenset[str]
    marks: dict[str, str]  # left, right -> line marking
    lights: tuple[str, ...]
    signs: tuple[str, ...]
    stop_line: Float64[np.ndarray, " 3"] | None  # its middle
    speed_limit: float

    @property
    def drivable(self) -> bool:
        """Whether vehicles or bicycles drive here."""
        return not self.types & _ON_FOOT

    def ground(self) -> shapely.Geometry:
        """Return the ground between the bounds."""
        return strip(self.left, self.right)


def read_points(elements: Iterable[Element]) -> Float64[np.ndarray, "P 3"]:
    """Return the coordinates of <point> elements or their like, z 0 where there is none. Raises ValueError."""
    rows = [
        (text_number(e, "x"), text_number(e, "y"), 0.0 if e.find("z") is None else text_number(e, "z"))
        for e in elements
    ]
    return np.array(rows, np.float64).reshape(-1, 3)


def read_lanelets(root: Element, report: Report) -> dict[str, Lanelet]:
    """Return all lanelets by id. Raises ValueError."""
    limits: dict[str, float] = {}
    for sign in root.iterfind("trafficSign"):
        for part in sign.iterfind("trafficSignElement"):
            if (part.findtext("trafficSignID") or "").strip() in _SPEED_SIGNS:
                try:
                    limits[sign.get("id", "")] = text_number(part, "additionalValue")
                except ValueError:
                    add(report, "speed limit signs whose value is no number of m/s, dropped")
    lanelets: dict[str, Lanelet] = {}
    for element in root.iterfind("lanelet"):
        lanelet = _lanelet(element, limits)
        if lanelet.id in lanelets:
            raise ValueError(f"{place(element)} is there twice")
        lanelets[lanelet.id] = lanelet
    return lanelets


def _lanelet(element: Element, limits: dict[str, float]) -> Lanelet:
    left, right = (read_points(element.iterfind(f"{side}/point")) for side in ("leftBound", "rightBound"))
    if len(left) < 2 or len(right) < 2:
        raise ValueError(f"{place(element)}: its bounds have {len(left)} and {len(right)} points, wanted are 2 or more")
    line = element.find("stopLine")
    lines = np.zeros((0, 3)) if line is None else read_points(line.iterfind("point"))
    centre = midway(left, right)
    marking = [] if line is None else [line]
    signs = tuple(dict.fromkeys(_refs([element, *marking], "trafficSignRef")))
    stated = [text_number(element, "speedLimit")] if element.find("speedLimit") is not None else []
    stated += [limits[sign] for sign in signs if sign in limits]
    beside = {}
    for side, name in (("left", "adjacentLeft"), ("right", "adjacentRight")):
        other = element.find(name)
        if other is not None:
            beside[side] = (attribute(other, "ref"), other.get("drivingDir", "same") == "same")
    return Lanelet(
        id=attribute(element, "id"),
        left=left,
        right=right,
        centre=centre,
        successors=tuple(_refs([element], "successor")),
        predecessors=tuple(_refs([element], "predecessor")),
        beside=beside,
        types=frozenset((child.text or "").strip() for child in element.iterfind("laneletType")),
        marks={side: (element.findtext(f"{side}Bound/lineMarking") or "").strip() for side in ("left", "right")},
        lights=tuple(dict.fromkeys(_refs([element, *marking], "trafficLightRef"))),
        signs=signs,
        stop_line=lines.mean(0) if len(lines) else (centre[-1] if line is not None else None),
        speed_limit=min(stated) if stated else float("nan"),
    )


def _refs(elements: list[Element], name: str) -> list[str]:
    return [attribute(child, "ref") for element in elements for child in element.iterfind(name)]


def midway(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the line midway between two bounds, which have a point for each other or are given as many."""
    if len(left) != len(right):
        share = np.linspace(0, 1, max(len(left), len(right)))
        left, right = (resample(side, share * arc_length(side)[-1]) for side in (left, right))
    return (left + right) / 2


def build_map(lanelets: dict[str, Lanelet], root: Element, report: Report) -> Map:
    """Return the map of lanelets; the rows of its lanes are those of `lane_rows`. Raises ValueError."""
    if sum(len(lanelet.centre) for lanelet in lanelets.values()) > MAX_POINTS / 4:
        raise ValueError("its lanelets have too many points for one scene")
    built = Features()
    walks = [lanelet for lanelet in lanelets.values() if not lanelet.drivable]
    drivable = [lanelet for lanelet in lanelets.values() if lanelet.drivable]
    for lanelet in drivable:
        built.add(lanelet.id, MapKind.LANE, _lane_type(lanelet), lanelet.centre, lanelet.speed_limit)
        for relation, others in (("successors", lanelet.successors), ("predecessors", lanelet.predecessors)):
            for other in others:
                built.link(relation, other)
        for side, (other, same) in lanelet.beside.items():
            if same:
                built.link(side, other)
    for subtype, line in _lines(drivable):
        built.add(None, MapKind.ROAD_LINE, subtype, line)
    for line in _edges(drivable, root):
        built.add(None, MapKind.ROAD_EDGE, EdgeType.BOUNDARY, line)
    for lanelet in walks:
        if "crosswalk" in lanelet.types:
            built.add(None, MapKind.CROSSWALK, 0, np.concatenate([lanelet.left, lanelet.right[::-1]]))
    add(report, "sidewalks, dropped", sum("crosswalk" not in lanelet.types for lanelet in walks))
    stops = _stop_signs(root)
    for lanelet in drivable:
        if stops & set(lanelet.signs):
            at = lanelet.centre[-1] if lanelet.stop_line is None else lanelet.stop_line
            built.add(None, MapKind.STOP_SIGN, 0, at[None])
            for lane in beginning_at(lanelet, lanelets):
                built.link("controls", lane)
    return built.build(report, Origin.DERIVED)


def lane_rows(lanelets: dict[str, Lanelet]) -> dict[str, int]:
    """Return the row of the map in which each drivable lanelet lies."""
    return {name: row for row, name in enumerate(name for name, lanelet in lanelets.items() if lanelet.drivable)}


def beginning_at(lanelet: Lanelet, lanelets: dict[str, Lanelet]) -> list[str]:
    """Return the lanelets that begin at a lanelet's stop line: those after it, to which WOMD ties what stands there."""
    after = [name for name in lanelet.successors if name in lanelets and lanelets[name].drivable]
    return after or [lanelet.id]


def _lane_type(lanelet: Lanelet) -> LaneType:
    if lanelet.types & _FAST:
        return LaneType.FREEWAY
    if "bicycleLane" in lanelet.types:
        return LaneType.BIKE_LANE
    return LaneType.SURFACE_STREET if lanelet.types & _STREETS else LaneType.UNDEFINED


def _lines(lanelets: list[Lanelet]) -> list[tuple[LineType, np.ndarray]]:
    """Return painted bounds, and bounds between lanelets of which nothing is said; each line once."""
    found: dict[tuple[tuple[float, ...], ...], tuple[LineType, np.ndarray]] = {}
    for lanelet in lanelets:
        for side, line in (("left", lanelet.left), ("right", lanelet.right)):
            mark = lanelet.marks[side]
            said = mark not in ("", "unknown")
            if mark in _UNPAINTED or not (said or side in lanelet.beside):
                continue
            ends = tuple(sorted(tuple(np.round(point[:2], 2).tolist()) for point in (line[0], line[-1])))
            if said or ends not in found:  # a neighbour may know more of the line that both share
                found[ends] = (_MARKS.get(mark, LineType.UNKNOWN), line)
    return list(found.values())


def _edges(lanelets: list[Lanelet], root: Element) -> list[np.ndarray]:
    grounds = {lanelet.id: lanelet.ground() for lanelet in lanelets}
    inside = []
    for intersection in root.iterfind("intersection"):
        incoming = {child.get("ref") for child in intersection.iterfind("incoming/incomingLanelet")}
        after = [name for lanelet in lanelets if lanelet.id in incoming for name in lanelet.successors]
        inside.append(shapely.union_all([grounds[name] for name in after if name in grounds]))
    caps = [
        np.stack([lanelet.left[at, :2], lanelet.right[at, :2]])
        for lanelet in lanelets
        for at, others in ((0, lanelet.predecessors), (-1, lanelet.successors))
        if not others
    ]
    bounds = np.concatenate(
        [np.concatenate([lanelet.left, lanelet.right]) for lanelet in lanelets] or [np.zeros((0, 3))]
    )
    return road_edges(drivable_ground(list(grounds.values()), inside), caps, bounds if bounds[:, 2].any() else None)


def _stop_signs(root: Element) -> set[str]:
    return {
        sign.get("id", "")
        for sign in root.iterfind("trafficSign")
        for name in sign.iterfind("trafficSignElement/trafficSignID")
        if (name.text or "").strip() in _STOP_SIGNS
    }
