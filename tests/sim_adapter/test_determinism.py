"""One noise stream per (seed, agent id, tick, future): the same bits in another process, on other threads."""

import subprocess
import sys

import pytest

from traj_diffusion.policies import DiffusionPolicy
from traj_diffusion.scene import Observation
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.testing import crossing
from traj_diffusion.testing.host_contract import obey

PROGRAM = """
import hashlib, sys
import torch
from traj_diffusion.model import ModelConfig, TrafficDiffusion
from traj_diffusion.policies import DiffusionPolicy
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.testing import crossing
from traj_diffusion.testing.host_contract import play

torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
model = TrafficDiffusion(ModelConfig(width=32, n_heads=4, encoder_layers=1, denoiser_layers=1)).eval()
torch.nn.init.normal_(model.denoiser.out.weight, std=0.1)
policy = DiffusionPolicy(model, "random", steps=2, warm=0.5)
digest = hashlib.sha256()
for step in play(TrafficModel(policy, futures=int(sys.argv[2]), seed=3), crossing(), 8):
    digest.update(step.position.tobytes() + step.heading.tobytes() + step.velocity.tobytes())
print(digest.hexdigest())
"""


def test_other_processes_threads_and_numbers_of_futures_give_the_same_bits() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, threads, futures], capture_output=True, text=True, check=True
        ).stdout
        for threads, futures in (("1", "1"), ("2", "9"))
    ]
    assert told[0] == told[1] != ""


def test_an_agents_noise_is_its_own_whoever_else_is_listed_before_it(random_policy: DiffusionPolicy) -> None:
    seen = Observation.from_scene(crossing())
    order = [2, 0, 1]
    names = ("agent_id", "kind", "position", "heading", "velocity", "size", "is_controlled")
    turned = Observation(**{**vars(seen), **{name: getattr(seen, name)[order] for name in names}})
    ends = []
    for first in (seen, turned):
        traffic, now = TrafficModel(random_policy, seed=1), first
        traffic.reset(crossing().map, now)
        for _ in range(7):
            now = obey(now, traffic.step(now))
        ends.append(now)
    assert ends[1].position == pytest.approx(ends[0].position[order], abs=1e-3)
