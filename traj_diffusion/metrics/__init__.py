"""Scene and rollouts in, numbers out: displacement, diversity, safety, multimodality; and `wosac`. Knows no model."""

from traj_diffusion.metrics import wosac
from traj_diffusion.metrics.conventions import CONVENTIONS, Convention, displacement_as
from traj_diffusion.metrics.displacement import displacement
from traj_diffusion.metrics.diversity import diversity
from traj_diffusion.metrics.figures import Absent, Figure, Figures, Tally
from traj_diffusion.metrics.matching import AgentSet, Matched, match
from traj_diffusion.metrics.multimodality import budget_curve, multimodality, rank_histogram
from traj_diffusion.metrics.routes import route_modes
from traj_diffusion.metrics.safety import safety
from traj_diffusion.metrics.score import Mean, SceneScore, Summary, score, summarise, table

__all__ = [
    "CONVENTIONS",
    "Absent",
    "AgentSet",
    "Convention",
    "Figure",
    "Figures",
    "Matched",
    "Mean",
    "SceneScore",
    "Summary",
    "Tally",
    "budget_curve",
    "displacement",
    "displacement_as",
    "diversity",
    "match",
    "multimodality",
    "rank_histogram",
    "route_modes",
    "safety",
    "score",
    "summarise",
    "table",
    "wosac",
]
