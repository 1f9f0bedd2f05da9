"""The network: scene encoder, denoiser, checkpoints."""

from traj_diffusion.model.checkpoint import Provenance, find_checkpoint, load_checkpoint, save_checkpoint
from traj_diffusion.model.config import ModelConfig
from traj_diffusion.model.denoiser import Prepared
from traj_diffusion.model.model import TrafficDiffusion

__all__ = [
    "ModelConfig",
    "Prepared",
    "Provenance",
    "TrafficDiffusion",
    "find_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
]
