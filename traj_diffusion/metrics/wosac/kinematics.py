"""Speeds and accelerations, linear and angular, as central differences in float32."""

import numpy as np
from jaxtyping import Float32

from traj_diffusion.metrics.wosac.configs import DT

Track = Float32[np.ndarray, "*lead T"]

_DT = np.float32(DT)
_DT2 = np.float32(DT * DT)
_TWO = np.float32(2)
_PI = np.float32(np.pi)
_TWO_PI = np.float32(2 * np.pi)


def central_difference(values: Track) -> Track:
    """Return (v[i + 1] - v[i - 1]) / 2 along time; NaN at both ends."""
    difference = np.full_like(values, np.nan)
    difference[..., 1:-1] = (values[..., 2:] - values[..., :-2]) / _TWO
    return difference


def wrap(angle: Track) -> Track:
    """Return the angle [rad] in [-pi, pi), in float32 all the way."""
    return (angle + _PI) % _TWO_PI - _PI


def linear_speed(x: Track, y: Track, z: Track | None = None) -> Track:
    """Return the speed [m/s] in three dimensions, or in the plane where `z` is None."""
    dx, dy = central_difference(x), central_difference(y)
    square = dx * dx + dy * dy
    if z is not None:
        dz = central_difference(z)
        square = square + dz * dz
    return np.sqrt(square) / _DT


def linear_acceleration(speed: Track) -> Track:
    """Return the signed change of the speed's magnitude [m/s²]."""
    return central_difference(speed) / _DT


def angular_motion(heading: Track) -> tuple[Track, Track]:
    """Return yaw rate [rad/s] and yaw acceleration [rad/s²]. What is wrapped is the difference over two steps."""
    change = wrap(central_difference(heading) * _TWO) / _TWO
    return change / _DT, (wrap(central_difference(change) * _TWO) / _TWO) / _DT2
