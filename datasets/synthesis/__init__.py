"""Scenes simulated with SUMO: road networks, people's motion and what a recording vehicle would have seen of it."""

from traj_diffusion.datasets.synthesis.coverage import coverage
from traj_diffusion.datasets.synthesis.synthesize import SCENES_PER_NETWORK, synthesize
from traj_diffusion.datasets.synthesis.write import write_scenes

__all__ = ["SCENES_PER_NETWORK", "coverage", "synthesize", "write_scenes"]
