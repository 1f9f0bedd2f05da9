"""The foot of a point on a segment, which road edges and lanes share."""

from typing import no_type_check

import numpy as np

from traj_diffusion.metrics.compiled import compiled

_ZERO = np.float32(0)


@compiled
@no_type_check
def projection(px, py, start, along, i):
    """Return where along segment i (0 start, 1 end) the point's foot lies, unclipped; 0 where it has no length."""
    dx, dy = along[i, 0], along[i, 1]
    square = dx * dx + dy * dy
    if square > 0:
        return ((px - start[i, 0]) * dx + (py - start[i, 1]) * dy) / square
    return _ZERO
