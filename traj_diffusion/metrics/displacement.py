"""Distance between the log and the best of K samples: jointly for the scene, and for each agent on its own.

The R rollouts count as K joint samples, the first K of them. **Joint** figures pick one rollout for the whole scene
(min over rollouts of the mean over agents), **marginal** ones pick one for each agent, which is easier: marginal <=
joint always. Names carry K and the horizon, e.g. `joint_min_ade@32/8s/vehicle`; a kind's joint figure picks
its rollout by that kind alone. Distances are in the x-y plane. Only steps that are valid in the log count; a rollout
in which an agent has left is measured from where that agent was last seen.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from traj_diffusion.errors import BadRollouts
from traj_diffusion.geometry import to_local
from traj_diffusion.metrics.figures import Absent, Figure, Figures, Tally, absent, tally
from traj_diffusion.metrics.matching import AgentSet, Matched
from traj_diffusion.metrics.soft import soft_figures
from traj_diffusion.scene import AgentKind

HORIZONS = (3.0, 5.0, 8.0)
ARGOVERSE_MISS = 2.0
"""Metres at the last step: Chang et al. 2019 (Argoverse); Wilson et al. 2021 (Argoverse 2) keep it."""
WOMD_MISS = {3.0: (1.0, 2.0), 5.0: (1.8, 3.6), 8.0: (3.0, 6.0)}
"""Horizon [s] -> lateral, longitudinal threshold [m]: Ettinger et al. 2021 (WOMD) and its motion-metrics
configuration. Scaled by `womd_speed_scale`."""


def womd_speed_scale(speed: Float64[np.ndarray, " A"]) -> Float64[np.ndarray, " A"]:
    """Return the factor on WOMD's miss thresholds: 0.5 up to 1.4 m/s now, 1 from 11 m/s on, linear between."""
    return np.interp(speed, [1.4, 11.0], [0.5, 1.0])


def displacement(
    matched: Matched,
    samples: int | None = None,
    horizons: Sequence[float] = HORIZONS,
    agents: AgentSet = AgentSet.EVALUATED,
) -> Figures:
    """Return displacement errors, miss rates and, where the rollouts have weights, Brier-corrected errors.

    For each horizon, over all kinds and per kind (range, unit; lower is better for every one):

    - `mean_ade`: mean over rollouts, agents and valid steps up to the horizon. [0, inf) m
    - `joint_min_ade`, `marginal_min_ade`: the same, best rollout (Chang et al. 2019; joint as minSADE of Casas et al.
      2020, "Implicit Latent Variable Model for Scene-Consistent Motion Forecasting"). [0, inf) m
    - `joint_min_fde`, `marginal_min_fde`: error at the horizon itself, for agents that are valid there. [0, inf) m
    - `joint_miss_rate_argoverse`, `marginal_...`: share of agents more than 2 m off at the horizon. [0, 1]
    - `joint_miss_rate_womd`, `marginal_...`: share of agents beyond WOMD's lateral or longitudinal threshold, in the
      frame of the logged heading at the horizon; at 3, 5 and 8 s only. `.../any` instead of a horizon: beyond it at any
      of the horizons that are asked for. [0, 1]
    - `joint_soft_min_ade`, `joint_soft_min_fde`, `marginal_...`: see `soft.soft_minimum`. [0, inf) m
    - `soft_miss_rate_argoverse`, `soft_miss_rate_womd`: share missed by one rollout drawn by its weight. [0, 1]
    - `joint_brier_min_fde`, `marginal_...`: error of the rollout with the least final error, plus (1 - p)^2 with p its
      weight among the K (Wilson et al. 2021, brier-minFDE). [0, inf)

    `samples` is K. Raises BadRollouts where there are fewer rollouts.
    """
    runs = matched.valid.shape[0]
    samples = runs if samples is None else samples
    if not 0 < samples <= runs:
        raise BadRollouts(f"{matched.scene.id}: {runs} rollouts; {samples} samples were asked for, at least 1 fits")
    subsets = {"": matched.counted(agents)}
    subsets |= {f"/{kind.name.lower()}": subsets[""] & (matched.kind == kind) for kind in AgentKind}
    error = np.linalg.norm(matched.position[:samples, ..., :2] - matched.log_position[..., :2], axis=-1)
    weights = (
        None if matched.weights is None else matched.weights[:samples] / max(matched.weights[:samples].sum(), 1e-12)
    )
    missed_any = np.zeros(error.shape[:2], bool)
    valid_all = np.ones(error.shape[1], bool)
    found: Figures = {}
    for horizon in horizons:
        steps = round(horizon / matched.dt)
        for suffix, subset in subsets.items():
            tail = f"@{samples}/{horizon:g}s{suffix}"
            reason = _why_absent(matched, steps, subset, suffix)
            if reason:
                found |= {f"{name}{tail}": Absent(reason) for name in _names(horizon)}
                continue
            found |= _at_horizon(matched, error, steps, subset, horizon, weights, tail)
        if horizon in WOMD_MISS and steps <= error.shape[2]:
            missed_any |= womd_missed(matched, samples, steps, horizon)
            valid_all &= matched.log_valid[:, steps - 1]
        else:
            valid_all[:] = False
    for suffix, subset in subsets.items():
        reason = f"no counted agent is valid in the log at all of {[f'{h:g} s' for h in horizons]}"
        found |= _joint_and_marginal(
            "miss_rate_womd", missed_any, subset & valid_all, f"@{samples}/any{suffix}", reason
        )
    return found


