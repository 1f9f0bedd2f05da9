"""What a source lacks and its geometry tells: lane links, road edges. Marked as derived wherever it is put in.

Speed limits are never derived: geometry does not tell them.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import shapely
from jaxtyping import Float64

from traj_diffusion.geometry import wrap_angle
from traj_diffusion.scene import Csr, EdgeType, Links, Map, MapKind, Origin
from traj_diffusion.scene.invariants import MAX_COORDINATE

JOIN = 0.5  # m from the end of a lane to the start of the next; recorded ones of WOMD meet exactly in 99 % of cases
BEND = 0.5  # rad of turn where they meet; within 0.06 in 99 % of WOMD's
LANE_WIDTH = 3.5  # m, where only the centre line is known
SEAM = 0.4  # m; narrower gaps between lanes are paved
ISLAND = 10.0  # m², smaller holes in the drivable ground are paved
MAX_LANES = 5_000  # of one map; a file might put them all in one place, and ask for each pair of them
CAP = 0.7  # m around the open end of a lane in which the outline is no kerb
Polygons = Sequence[Float64[np.ndarray, "_ 2"]]


def with_links(features: Map) -> Map:
    """Return the map with lane links from its geometry, unless it has recorded ones.

    A lane follows another where it starts within 0.5 m of the other's end and goes on in its direction, by less than
    half a radian: over 37 maps of WOMD that finds 99.5 % of the recorded links, and 95 % of what it finds is recorded.
    Neighbours are not derived, for WOMD calls lanes that fork neighbours as well as those side by side.
    """
    lanes = _lanes(features)
    if features.links.origin != Origin.ABSENT or not lanes:
        return features
    lines = [features.polyline(row)[:, :2] for row in lanes]
    before, after = _followers(lines)
    if not len(after):
        return features
    count, none = len(features), Csr.empty(len(features))

    def csr(one: np.ndarray, two: np.ndarray) -> Csr:
        row, other = np.array(lanes, np.int64)[one], np.array(lanes, np.int64)[two]
        order = np.lexsort((other, row))
        start = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=count), out=start[1:])
        return Csr(start, other[order].astype(np.int32))

    links = Links(csr(before, after), csr(after, before), none, none, none, Origin.DERIVED)
    return replace(features, links=links)


def _lanes(features: Map) -> list[int]:
    """Return the rows of lanes that are lines at all; none of a map that is broken or too large to look at."""
    rows = features.rows(MapKind.LANE)
    if len(rows) > MAX_LANES or not (np.abs(features.points) <= MAX_COORDINATE).all():
        return []
    return [int(row) for row in rows if features.start[row + 1] - features.start[row] > 1]


def _directions(lines: Sequence[np.ndarray], end: bool) -> np.ndarray:
    steps = np.array([line[-1] - line[-2] if end else line[1] - line[0] for line in lines])
    return np.arctan2(steps[:, 1], steps[:, 0])


def _followers(lines: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (lane, the lane that follows it) as numbers of the lines."""
    ends = shapely.points(np.array([line[-1] for line in lines]))
    starts = np.asarray(shapely.points(np.array([line[0] for line in lines])))
    one, other = shapely.STRtree(starts).query(ends, predicate="dwithin", distance=JOIN)
    turn = wrap_angle(_directions(lines, False)[other] - _directions(lines, True)[one])
    kept = (np.abs(turn) < BEND) & (one != other)
    return one[kept], other[kept]


def outlines(areas: Polygons, heights: Float64[np.ndarray, "_ 3"] | None = None) -> list[np.ndarray]:
    """Return the closed outlines of all areas together, [P, 3] each, drivable ground to their left, as WOMD's are.

    Areas of less than three points count for nothing. Heights are those of the nearest vertex given, 0 for none.
    """
    ground = _union([shapely.Polygon(ring) for ring in areas if len(ring) > 2 and np.isfinite(ring).all()])
    return [_raised(ring, heights) for ring in _rings(ground)]


def _union(polygons: Sequence[shapely.Polygon]) -> shapely.Geometry:
    return shapely.union_all([shapely.make_valid(polygon) for polygon in polygons])


def _rings(ground: shapely.Geometry) -> list[np.ndarray]:
    rings = []
    for part in shapely.get_parts(ground):
        if isinstance(part, shapely.Polygon) and not part.is_empty:
            whole = shapely.geometry.polygon.orient(part)
            rings += [shapely.get_coordinates(ring) for ring in (whole.exterior, *whole.interiors)]
    return rings


