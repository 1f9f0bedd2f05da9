"""Recordings of any step on steps of 0.1 s."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from traj_diffusion.geometry import wrap_angle

DT = 0.1
_SAME = 1e-6  # s


@dataclass(frozen=True)
class Resampled:
    """One agent on the steps asked for; where it was not there, zeros."""

    values: Float64[np.ndarray, "T D"]
    heading: Float64[np.ndarray, " T"]
    valid: Bool[np.ndarray, " T"]
    between: int  # steps that lie between recorded ones


def resample_track(
    time: Float64[np.ndarray, " S"],
    values: Float64[np.ndarray, "S D"],
    heading: Float64[np.ndarray, " S"],
    at: Float64[np.ndarray, " T"],
    longest: float,
) -> Resampled:
    """Return recorded values at times `at` [s]: linear between samples at most `longest` seconds apart.

    Headings go the short way round and stay as recorded, bit for bit, at steps that were recorded; so do values.
    `time` must increase. Nothing is invented before the first sample, after the last, and in longer gaps.
    """
    left = np.clip(np.searchsorted(time, at + _SAME, side="right") - 1, 0, len(time) - 1)
    right = np.minimum(left + 1, len(time) - 1)
    exact = np.abs(time[left] - at) <= _SAME
    gap = time[right] - time[left]
    inside = ~exact & (time[left] < at) & (at < time[right]) & (gap <= longest + _SAME)
    share = np.where(inside, (at - time[left]) / np.where(gap > 0, gap, 1.0), 0.0)
    valid = exact | inside
    found = values[left] + share[:, None] * (values[right] - values[left])
    turned = heading[left] + share * wrap_angle(heading[right] - heading[left])
    return Resampled(
        values=np.where(valid[:, None], found, 0.0),
        heading=np.where(valid, turned, 0.0),
        valid=valid,
        between=int(inside.sum()),
    )
