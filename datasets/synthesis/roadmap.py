"""The map of a network as WOMD would have recorded it: points every 0.5 m, features cut into pieces."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Float64

from traj_diffusion.datasets.synthesis.network import NetLane, Network
from traj_diffusion.geometry import arc_length, resample
from traj_diffusion.scene import Csr, EdgeType, LaneType, LineType, Links, Map, MapKind, Origin

SPACING = 0.5  # m between points
PIECE = 40.0  # m, how long a feature gets before it is cut
ISLAND = 30.0  # m², smaller gaps between lanes are paved
SHOULDER = 0.3  # m of asphalt beside the outermost lane


@dataclass(frozen=True)
class Signal:
    """Which character of which traffic light's state a connector obeys, and where its traffic stops."""

    program: str
    index: int
    row: int
    stop_point: Float64[np.ndarray, " 2"]


@dataclass(frozen=True)
class RoadMap:
    """The whole network's map, and how SUMO's lanes map to its rows."""

    features: Map
    rows: dict[str, range]  # SUMO lane -> rows of its pieces, in driving order
    lane_of: dict[int, str]  # and back
    lengths: dict[str, float]  # of SUMO's lanes, as it counts positions along them
    signals: tuple[Signal, ...]
    drivable: shapely.Geometry

    def row_at(self, lane: str, fraction: float) -> int:
        """Return the row of a lane's piece at that fraction of the lane."""
        rows = self.rows[lane]
        return rows[min(max(int(fraction * len(rows)), 0), len(rows) - 1)]


class _Features:
    """Collects polylines."""

    def __init__(self) -> None:
        self.points: list[np.ndarray] = []
        self.kind: list[int] = []
        self.subtype: list[int] = []
        self.speed: list[float] = []

    def add(self, kind: MapKind, subtype: int, points: np.ndarray, speed: float = np.nan) -> int:
        self.points.append(np.round(points, 3))
        self.kind.append(int(kind))
        self.subtype.append(int(subtype))
        self.speed.append(speed)
        return len(self.kind) - 1


def build_map(network: Network, drivable: shapely.Geometry, driveways: Sequence[np.ndarray] = ()) -> RoadMap:
    """Return the map of a network, with the ground for vehicles and the driveways [4, 2] given."""
    found = _Features()
    lines = {name: evenly(lane.shape) for name, lane in network.lanes.items() if lane.cars or lane.bicycles}
    rows = {}
    for name, line in lines.items():
        lane = network.lanes[name]
        subtype = LaneType.SURFACE_STREET if lane.cars else LaneType.BIKE_LANE
        if lane.cars and lane.speed > 22:
            subtype = LaneType.FREEWAY
        pieces = [found.add(MapKind.LANE, subtype, piece, lane.speed) for piece in cut(line)]
        rows[name] = range(pieces[0], pieces[-1] + 1)
    controls: dict[int, list[int]] = {}
    _add_road_lines(found, network, lines)
    for line in road_edges(drivable, network):
        for piece in cut(evenly(line)):
            found.add(MapKind.ROAD_EDGE, EdgeType.BOUNDARY, piece)
    for _, corners in network.crossings:
        found.add(MapKind.CROSSWALK, 0, corners)
    for corners in driveways:
        found.add(MapKind.DRIVEWAY, 0, corners)
    for name in sorted({c.source for c in network.connections if c.state in ("s", "w") and c.source in rows}):
        line, width = lines[name], network.lanes[name].width
        heading = line[-1] - line[-2]
        right = np.array([heading[1], -heading[0]]) / max(float(np.linalg.norm(heading)), 1e-9)
        sign = found.add(MapKind.STOP_SIGN, 0, (line[-1] + right * (width / 2 + 0.8))[None])
        # WOMD ties a stop sign to the lanes that begin at its line, as it does with signals.
        vias = [c.via for c in network.after[name] if c.via in rows and c.state in ("s", "w")]
        controls[sign] = [rows[via][0] for via in vias if via is not None]
    signals = tuple(
        Signal(*connection.signal, rows[connection.via][0], lines[connection.via][0])
        for connection in network.connections
        if connection.signal is not None and connection.via in rows
    )
    return RoadMap(
        features=_as_map(found, _links(network, rows, controls, len(found.kind))),
        rows=rows,
        lane_of={row: name for name, pieces in rows.items() for row in pieces},
        lengths={name: max(network.lanes[name].length, 1e-3) for name in rows},
        signals=signals,
        drivable=drivable,
    )


