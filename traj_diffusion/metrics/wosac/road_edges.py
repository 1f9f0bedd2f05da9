"""Signed distance to the nearest road edge: positive beyond it (off the road), negative on the road."""

import math
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int32

from traj_diffusion.metrics.compiled import compiled
from traj_diffusion.metrics.wosac.boxes import corners
from traj_diffusion.metrics.wosac.segments import projection
from traj_diffusion.scene import Map, MapKind

UNDEFINED = np.float32(-1e10)
"""The distance of an agent that is not there."""

_Z_STRETCH = np.float32(3)
_HALF = np.float32(0.5)
_ZERO = np.float32(0)
_ONE = np.float32(1)
_CHUNK = 8  # segments that share one bounding box


@dataclass(frozen=True)
class EdgeIndex:
    """All road-edge segments in recorded order, and boxes around short runs of them."""

    start: Float32[np.ndarray, "S 3"]
    along: Float32[np.ndarray, "S 3"]  # end - start
    before: Int32[np.ndarray, " S"]  # the segment before on the same polyline, -1: none
    after: Int32[np.ndarray, " S"]
    first: Int32[np.ndarray, " chunks_and_end"]  # first segment of each chunk
    box: Float32[np.ndarray, "chunks 4"]  # low x, low y, high x, high y


def edge_polylines(features: Map) -> list[Float32[np.ndarray, "_ 3"]]:
    """Return the road edges that have at least two points, boundaries and medians alike."""
    lines = [features.polyline(int(row)) for row in features.rows(MapKind.ROAD_EDGE)]
    return [line.astype(np.float32) for line in lines if len(line) >= 2]


def index_edges(lines: list[Float32[np.ndarray, "_ 3"]]) -> EdgeIndex:
    """Return the segments of the polylines with their neighbours.

    A closed polyline (its ends less than 1 m apart) goes round only if none is longer: the official code pads all
    to the longest and looks for the neighbour in the last column.
    """
    longest = max(len(line) for line in lines)
    start, along, before, after, first = [], [], [], [], [0]
    offset = 0
    for line in lines:
        count = len(line) - 1
        rows = np.arange(offset, offset + count)
        gap = line[-1] - line[0]
        closed = len(line) == longest and bool((gap * gap).sum() < 1)
        start.append(line[:-1])
        along.append(line[1:] - line[:-1])
        before.append(np.concatenate([[rows[-1] if closed else -1], rows[:-1]]))
        after.append(np.concatenate([rows[1:], [rows[0] if closed else -1]]))
        first += [offset + min(k + _CHUNK, count) for k in range(0, count, _CHUNK)]
        offset += count
    starts, ends = np.concatenate(start), np.concatenate([line[1:] for line in lines])
    low, high = np.minimum(starts, ends)[:, :2], np.maximum(starts, ends)[:, :2]
    cuts = np.array(first[:-1])
    return EdgeIndex(
        start=np.ascontiguousarray(starts),
        along=np.concatenate(along),
        before=np.concatenate(before).astype(np.int32),
        after=np.concatenate(after).astype(np.int32),
        first=np.array(first, np.int32),
        box=np.concatenate([np.minimum.reduceat(low, cuts), np.maximum.reduceat(high, cuts)], 1),
    )


@compiled
@no_type_check
def _stretched_distance(px, py, pz, start, along, i):
    """Return the distance to segment i with its vertical part counted three times."""
    t = min(max(projection(px, py, start, along, i), _ZERO), _ONE)
    dx = (px - start[i, 0]) - t * along[i, 0]
    dy = (py - start[i, 1]) - t * along[i, 1]
    dz = ((pz - start[i, 2]) - t * along[i, 2]) * _Z_STRETCH
    return np.float32(math.sqrt(dx * dx + dy * dy + dz * dz))


@compiled
@no_type_check
def _side(px, py, start, along, i):
    """Return 1 on the right of segment i, -1 on its left, 0 on its line."""
    cross = (px - start[i, 0]) * along[i, 1] - (py - start[i, 1]) * along[i, 0]
    return np.float32(np.sign(cross))


