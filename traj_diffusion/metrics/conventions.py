"""Displacement as the benchmarks define it: what each calls minADE, minFDE and miss rate, under its own name.

`displacement` gives every figure one plain definition; benchmarks differ on which sample is the best, over which steps
the mean goes, whom they count and what a miss is. Here those choices are data, one `Convention` a benchmark.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float64

from traj_diffusion.metrics.displacement import ARGOVERSE_MISS, womd_missed
from traj_diffusion.metrics.figures import Absent, Figure, Figures, Tally, absent
from traj_diffusion.metrics.matching import AgentSet, Matched
from traj_diffusion.scene import AgentKind


class Best(StrEnum):
    """Which of the K samples is the best one."""

    EACH = "the least of each figure, at each horizon anew"
    END = "the one with the least final error, for all figures"


class Miss(StrEnum):
    """When a sample misses the log."""

    END = "more than 2 m off at the horizon"
    LARGEST = "more than 2 m off at any step up to the horizon"
    BOX = "beyond WOMD's lateral or longitudinal threshold at the horizon"


@dataclass(frozen=True)
class Convention:
    """A benchmark's choices. Counted are the agents to predict, at steps that are valid in the log."""

    samples: int  # K: the first so many rollouts
    horizons: tuple[float, ...]  # s
    hertz: float  # steps per second that the mean goes over
    joint: bool  # one sample for all agents, or one for each
    best: Best
    miss: Miss
    any_agent: bool = False  # a joint sample misses where any agent does; otherwise the share of agents counts
    kinds: bool = False  # published per kind


CONVENTIONS: Mapping[str, Convention] = {
    # Chang et al. 2019 and the benchmark's evaluation: "best" refers to the trajectory with the least endpoint error.
    "argoverse_1": Convention(6, (3.0,), 10.0, False, Best.END, Miss.END),
    # Wilson et al. 2021; the agent to predict is the focal track.
    "argoverse_2": Convention(6, (6.0,), 10.0, False, Best.END, Miss.END),
    # Its multi-agent track: avgMinADE, avgMinFDE and actorMR of the world with the least mean final error.
    "argoverse_2_worlds": Convention(6, (6.0,), 10.0, True, Best.END, Miss.END),
    # Caesar et al. 2020, prediction challenge: minADE_5, and MissRate_5_2, which looks at the largest distance.
    "nuscenes": Convention(5, (6.0,), 2.0, False, Best.EACH, Miss.LARGEST),
    # Ettinger et al. 2021; published figures are means over 3, 5, 8 s and over the three kinds.
    "womd_motion": Convention(6, (3.0, 5.0, 8.0), 2.0, False, Best.EACH, Miss.BOX, kinds=True),
    # The same, of two agents jointly: a sample misses where either does.
    "womd_interaction": Convention(6, (3.0, 5.0, 8.0), 2.0, True, Best.EACH, Miss.BOX, any_agent=True),
}
"""By name. The joint one of Sim Agents, over all 91 steps and in space, is `metrics.wosac`'s."""


def displacement_as(matched: Matched, benchmark: str) -> Figures:
    """Return `<benchmark>/min_ade/<horizon>s`, `min_fde`, `miss_rate`, `brier_min_fde` as that benchmark defines them.

    [0, inf) m, or [0, 1] for the miss rate; lower is better. `brier_min_fde` is minFDE plus (1 - p)^2 with p the best
    sample's weight among the K. Raises ValueError for an unknown benchmark.
    """
    if benchmark not in CONVENTIONS:
        raise ValueError(f"no convention is called {benchmark!r}; known: {', '.join(CONVENTIONS)}")
    convention = CONVENTIONS[benchmark]
    found: Figures = {}
    for horizon in convention.horizons:
        subsets = {"": matched.counted(AgentSet.TO_PREDICT)}
        if convention.kinds:
            kinds = (AgentKind.VEHICLE, AgentKind.PEDESTRIAN, AgentKind.CYCLIST)
            subsets |= {f"/{kind.name.lower()}": subsets[""] & (matched.kind == kind) for kind in kinds}
        for suffix, subset in subsets.items():
            figures = _at_horizon(matched, convention, horizon, subset)
            found |= {f"{benchmark}/{name}/{horizon:g}s{suffix}": figure for name, figure in figures.items()}
    return found


_NAMES = ("min_ade", "min_fde", "miss_rate", "brier_min_fde")


