"""States between two known ones, by the body's own motion rather than along a straight line."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from traj_diffusion.geometry import wrap_angle

# Gauss-Legendre nodes and weights on [0, 1]: exact for polynomials up to degree 7.
_NODES, _WEIGHTS = ([float(value) for value in part] for part in np.polynomial.legendre.leggauss(4))
_NODES, _WEIGHTS = [(node + 1) / 2 for node in _NODES], [weight / 2 for weight in _WEIGHTS]


class Motion(NamedTuple):
    """Where some bodies are at one moment: centres, headings, velocities of the centres."""

    position: Float64[np.ndarray, "A 3"]
    heading: Float32[np.ndarray, " A"]
    velocity: Float32[np.ndarray, "A 2"]


def between(
    start: Motion,
    end: Motion,
    seconds: float | Float64[np.ndarray, " A"],
    share: float | Float64[np.ndarray, " A"],
) -> Motion:
    """Return the states at `share` in [0, 1] of the `seconds` from `start` to `end`.

    The body turns at a constant rate, the short way round, and its velocity, as it itself sees it (forward and to its
    left), changes linearly: constant acceleration and turn rate, the motion model of `kinematics`. Where the two
    positions say otherwise (recorded noise, a push) the difference is spread evenly. Both ends are met exactly.
    """
    before, after = start.heading.astype(np.float64), end.heading.astype(np.float64)
    turn = wrap_angle(after - before)
    first = _complex(start.velocity) * np.exp(-1j * before)
    last = _complex(end.velocity) * np.exp(-1j * after)

    def velocity(at: float | np.ndarray) -> np.ndarray:
        return (first + (last - first) * at) * np.exp(1j * (before + turn * at))

    def moved(until: float | np.ndarray) -> np.ndarray:
        pieces = [weight * velocity(until * node) for node, weight in zip(_NODES, _WEIGHTS, strict=True)]
        total: np.ndarray = np.sum(pieces, axis=0) * until * seconds
        return total

    gap = end.position - start.position
    left_over = _complex(gap[..., :2]) - moved(1.0)
    step = moved(share) + left_over * share
    place = np.stack([step.real, step.imag, gap[..., 2] * share], -1) + start.position
    pace = velocity(share)
    return Motion(
        place,
        (before + turn * share).astype(np.float32),
        np.stack([pace.real, pace.imag], -1).astype(np.float32),
    )


def _complex(vector: np.ndarray) -> np.ndarray:
    return vector[..., 0].astype(np.float64) + 1j * vector[..., 1]
