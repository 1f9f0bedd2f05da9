"""How likely the recording is among the rollouts: histograms with smoothing, one per agent or one per scene."""

import numpy as np
from jaxtyping import Bool, Float, Float64

from traj_diffusion.metrics.wosac.configs import Term


def log_likelihood(
    term: Term, logged: Float[np.ndarray, "E samples"], simulated: Float[np.ndarray, "R E samples"]
) -> Float64[np.ndarray, "E samples"]:
    """Return log p of each logged value under the histogram of the simulated ones; probability mass, not density.

    Values beyond the range count at its ends. NaN counts in the last bin, as it does in the official code: with speeds
    undefined at the last step that is one sample of 80.
    """
    agents = logged.shape[0]
    row = np.zeros((agents, 1), np.int64) if term.pooled else np.arange(agents)[:, None]
    cells = row * term.bins + _bins(term, simulated)
    counts = np.bincount(cells.ravel(), minlength=(int(row.max(initial=0)) + 1) * term.bins).reshape(-1, term.bins)
    smoothed = counts + term.pseudocount
    log_p = np.log(smoothed / smoothed.sum(1, keepdims=True))
    return log_p[row, _bins(term, logged)]


def _bins(term: Term, values: Float[np.ndarray, "*shape"]) -> np.ndarray:
    """Return which bin each value falls into. `searchsorted` puts NaN behind everything, hence into the last bin."""
    place = np.searchsorted(term.edges, values.astype(np.float32), side="right") - 1
    return np.clip(place, 0, term.bins - 1)


def neighbours_valid(valid: Bool[np.ndarray, "E T"]) -> Bool[np.ndarray, "E T"]:
    """Return where both neighbours in time are valid: False at both ends, and a step's own validity does not count."""
    eroded = np.zeros_like(valid)
    eroded[:, 1:-1] = valid[:, 2:] & valid[:, :-2]
    return eroded
