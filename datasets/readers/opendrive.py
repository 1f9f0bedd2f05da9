"""OpenDRIVE (.xodr, ASAM OpenDRIVE 1.1 to 1.8) as a map without agents: a scene of one step.

Read: all shapes of reference lines, lane offsets, sections, widths and borders, heights and banks, lane links through
roads and junctions, road marks, speed limits, crosswalks, traffic lights and stop signs. Positions stay in the file's
own frame, whatever <geoReference> and <offset> say. Lost: other objects and signs, crossfall, heights of kerbs.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import shapely
from jaxtyping import Float64

from traj_diffusion.datasets.readers.assemble import Features, Report, add
from traj_diffusion.datasets.readers.ground import drivable_ground, road_edges, strip
from traj_diffusion.datasets.readers.opendrive_roads import END, START, Key, Lane, Road, Section, joints, read_roads
from traj_diffusion.datasets.readers.opendrive_signals import Crossing, Light, StopSign, read_signals
from traj_diffusion.datasets.readers.xml_tree import read_tree, root_of, said
from traj_diffusion.errors import BadFile, BadRecord, BadScene
from traj_diffusion.scene import (
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

NAME = "OpenDRIVE map"
PATTERNS = ("*.xodr", "*.xodr.gz")
SPACING = 0.5  # m between points of a line
MAX_SAMPLES = 4_000_000  # points of all lane limits
NARROW = 0.1  # m, what never gets wider than this is no lane
FAST = 22.0  # m/s, from where on a road is a freeway
# `e_laneType`: where cars drive, and what is paved beside that.
_RAMPS = {"entry", "exit", "onRamp", "offRamp", "connectingRamp", "slipLane", "mwyEntry", "mwyExit"}
_DRIVING = {"driving", "bidirectional", "bus", "taxi", "HOV", *_RAMPS}
_PAVED = _DRIVING | {"biking", "stop", "shoulder", "parking", "restricted"}
_MARKS = {
    "solid": (LineType.SOLID_SINGLE_WHITE, LineType.SOLID_SINGLE_YELLOW),
    "broken": (LineType.BROKEN_SINGLE_WHITE, LineType.BROKEN_SINGLE_YELLOW),
    "botts dots": (LineType.BROKEN_SINGLE_WHITE, LineType.BROKEN_SINGLE_YELLOW),
    "solid solid": (LineType.SOLID_DOUBLE_WHITE, LineType.SOLID_DOUBLE_YELLOW),
    "broken broken": (LineType.BROKEN_SINGLE_WHITE, LineType.BROKEN_DOUBLE_YELLOW),
    "solid broken": (LineType.SOLID_SINGLE_WHITE, LineType.PASSING_DOUBLE_YELLOW),
    "broken solid": (LineType.SOLID_SINGLE_WHITE, LineType.PASSING_DOUBLE_YELLOW),
}
_UNPAINTED = frozenset({"none", "curb", "grass", "edge"})


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is XML whose root is <OpenDRIVE>."""
    return root_of(head) == "OpenDRIVE"


def read(path: Path) -> Iterator[Scene]:
    """Yield the map as a scene of one step without agents. Raises BadFile, or BadRecord naming the element."""
    yield read_with_lanes(path)[0]


