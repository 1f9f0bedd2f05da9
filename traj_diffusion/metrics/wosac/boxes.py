"""Distance to the nearest object: signed distances between rectangles with rounded corners, in the x-y plane.

A rounded box is a smaller core box grown by a radius r, so two of them are as far apart as their cores, less both
radii. The cores' signed distance is that of the origin to the Minkowski sum of one and the mirrored other: an octagon.
"""

import math
from typing import no_type_check

import numpy as np

from traj_diffusion.metrics.compiled import compiled

NONE = np.float32(1e10)
"""The distance where there is nobody else."""

_ROUNDING = np.float32(0.7)
_TWO = np.float32(2)
_HALF = np.float32(0.5)


@compiled
@no_type_check
def corners(x, y, cos, sin, half_length, half_width, out):
    """Write the four corners to out [4, 2], counter-clockwise from the front right, on the grid of global float32."""
    for k in range(4):
        along = half_length if k == 0 or k == 1 else -half_length
        across = half_width if k == 1 or k == 2 else -half_width
        out[k, 0] = x + (cos * along - sin * across)
        out[k, 1] = y + (sin * along + cos * across)


@compiled
@no_type_check
def core_distance(a, a_cos, a_sin, b, b_cos, b_sin):
    """Return the signed distance of two rectangles given by `corners`: minus the penetration depth if they overlap."""
    # The octagon takes its edges from both boxes in turn, ordered by direction: find by how many quarter turns
    # the edges of b have to be renumbered so that its edge lies between the edges 0 and 1 of a.
    cos = a_cos * b_cos + a_sin * b_sin
    sin = a_cos * b_sin - a_sin * b_cos
    if cos > 0 and sin >= 0:
        turn = 0
    elif cos <= 0 and sin > 0:
        turn = 3
    elif cos < 0 and sin <= 0:
        turn = 2
    else:
        turn = 1
    inside = True
    best = np.float32(np.inf)
    px = a[0, 0] - b[(turn + 2) % 4, 0]
    py = a[0, 1] - b[(turn + 2) % 4, 1]
    for k in range(8):
        # Corner k of b mirrored through the origin is minus its corner k + 2.
        i = (k // 2 + 1) % 4
        j = (turn + (k + 1) // 2 + 2) % 4
        qx = a[i, 0] - b[j, 0]
        qy = a[i, 1] - b[j, 1]
        ex, ey = qx - px, qy - py
        best = min(best, px * px + py * py)
        cross = ey * px - ex * py
        if cross < 0:
            inside = False
        square = ex * ex + ey * ey
        if square > 0:
            t = -(px * ex + py * ey) / square
            if t >= 0 and t <= 1:
                best = min(best, cross * cross / square)
        px, py = qx, qy
    distance = np.float32(math.sqrt(best))
    return -distance if inside else distance


@compiled
@no_type_check
def nearest_object(x, y, cos, sin, length, width, valid, rows, first, out):
    """Write to out [R, E, T - first] how far [m] the agents `rows` [E] are from the nearest other; below 0: overlap.

    All inputs are [R, T, N]. Bounding circles decide who needs a closer look, and never change the result.
    """
    runs, steps, count = x.shape
    box = np.empty((count, 4, 2), np.float32)
    radius = np.empty(count, np.float32)
    reach = np.empty(count, np.float32)
    bound = np.empty(count, np.float32)
    for run in range(runs):
        for step in range(first, steps):
            for n in range(count):
                size = min(length[run, step, n], width[run, step, n])
                r = _ROUNDING * size / _TWO
                half_length = (length[run, step, n] - _TWO * r) * _HALF
                half_width = (width[run, step, n] - _TWO * r) * _HALF
                radius[n] = r
                reach[n] = r + np.float32(math.sqrt(half_length * half_length + half_width * half_width))
                corners(
                    x[run, step, n],
                    y[run, step, n],
                    cos[run, step, n],
                    sin[run, step, n],
                    half_length,
                    half_width,
                    box[n],
                )
            for e in range(len(rows)):
                ego = rows[e]
                best = NONE
                if valid[run, step, ego]:
                    ego_x, ego_y = x[run, step, ego], y[run, step, ego]
                    # Corners snap to the float32 grid, which is 4 mm wide 40 km from the origin.
                    margin = np.float32(1e-3) + np.float32(2e-6) * max(abs(ego_x), abs(ego_y))
                    start = -1
                    for n in range(count):
                        if n == ego or not valid[run, step, n]:
                            bound[n] = np.float32(np.inf)
                            continue
                        dx, dy = x[run, step, n] - ego_x, y[run, step, n] - ego_y
                        bound[n] = np.float32(math.sqrt(dx * dx + dy * dy)) - reach[n] - reach[ego] - margin
                        if start < 0 or bound[n] < bound[start]:
                            start = n
                    # The most promising one first, so that the others are seldom looked at.
                    for k in range(-1, count):
                        n = start if k < 0 else k
                        if start < 0 or (k == start) or bound[n] >= best:
                            continue
                        distance = core_distance(
                            box[ego],
                            cos[run, step, ego],
                            sin[run, step, ego],
                            box[n],
                            cos[run, step, n],
                            sin[run, step, n],
                        )
                        best = min(best, distance - radius[ego] - radius[n])
                out[run, e, step - first] = best
