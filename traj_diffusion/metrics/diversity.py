"""How far the rollouts lie apart. Higher is more varied; it says nothing about being right.

The distance of two rollouts of one agent is the mean over the steps at which it is valid in both, in the x-y plane; the
final one is that at the last step. The joint distance of two rollouts is the mean over agents.
"""

import numpy as np
from jaxtyping import Bool, Float64

from traj_diffusion.metrics.figures import Figures, Tally, absent, tally
from traj_diffusion.metrics.matching import AgentSet, Matched

_NAMES = [f"{which}_{name}" for which in ("joint", "marginal") for name in ("apd", "fpd", "asd", "fsd")]


def diversity(matched: Matched, agents: AgentSet = AgentSet.EVALUATED) -> Figures:
    """Return pairwise and self distances, each in [0, inf) m, higher is more varied.

    - `apd`, `fpd`: average and final distance of two different rollouts, over all pairs (APD of Yuan & Kitani 2020,
      "DLow", here per step instead of over the flattened future). It is linear in the agents, so `joint_`
      and `marginal_` differ only in how scenes are weighted: by scene or by agent.
    - `asd`, `fsd`: average and final distance of a rollout to the one nearest to it (Yuan & Kitani 2019, "Diverse
      Trajectory Forecasting with Determinantal Point Processes"), nearest jointly or for each agent.
    """
    runs = matched.valid.shape[0]
    chosen = matched.counted(agents)
    if runs < 2:
        return absent(_NAMES, "one rollout has no other to differ from")
    if not chosen.any():
        return absent(_NAMES, "no agent to count")
    xy, valid = matched.position[:, chosen, :, :2], matched.valid[:, chosen]
    average, final = _distances(xy, valid)
    found: Figures = {}
    for name, distance in (("a", average), ("f", final)):
        has = np.isfinite(distance).all((0, 1))
        reason = "no counted agent is valid in every pair of rollouts"
        if not has.any():
            found |= absent([n for n in _NAMES if n.split("_")[1][0] == name], reason)
            continue
        kept = distance[..., has]
        joint = kept.mean(-1)
        pairs = runs * (runs - 1)
        away = np.where(np.eye(runs, dtype=bool)[..., None], np.inf, kept)
        found[f"joint_{name}pd"] = Tally(float(joint.sum() / pairs), 1)
        found[f"joint_{name}sd"] = Tally(float(np.where(np.eye(runs, dtype=bool), np.inf, joint).min(1).mean()), 1)
        everyone = np.ones(int(has.sum()), bool)
        found[f"marginal_{name}pd"] = tally(kept.sum((0, 1)) / pairs, everyone, reason)
        found[f"marginal_{name}sd"] = tally(away.min(1).mean(0), everyone, reason)
    return found


def _distances(
    xy: Float64[np.ndarray, "R A F 2"], valid: Bool[np.ndarray, "R A F"]
) -> tuple[Float64[np.ndarray, "R R A"], Float64[np.ndarray, "R R A"]]:
    """Return mean and final distance of all pairs of rollouts, per agent; NaN where a pair shares no valid step."""
    runs, agents = valid.shape[:2]
    average, final = np.zeros((runs, runs, agents)), np.zeros((runs, runs, agents))
    for run in range(runs):
        distance = np.linalg.norm(xy[run] - xy, axis=-1)
        both = valid[run] & valid
        count = both.sum(-1)
        average[run] = np.where(count > 0, (distance * both).sum(-1) / np.maximum(count, 1), np.nan)
        final[run] = np.where(both[..., -1], distance[..., -1], np.nan)
    return average, final
