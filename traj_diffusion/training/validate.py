"""Validation by what a model is for: closed-loop rollouts of held-out scenes, and the metrics of them."""

from collections.abc import Mapping, Sequence

import numpy as np

from traj_diffusion.metrics import score, wosac
from traj_diffusion.model import TrafficDiffusion
from traj_diffusion.policies import DiffusionPolicy
from traj_diffusion.scene import Scene
from traj_diffusion.sim_adapter import rollout

ROLLOUTS = 6
FIGURES = ("joint_min_ade@6/8s", "collision_rate", "offroad_rate", "joint_apd")


def validation(scenes: Sequence[Scene], model: TrafficDiffusion) -> Mapping[str, float]:
    """Return means over the scenes, rolled out over 8 s with replanning at 2 Hz, of a few metrics.

    `validation/metametric` is WOSAC's of 2025 over these few rollouts: it tells checkpoints apart, and does not compare
    with figures of 32 rollouts.
    """
    policy = DiffusionPolicy(model.eval(), "validated")
    rows = []
    for scene in scenes:
        rollouts = rollout(scene, policy, rollouts=ROLLOUTS, seed=0)
        found = score(scene, rollouts)
        rows.append([*(found.get(name, np.nan) for name in FIGURES), wosac.score(scene, rollouts).metametric])
    means = np.nanmean(np.array(rows, np.float64), axis=0)
    return {f"validation/{name}": float(mean) for name, mean in zip((*FIGURES, "metametric"), means, strict=True)}