def _names(horizon: float) -> list[str]:
    names = ["min_ade", "min_fde", "soft_min_ade", "soft_min_fde", "miss_rate_argoverse", "brier_min_fde"]
    names += ["miss_rate_womd"] if horizon in WOMD_MISS else []
    single = ["mean_ade", "soft_miss_rate_argoverse", *(["soft_miss_rate_womd"] if horizon in WOMD_MISS else [])]
    return [*single, *(f"{which}_{name}" for which in ("joint", "marginal") for name in names)]


def _why_absent(matched: Matched, steps: int, subset: Bool[np.ndarray, " A"], suffix: str) -> str:
    if steps < 1:
        return "the horizon is shorter than one step"
    if steps > matched.valid.shape[2]:
        return f"the rollouts end after {matched.valid.shape[2] * matched.dt:g} s"
    if not matched.has_future:
        return "the scene has no future to compare with"
    if not subset.any():
        return f"no {suffix[1:] or 'agent'} among the counted agents"
    return ""


def _at_horizon(
    matched: Matched,
    error: Float64[np.ndarray, "K A F"],
    steps: int,
    subset: Bool[np.ndarray, " A"],
    horizon: float,
    weights: Float64[np.ndarray, " K"] | None,
    tail: str,
) -> Figures:
    valid = matched.log_valid[:, :steps]
    count = valid.sum(-1)
    ade = (error[..., :steps] * valid).sum(-1) / np.maximum(count, 1)
    fde, ends = error[..., steps - 1], subset & valid[:, -1]
    seen = subset & (count > 0)
    never, not_at_end = "no counted agent is valid in the log up to there", "no counted agent is valid in the log there"
    found = _joint_and_marginal("min_ade", ade, seen, tail, never)
    found[f"mean_ade{tail}"] = (
        Tally(float(ade[:, seen].mean(0).sum()), int(seen.sum())) if seen.any() else Absent(never)
    )
    found |= _joint_and_marginal("min_fde", fde, ends, tail, not_at_end)
    found |= _joint_and_marginal("miss_rate_argoverse", fde > ARGOVERSE_MISS, ends, tail, not_at_end)
    missed = None
    if horizon in WOMD_MISS:
        missed = womd_missed(matched, len(error), steps, horizon)
        found |= _joint_and_marginal("miss_rate_womd", missed, ends, tail, not_at_end)
    share = np.full(len(error), 1 / len(error)) if weights is None else weights
    if share.sum() == 0:
        weighed = [name for name in _names(horizon) if "soft" in name or "brier" in name]
        return found | absent([f"{name}{tail}" for name in weighed], "all weight is on rollouts beyond the first K")
    found |= soft_figures("min_ade", ade, seen, share, tail, never) | soft_figures(
        "min_fde", fde, ends, share, tail, not_at_end
    )
    found[f"soft_miss_rate_argoverse{tail}"] = tally(share @ (fde > ARGOVERSE_MISS), ends, not_at_end)
    if missed is not None:
        found[f"soft_miss_rate_womd{tail}"] = tally(share @ missed, ends, not_at_end)
    if weights is None:
        return found | {f"{which}_brier_min_fde{tail}": Absent("the rollouts have no weights") for which in _BOTH}
    if not ends.any():
        return found | {f"{which}_brier_min_fde{tail}": Absent(not_at_end) for which in _BOTH}
    doubt = (1 - weights) ** 2
    joint = fde[:, ends].mean(1)
    best = fde[:, ends].argmin(0)
    marginal = fde[:, ends].min(0) + doubt[best]
    found[f"joint_brier_min_fde{tail}"] = Tally(float(joint.min() + doubt[joint.argmin()]), 1)
    found[f"marginal_brier_min_fde{tail}"] = Tally(float(marginal.sum()), int(ends.sum()))
    return found


_BOTH = ("joint", "marginal")


def _joint_and_marginal(
    name: str, value: np.ndarray, counted: Bool[np.ndarray, " A"], tail: str, otherwise: str
) -> Figures:
    """Return both ways to take the least of values [K, A] over the K samples."""
    joint: Figure = Absent(otherwise)
    marginal: Figure = Absent(otherwise)
    if counted.any():
        chosen = value[:, counted].astype(np.float64)
        joint = Tally(float(chosen.mean(1).min()), 1)
        marginal = Tally(float(chosen.min(0).sum()), int(counted.sum()))
    return {f"joint_{name}{tail}": joint, f"marginal_{name}{tail}": marginal}


def womd_missed(matched: Matched, samples: int, steps: int, horizon: float) -> Bool[np.ndarray, "K A"]:
    """Return who lies beyond WOMD's thresholds at the horizon, in the frame of the logged heading there."""
    lateral, longitudinal = WOMD_MISS[horizon]
    velocity = matched.scene.agents.velocity[matched.rows, matched.scene.current_index]
    scale = womd_speed_scale(np.linalg.norm(velocity.astype(np.float64), axis=-1))
    offset = to_local(
        matched.position[:samples, :, steps - 1, :2],
        matched.log_position[:, steps - 1, :2],
        matched.log_heading[:, steps - 1].astype(np.float64),
    )
    return (np.abs(offset[..., 0]) > longitudinal * scale) | (np.abs(offset[..., 1]) > lateral * scale)
