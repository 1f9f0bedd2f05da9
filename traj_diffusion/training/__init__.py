"""Training a model, and going on with it after a kill."""

from traj_diffusion.training.config import TrainConfig
from traj_diffusion.training.train import Machine, export, train
from traj_diffusion.training.validate import validation

__all__ = ["Machine", "TrainConfig", "export", "train", "validation"]
