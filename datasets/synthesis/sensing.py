"""What a recording vehicle makes of the truth: position noise, frozen labels of what stands, gaps, late arrivals.

Ranges are wide on purpose (a published lidar tracker's error is some centimetres); docs/synthesis.md gives them.
"""

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from traj_diffusion.datasets.synthesis.motion import coloured
from traj_diffusion.scene import AgentKind

FROZEN = 0.3  # m; a vehicle that moves less gets one constant label, as offline labelling gives it


def add_noise(
    rng: np.random.Generator,
    kind: UInt8[np.ndarray, " N"],
    centre: Float64[np.ndarray, "N T 2"],
    heading: Float64[np.ndarray, "N T"],
    speed: Float64[np.ndarray, "N T"],
    frozen: Bool[np.ndarray, " N"],
    ego: int,
) -> tuple[Float64[np.ndarray, "N T 2"], Float64[np.ndarray, "N T"]]:
    """Return centres and headings as measured. The ego knows its pose to millimetres; what is frozen has none."""
    count, steps = heading.shape

    def log_uniform(low: float, high: float) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high), (count, 1)))

    walks, rides = (kind == AgentKind.PEDESTRIAN)[:, None], (kind == AgentKind.CYCLIST)[:, None]
    along = log_uniform(0.003, 0.02) * np.where(rides, 2.0, 1.0) * np.where(rng.random((count, 1)) < 0.05, 4.0, 1.0)
    across = along * np.where(walks, 1.0, rng.uniform(0.2, 0.6, (count, 1)))
    turn = log_uniform(0.0003, 0.003) * np.where(walks, 6.0, np.where(rides, 3.0, 1.0))
    slow_along = log_uniform(0.005, 0.04)
    slow_across = slow_along * rng.uniform(0.2, 0.5, (count, 1))
    slow_turn = log_uniform(0.0005, 0.005) * np.where(walks, 4.0, 1.0)
    own = np.arange(count)[:, None] == ego
    along, across = np.where(own, 0.002, along), np.where(own, 0.001, across)
    turn = np.where(own, 0.0003, turn)
    slow_along, slow_across, slow_turn = (np.where(own, 0.0, value) for value in (slow_along, slow_across, slow_turn))
    white = rng.standard_normal((3, count, steps))
    white[2] *= np.where(rng.random((count, steps)) < 0.03, 5.0, 1.0)
    slow = np.stack([coloured(rng, 3 * count * steps, 3.0)]).reshape(3, count, steps)
    calm = np.clip(speed, 0.5, 1.0) * ~frozen[:, None]
    restless = np.where(walks & (speed < 0.2), 4.0, 1.0)  # a standing pedestrian has no clear heading
    forward = (along * white[0] + slow_along * slow[0]) * calm
    aside = (across * white[1] + slow_across * slow[1]) * calm
    cos, sin = np.cos(heading), np.sin(heading)
    moved = centre + np.stack([forward * cos - aside * sin, forward * sin + aside * cos], -1)
    return moved, heading + (turn * white[2] + slow_turn * slow[2]) * calm * restless


def lose_tracks(
    rng: np.random.Generator,
    valid: Bool[np.ndarray, "N T"],
    distance: Float64[np.ndarray, "N T"],
    dt: float,
    ego: int,
    current: int,
) -> Bool[np.ndarray, "N T"]:
    """Return who is seen when: farther agents are found later and lost earlier, and some steps are missed.

    Occlusion has no model here; a hazard that grows with the square of the distance stands in for it.
    """
    count, steps = valid.shape
    hazard = rng.uniform(0.01, 0.04) + rng.uniform(0.03, 0.12) * (np.minimum(distance, 100.0) / 80.0) ** 2
    lost = rng.random((count, steps)) < hazard * dt
    after = np.arange(steps) > current
    # The first loss after the current step ends a track; one before it is the moment at which the track began.
    ended = np.cumsum(lost & after, axis=1) > 0
    unseen_yet = np.cumsum((lost & ~after)[:, ::-1], axis=1)[:, ::-1] > 0
    late = rng.random(count) < rng.uniform(0.05, 0.3) * np.minimum(distance.mean(1) / 60.0, 1.5)
    begins = np.where(late, rng.integers(1, steps - 5, count), 0)
    gap = rng.random((count, steps)) < 0.002
    gap |= np.roll(gap, 1, axis=1) & (rng.random((count, steps)) < 0.4)
    seen = valid & ~ended & ~unseen_yet & ~gap & (np.arange(steps) >= begins[:, None])
    # A track that came late has not been lost before it came.
    seen = np.where(late[:, None], valid & ~gap & (np.arange(steps) >= begins[:, None]), seen)
    seen[ego] = valid[ego]
    return seen
