"""Policies that learn nothing: the baselines that anyone can score beside a model."""

from dataclasses import dataclass

import numpy as np

from traj_diffusion.scene import Plan, PlanRequest, Scene

PLAN_SECONDS = 8.0


@dataclass(frozen=True)
class ConstantVelocity:
    """Everybody goes on by the step taken last; heading and height are kept, and there is no noise.

    The velocity is the difference of the last two positions; of agents that were not there a step ago it is the
    recorded one.
    """

    name: str = "constant_velocity"
    history_steps: int = 2

    def encode(self, scene: Scene) -> None:
        """There is nothing to remember."""

    def plan(self, request: PlanRequest) -> Plan:
        """Return K equal futures."""
        state = request.state
        step = (state.position[:, :, -1] - state.position[:, :, -2])[..., :2] / state.dt
        return _hold(request, np.where(state.valid[:, :, -2, None], step, state.velocity[:, :, -1]))


@dataclass(frozen=True)
class Stationary:
    """Everybody stops at once and stays."""

    name: str = "stationary"
    history_steps: int = 1

    def encode(self, scene: Scene) -> None:
        """There is nothing to remember."""

    def plan(self, request: PlanRequest) -> Plan:
        """Return K equal futures."""
        return _hold(request, np.zeros_like(request.state.velocity[:, :, -1]))


def _hold(request: PlanRequest, velocity: np.ndarray) -> Plan:
    state, futures = request.state, request.futures
    steps = round(PLAN_SECONDS / state.dt)
    time = np.arange(1, steps + 1) * state.dt
    position = np.repeat(state.position[:, None, :, -1, None, :], steps, axis=3)
    position[..., :2] += velocity[:, None, :, None, :].astype(np.float64) * time[:, None]
    heading = np.repeat(state.heading[:, None, :, -1, None], steps, axis=3)
    held = np.repeat(velocity[:, None, :, None, :], steps, axis=3).astype(np.float32)
    return Plan(
        position=np.repeat(position, futures, axis=1),
        heading=np.repeat(heading, futures, axis=1),
        velocity=np.repeat(held, futures, axis=1),
        log_weight=np.zeros((state.worlds, futures), np.float32),
        dt=state.dt,
    )
