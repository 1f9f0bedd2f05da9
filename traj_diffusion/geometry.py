"""Frames, angles, boxes and arc length: one implementation each, for numpy arrays and torch tensors alike.

Conventions: metres and radians, x east, y north, angles counter-clockwise from +x. A pose is (x, y, heading).
"""

import math
import sys
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

# An np.ndarray or a torch.Tensor; functions return the kind that they were given.
Array = TypeVar("Array", bound=Any)


def namespace(array: Any) -> ModuleType:
    """Return torch for a tensor and numpy for everything else, without importing torch."""
    if type(array).__module__.partition(".")[0] == "torch":
        return sys.modules["torch"]
    return np


def wrap_angle(angle: Array) -> Array:
    """Return the angle [rad] in [-pi, pi), as floormod(angle + pi, 2 pi) - pi."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def rotate(xy: Array, angle: Array) -> Array:
    """Return the vectors `xy` [..., 2] turned counter-clockwise by `angle` [...]."""
    xp = namespace(xy)
    cos, sin = xp.cos(angle), xp.sin(angle)
    x, y = xy[..., 0], xy[..., 1]
    return xp.stack([cos * x - sin * y, sin * x + cos * y], -1)


def to_local(xy: Array, origin: Array, heading: Array) -> Array:
    """Return world points `xy` [..., 2] in the frame at `origin` [..., 2] facing `heading` [...]."""
    return rotate(xy - origin, -heading)


def to_world(xy: Array, origin: Array, heading: Array) -> Array:
    """Return points `xy` [..., 2] of the frame at `origin` facing `heading` in world coordinates."""
    return rotate(xy, heading) + origin


def box_corners(centre: Array, heading: Array, length: Array, width: Array) -> Array:
    """Return the corners [..., 4, 2] of boxes, counter-clockwise from the front left."""
    xp = namespace(centre)
    half_length, half_width = length / 2, width / 2
    along = xp.stack([half_length, -half_length, -half_length, half_length], -1)
    across = xp.stack([half_width, half_width, -half_width, -half_width], -1)
    return to_world(xp.stack([along, across], -1), centre[..., None, :], heading[..., None])


def arc_length(points: np.ndarray) -> np.ndarray:
    """Return the distance [m] along a polyline [P, 2 or 3] from its start to each of its points [P]."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=-1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def resample(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the polyline's points [len(at), D] at the distances `at` [m] along it; beyond an end, that end."""
    along = arc_length(points)
    return np.stack([np.interp(at, along, points[:, axis]) for axis in range(points.shape[1])], -1)
