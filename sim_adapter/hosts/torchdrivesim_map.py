"""TorchDriveSim's maps and signals: Lanelet2 maps become ours, and traffic lights are tied to the lanes that they stop.

Left-handed maps (CARLA's) are mirrored on the x axis: `mirror` is [1, -1] for them and [1, 1] for others.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from jaxtyping import Float64

from traj_diffusion.datasets.readers.commonroad_map import Lanelet, build_map, midway
from traj_diffusion.geometry import arc_length, wrap_angle
from traj_diffusion.scene import LightState, Map, MapKind

STATES = {"red": LightState.STOP, "yellow": LightState.CAUTION, "green": LightState.GO}
TYPES = {"highway": "highway", "road": "urban", "bicycle_lane": "bicycleLane"}
ON_FOOT = {"walkway": "sidewalk", "crosswalk": "crosswalk", "stairs": "sidewalk"}
MARKS = {"solid": "solid", "dashed": "dashed", "solid_solid": "solid_solid"}
NEAR = 2.0  # m from a stop line to the lane that it stops
ALIGNED = 0.8  # rad between the two
AT_END = 15.0  # m before a lane's end where a stop line counts as that of the lanes after it


def lanelet_map(lanelets: Any, mirror: Float64[np.ndarray, " 2"], offset: Float64[np.ndarray, " 2"]) -> Map:
    """Return a lanelet2.core.LaneletMap as our map. `offset` is what added to a position gives one on the map."""
    layer = list(lanelets.laneletLayer)
    bounds = {str(one.id): {side: _along(one, side) for side in ("left", "right")} for one in layer}
    ends = {name: [tuple(bounds[name][side][at].id for side in ("left", "right")) for at in (0, -1)] for name in bounds}
    starts, arrivals = _grouped(ends, 0), _grouped(ends, 1)
    lefts = {one.leftBound.id: str(one.id) for one in layer}
    rights = {one.rightBound.id: str(one.id) for one in layer}
    found = {}
    for one in layer:
        name = str(one.id)
        points = {side: np.array([(p.x, p.y, 0.0) for p in line]) for side, line in bounds[name].items()}
        lines = {side: np.column_stack([(p[:, :2] - offset) * mirror, p[:, 2]]) for side, p in points.items()}
        others = {"left": rights.get(one.leftBound.id), "right": lefts.get(one.rightBound.id)}
        subtype = _text(one, "subtype")
        found[name] = Lanelet(
            id=name,
            left=lines["left"],
            right=lines["right"],
            centre=midway(lines["left"], lines["right"]),
            successors=tuple(starts.get(ends[name][1], ())),
            predecessors=tuple(arrivals.get(ends[name][0], ())),
            beside={side: (other, True) for side, other in others.items() if other is not None},
            types=frozenset((ON_FOOT.get(subtype) or TYPES.get(subtype, "unknown"),)),
            marks={side: MARKS.get(_text(getattr(one, f"{side}Bound"), "subtype"), "") for side in ("left", "right")},
            lights=(),
            signs=(),
            stop_line=None,
            speed_limit=float("nan"),
        )
    return build_map(found, Element("commonRoad"), {})


class Signal(NamedTuple):
    """One lane that a light controls: the light's number, the lane's id, and where to stop."""

    light: int
    lane: int
    stop: tuple[float, float, float]


def signals(
    map_: Map, stop_lines: Iterable[Float64[np.ndarray, " 5"]], mirror: Float64[np.ndarray, " 2"]
) -> list[Signal]:
    """Return which lanes the lights at those stop lines control (x, y, length, width, heading): those that begin there.

    Where a stop line crosses the last metres of a lane these are the lanes after it, otherwise it is the lane itself.
    """
    found: dict[int, Signal] = {}
    lanes = [(int(row), map_.polyline(int(row))[:, :2]) for row in map_.rows(MapKind.LANE)]
    for light, (x, y, _, _, heading) in enumerate(stop_lines):
        here, heading = np.array([x, y]) * mirror, heading * mirror[1]
        for row, line in lanes:
            away = np.linalg.norm(line - here, axis=-1)
            at = int(away.argmin())
            ahead = np.subtract(*(line[[at + 1, at]] if at + 1 < len(line) else line[[at, at - 1]]))
            aside = abs(float(wrap_angle(np.arctan2(ahead[1], ahead[0]) - heading)))
            across = abs(float(np.cross(np.append(ahead, 0), np.append(here - line[at], 0))[2])) / np.hypot(*ahead)
            if away[at] > 2 * NEAR or across > NEAR or aside > ALIGNED:
                continue
            along = arc_length(line)
            after = map_.links.successors[row].tolist() if along[-1] - along[at] < AT_END else []
            for lane in after or [row]:
                found.setdefault(lane, Signal(light, int(map_.id[lane]), (*here.tolist(), 0.0)))
    return list(found.values())


def _along(lanelet: Any, side: str) -> list[Any]:
    """Return the points of a bound in driving direction: lanelet2 1.2 goes through inverted lines the other way."""
    points, line = list(getattr(lanelet, f"{side}Bound")), list(lanelet.centerline)
    first, last = (np.hypot(points[at].x - line[0].x, points[at].y - line[0].y) for at in (0, -1))
    return points if first <= last else points[::-1]


def _grouped(ends: dict[str, list[tuple[Any, ...]]], at: int) -> dict[tuple[Any, ...], list[str]]:
    """Return which lanelets begin (0) or end (1) at the same two points."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, pair in ends.items():
        found.setdefault(pair[at], []).append(name)
    return found


def _text(element: Any, name: str) -> str:
    attributes = element.attributes
    return str(attributes[name]) if name in attributes else ""