def evenly(line: Float64[np.ndarray, "P 2"]) -> Float64[np.ndarray, "Q 2"]:
    """Return points at most SPACING apart along a line, its ends among them."""
    length = float(arc_length(line)[-1])
    return resample(line, np.linspace(0, length, max(int(np.ceil(length / SPACING)), 1) + 1))


def cut(line: Float64[np.ndarray, "P 2"]) -> list[Float64[np.ndarray, "q 2"]]:
    """Return a line in pieces of about equal length of at most PIECE; each starts where the one before ends."""
    pieces = max(int(np.ceil((len(line) - 1) * SPACING / PIECE)), 1)
    at = np.linspace(0, len(line) - 1, pieces + 1).astype(int)
    return [line[start : end + 1] for start, end in itertools.pairwise(at)]


def offset(line: Float64[np.ndarray, "P 2"], left: float) -> Float64[np.ndarray, "P 2"]:
    """Return a line moved to its left by that many metres."""
    tangent = np.gradient(line, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    return line + left * np.stack([-tangent[:, 1], tangent[:, 0]], -1)


def drivable_area(network: Network) -> shapely.Geometry:
    """Return the ground for vehicles: lanes, kerb strips and junctions, with rounded corners."""
    lanes = [lane for lane in network.lanes.values() if not lane.pedestrians]
    strips = [
        shapely.LineString(lane.shape).buffer(
            lane.width / 2 + SHOULDER, cap_style="flat", join_style="mitre", mitre_limit=2.0
        )
        for lane in lanes
    ]
    # Closing by 3 m joins the corners of a junction into the curve that a kerb has.
    whole = shapely.buffer(shapely.buffer(shapely.union_all(strips), 3.0), -3.0)
    return shapely.union_all(
        [
            shapely.Polygon(part.exterior, [hole for hole in part.interiors if shapely.Polygon(hole).area > ISLAND])
            for part in shapely.get_parts(whole)
        ]
    )


def with_lots(drivable: shapely.Geometry, lots: Sequence[np.ndarray]) -> shapely.Geometry:
    """Return the ground for vehicles with parking lots [4, 2] and their ways in added."""
    if not lots:
        return drivable
    whole = shapely.union_all([drivable, *(shapely.Polygon(lot) for lot in lots)])
    return shapely.buffer(shapely.buffer(whole, 0.5), -0.5)


def road_edges(drivable: shapely.Geometry, network: Network) -> list[Float64[np.ndarray, "P 2"]]:
    """Return the boundary of the drivable ground, which lies to the left of each line; roads out of it stay open."""
    caps = [_cap(network.lanes[name], start) for name, start in _open_ends(network)]
    gap = shapely.buffer(shapely.union_all(caps), 0.7) if caps else shapely.Point()
    lines = []
    for polygon in shapely.get_parts(drivable):
        polygon = shapely.geometry.polygon.orient(polygon)
        for ring in (polygon.exterior, *polygon.interiors):
            rest = shapely.line_merge(shapely.difference(shapely.LineString(ring.coords), gap), directed=True)
            lines += [shapely.get_coordinates(part) for part in shapely.get_parts(rest) if part.length > 2]
    return lines


def _open_ends(network: Network) -> list[tuple[str, bool]]:
    ends = []
    for edge, (source, target) in network.ends.items():
        for name in network.edges[edge]:
            if not network.lanes[name].pedestrians:
                ends += [(name, start) for start, at in ((True, source), (False, target)) if at in network.dead_ends]
    return ends


def _cap(lane: NetLane, start: bool) -> shapely.LineString:
    """Return the line across a lane at its start or end."""
    line = lane.shape if start else lane.shape[::-1]
    along = (line[1] - line[0]) / max(float(np.linalg.norm(line[1] - line[0])), 1e-9)
    aside = np.array([-along[1], along[0]]) * (lane.width / 2 + SHOULDER)
    return shapely.LineString([line[0] - aside, line[0] + aside])


def _add_road_lines(found: _Features, network: Network, lines: dict[str, np.ndarray]) -> None:
    opposite = {ends: name for name, ends in network.ends.items()}
    for edge, (source, target) in network.ends.items():
        lanes = [network.lanes[name] for name in network.edges[edge] if name in lines]
        if not lanes:
            continue
        for lane, left in zip(lanes, [*lanes[1:], None], strict=True):
            line = offset(lines[lane.id], lane.width / 2)
            if left is not None:
                style = LineType.BROKEN_SINGLE_WHITE if lane.cars == left.cars else LineType.SOLID_SINGLE_WHITE
            elif (target, source) in opposite:
                if edge > opposite[target, source]:
                    continue  # the middle of a road is painted once
                style = LineType.SOLID_DOUBLE_YELLOW if len(lanes) > 1 else LineType.BROKEN_SINGLE_YELLOW
            else:
                style = LineType.SOLID_SINGLE_YELLOW
            for piece in cut(line):
                found.add(MapKind.ROAD_LINE, style, piece)
        outer = lanes[0]
        below = [network.lanes[name] for name in network.edges[edge] if network.lanes[name].index == outer.index - 1]
        if below and below[0].parking:
            for piece in cut(offset(lines[outer.id], -outer.width / 2)):
                found.add(MapKind.ROAD_LINE, LineType.SOLID_SINGLE_WHITE, piece)


def _links(network: Network, rows: dict[str, range], controls: dict[int, list[int]], count: int) -> Links:
    successors: list[list[int]] = [[] for _ in range(count)]
    predecessors: list[list[int]] = [[] for _ in range(count)]
    left: list[list[int]] = [[] for _ in range(count)]
    right: list[list[int]] = [[] for _ in range(count)]

    def join(before: int, after: int) -> None:
        if after not in successors[before]:
            successors[before].append(after)
            predecessors[after].append(before)

    for pieces in rows.values():
        for before, after in itertools.pairwise(pieces):
            join(before, after)
    for connection in network.connections:
        onto = connection.via or connection.target
        if connection.source in rows and onto in rows:
            join(rows[connection.source][-1], rows[onto][0])
    for edge in network.ends:
        lanes = [name for name in network.edges[edge] if name in rows]
        for near, far in itertools.pairwise(lanes):
            for at, row in enumerate(rows[near]):
                beside = rows[far][min(at * len(rows[far]) // len(rows[near]), len(rows[far]) - 1)]
                left[row].append(beside)
                right[beside].append(row)
    return Links(
        successors=Csr.from_lists(successors),
        predecessors=Csr.from_lists(predecessors),
        left=Csr.from_lists(left),
        right=Csr.from_lists(right),
        controls=Csr.from_lists([controls.get(row, []) for row in range(count)]),
        origin=Origin.RECORDED,
    )


def _as_map(found: _Features, links: Links) -> Map:
    flat = np.concatenate(found.points)
    return Map(
        points=np.pad(flat, ((0, 0), (0, 1))),
        start=np.concatenate([[0], np.cumsum([len(line) for line in found.points])]).astype(np.int64),
        kind=np.array(found.kind, np.uint8),
        subtype=np.array(found.subtype, np.uint8),
        id=np.arange(1, len(found.kind) + 1, dtype=np.int64),
        speed_limit=np.array(found.speed, np.float32),
        links=links,
        edge_origin=Origin.RECORDED,
    )
