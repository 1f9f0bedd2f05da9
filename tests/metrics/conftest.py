"""Rollouts made by hand for the tests of this room."""

from collections.abc import Callable

import numpy as np
import pytest

from traj_diffusion.scene import Rollouts, Scene


def from_log(scene: Scene, runs: int = 1, offset: np.ndarray | None = None, **changes: object) -> Rollouts:
    """Return rollouts that repeat the recorded future, moved by `offset` (broadcast to [R, A, F, 3])."""
    rows, future = scene.sim_agents, slice(scene.current_index + 1, None)
    position = np.repeat(scene.agents.position[rows, future][None], runs, 0)
    if offset is not None:
        position = position + offset
    fields: dict[str, object] = {
        "scene_id": scene.id,
        "first_step": scene.current_index + 1,
        "dt": scene.dt,
        "agent_id": scene.agents.id[rows],
        "kind": scene.agents.kind[rows],
        "position": position,
        "heading": np.repeat(scene.agents.heading[rows, future][None], runs, 0),
        "valid": np.ones(position.shape[:3], bool),
    }
    return Rollouts(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def replay() -> Callable[..., Rollouts]:
    """Return `from_log`, which makes rollouts out of a scene's own future."""
    return from_log
