"""Soft minima over samples: what a least error becomes when the weight of the samples around it counts too."""

import numpy as np
from jaxtyping import Bool, Float64

from traj_diffusion.metrics.figures import Absent, Figures, Tally

SOFTNESS = 1.0
"""Metres by which a sample may be worse than the best before it counts for 1/e of it. Our choice."""


def soft_minimum(
    error: Float64[np.ndarray, "K A"], weights: Float64[np.ndarray, " K"], softness: float = SOFTNESS
) -> Float64[np.ndarray, " A"]:
    """Return -s log(sum_k p_k exp(-e_k / s)) over the K samples; weights p add up to 1, s is the softness [m].

    Between the least error (s to 0) and the mean (s to infinity); the error itself where all are the same. Up to a
    constant it is s times the negative log-likelihood of the log under a mixture of kernels exp(-e / s) at the samples:
    one right sample among K that are far off costs s log K, which plain minima forgive. Our own definition.
    """
    counted = error[weights > 0]
    least = counted.min(0)
    share: Float64[np.ndarray, " A"] = weights[weights > 0] @ np.exp(-(counted - least) / softness)
    return least - softness * np.log(share)


def soft_figures(
    name: str,
    value: Float64[np.ndarray, "K A"],
    counted: Bool[np.ndarray, " A"],
    weights: Float64[np.ndarray, " K"],
    tail: str,
    otherwise: str,
) -> Figures:
    """Return `joint_soft_<name><tail>`, of the mean over agents, and `marginal_soft_...`, the mean of each agent's."""
    if not counted.any():
        return {f"{which}_soft_{name}{tail}": Absent(otherwise) for which in ("joint", "marginal")}
    chosen = value[:, counted]
    marginal = soft_minimum(chosen, weights)
    return {
        f"joint_soft_{name}{tail}": Tally(float(soft_minimum(chosen.mean(1, keepdims=True), weights)[0]), 1),
        f"marginal_soft_{name}{tail}": Tally(float(marginal.sum()), len(marginal)),
    }
