"""Which lane a vehicle is on, and the path ahead that its lanes give it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from traj_diffusion.geometry import arc_length, resample, wrap_angle
from traj_diffusion.scene import LaneType, Map, MapKind

SPACING = 2.0
"""Metres between two points of a path."""
BESIDE = 2.5
"""Metres from its centre line at which a vehicle is still on a lane."""
_ALONG = np.pi / 4  # heading against the lane's direction
_PER_TURN = 2.0  # metres of distance that a radian of heading against the lane is worth
_PER_BEND = 0.3  # ... that a radian is worth which the lane has yet to turn
_STOREY = 3.0  # metres of height between a bridge and the road below it
_BEYOND = 300.0  # metres for which a lane that nothing follows goes straight on
_RATHER = 10.0  # metres of distance that any recorded lane is preferred by; more than all that is weighed together
_URBAN = 15.0  # m/s where no limit was recorded: 54 km/h (Treiber & Kesting 2013, table 11.2)
_SIDEWAYS = 3.0  # m/s^2 that drivers accept in a bend
_BRAKING = 1.5  # m/s^2 at which they slow down for one


@dataclass(frozen=True)
class LaneMap:
    """The car lanes of a map, cut into straight segments.

    A lane that has no successor goes straight on behind its last point: maps end there, not the road, and whoever
    drives past that point keeps its course instead of being on no lane.
    """

    features: Map
    lanes: Int64[np.ndarray, " L"]  # rows of the map
    begin: Float64[np.ndarray, "S 3"]  # of each segment
    along: Float64[np.ndarray, "S 2"]  # from its begin to its end
    lane: Int64[np.ndarray, " S"]  # row of the map
    distance: Float64[np.ndarray, " S"]  # of its begin from the lane's begin
    bend: Float64[np.ndarray, " S"]  # how far the lane turns from here to its end [rad]
    goes_on: Int64[np.ndarray, " S"]  # the segment of its lane that is not recorded, straight on, or -1

    @classmethod
    def of(cls, features: Map) -> "LaneMap":
        """Return the lanes of a map that a car may use."""
        rows = features.rows(MapKind.LANE)
        rows = rows[features.subtype[rows] != LaneType.BIKE_LANE]
        rows = rows[[len(_line(features, int(row))) >= 2 for row in rows]] if len(rows) else rows
        lines = [_line(features, int(row)) for row in rows]
        if not lines:
            none = np.zeros(0, np.int64)
            return cls(features, none, np.zeros((0, 3)), np.zeros((0, 2)), none, np.zeros(0), np.zeros(0), none)
        last = [not np.isin(features.links.successors[int(row)], rows).any() for row in rows]
        lines = [_goes_on(line) if ends else line for line, ends in zip(lines, last, strict=True)]
        count = [len(line) - 1 for line in lines]
        final = np.repeat(np.cumsum(count) - 1, count)
        return cls(
            features=features,
            lanes=rows,
            begin=np.concatenate([line[:-1] for line in lines]),
            along=np.concatenate([np.diff(line[:, :2], axis=0) for line in lines]),
            lane=np.repeat(rows, count),
            distance=np.concatenate([arc_length(line)[:-1] for line in lines]),
            bend=np.concatenate([_yet_to_turn(line) for line in lines]),
            goes_on=np.where(np.repeat(last, count), final, -1),
        )

    def nearest(
        self, position: Float64[np.ndarray, "A 3"], heading: Float64[np.ndarray, " A"]
    ) -> tuple[Int64[np.ndarray, " A"], Float64[np.ndarray, " A"]]:
        """Return the lane that each is on (row of the map, or -1) and how far along it [m], negative just before it.

        It is the nearest one within 2.5 m that leads within 45 degrees of the heading, on the same storey. Where lanes
        fork they lie upon each other, so that the heading counts too and, where that says nothing, the straighter one.
        """
        length = np.linalg.norm(self.along, axis=-1)
        lane, done = np.full(len(position), -1, np.int64), np.zeros(len(position))
        for row, (place, course) in enumerate(zip(position, heading, strict=True)):
            near = (np.abs(place[:2] - self.begin[:, :2]) <= length[:, None] + BESIDE).all(-1)
            lane[row], done[row] = self._nearest(place, float(course), np.flatnonzero(near), length)
        return lane, done

    def _nearest(
        self,
        position: Float64[np.ndarray, " 3"],
        heading: float,
        near: Int64[np.ndarray, " near"],
        length: Float64[np.ndarray, " S"],
    ) -> tuple[int, float]:
        """Return lane and distance along it of one vehicle, whose segment is among the near ones."""
        begin, along, long = self.begin[near], self.along[near], length[near]
        offset = position[:2] - begin[:, :2]
        place = (offset * along).sum(-1) / long**2
        share = np.clip(place, 0, 1)
        gap = np.linalg.norm(offset - share[:, None] * along, axis=-1)
        turn = wrap_angle(np.arctan2(along[:, 1], along[:, 0]) - heading)
        fits = (np.abs(turn) <= _ALONG) & (np.abs(position[2] - begin[:, 2]) <= _STOREY) & (gap <= BESIDE)
        if not fits.any():
            return -1, 0.0
        onward = self.goes_on[near]
        cost = gap + _PER_TURN * np.abs(turn) + _PER_BEND * self.bend[near] + _RATHER * (onward == near)
        best = int(np.where(fits, cost, np.inf).argmin())
        # Behind a lane's end its own piece beyond counts: clipped to the end, nobody would ever get away from it.
        beyond = int(np.searchsorted(near, onward[best]))
        if onward[best] >= 0 and beyond < len(near) and near[beyond] == onward[best]:
            best = beyond if fits[beyond] and place[beyond] > 0 and gap[beyond] <= gap[best] else best
        # Clipped to the first point, who comes onto a lane would leap to it, and lose its way again at each plan.
        first = self.distance[near[best]] == 0
        part = min(float(place[best]), 1.0) if first else float(share[best])
        return int(self.lane[near[best]]), float(self.distance[near[best]] + part * long[best])

    def ahead(self, lane: int, reach: float) -> list[int]:
        """Return the lane and its successors, until they are `reach` metres long; where a lane forks, the straightest.

        An end of the map ends them early, a circle does not.
        """
        rows, covered = [lane], float(arc_length(_line(self.features, lane))[-1])
        while covered < reach:
            usable = [int(row) for row in self.features.links.successors[rows[-1]] if row in self.lanes]
            if not usable:
                break
            end = _line(self.features, rows[-1])
            rows.append(min(usable, key=lambda row: abs(_bend(end, _line(self.features, row)))))
            covered += float(arc_length(_line(self.features, rows[-1]))[-1])
        return rows


@dataclass(frozen=True)
class Path:
    """What lies ahead of one vehicle: points every 2 m from where it is, straight on where the lanes end."""

    points: Float64[np.ndarray, "P 3"]
    heading: Float64[np.ndarray, " P"]  # unwound
    speed: Float64[np.ndarray, " P"]  # m/s that limits and bends allow
    lanes: tuple[int, ...]
    lane_begin: Float64[np.ndarray, " lanes"]  # where each lane begins [m from the vehicle, negative for behind]


def path_ahead(lanes: LaneMap, lane: int, done: float, reach: float) -> Path:
    """Return the path of a vehicle that is `done` metres along a lane, `reach` metres long.

    Before the first lane and behind the last one it is straight.
    """
    rows = lanes.ahead(lane, done + reach)
    lines = [_line(lanes.features, row) for row in rows]
    lengths = np.array([arc_length(line)[-1] for line in lines])
    begin = np.concatenate([[0.0], np.cumsum(lengths)[:-1]]) - done
    line = np.concatenate([lines[0], *(one[1:] for one in lines[1:])])
    line = line[np.concatenate([[True], np.linalg.norm(np.diff(line[:, :2], axis=0), axis=-1) > 1e-6])]
    first, final = line[1] - line[0], line[-1] - line[-2]
    before = max(-done, 1.0)
    head = line[:1] - first / np.linalg.norm(first) * before
    line = np.concatenate([head, line, line[-1:] + final / np.linalg.norm(final) * (abs(done) + reach)])
    at = np.arange(0.0, reach + SPACING, SPACING)
    points = resample(line, before + done + at)
    step = np.diff(points[:, :2], axis=0)
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    heading = np.concatenate([heading, heading[-1:]])
    limits = np.array([lanes.features.speed_limit[row] for row in rows], np.float64)
    limits = np.where(limits > 0, limits, _URBAN)[np.clip(np.searchsorted(begin, at, side="right") - 1, 0, None)]
    bend = np.abs(np.gradient(heading, SPACING))
    allowed = np.minimum(limits, np.sqrt(_SIDEWAYS / np.maximum(bend, 1e-4)))
    # Slow enough here to be slow enough there: v^2 may exceed that of a later point by 2 b times the distance.
    later = np.minimum.accumulate((allowed**2 + 2 * _BRAKING * at)[::-1])[::-1]
    return Path(points, heading, np.sqrt(np.maximum(later - 2 * _BRAKING * at, 0.0)), tuple(rows), begin)


def along_path(
    points: Float64[np.ndarray, "V P D"], at: Float64[np.ndarray, " V"]
) -> tuple[Float64[np.ndarray, "V D"], Bool[np.ndarray, " V"]]:
    """Return the values at a distance [m] along each path, linear between points, and whether it still reaches."""
    place = np.clip(at / SPACING, 0, points.shape[1] - 1.001)
    low = place.astype(np.int64)
    share = (place - low)[:, None]
    each = np.arange(len(points))
    value: Float64[np.ndarray, "V D"] = points[each, low] * (1 - share) + points[each, low + 1] * share
    return value, at <= SPACING * (points.shape[1] - 1)


def _line(features: Map, row: int) -> Float64[np.ndarray, "p 3"]:
    """Return a polyline without points that repeat."""
    line = features.polyline(row)
    if len(line) < 2:
        return line
    return line[np.concatenate([[True], np.linalg.norm(np.diff(line[:, :2], axis=0), axis=-1) > 1e-6])]


def _goes_on(line: Float64[np.ndarray, "p 3"]) -> Float64[np.ndarray, "q 3"]:
    """Return a line with one more point, straight on and level."""
    step = line[-1, :2] - line[-2, :2]
    end = line[-1:].copy()
    end[0, :2] += step / np.linalg.norm(step) * _BEYOND
    return np.concatenate([line, end])


def _yet_to_turn(line: Float64[np.ndarray, "p 3"]) -> Float64[np.ndarray, " segments"]:
    """Return how far each segment's course is from that of the last one [rad]."""
    step = np.diff(line[:, :2], axis=0)
    course = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    turned: Float64[np.ndarray, " segments"] = np.abs(course[-1] - course)
    return turned


def _bend(first: Float64[np.ndarray, "p 3"], then: Float64[np.ndarray, "q 3"]) -> float:
    """Return how far the course turns from the end of one line to the end of the next [rad]."""
    out, end = first[-1, :2] - first[-2, :2], then[-1, :2] - then[-2, :2]
    return float(wrap_angle(np.arctan2(end[1], end[0]) - np.arctan2(out[1], out[0])))
