"""Rollouts made by hand (constant velocity with a little noise), and crowds."""

from collections.abc import Callable

import numpy as np
import pytest

from traj_diffusion.scene import AgentKind, Rollouts, Scene
from traj_diffusion.testing import make_scene


def make_noisy(
    scene: Scene, rng: np.random.Generator, runs: int = 4, futures: int | None = 3, steps: int = 80
) -> Rollouts:
    """Return runs in which agents go on at their velocity, each pushed a little in a direction of its own."""
    agents, now, rows = scene.agents, scene.current_index, scene.sim_agents
    time = np.arange(1, steps + 1)[:, None] * scene.dt
    start = agents.position[rows, now, None, :2]
    straight = start + agents.velocity[rows, now, None].astype(float) * time

    def dream(count: int) -> np.ndarray:
        return straight + rng.normal(0, 0.3, (count, len(rows), 1, 2)) * time + rng.normal(0, 0.004, (*straight.shape,))

    position = np.zeros((runs, len(rows), steps, 3))
    position[..., :2] = dream(runs)
    heading = agents.heading[rows, now, None] + rng.normal(0, 0.01, (runs, len(rows), steps))
    origin = scene.agents.position[rows, now, :2].mean(0)
    return Rollouts(
        scene_id=scene.id,
        first_step=now + 1,
        dt=scene.dt,
        agent_id=agents.id[rows],
        kind=agents.kind[rows],
        position=position,
        heading=heading.astype(np.float32),
        valid=np.ones(position.shape[:3], bool),
        futures=None if futures is None else (dream(futures) - origin).astype(np.float32),
        futures_origin=None if futures is None else origin,
        provenance={"model": "constant velocity, pushed"},
    )


def make_crowd(count: int, scene_id: str = "crowd") -> Scene:
    """Return that many agents of all kinds on a grid, each on its own way, far from the origin of the map."""
    place = np.stack(np.divmod(np.arange(count), 20), -1) * 9.0 + np.array([31_000.0, -12_000.0])
    angle = np.arange(count) * 2.4
    velocity = np.stack([np.cos(angle), np.sin(angle)], -1) * (np.arange(count) % 12)[:, None]
    kinds = [list(AgentKind)[i % 3] for i in range(count)]
    return make_scene(place, velocity, heading=angle, kind=kinds, scene_id=scene_id)


@pytest.fixture
def noisy() -> Callable[..., Rollouts]:
    """The function `make_noisy`."""
    return make_noisy


@pytest.fixture
def crowd() -> Callable[..., Scene]:
    """The function `make_crowd`."""
    return make_crowd
