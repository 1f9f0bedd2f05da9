"""A data set's figures: means over scenes, with confidence intervals from the bootstrap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from traj_diffusion.metrics.wosac.score import WosacScore


@dataclass(frozen=True)
class Estimate:
    """A mean over scenes with its percentile bootstrap interval over scenes (Efron & Tibshirani 1993, chapter 13)."""

    mean: float
    low: float
    high: float
    scenes: int  # that have the number at all


@dataclass(frozen=True)
class WosacSummary:
    """Means of all fields and buckets over scenes, by official name, and of the two ADE over the future only."""

    config: str
    scenes: int
    level: float
    fields: Mapping[str, Estimate]
    buckets: Mapping[str, Estimate]
    future_ade: Estimate
    min_future_ade: Estimate
    warnings: tuple[str, ...]


def aggregate(scores: Sequence[WosacScore], level: float = 0.95, resamples: int = 2000, seed: int = 0) -> WosacSummary:
    """Return the means over scenes; each scene weighs the same, as on the leaderboard.

    A scene that lacks a number (NaN) is left out of that number's mean, counted, and named in the warnings.
    Raises ValueError for no scores at all, for mixed configurations, or for a scene scored twice.
    """
    configs = sorted({item.config for item in scores})
    if len(configs) != 1:
        raise ValueError(f"scores of configurations {configs}; wanted is one or more scores of one configuration")
    names = [item.scene_id for item in scores]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"scenes {twice} are scored more than once")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level} must lie between 0 and 1, resamples {resamples} be at least 1")
    draws = np.random.default_rng(seed).integers(len(scores), size=(resamples, len(scores)))
    warnings = [f"scene {item.scene_id}: {warning}" for item in scores for warning in item.warnings]

    def estimate(values: list[float]) -> Estimate:
        array = np.array(values)
        has = ~np.isnan(array)
        if not has.any():
            return Estimate(float("nan"), float("nan"), float("nan"), 0)
        drawn = has[draws]
        count = drawn.sum(1)
        means = np.where(drawn, array[draws], 0).sum(1)[count > 0] / count[count > 0]
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return Estimate(float(array[has].mean()), float(low), float(high), int(has.sum()))

    return WosacSummary(
        config=configs[0],
        scenes=len(scores),
        level=level,
        fields={name: estimate([item.fields[name] for item in scores]) for name in scores[0].fields},
        buckets={name: estimate([item.buckets[name] for item in scores]) for name in scores[0].buckets},
        future_ade=estimate([item.future_ade for item in scores]),
        min_future_ade=estimate([item.min_future_ade for item in scores]),
        warnings=tuple(warnings),
    )
