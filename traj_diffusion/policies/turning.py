"""Constant turn rate and velocity: everybody goes on along the circle that the last half second drew."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from traj_diffusion.geometry import rotate, wrap_angle
from traj_diffusion.policies.simple import PLAN_SECONDS
from traj_diffusion.scene import Plan, PlanRequest, Scene, WorldState

MAX_TURN_RATE = 1.9
"""rad/s, the limit of vehicles in `metrics.feasibility`; headings of boxes that flip by pi ask for more."""
STANDS = 0.5
"""m/s below which the recorded heading only jitters, so that nobody turns."""


@dataclass(frozen=True)
class ConstantTurnRate:
    """Speed and turn rate are kept (CTRV; Schubert, Richter & Wanielik 2008), without noise.

    The turn rate is that of the heading over the last 0.5 s, or as much of them as the agent was seen; it is limited
    to 1.9 rad/s, and 0 below 0.5 m/s. The velocity turns with the heading, so that a slip angle stays as it is.
    """

    name: str = "constant_turn_rate"
    history_steps: int = 6

    def encode(self, scene: Scene) -> None:
        """There is nothing to remember."""

    def plan(self, request: PlanRequest) -> Plan:
        """Return K equal futures."""
        state, futures = request.state, request.futures
        steps = round(PLAN_SECONDS / state.dt)
        time = np.arange(1, steps + 1) * state.dt
        rate = turn_rate(state)[:, :, None]
        turned = rate * time
        velocity = state.velocity[:, :, -1].astype(np.float64)[:, :, None]
        # The integral of a turning velocity is the chord: the velocity turned half as far, times sin(x) / x.
        chord = rotate(velocity, turned / 2) * (time * np.sinc(turned / (2 * np.pi)))[..., None]
        position = np.repeat(state.position[:, :, -1:], steps, axis=2)
        position[..., :2] += chord
        heading = state.heading[:, :, -1:] + turned

        def each(values: np.ndarray) -> np.ndarray:
            return np.repeat(values[:, None], futures, axis=1)

        return Plan(
            position=each(position),
            heading=each(heading.astype(np.float32)),
            velocity=each(rotate(velocity, turned).astype(np.float32)),
            log_weight=np.zeros((state.worlds, futures), np.float32),
            dt=state.dt,
        )


def turn_rate(state: WorldState) -> Float64[np.ndarray, "R A"]:
    """Return how fast each agent turns [rad/s]: the mean over its unbroken run of valid steps that ends now."""
    seen = np.minimum.accumulate(state.valid[..., ::-1], axis=-1)[..., ::-1]
    steps = wrap_angle(np.diff(state.heading.astype(np.float64), axis=-1)) * seen[..., :-1]
    count = seen[..., :-1].sum(-1)
    rate = steps.sum(-1) / (np.maximum(count, 1) * state.dt)
    moves = np.linalg.norm(state.velocity[:, :, -1], axis=-1) >= STANDS
    limited: Float64[np.ndarray, "R A"] = np.clip(rate, -MAX_TURN_RATE, MAX_TURN_RATE) * moves
    return limited