def read_with_lanes(path: Path) -> tuple[Scene, dict[Key, int]]:
    """Return the scene, and the map id of each lane by what OpenDRIVE calls it. Raises BadFile or BadRecord."""
    root = read_tree(Path(path), "OpenDRIVE")
    try:
        return _scene(root, Path(path).name.removesuffix(".gz").removesuffix(".xodr"))
    except (BadScene, LookupError, ValueError, OverflowError, shapely.errors.ShapelyError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadRecord(f"{path}, record 0: {said(error)}") from error


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # absurd values are `check_scene`'s to name
def _scene(root: Element, name: str) -> tuple[Scene, dict[Key, int]]:
    roads = read_roads(root)
    points = sum((len(s.lanes) + 1) * (s.end - s.s) / SPACING for road in roads.values() for s in road.sections)
    if points > MAX_SAMPLES:
        raise ValueError(f"its lanes are {points * SPACING / 1000:,.0f} km long, too much for one scene")
    report: Report = {}
    if root.find("header/geoReference") is not None or root.find("header/offset") is not None:
        add(report, "geographic reference not applied, positions in the file's own frame")
    if any(True for _ in root.iter("crossfall")) or root.find("road/lateralProfile/shape") is not None:
        add(report, "profiles across the road (crossfall, shape), dropped")
    map_, lights, lanes = _Builder(root, roads, report).build()
    scene = check_scene(
        Scene(
            id=name,
            source="opendrive",
            dt=0.1,
            current_index=0,
            ego=None,
            agents=nobody(1),
            map=map_,
            lights=lights,
            routes=Routes.absent(0),
            report=tuple(report.items()),
        )
    )
    return scene, lanes


def nobody(steps: int) -> Agents:
    """Return no agents over that many steps."""
    return Agents(
        id=np.zeros(0, np.int64),
        kind=np.zeros(0, np.uint8),
        position=np.zeros((0, steps, 3)),
        heading=np.zeros((0, steps), np.float32),
        velocity=np.zeros((0, steps, 2), np.float32),
        size=np.zeros((0, steps, 3), np.float32),
        valid=np.zeros((0, steps), bool),
        to_predict=np.zeros(0, bool),
    )


class _Builder:
    """Collects the features of a map, road by road."""

    def __init__(self, root: Element, roads: dict[str, Road], report: Report) -> None:
        self.roads, self.report = roads, report
        self.built = Features()
        self.lines: list[tuple[LineType, np.ndarray]] = []
        self.strips: list[shapely.Geometry] = []
        self.junctions: dict[str, list[shapely.Geometry]] = {}
        self.caps: list[np.ndarray] = []
        self.borders: list[np.ndarray] = []
        self.centres: dict[Key, np.ndarray] = {}
        self.after = self._successors(joints(root, roads))
        self.before: dict[Key, list[Key]] = {}
        for key, others in self.after.items():
            for other in others:
                self.before.setdefault(other, []).append(key)

    def build(self) -> tuple[Map, Lights, dict[Key, int]]:
        for road in self.roads.values():
            for number, section in enumerate(road.sections):
                if section.end - section.s > 1e-3:
                    self._section(road, number, section)
        found = read_signals(self.roads, self.centres, self.after, self.report)
        for subtype, line in self.lines:
            self.built.add(None, MapKind.ROAD_LINE, subtype, line)
        for line in self._edges():
            self.built.add(None, MapKind.ROAD_EDGE, EdgeType.BOUNDARY, line)
        for item in found:
            if isinstance(item, Crossing):
                self.built.add(None, MapKind.CROSSWALK, 0, item.outline)
            elif isinstance(item, StopSign):
                self.built.add(None, MapKind.STOP_SIGN, 0, item.point[None])
                for lane in item.lanes:
                    self.built.link("controls", _name(lane))
        map_ = self.built.build(self.report, Origin.DERIVED)
        id_of = dict(zip(self.built.names, map_.id.tolist(), strict=True))
        lights = self._lights(map_, [item for item in found if isinstance(item, Light)])
        return map_, lights, {key: id_of[_name(key)] for key in self.centres}

    def _successors(self, joined: Iterator[tuple[tuple[Key, int], tuple[Key, int]]]) -> dict[Key, list[Key]]:
        """Return the lanes that each lane's traffic goes on to."""
        after: dict[Key, list[Key]] = {}
        for pair in joined:
            if not all(self._drivable(key) for (key, _) in pair):
                continue
            leaves = [(end == END) == self._forward(key) for key, end in pair]
            if leaves[0] == leaves[1]:
                add(self.report, "lane links against the direction of traffic, dropped")
                continue
            (before, _), (then, _) = pair if leaves[0] else pair[::-1]
            if then not in after.setdefault(before, []):
                after[before].append(then)
        return after

    def _lane(self, key: Key) -> Lane | None:
        road = self.roads[key[0]]
        return road.sections[key[1]].lanes.get(key[2]) if key[2] and key[1] < len(road.sections) else None

    def _drivable(self, key: Key) -> bool:
        lane = self._lane(key)
        return lane is not None and (lane.kind in _DRIVING or lane.kind == "biking")

    def _forward(self, key: Key) -> bool:
        lane = self._lane(key)
        return lane is not None and self.roads[key[0]].forward(lane)

    def _section(self, road: Road, number: int, section: Section) -> None:
        count = max(int(np.ceil((section.end - section.s) / SPACING)), 1)
        breaks = [curve.s for curve in road.line.curves if section.s < curve.s < section.end]
        s = np.unique(np.concatenate([np.linspace(section.s, section.end, count + 1), breaks]))
        t = section.limits(s, road.offset)
        limits = {name: road.at(s, values) for name, values in t.items()}
        for name, lane in section.lanes.items():
            inner = limits.get(name - (1 if name > 0 else -1), limits[0])
            if name:
                self._strip(road, lane, inner, limits[name])
            self._marks(section, lane, s, limits[name])
            if name and self._drivable((road.id, number, name)):
                middle = (t.get(name - (1 if name > 0 else -1), t[0]) + t[name]) / 2
                if np.abs(t[name] - middle).max() * 2 > NARROW:
                    self._centre(road, (road.id, number, name), lane, s, road.at(s, middle))
        for at, side, link in ((0, START, "predecessor"), (-1, END, "successor")):
            last = number == (0 if side == START else len(road.sections) - 1)
            if last and link not in road.links:
                self.caps.append(np.stack([limits[max(t)][at, :2], limits[min(t)][at, :2]]))

    def _strip(self, road: Road, lane: Lane, inner: np.ndarray, outer: np.ndarray) -> None:
        if lane.kind not in _PAVED or np.abs(inner - outer).max() < 1e-3:
            return
        self.strips.append(strip(outer, inner) if lane.id > 0 else strip(inner, outer))
        self.borders += [inner, outer]
        if road.junction is not None:
            self.junctions.setdefault(road.junction, []).append(self.strips[-1])

    def _marks(self, section: Section, lane: Lane, s: np.ndarray, line: np.ndarray) -> None:
        for number, (offset, kind, colour) in enumerate(lane.marks):
            end = lane.marks[number + 1][0] if number + 1 < len(lane.marks) else np.inf
            here = line[(s >= section.s + offset - 1e-6) & (s <= section.s + end + 1e-6)]
            if kind not in _UNPAINTED and len(here) > 1:
                styles = _MARKS.get(kind, (LineType.UNKNOWN, LineType.UNKNOWN))
                self.lines.append((styles[colour == "yellow"], here))

    def _centre(self, road: Road, key: Key, lane: Lane, s: np.ndarray, line: np.ndarray) -> None:
        kind, limit = road.kind_at(float(s[0]))
        own = [found for offset, found in lane.limits if offset <= 1e-6]
        limit = own[-1] if own else limit
        subtype = LaneType.SURFACE_STREET
        if lane.kind == "biking":
            subtype = LaneType.BIKE_LANE
        elif kind == "motorway" or limit > FAST:
            subtype = LaneType.FREEWAY
        line = line if road.forward(lane) else line[::-1]
        self.centres[key] = line
        self.built.add(_name(key), MapKind.LANE, subtype, line, limit)
        for then in self.after.get(key, []):
            self.built.link("successors", _name(then))
        for before in self.before.get(key, []):
            self.built.link("predecessors", _name(before))
        step = 1 if road.forward(lane) else -1
        for relation, other in (("left", lane.id + step), ("right", lane.id - step)):
            beside = (key[0], key[1], other)
            if other * lane.id > 0 and self._drivable(beside) and self._forward(beside) == road.forward(lane):
                self.built.link(relation, _name(beside))

    def _edges(self) -> list[Float64[np.ndarray, "P d"]]:
        junctions = [shapely.union_all(parts) for parts in self.junctions.values()]
        ground = drivable_ground(self.strips, junctions)
        border = np.concatenate(self.borders) if self.borders else np.zeros((0, 3))
        return road_edges(ground, self.caps, border if border[:, 2].any() else None)

    def _lights(self, map_: Map, found: list[Light]) -> Lights:
        row = {name: row for row, name in enumerate(self.built.names) if name is not None}
        shown = {_name(light.lane): light for light in found if _name(light.lane) in row}
        count = len(shown)
        return Lights(
            lane_id=np.array([map_.id[row[name]] for name in shown], np.int64),
            stop_point=np.array([light.stop_point for light in shown.values()]).reshape(count, 1, 3),
            state=np.full((count, 1), LightState.UNKNOWN, np.uint8),
            observed=np.ones((count, 1), bool),
        )


def _name(key: Key) -> str:
    return "{}.{}.{}".format(*key)