def _raised(line: np.ndarray, heights: np.ndarray | None) -> np.ndarray:
    raised = np.zeros((len(line), 3))
    raised[:, :2] = line
    if heights is not None and len(heights):
        nearest = shapely.STRtree(np.asarray(shapely.points(heights[:, :2]))).nearest(shapely.points(line))
        raised[:, 2] = heights[nearest, 2]
    return raised


def with_edges(features: Map, polygons: Polygons = (), covered: Sequence[int] = ()) -> Map:
    """Return the map with the outline of its lanes as road edges behind its other features, unless it has edges.

    `polygons` are outlines of lanes or of whole roads; the rows in `covered` are lanes that they show. All other
    lanes are taken to be 3.5 m wide. At lanes' ends where nothing follows, the outline is left open: no kerb crosses
    a road that merely leaves the map. Bicycle lanes are drivable ground, too.
    """
    lanes = _lanes(features)
    if len(features.rows(MapKind.ROAD_EDGE)) or not (lanes or len(polygons)):
        return features
    lines = {row: features.polyline(row)[:, :2] for row in lanes}
    shown = set(covered)
    strips = [
        shapely.LineString(line).buffer(LANE_WIDTH / 2, cap_style="flat", join_style="mitre", mitre_limit=2.0)
        for row, line in lines.items()
        if row not in shown
    ]
    rings = [shapely.Polygon(ring) for ring in polygons if len(ring) > 2 and np.isfinite(ring).all()]
    ground = shapely.buffer(shapely.buffer(_union([*rings, *strips]), SEAM), -SEAM, join_style="mitre")
    ends = _open_ends(features, lines)
    gap = shapely.buffer(shapely.union_all(ends), CAP) if ends else shapely.Point()
    edges = []
    for ring in _rings(ground):
        if _area(ring) < -ISLAND or _area(ring) > ISLAND:
            rest = shapely.line_merge(shapely.difference(shapely.LineString(ring), gap), directed=True)
            edges += [shapely.get_coordinates(part) for part in shapely.get_parts(rest) if part.length > 2]
    heights = features.points if features.points[:, 2].any() else None
    return _appended(features, [_raised(line, heights) for line in edges]) if edges else features


def _area(ring: np.ndarray) -> float:
    """Return the signed area [m²] inside a closed ring, negative for one that runs clockwise, as holes do."""
    x, y = (ring - ring[0]).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def _open_ends(features: Map, lines: dict[int, np.ndarray]) -> list[shapely.LineString]:
    """Return a line across each lane's end, or start, that no other lane goes on from."""
    links, found = features.links, []
    for row, line in lines.items():
        for joined, end in ((links.successors, line[::-1]), (links.predecessors, line)):
            if not len(joined[row]):
                step = end[0] - end[1]
                aside = np.array([-step[1], step[0]]) / max(float(np.hypot(*step)), 1e-9) * LANE_WIDTH
                found.append(shapely.LineString([end[0] - aside, end[0] + aside]))
    return found


def _appended(features: Map, edges: Sequence[np.ndarray]) -> Map:
    """Return the map with road edges behind its other features; their ids are above all others."""
    count, links = len(edges), features.links

    def longer(csr: Csr) -> Csr:
        return Csr(np.concatenate([csr.start, np.full(count, csr.start[-1])]), csr.index)

    return replace(
        features,
        points=np.concatenate([features.points, *edges]),
        start=np.concatenate([features.start, features.start[-1] + np.cumsum([len(edge) for edge in edges])]),
        kind=np.concatenate([features.kind, np.full(count, MapKind.ROAD_EDGE, np.uint8)]),
        subtype=np.concatenate([features.subtype, np.full(count, EdgeType.BOUNDARY, np.uint8)]),
        id=np.concatenate([features.id, features.id.max(initial=-1) + 1 + np.arange(count)]),
        speed_limit=np.concatenate([features.speed_limit, np.full(count, np.nan, np.float32)]),
        links=Links(
            longer(links.successors), longer(links.predecessors), longer(links.left), longer(links.right),
            longer(links.controls), links.origin,
        ),
        edge_origin=Origin.DERIVED,
    )  # fmt: skip


def upright(size: np.ndarray, valid: np.ndarray, vehicle: np.ndarray) -> int:
    """Swap length and width, in place, of vehicles that are wider than long at every valid step; return how many.

    Sizes are [N, T, 3], valid [N, T], vehicle [N]. Converters mix up the two; no vehicle on a road is wider than long.
    """
    wider = ~valid | (size[..., 1] > 1.2 * size[..., 0])
    rows = np.flatnonzero(vehicle & valid.any(1) & wider.all(1))
    size[rows, :, :2] = size[rows][:, :, 1::-1]
    return len(rows)
