"""The Waymo Open Sim Agents Challenge (WOSAC) score, without TensorFlow: the official numbers, in less time.

Written from a description of what the official package computes; it holds none of its code. docs/wosac.md says what is
computed, how well it agrees, and what licence and patent terms Waymo attaches to the metric.
"""

from traj_diffusion.metrics.wosac.aggregate import Estimate, WosacSummary, aggregate
from traj_diffusion.metrics.wosac.configs import CONFIGS, Config, Term
from traj_diffusion.metrics.wosac.features import Features, SceneFeatures, extract
from traj_diffusion.metrics.wosac.score import Loss, WosacScore, score, score_features

__all__ = [
    "CONFIGS",
    "Config",
    "Estimate",
    "Features",
    "Loss",
    "SceneFeatures",
    "Term",
    "WosacScore",
    "WosacSummary",
    "aggregate",
    "extract",
    "score",
    "score_features",
]