def _at_horizon(matched: Matched, convention: Convention, horizon: float, subset: Bool[np.ndarray, " A"]) -> Figures:
    samples, runs, held = convention.samples, matched.valid.shape[0], matched.valid.shape[2]
    steps, every = round(horizon / matched.dt), round(1 / (convention.hertz * matched.dt))
    if runs < samples:
        return absent(_NAMES, f"{runs} rollouts; this benchmark scores {samples} samples")
    if steps > held:
        return absent(_NAMES, f"the rollouts end after {held * matched.dt:g} s")
    if every < 1 or abs(every * convention.hertz * matched.dt - 1) > 1e-6:
        return absent(_NAMES, f"steps of {matched.dt:g} s do not hold {convention.hertz:g} a second")
    ends = subset & matched.log_valid[:, steps - 1]
    if not ends.any():
        return absent(_NAMES, "no agent to predict is valid in the log at the horizon")
    chosen = slice(every - 1, steps, every)
    error = np.linalg.norm(matched.position[:samples, ..., :2] - matched.log_position[..., :2], axis=-1)[:, ends]
    valid = matched.log_valid[ends, chosen]
    ade = (error[..., chosen] * valid).sum(-1) / valid.sum(-1)
    fde = error[..., steps - 1]
    missed = _missed(matched, convention, error, valid, chosen, steps, horizon, ends)
    weights = None if matched.weights is None else matched.weights[:samples]
    return (
        _joint(convention, ade, fde, missed, weights)
        if convention.joint
        else _marginal(convention, ade, fde, missed, weights)
    )


def _missed(
    matched: Matched,
    convention: Convention,
    error: Float64[np.ndarray, "K E F"],
    valid: Bool[np.ndarray, "E chosen"],
    chosen: slice,
    steps: int,
    horizon: float,
    ends: Bool[np.ndarray, " A"],
) -> Bool[np.ndarray, "K E"]:
    if convention.miss is Miss.BOX:
        return womd_missed(matched, convention.samples, steps, horizon)[:, ends]
    if convention.miss is Miss.LARGEST:
        return np.any((error[..., chosen] > ARGOVERSE_MISS) & valid, axis=-1)
    return error[..., steps - 1] > ARGOVERSE_MISS


def _marginal(
    convention: Convention,
    ade: Float64[np.ndarray, "K E"],
    fde: Float64[np.ndarray, "K E"],
    missed: Bool[np.ndarray, "K E"],
    weights: Float64[np.ndarray, " K"] | None,
) -> Figures:
    """Return the figures with a best sample for each agent."""
    end, agents = fde.argmin(0), np.arange(fde.shape[1])
    if convention.best is Best.END:
        parts = {"min_ade": ade[end, agents], "miss_rate": missed[end, agents]}
    else:
        parts = {"min_ade": ade.min(0), "miss_rate": missed.all(0)}
    found: Figures = {name: Tally(float(values.sum()), len(agents)) for name, values in parts.items()}
    found["min_fde"] = Tally(float(fde.min(0).sum()), len(agents))
    found["brier_min_fde"] = _brier(fde.min(0), end, weights)
    return found


def _joint(
    convention: Convention,
    ade: Float64[np.ndarray, "K E"],
    fde: Float64[np.ndarray, "K E"],
    missed: Bool[np.ndarray, "K E"],
    weights: Float64[np.ndarray, " K"] | None,
) -> Figures:
    """Return the figures with one best sample for all agents."""
    mean_ade, mean_fde = ade.mean(1), fde.mean(1)
    misses: Float64[np.ndarray, "K _"] = missed.astype(np.float64)
    share = misses.max(1) if convention.any_agent else misses.mean(1)
    end = int(mean_fde.argmin())
    by_end = convention.best is Best.END
    return {
        "min_ade": Tally(float(mean_ade[end] if by_end else mean_ade.min()), 1),
        "miss_rate": Tally(float(share[end] if by_end else share.min()), 1),
        "min_fde": Tally(float(mean_fde[end]), 1),
        "brier_min_fde": _brier(mean_fde[end : end + 1], np.array([end]), weights),
    }


def _brier(least: Float64[np.ndarray, " E"], best: np.ndarray, weights: Float64[np.ndarray, " K"] | None) -> Figure:
    if weights is None:
        return Absent("the rollouts have no weights")
    if weights.sum() <= 0:
        return Absent("all weight is on rollouts beyond the first K")
    return Tally(float((least + (1 - weights[best] / weights.sum()) ** 2).sum()), len(least))
