"""The oracle and its blurred twin: the recorded future as rollouts, exact or with noise that grows over time.

They hold the full scene, as no policy does, so they are no policies: they say what a perfect and a nearly perfect model
would score.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from traj_diffusion import __version__
from traj_diffusion.diffusion import keyed_normal
from traj_diffusion.errors import BadScene
from traj_diffusion.scene import Rollouts, Scene

LOG_REPLAY, LOG_NOISE = "log_replay", "log_noise"
NOISE = 1.0
"""Metres: standard deviation of the noise at the end of the `log_noise` baseline, along and across."""
_TURN = 0.02  # radians of heading noise per metre of position noise, at the end


def log_rollouts(scene: Scene, rollouts: int, noise: float = 0.0, seed: int = 0) -> Rollouts:
    """Return the recorded future of all simulated agents, `rollouts` times over.

    An agent that the recording loses stays at its last valid state. With `noise` [m] each agent of each run drifts off
    along and across its heading: smoothly, as the cube of time, to a normal offset of that standard deviation at the
    last step, and its heading by 0.02 rad per metre. Agents that the recording shows standing throughout do not drift.
    More rollouts leave the first ones as they were. Raises BadScene where there is no future or nobody to simulate.
    """
    if rollouts < 1 or noise < 0:
        raise ValueError(f"rollouts must be at least 1 and noise not negative, not {rollouts} and {noise}")
    rows, agents, first = scene.sim_agents, scene.agents, scene.current_index + 1
    steps = scene.steps - first
    if not len(rows) or not steps:
        raise BadScene(
            f"scene {scene.id}: {len(rows)} agents at its current index and {steps} steps after it; "
            "a replay of the log needs both"
        )
    last = last_valid(agents.valid[rows], first)
    position = np.repeat(agents.position[rows[:, None], last][None], rollouts, axis=0)
    heading = np.repeat(agents.heading[rows[:, None], last][None], rollouts, axis=0)
    if noise:
        share = (np.arange(1, steps + 1) / steps) ** 3
        draws = _draws(agents.id[rows], rollouts, seed) * _moving(position[0])[:, None]
        facing = heading.astype(np.float64)
        ahead = np.stack([np.cos(facing), np.sin(facing)], -1)
        left = np.stack([-ahead[..., 1], ahead[..., 0]], -1)
        drift = draws[:, :, None, 0, None] * ahead + draws[:, :, None, 1, None] * left
        position[..., :2] += noise * share[:, None] * drift
        heading = (facing + noise * _TURN * share * draws[:, :, 2, None]).astype(np.float32)
    return Rollouts(
        scene_id=scene.id,
        first_step=first,
        dt=scene.dt,
        agent_id=agents.id[rows],
        kind=agents.kind[rows],
        position=position,
        heading=heading,
        valid=np.ones(heading.shape, bool),
        size=np.repeat(agents.size[rows, scene.current_index][None], rollouts, axis=0),
        provenance={
            "model": LOG_NOISE if noise else LOG_REPLAY,
            "noise": noise,
            "seed": seed,
            "futures": 1,
            "version": __version__,
        },
    )


def last_valid(valid: Bool[np.ndarray, "A T"], first: int) -> Int64[np.ndarray, "A F"]:
    """Return for each step from `first` on the last one up to it that is valid; the step before `first` must be."""
    steps = np.where(valid, np.arange(valid.shape[1]), -1)
    held: Int64[np.ndarray, "A F"] = np.maximum.accumulate(steps, axis=1)[:, first:]
    return held


def _draws(ids: Int64[np.ndarray, " A"], rollouts: int, seed: int) -> Float64[np.ndarray, "R A 3"]:
    run = np.repeat(np.arange(rollouts), len(ids))
    return keyed_normal([seed, run, np.tile(ids, rollouts)], 3).astype(np.float64).reshape(rollouts, len(ids), 3)


def _moving(position: Float64[np.ndarray, "A F 3"]) -> Bool[np.ndarray, " A"]:
    """Return who leaves a circle of 1 m around where it is first."""
    return (np.linalg.norm(position - position[:, :1], axis=-1) > 1.0).any(-1)