@compiled
@no_type_check
def _signed_distance(px, py, start, along, before, after, i):
    """Return the planar distance to segment i with the sign of its side; at a corner of the edge both segments vote."""
    unclipped = projection(px, py, start, along, i)
    t = min(max(unclipped, _ZERO), _ONE)
    dx = (px - start[i, 0]) - t * along[i, 0]
    dy = (py - start[i, 1]) - t * along[i, 1]
    side = _side(px, py, start, along, i)
    first, second, other = -1, -1, -1
    if unclipped < 0 and before[i] >= 0:
        first, second, other = before[i], i, before[i]
    elif unclipped > 1 and after[i] >= 0:
        first, second, other = i, after[i], after[i]
    if other >= 0:
        turns_left = along[first, 0] * along[second, 1] - along[first, 1] * along[second, 0] > 0
        vote = _side(px, py, start, along, other)
        side = max(side, vote) if turns_left else min(side, vote)
    return np.float32(math.sqrt(dx * dx + dy * dy)) * side


@compiled
@no_type_check
def _box_gap(px, py, box, chunk):
    """Return how far [m] the point lies outside a chunk's bounding box."""
    dx = max(max(box[chunk, 0] - px, px - box[chunk, 2]), _ZERO)
    dy = max(max(box[chunk, 1] - py, py - box[chunk, 3]), _ZERO)
    return np.float32(math.sqrt(dx * dx + dy * dy))


@compiled
@no_type_check
def distance_to_road_edge(
    x, y, z, cos, sin, length, width, height, valid, rows, first_step, start, along, before, after, first, box, out
):
    """Write to out [R, E, T - first_step] the largest signed distance [m] of the box's four bottom corners.

    Agents' inputs are [R, T, N], the rest an `EdgeIndex`. The nearest segment of a corner is the first one of least
    distance; chunks of segments are left out only where their bounding box is further away than a segment at hand.
    """
    runs, steps, _ = x.shape
    chunks = len(box)
    corner = np.empty((4, 2), np.float32)
    nearest = np.zeros(4, np.int64)
    least = np.empty(4, np.float32)
    near = np.empty(chunks, np.int64)
    for run in range(runs):
        for e in range(len(rows)):
            n = rows[e]
            nearest[:] = 0
            for step in range(first_step, steps):
                if not valid[run, step, n]:
                    out[run, e, step - first_step] = UNDEFINED
                    continue
                px, py = x[run, step, n], y[run, step, n]
                half_length, half_width = length[run, step, n] * _HALF, width[run, step, n] * _HALF
                bottom = z[run, step, n] - height[run, step, n] * _HALF
                corners(px, py, cos[run, step, n], sin[run, step, n], half_length, half_width, corner)
                # Rounding: of global coordinates, and of feet on long segments.
                margin = np.float32(1e-2) + np.float32(2e-6) * max(abs(px), abs(py))
                reach = np.float32(math.sqrt(half_length * half_length + half_width * half_width)) + margin
                furthest = _ZERO
                for k in range(4):
                    # The segment of the step before is a good guess, so most chunks fall away at once.
                    least[k] = _stretched_distance(corner[k, 0], corner[k, 1], bottom, start, along, nearest[k])
                    furthest = max(furthest, least[k])
                kept = 0
                for chunk in range(chunks):
                    if _box_gap(px, py, box, chunk) <= furthest + reach:
                        near[kept] = chunk
                        kept += 1
                value = np.float32(-np.inf)
                for k in range(4):
                    cx, cy = corner[k, 0], corner[k, 1]
                    for m in range(kept):
                        chunk = near[m]
                        if _box_gap(cx, cy, box, chunk) > least[k] + margin:
                            continue
                        for i in range(first[chunk], first[chunk + 1]):
                            distance = _stretched_distance(cx, cy, bottom, start, along, i)
                            if distance < least[k] or (distance == least[k] and i < nearest[k]):
                                least[k] = distance
                                nearest[k] = i
                    value = max(value, _signed_distance(cx, cy, start, along, before, after, nearest[k]))
                out[run, e, step - first_step] = value
