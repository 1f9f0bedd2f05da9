"""Are the rollouts as varied as the world is, and in the right places? Scores of samples against the log.

A future of one agent is the vector of its x-y positions at the steps that are valid in the log; a joint future is that
of all counted agents together. Distances of futures are root mean squares over agents and steps, in metres, so that
long and short futures, crowded and empty scenes compare.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from traj_diffusion.geometry import to_local
from traj_diffusion.metrics.figures import Absent, Figures, Tally, absent, tally
from traj_diffusion.metrics.matching import AgentSet, Matched

KERNEL_WIDTH = 2.0
"""Metres at which two futures begin to count as different, as the miss threshold of Argoverse."""
CENTRAL_SETS = (0.5, 0.9)
TIE = 1e-3
"""Metres within which a sample counts as equal to the log, so that rounding does not order cars that stand still."""


def multimodality(matched: Matched, agents: AgentSet = AgentSet.EVALUATED) -> Figures:
    """Return energy scores, determinantal volumes and coverage of the log among the rollouts.

    - `joint_energy_score`, `marginal_energy_score`: see `energy_score`. [0, inf) m, lower is better.
    - `joint_volume`, `marginal_volume`: see `volume`. [log(1 + R), R log 2], higher is more varied.
    - `coverage_50_along`, `coverage_90_along`, `..._across`: share of logs inside the central 50 or 90 % of the
      rollouts at the last step, along and across the present heading: see `central_coverage`. [0, 1]; best is .5 and
      .9: below it the rollouts are too sure of themselves (or biased), above it too unsure.
    """
    scores = ["joint_energy_score", "marginal_energy_score"]
    volumes = ["joint_volume", "marginal_volume"]
    covered = [f"coverage_{100 * share:.0f}_{axis}" for share in CENTRAL_SETS for axis in ("along", "across")]
    chosen = matched.counted(agents)
    if not chosen.any():
        return absent([*scores, *volumes, *covered], "no agent to count")
    everything = np.ones_like(matched.log_valid)
    found = _joint_and_marginal("volume", matched, chosen, everything)
    if not (matched.log_valid & chosen[:, None]).any():
        return found | absent([*scores, *covered], "the scene has no future to compare with")
    found |= _joint_and_marginal("energy_score", matched, chosen, matched.log_valid)
    along, across, ends = last_step_ranks(matched, chosen)
    for share in CENTRAL_SETS:
        for axis, below in (("along", along), ("across", across)):
            reason = "no counted agent is valid in the log at the last step"
            value = central_coverage(below[0], below[1], len(matched.valid), share)
            found[f"coverage_{100 * share:.0f}_{axis}"] = tally(value, ends, reason)
    return found


def energy_score(to_log: Float64[np.ndarray, " R"], between: Float64[np.ndarray, "R R"]) -> float:
    """Return mean |X - y| - mean |X - X'| / 2 over the rollouts X, X' and the log y.

    A strictly proper score (Gneiting & Raftery 2007, section 4.3): in expectation nothing beats drawing from the true
    distribution. With one rollout it is the distance to the log. Pairs of a rollout with itself count, as in the
    empirical distribution of the sample.
    """
    return float(to_log.mean() - between.mean() / 2)


def volume(between: Float64[np.ndarray, "R R"], width: float = KERNEL_WIDTH) -> float:
    """Return log det(I + L) with L = exp(-d^2 / (2 width^2)) (Kulesza & Taskar 2012, theorem 2.1).

    log(1 + R) if all rollouts are the same, R log 2 if all are far apart; between, the log of how many subsets of
    truly different rollouts there are. Identity instead of a bare Gram matrix keeps it finite where rollouts repeat.
    """
    kernel = np.exp(-(between**2) / (2 * width**2))
    return float(np.linalg.slogdet(np.eye(len(kernel)) + kernel)[1])


def central_coverage(
    below: Float64[np.ndarray, " A"], equal: Float64[np.ndarray, " A"], samples: int, share: float
) -> Float64[np.ndarray, " A"]:
    """Return how much of the log's rank lies inside the central `share` of ranks, in [0, 1]; its mean is `share` if
    log and samples are alike, for any number of samples.

    A log with `below` samples under it and `equal` ones at the same value has a rank from below to below + equal; a
    rank r of samples + 1 stands for [r, r + 1] / (samples + 1) (Hamill 2001, with the randomised probability integral
    transform of Czado, Gneiting & Held 2009 taken in expectation).
    """
    low, high = below / (samples + 1), (below + equal + 1) / (samples + 1)
    inside = np.minimum(high, (1 + share) / 2) - np.maximum(low, (1 - share) / 2)
    return np.maximum(inside, 0) / (high - low)


def rank_histogram(
    below: Float64[np.ndarray, " A"], equal: Float64[np.ndarray, " A"], samples: int
) -> Float64[np.ndarray, " ranks"]:
    """Return how many logs have each rank 0..samples among their samples (Hamill 2001); ties share theirs evenly.

    Flat if log and samples are alike, U-shaped if the samples are too sure, a hump if too unsure, a slope if biased.
    Histograms of scenes with the same number of samples add up.
    """
    rank = np.arange(samples + 1)
    held = (rank >= below[:, None]) & (rank <= (below + equal)[:, None])
    return (held / (equal[:, None] + 1)).sum(0)


Ranks = tuple[Float64[np.ndarray, " A"], Float64[np.ndarray, " A"]]


def last_step_ranks(matched: Matched, chosen: Bool[np.ndarray, " A"]) -> tuple[Ranks, Ranks, Bool[np.ndarray, " A"]]:
    """Return (below, equal) counts of the last position along and across the present heading, and for whom."""

    def local(xy: np.ndarray) -> np.ndarray:
        return to_local(xy, matched.now_position[:, :2], matched.now_heading.astype(np.float64))

    samples = local(matched.position[:, :, -1, :2])
    log = local(matched.log_position[:, -1, :2])
    below = (samples < log - TIE).sum(0).astype(np.float64)
    equal = (np.abs(samples - log) <= TIE).sum(0).astype(np.float64)
    return (below[:, 0], equal[:, 0]), (below[:, 1], equal[:, 1]), chosen & matched.log_valid[:, -1]


def budget_curve(
    errors: Float64[np.ndarray, "rows R"],
    samples: Sequence[int],
    rng: np.random.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> Float64[np.ndarray, "samples 3"]:
    """Return what the best of K samples is worth: mean, and the ends of a bootstrap interval, for each K.

    `errors` holds one error per rollout and row (an agent or a scene). For each row the mean over all choices of K
    among its R rollouts is exact: with sorted errors e_i it is sum_i e_i C(R - i, K - 1) / C(R, K), i from 1. Rows are
    resampled for the interval (Efron & Tibshirani 1993, percentile). Raises ValueError for K outside 1..R.
    """
    rows, runs = errors.shape
    if not rows or not all(1 <= k <= runs for k in samples):
        raise ValueError(
            f"{rows} rows of {runs} rollouts: K of {list(samples)} must lie in 1..{runs}, and rows not be 0"
        )
    ordered = np.sort(errors, axis=1)
    picks = rng.integers(0, rows, (draws, rows))
    tails = [(1 - level) / 2, (1 + level) / 2]
    curve = []
    for k in samples:
        share = np.array([math.comb(runs - i, k - 1) / math.comb(runs, k) for i in range(1, runs + 1)])
        best = ordered @ share
        curve.append([best.mean(), *np.quantile(best[picks].mean(1), tails)])
    return np.array(curve)


def _joint_and_marginal(
    name: str, matched: Matched, chosen: Bool[np.ndarray, " A"], valid: Bool[np.ndarray, "A F"]
) -> Figures:
    """Return one score of joint and of single futures over the given steps."""
    runs = len(matched.valid)
    if name == "volume" and runs < 2:
        return absent([f"{which}_{name}" for which in ("joint", "marginal")], "one rollout has no other to differ from")
    rows = np.flatnonzero(chosen & valid.any(-1))
    between, to_log = np.zeros((len(rows), runs, runs)), np.zeros((len(rows), runs))
    weight = valid[rows].sum(-1)
    for at, row in enumerate(rows):
        xy = matched.position[:, row, valid[row], :2]
        between[at] = ((xy[:, None] - xy[None]) ** 2).sum((-1, -2))
        to_log[at] = ((xy - matched.log_position[row, valid[row], :2]) ** 2).sum((-1, -2))

    def score(squared_between: np.ndarray, squared_to_log: np.ndarray, count: int) -> float:
        apart = np.sqrt(squared_between / count)
        return volume(apart) if name == "volume" else energy_score(np.sqrt(squared_to_log / count), apart)

    if not len(rows):
        return {f"{which}_{name}": Absent("no counted agent is valid in the log") for which in ("joint", "marginal")}
    single = [score(*parts) for parts in zip(between, to_log, weight.tolist(), strict=True)]
    joint = score(between.sum(0), to_log.sum(0), int(weight.sum()))
    return {f"joint_{name}": Tally(joint, 1), f"marginal_{name}": Tally(float(sum(single)), len(single))}
