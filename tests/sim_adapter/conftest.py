"""Policies for the adapter's tests."""

import pytest
import torch

from traj_diffusion.model import ModelConfig, TrafficDiffusion
from traj_diffusion.policies import DiffusionPolicy


@pytest.fixture(scope="package")
def random_policy() -> DiffusionPolicy:
    """A network of random weights: what is on trial is the loop, not the traffic."""
    torch.manual_seed(0)
    model = TrafficDiffusion(ModelConfig(width=32, n_heads=4, encoder_layers=1, denoiser_layers=1)).eval()
    torch.nn.init.normal_(model.denoiser.out.weight, std=0.1)
    return DiffusionPolicy(model, "random", steps=2)
