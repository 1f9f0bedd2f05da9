"""Which agent of some rollouts is which of their scene, and what all of them look like now."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from traj_diffusion.errors import BadRollouts
from traj_diffusion.scene import Rollouts, Scene


@dataclass(frozen=True)
class Futures:
    """Lines that agents may follow: K of them for each of A agents, from the present position on."""

    row: Int64[np.ndarray, " A"]  # of the scene's agents
    xy: Float64[np.ndarray, "K A F 2"]
    valid: Bool[np.ndarray, "K A F"]


def scene_rows(scene: Scene, rollouts: Rollouts) -> Int64[np.ndarray, " A"]:
    """Return the row among the scene's agents of each agent of the rollouts.

    Raises BadRollouts where the rollouts belong to another scene.
    """
    where = f"rollouts of scene {rollouts.scene_id!r}"
    rollouts.check(where)
    if rollouts.scene_id != scene.id:
        raise BadRollouts(f"{where}: cannot be drawn on scene {scene.id!r}")
    if abs(rollouts.dt - scene.dt) > 1e-6:
        raise BadRollouts(f"{where}: steps of {rollouts.dt} s; the scene has steps of {scene.dt} s")
    if rollouts.first_step != scene.current_index + 1:
        raise BadRollouts(
            f"{where}: first step is {rollouts.first_step}; the one after the scene's current index is "
            f"{scene.current_index + 1}"
        )
    row_of = {int(agent): row for row, agent in enumerate(scene.agents.id)}
    missing = [int(agent) for agent in rollouts.agent_id if int(agent) not in row_of]
    if missing:
        raise BadRollouts(f"{where}: agent {missing[0]} is not in the scene")
    return np.array([row_of[int(agent)] for agent in rollouts.agent_id], np.int64)


def planned_futures(scene: Scene, rollouts: Rollouts) -> Futures:
    """Return the K joint futures first sampled; the R runs themselves where the rollouts keep no futures."""
    row = scene_rows(scene, rollouts)
    now = scene.agents.position[row, scene.current_index, :2]
    here = scene.agents.valid[row, scene.current_index]
    if rollouts.futures is not None and rollouts.futures_origin is not None:
        xy = rollouts.futures + rollouts.futures_origin
        valid = np.isfinite(xy).all(-1)
    else:
        xy, valid = rollouts.position[..., :2], rollouts.valid
    first = np.broadcast_to(now[None, :, None], (*xy.shape[:2], 1, 2))
    start = np.broadcast_to(here[None, :, None], (*xy.shape[:2], 1))
    return Futures(row, np.concatenate([first, xy], 2), np.concatenate([start, valid], 2))
