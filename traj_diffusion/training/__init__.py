"""Training a model, and going on with it after a kill."""

from traj_diffusion.training.config import TrainConfig
from traj_diffusion.training.train import export, train

__all__ = ["TrainConfig", "export", "train"]
