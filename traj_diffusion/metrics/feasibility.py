"""Who moves as no such thing can move: acceleration, jerk, yaw rate and lateral acceleration beyond limits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from traj_diffusion.geometry import wrap_angle
from traj_diffusion.metrics.figures import Figures, absent, by_kind, tally, with_kinds
from traj_diffusion.metrics.matching import AgentSet, Matched
from traj_diffusion.scene import AgentKind

WINDOW = 0.5
"""Seconds over which each derivative is taken; tick by tick, the noise of a recording at 10 Hz exceeds any limit."""
_G = 9.81


@dataclass(frozen=True)
class Limits:
    """What a kind of agent can do at most; infinity where nothing is known to bound it."""

    acceleration: float  # m/s^2, change of speed, either sign
    jerk: float  # m/s^3, change of that
    yaw_rate: float  # rad/s
    lateral_acceleration: float  # m/s^2, speed times yaw rate


LIMITS: Mapping[AgentKind, Limits] = {
    # Dry asphalt carries 0.8 to 0.9 g in any direction (Wong, Theory of Ground Vehicles, peak adhesion). Jerk and yaw
    # rate are twice what nuPlan asks of a comfortable drive (8.37 m/s^3 and 0.95 rad/s, its metrics ego_jerk and
    # ego_yaw_rate): emergency braking builds up in half a second, and at 1.9 rad/s a car on a 5 m turn already skids.
    AgentKind.VEHICLE: Limits(0.9 * _G, 16.7, 1.9, 0.9 * _G),
    # A rider goes over the handlebars near 0.56 g, and tyres slide near 0.8 g (Wilson, Bicycling Science).
    AgentKind.CYCLIST: Limits(0.56 * _G, math.inf, math.inf, 0.8 * _G),
    # A sprinter's speed rises about as 10 m/s (1 - exp(-t / 1.3 s)), the form that Furusawa, Hill & Parkinson 1927
    # found, so by 5.3 m/s^2 between the means of two half seconds; people turn on the spot.
    AgentKind.PEDESTRIAN: Limits(6.0, math.inf, math.inf, math.inf),
    AgentKind.OTHER: Limits(math.inf, math.inf, math.inf, math.inf),
}
_NAMES = {
    "acceleration": "infeasible_acceleration_rate",
    "jerk": "infeasible_jerk_rate",
    "yaw_rate": "infeasible_turning_rate",
    "lateral_acceleration": "infeasible_lateral_rate",
}


def infeasibility(matched: Matched, agents: AgentSet = AgentSet.EVALUATED) -> Figures:
    """Return shares of (rollout, agent) pairs that exceed a limit of their kind at any step. [0, 1], lower is better.

    `infeasible_acceleration_rate`, `infeasible_jerk_rate`, `infeasible_turning_rate` (yaw rate) and
    `infeasible_lateral_rate` (lateral acceleration) for those kinds that have such a limit, and `infeasible_rate` for
    any of them, also per kind. Speed is the distance between two positions `WINDOW` = 0.5 s apart, its changes
    likewise, history included, so that a jump at the first simulated step shows. Limits and their sources: `LIMITS`.
    The idea is Waymax's kinematic infeasibility (Gulino et al. 2023), with measured limits instead of those of a
    bicycle model.
    """
    names = [*_NAMES.values(), *with_kinds("infeasible_rate")]
    chosen = matched.counted(agents)
    if not chosen.any():
        return absent(names, "no agent to count")
    value, judged = _kinematics(matched)
    limit = np.array([[getattr(LIMITS[AgentKind(kind)], part) for kind in matched.kind] for part in _NAMES])
    exceeded = np.any(judged & (value > limit[:, None, :, None]), axis=-1)
    seen = np.any(judged, axis=-1) & chosen
    found: Figures = {}
    for at, name in enumerate(_NAMES.values()):
        counted = seen[at] & np.isfinite(limit[at])
        reason = "no counted agent has this limit, or enough valid steps"
        found[name] = tally(exceeded[at].astype(np.float64), counted, reason)
    reason = "no counted agent has enough valid steps"
    return found | by_kind("infeasible_rate", np.any(exceeded, axis=0), np.any(seen, axis=0), matched.kind, reason)


def _kinematics(matched: Matched) -> tuple[Float64[np.ndarray, "4 R A T"], Bool[np.ndarray, "4 R A T"]]:
    """Return the four quantities at each step that ends in the future, and where they can be had."""
    runs = len(matched.valid)
    position, heading, valid = matched.past

    def joined(past: np.ndarray, future: np.ndarray) -> np.ndarray:
        return np.concatenate([np.broadcast_to(past[None], (runs, *past.shape)), future], axis=2)

    xy = joined(position[..., :2], matched.position[..., :2])
    angle, there = joined(heading, matched.heading).astype(np.float64), joined(valid, matched.valid)
    lag = max(1, round(WINDOW / matched.dt))
    seconds = lag * matched.dt

    def change(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values[t] - values[t - lag] and where both are known, at the index t."""
        difference, both = np.zeros_like(values), np.zeros_like(known)
        difference[:, :, lag:] = values[:, :, lag:] - values[:, :, :-lag]
        both[:, :, lag:] = known[:, :, lag:] & known[:, :, :-lag]
        return difference, both

    step, moved = change(xy, there)
    speed = np.linalg.norm(step, axis=-1) / seconds
    turn, turned = change(angle, there)
    yaw_rate = np.abs(wrap_angle(turn)) / seconds
    faster, has_acceleration = change(speed, moved)
    acceleration = faster / seconds
    harder, has_jerk = change(acceleration, has_acceleration)
    value = np.stack([np.abs(acceleration), np.abs(harder) / seconds, yaw_rate, speed * yaw_rate])
    known = np.stack([has_acceleration, has_jerk, turned, turned & moved])
    future = position.shape[1]
    return value[..., future:], known[..., future:]
