"""The map as it is drawn: what lies in sight, thinned to what the eye can tell apart."""

from typing import NamedTuple

import numpy as np
import shapely
from jaxtyping import Float64

from traj_diffusion.scene import LaneType, LineType, Map, MapKind

TOLERANCE = 0.1  # metres that thinning may move a line; a pixel of a picture spans about as much
LANE_WIDTH, BIKE_LANE_WIDTH = 3.6, 1.6  # of the band drawn under a centre line; recordings hold no widths
BROKEN = (LineType.BROKEN_SINGLE_WHITE, LineType.BROKEN_SINGLE_YELLOW, LineType.BROKEN_DOUBLE_YELLOW)
YELLOW = (
    LineType.BROKEN_SINGLE_YELLOW,
    LineType.BROKEN_DOUBLE_YELLOW,
    LineType.SOLID_SINGLE_YELLOW,
    LineType.SOLID_DOUBLE_YELLOW,
    LineType.PASSING_DOUBLE_YELLOW,
)
_BAR = 0.6  # width of a crosswalk's bars and of the gaps between them


class Feature(NamedTuple):
    """One thing on the ground. Areas are polygons, not closed; stop signs are single points."""

    kind: MapKind
    subtype: int
    xy: Float64[np.ndarray, "p 2"]


def visible_features(features: Map, low: np.ndarray, high: np.ndarray) -> list[Feature]:
    """Return the features that reach into the box from `low` [2] to `high` [2], thinned to TOLERANCE."""
    seen = []
    for row in range(len(features)):
        xy = features.polyline(row)[:, :2]
        if len(xy) and (xy.max(0) >= low).all() and (xy.min(0) <= high).all():
            seen.append(Feature(MapKind(int(features.kind[row])), int(features.subtype[row]), xy))
    long = [i for i, feature in enumerate(seen) if len(feature.xy) > 2]
    if not long:
        return seen
    counts = [len(seen[i].xy) for i in long]
    lines = shapely.linestrings(np.concatenate([seen[i].xy for i in long]), indices=np.repeat(range(len(long)), counts))
    for i, line in zip(long, np.asarray(shapely.simplify(lines, TOLERANCE)), strict=True):
        seen[i] = seen[i]._replace(xy=shapely.get_coordinates(line))
    return seen


def lane_width(subtype: int) -> float:
    """Return the width [m] of the band that stands for a lane."""
    return BIKE_LANE_WIDTH if subtype == LaneType.BIKE_LANE else LANE_WIDTH


def zebra(xy: Float64[np.ndarray, "p 2"]) -> list[Float64[np.ndarray, "q 2"]]:
    """Return the bars of a crosswalk: strips across its longest side, cut to its outline."""
    if len(xy) < 3:
        return []
    outline = shapely.Polygon(xy)
    outline = outline if outline.is_valid else outline.buffer(0)
    sides = np.roll(xy, -1, 0) - xy
    longest = sides[np.argmax(np.hypot(*sides.T))]
    length = float(np.hypot(*longest))
    if outline.area < _BAR**2 or length == 0:
        return []
    along = longest / length
    across = np.array([-along[1], along[0]])
    s, d = (xy - xy[0]) @ along, (xy - xy[0]) @ across
    starts = np.arange(s.min() + _BAR / 2, s.max(), 2 * _BAR)
    corners = np.array([[0, d.min() - 1], [_BAR, d.min() - 1], [_BAR, d.max() + 1], [0, d.max() + 1]])
    corners = np.repeat(corners[None], len(starts), 0)
    corners[..., 0] += starts[:, None]
    bars = shapely.intersection(shapely.polygons(xy[0] + corners @ np.stack([along, across])), outline)
    pieces = [part for part in shapely.get_parts(bars) if part.geom_type == "Polygon" and not part.is_empty]
    return [shapely.get_coordinates(part.exterior)[:-1] for part in pieces]
