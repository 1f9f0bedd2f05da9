"""Road edges of maps that record lanes only: the outline of the drivable ground, which lies to its left."""

from collections.abc import Sequence

import numpy as np
import shapely
from jaxtyping import Float64

MEND = 0.15  # m, wider gaps between lanes are gaps
CORNER = 3.0  # m, gaps between the lanes of a junction up to twice this are paved
ISLAND = 30.0  # m², smaller islands inside junctions are paved
SHORTEST = 2.0  # m of edge


def strip(left: Float64[np.ndarray, "P d"], right: Float64[np.ndarray, "Q d"]) -> shapely.Geometry:
    """Return the ground between two lines that run the same way."""
    ring = np.concatenate([left[:, :2], right[::-1, :2]])
    return shapely.make_valid(shapely.Polygon(ring)) if len(ring) > 2 else shapely.Polygon()


def drivable_ground(strips: Sequence[shapely.Geometry], junctions: Sequence[shapely.Geometry] = ()) -> shapely.Geometry:
    """Return lanes as one ground; within the hulls of junctions what lies between their lanes is paved as well."""
    whole: shapely.Geometry = shapely.buffer(shapely.buffer(shapely.union_all(list(strips)), MEND), -MEND)
    if len(junctions):
        hulls = shapely.union_all([shapely.convex_hull(area) for area in junctions])
        closed = shapely.buffer(shapely.buffer(whole, CORNER), -CORNER)
        whole = shapely.union_all([whole, shapely.intersection(_filled(closed), hulls)])
        whole = shapely.buffer(shapely.buffer(whole, MEND), -MEND)
    return whole


def _filled(ground: shapely.Geometry) -> shapely.Geometry:
    parts = [part for part in shapely.get_parts(ground) if isinstance(part, shapely.Polygon)]
    return shapely.union_all(
        [
            shapely.Polygon(part.exterior, [hole for hole in part.interiors if shapely.Polygon(hole).area > ISLAND])
            for part in parts
        ]
    )


def road_edges(
    ground: shapely.Geometry, caps: Sequence[Float64[np.ndarray, "2 2"]], z: Float64[np.ndarray, "P 3"] | None = None
) -> list[Float64[np.ndarray, "Q d"]]:
    """Return the outline of the ground, which lies to the left of each line; it is open at the caps across roads.

    With points `z` of the lanes' borders, edges get the height of the nearest one.
    """
    gap = shapely.buffer(shapely.multilinestrings(list(caps)), 0.7, cap_style="flat") if len(caps) else None
    lines = []
    for polygon in shapely.get_parts(ground):
        if not isinstance(polygon, shapely.Polygon) or polygon.is_empty:
            continue
        polygon = shapely.geometry.polygon.orient(polygon)
        for ring in (polygon.exterior, *polygon.interiors):
            pieces: list[shapely.Geometry] = [shapely.LineString(ring.coords)]
            if gap is not None:
                pieces = list(shapely.get_parts(shapely.line_merge(shapely.difference(pieces[0], gap), directed=True)))
            lines += [shapely.get_coordinates(piece) for piece in pieces if shapely.length(piece) > SHORTEST]
    if z is None or not lines:
        return lines
    tree = shapely.STRtree(list(np.asarray(shapely.points(z[:, :2]))))
    return [np.column_stack([line, z[tree.nearest(shapely.points(line)), 2]]) for line in lines]
