"""Time to collision: how soon an agent would hit the one that it follows if both kept their speed."""

import math
from typing import no_type_check

import numpy as np

from traj_diffusion.metrics.compiled import compiled

LIMIT = np.float32(5)
"""The longest time [s], also where nobody is followed."""

_HALF = np.float32(0.5)
_MAX_TURN = np.float32(math.radians(75))
_MAX_TURN_SMALL_OVERLAP = np.float32(math.radians(10))
_SMALL_OVERLAP = np.float32(-0.5)


@compiled
@no_type_check
def time_to_collision(x, y, heading, cos, sin, speed, length, width, valid, rows, first, out):
    """Write to out [R, E, T - first] the time [s] of the agents `rows` [E]. Inputs are [R, T, N], `speed` is planar.

    The difference of two headings is not wrapped, as in the official code: headings that straddle ±pi do not match.
    """
    runs, steps, count = x.shape
    for run in range(runs):
        for step in range(first, steps):
            for e in range(len(rows)):
                ego = rows[e]
                ego_x, ego_y = x[run, step, ego], y[run, step, ego]
                c, s = cos[run, step, ego], sin[run, step, ego]
                half_length = length[run, step, ego] * _HALF
                half_width = width[run, step, ego] * _HALF
                leader = -1
                nearest = np.float32(np.inf)
                for n in range(count):
                    if not valid[run, step, n] or n == ego:
                        continue
                    turn = abs(heading[run, step, n] - heading[run, step, ego])
                    if not turn <= _MAX_TURN:
                        continue
                    dx, dy = x[run, step, n] - ego_x, y[run, step, n] - ego_y
                    along = c * dx + s * dy
                    if along <= half_length:
                        continue
                    across = c * dy - s * dx
                    turn_cos, turn_sin = abs(np.float32(math.cos(turn))), abs(np.float32(math.sin(turn)))
                    other_length, other_width = length[run, step, n] * _HALF, width[run, step, n] * _HALF
                    gap = along - half_length - (other_length * turn_cos + other_width * turn_sin)
                    if not gap > 0 or not gap < nearest:
                        continue
                    overlap = abs(across) - half_width - (other_length * turn_sin + other_width * turn_cos)
                    if overlap < _SMALL_OVERLAP or (overlap < 0 and turn <= _MAX_TURN_SMALL_OVERLAP):
                        nearest = gap
                        leader = n
                value = LIMIT
                if leader >= 0:
                    closing = speed[run, step, ego] - speed[run, step, leader]
                    if closing > 0:  # False for the NaN speeds at the ends
                        value = min(nearest / closing, LIMIT)
                out[run, e, step - first] = value
