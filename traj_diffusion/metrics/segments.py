"""Segments of many polylines, and which of them can matter at a point: a grid that is filled where it is asked.

Height is stretched threefold in distances, so that the road on the bridge is not taken for the one below it (the
factor of WOMD's Sim Agents metrics).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from traj_diffusion.metrics.compiled import compiled
from traj_diffusion.scene import Map

STRETCH = 3.0
CLOSED = 1.0
"""Metres between first and last point up to which a polyline counts as closed, as in WOMD's Sim Agents metrics."""
_COARSE = np.array([12.0, 12.0, 4.0])
_FINE = 6
"""Fine cells along each side of a coarse one."""
_MARGIN = 40.0
_MAX_CELLS = 2_000_000


@dataclass(frozen=True)
class Segments:
    """The segments of some polylines, those of no length left out. `before` and `after` link them, -1 is none."""

    start: Float64[np.ndarray, "S 3"]
    end: Float64[np.ndarray, "S 3"]
    before: Int64[np.ndarray, " S"]
    after: Int64[np.ndarray, " S"]
    row: Int64[np.ndarray, " S"]  # of the map

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, features: Map, rows: Int64[np.ndarray, " rows"], origin: Float64[np.ndarray, " 3"]) -> "Segments":
        """Return the segments of these map rows, in the frame whose zero is `origin`."""
        start, end, before, after, row = [], [], [], [], []
        count = 0
        for one in rows:
            line = features.polyline(int(one)) - origin
            if len(line):
                line = line[np.concatenate([[True], np.linalg.norm(np.diff(line[:, :2], axis=0), axis=-1) > 0])]
            n = len(line) - 1
            if n < 1:
                continue
            numbers = np.arange(count, count + n)
            previous, following = numbers - 1, numbers + 1
            closed = n > 2 and np.linalg.norm(line[0] - line[-1]) < CLOSED
            previous[0], following[-1] = (numbers[-1], numbers[0]) if closed else (-1, -1)
            start.append(line[:-1])
            end.append(line[1:])
            before.append(previous)
            after.append(following)
            row.append(np.full(n, one, np.int64))
            count += n
        if not count:
            none = np.zeros(0, np.int64)
            return cls(np.zeros((0, 3)), np.zeros((0, 3)), none, none, none)
        return cls(*(np.concatenate(part) for part in (start, end, before, after, row)))

    @property
    def stretched(self) -> Float64[np.ndarray, "S 7"]:
        """Start, direction (both with height stretched) and 1 / length² of each, side by side for the loops below."""
        stretch = np.array([1.0, 1.0, STRETCH])
        along = (self.end - self.start) * stretch
        return np.concatenate([self.start * stretch, along, 1 / (along**2).sum(-1, keepdims=True)], -1)


@dataclass(frozen=True)
class Candidates:
    """For each asked point, which segments can matter: `index[start[cell]:start[cell + 1]]` of its cell.

    A cell of -1 means all of them (the point lies far from the map), -2 that the point was not asked.
    """

    cell: Int64[np.ndarray, " Q"]
    start: Int64[np.ndarray, " starts"]
    index: Int32[np.ndarray, " entries"]


def candidates(
    points: Float64[np.ndarray, "Q 3"], asked: Bool[np.ndarray, " Q"], segments: Segments, radius: float | None
) -> Candidates:
    """Return a superset of the segments nearest to each asked point, or of those within `radius` [m] of it.

    Exact by the triangle inequality: with `reach` half the diagonal of a cell, what is nearest to one of its points is
    at most twice that farther from its centre than what is nearest to the centre. Coarse cells, found the same way,
    spare the fine ones looking at every segment.
    """
    low = np.minimum(segments.start.min(0), segments.end.min(0)) - _MARGIN
    high = np.maximum(segments.start.max(0), segments.end.max(0)) + _MARGIN
    coarse = _COARSE
    while np.ceil((high - low) / coarse).prod() > _MAX_CELLS:
        coarse = coarse * 1.5
    shape = np.ceil((high - low) / coarse).astype(np.int64)
    reach = float(np.linalg.norm(coarse * [1, 1, STRETCH]) / 2)
    cell, start, index = _candidates(
        points, asked, segments.stretched, low, coarse, shape, reach, -1.0 if radius is None else radius
    )
    return Candidates(cell, start, index)


def signed_distance(
    points: Float64[np.ndarray, "Q 3"], asked: Bool[np.ndarray, " Q"], segments: Segments
) -> Float64[np.ndarray, " Q"]:
    """Return the distance [m] in the x-y plane to the nearest segment: negative on its left, positive on its right.

    Nearest is meant with stretched height. Beyond the joint of two segments the sign is that of the region the joint
    bounds: at a left turn a point is on the right if it is right of either segment, at a right turn if right of both.
    NaN where not asked. There must be a segment.
    """
    near = candidates(points, asked, segments, None)
    return _signed_distance(
        points,
        near.cell,
        near.start,
        near.index,
        segments.stretched,
        segments.start,
        segments.end,
        segments.before,
        segments.after,
    )


