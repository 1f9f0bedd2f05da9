"""Scenes shared out over processes: in order, the same bits, and nothing lost before an error."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from traj_diffusion.errors import BadFile, BadRecord
from traj_diffusion.evaluation import RunSettings
from traj_diffusion.evaluation.evaluate import _made
from traj_diffusion.evaluation.gallery import _make
from traj_diffusion.evaluation.pool import over_scenes
from traj_diffusion.model import ModelConfig, TrafficDiffusion
from traj_diffusion.policies import ConstantVelocity, DiffusionPolicy
from traj_diffusion.scene import Scene
from traj_diffusion.testing import crossing, make_scene, straight_road

# Another process cannot find functions of a test module, so the job is one of the package.
SCORE = partial(_made, settings=RunSettings(rollouts=2), config="sim_agents_2025", engine="own")


def numbered(*scenes: Scene) -> Iterator[tuple[Path, Scene]]:
    yield from ((Path(f"file{number}"), scene) for number, scene in enumerate(scenes))


def test_two_processes_and_one_give_the_same_bits_in_the_same_order() -> None:
    torch.manual_seed(0)
    model = TrafficDiffusion(ModelConfig(width=32, n_heads=4, encoder_layers=1, denoiser_layers=1)).eval()
    torch.nn.init.normal_(model.denoiser.out.weight, std=0.1)
    policy = DiffusionPolicy(model, "random", steps=2)
    scenes = (crossing(), straight_road(scene_id="road"), straight_road(speeds=(3.0, 2.0, 1.0), scene_id="slow"))
    alone = list(over_scenes(numbered(*scenes), policy, SCORE, workers=1))
    shared = list(over_scenes(numbered(*scenes), policy, SCORE, workers=2))
    assert [scene.id for scene, _ in shared] == ["crossing", "road", "slow"]
    for (_, one), (_, other) in zip(alone, shared, strict=True):
        assert one == other


def test_what_was_read_before_an_error_is_handed_out() -> None:
    def broken() -> Iterator[tuple[Path, Scene]]:
        yield from numbered(crossing(), straight_road())
        raise BadFile("third.tfrecord: the file is empty")

    found = over_scenes(broken(), ConstantVelocity(), SCORE, workers=2)
    assert [next(found)[0].id, next(found)[0].id] == ["crossing", "made"]
    with pytest.raises(BadFile, match=r"third\.tfrecord"):
        next(found)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_scene_that_cannot_be_simulated_is_named_with_its_file(tmp_path: Path, workers: int) -> None:
    nobody = make_scene(np.zeros((1, 2)), np.zeros((1, 2)))
    nobody.agents.valid[:] = False
    job = partial(_make, settings=RunSettings(rollouts=1), out=tmp_path, pictures=False)
    with pytest.raises(BadRecord, match="file1: scene made: no agent is valid"):
        list(over_scenes(numbered(crossing(), nobody), ConstantVelocity(), job, workers))
