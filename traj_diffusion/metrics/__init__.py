"""Scene and rollouts in, numbers out: displacement, diversity, safety, multimodality. Knows no model."""

from traj_diffusion.metrics.displacement import displacement
from traj_diffusion.metrics.diversity import diversity
from traj_diffusion.metrics.figures import Absent, Figure, Figures, Tally
from traj_diffusion.metrics.matching import AgentSet, Matched, match
from traj_diffusion.metrics.safety import safety

__all__ = [
    "Absent",
    "AgentSet",
    "Figure",
    "Figures",
    "Matched",
    "Tally",
    "displacement",
    "diversity",
    "match",
    "safety",
]