@compiled
def squared_distance(x, y, z, segment):  # type: ignore[no-untyped-def]
    """Squared distance of (x, y, z) to a row of `Segments.stretched`; z is stretched already."""
    px, py, pz = x - segment[0], y - segment[1], z - segment[2]
    ux, uy, uz = segment[3], segment[4], segment[5]
    t = min(max((px * ux + py * uy + pz * uz) * segment[6], 0.0), 1.0)
    dx, dy, dz = px - t * ux, py - t * uy, pz - t * uz
    return dx * dx + dy * dy + dz * dz


@compiled
def _near_cell(centre, stretched, among, reach, radius, distance):  # type: ignore[no-untyped-def]
    """Those of the segments `among` that can matter to a point within `reach` of the centre."""
    nearest = np.inf
    for at in range(len(among)):
        distance[at] = squared_distance(centre[0], centre[1], STRETCH * centre[2], stretched[among[at]])
        nearest = min(nearest, distance[at])
    bound = (radius if radius >= 0 else np.sqrt(nearest) + reach) + reach
    return among[distance[: len(among)] <= bound * bound * (1 + 1e-9) + 1e-9]


@compiled
def _candidates(points, asked, stretched, low, coarse, shape, reach, radius):  # type: ignore[no-untyped-def]
    cell = np.full(len(points), -1, np.int64)
    fine = coarse / _FINE
    fine_shape = shape * _FINE
    block = _FINE * _FINE * _FINE
    coarse_number = np.full(shape[0] * shape[1] * shape[2], -1, np.int32)
    fine_number = np.full(64 * block, -1, np.int32)  # a block of it for each coarse cell that is met
    everything = np.arange(len(stretched)).astype(np.int32)
    distance = np.empty(len(stretched))
    coarse_lists = [everything]
    starts = [0]
    index = np.empty(1024, np.int32)
    used = 0
    at = np.empty(3, np.int64)
    for q in range(len(points)):
        if not asked[q]:
            cell[q] = -2
            continue
        inside = True
        for axis in range(3):
            place = np.floor((points[q, axis] - low[axis]) / fine[axis])
            inside = inside and 0 <= place < fine_shape[axis]
            at[axis] = int(place) if inside else 0
        if not inside:
            continue
        around = at // _FINE
        coarse_key = (around[0] * shape[1] + around[1]) * shape[2] + around[2]
        if coarse_number[coarse_key] < 0:
            coarse_number[coarse_key] = len(coarse_lists)
            centre = low + (around + 0.5) * coarse
            coarse_lists.append(_near_cell(centre, stretched, everything, reach, radius, distance))
            if len(coarse_lists) * block > len(fine_number):
                fine_number = np.concatenate((fine_number, np.full_like(fine_number, -1)))
        within = at - around * _FINE
        key = (coarse_number[coarse_key] - 1) * block + (within[0] * _FINE + within[1]) * _FINE + within[2]
        if fine_number[key] < 0:
            among = coarse_lists[coarse_number[coarse_key]]
            kept = _near_cell(low + (at + 0.5) * fine, stretched, among, reach / _FINE, radius, distance)
            while used + len(kept) > len(index):
                index = np.concatenate((index, np.empty_like(index)))
            index[used : used + len(kept)] = kept
            used += len(kept)
            fine_number[key] = len(starts) - 1
            starts.append(used)
        cell[q] = fine_number[key]
    return cell, np.array(starts, np.int64), index[:used].copy()


@compiled
def _side(x, y, a, b):  # type: ignore[no-untyped-def]
    """+1 right of the line from a to b, -1 left of it, 0 on it."""
    return np.sign((x - a[0]) * (b[1] - a[1]) - (y - a[1]) * (b[0] - a[0]))


@compiled
def _signed_distance(points, cell, cell_start, index, stretched, start, end, before, after):  # type: ignore[no-untyped-def]
    out = np.full(len(points), np.nan)
    for q in range(len(points)):
        if cell[q] == -2:
            continue
        x, y, z = points[q, 0], points[q, 1], STRETCH * points[q, 2]
        nearest, best = np.inf, 0
        if cell[q] >= 0:
            for at in range(cell_start[cell[q]], cell_start[cell[q] + 1]):
                distance = squared_distance(x, y, z, stretched[index[at]])
                if distance < nearest:
                    nearest, best = distance, index[at]
        else:
            for s in range(len(stretched)):
                distance = squared_distance(x, y, z, stretched[s])
                if distance < nearest:
                    nearest, best = distance, s
        a, b = start[best], end[best]
        ux, uy = b[0] - a[0], b[1] - a[1]
        t = ((x - a[0]) * ux + (y - a[1]) * uy) / (ux * ux + uy * uy)
        sign = _side(x, y, a, b)
        joint = before[best] if t < 0 else (after[best] if t > 1 else -1)
        if joint >= 0:
            other = _side(x, y, start[joint], end[joint])
            vx, vy = end[joint][0] - start[joint][0], end[joint][1] - start[joint][1]
            turn = vx * uy - vy * ux if t < 0 else ux * vy - uy * vx
            sign = max(sign, other) if turn > 0 else min(sign, other)
        t = min(max(t, 0.0), 1.0)
        out[q] = sign * np.hypot(x - a[0] - t * ux, y - a[1] - t * uy)
    return out
