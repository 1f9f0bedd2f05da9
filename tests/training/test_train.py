"""Training: it learns, and after a kill it goes on bit for bit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from traj_diffusion.datasets.cache import Cache, CacheShape, write_cache
from traj_diffusion.errors import BadCheckpoint, BadInput, TrainingDiverged
from traj_diffusion.model import ModelConfig, load_checkpoint
from traj_diffusion.testing import crossing, straight_road
from traj_diffusion.training import TrainConfig, train
from traj_diffusion.training.train import learning_rate

CONFIG = TrainConfig(
    model=ModelConfig(
        width=16, n_heads=2, encoder_layers=1, denoiser_layers=1, near_map=4, near_lights=2, near_agents=2
    ),
    steps=6,
    batch=4,
    noise_draws=2,
    save_every=2,
    warm_up=2,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("cache")
    scenes = [straight_road(speeds=(4.0 + i, 6.0)) for i in range(6)] + [crossing() for _ in range(4)]
    write_cache(folder, scenes)
    return Cache(folder, CacheShape(agents=4, pieces=32, lights=2))


def quietly(config: TrainConfig, cache: Cache, out: Path) -> Path:
    return train(config, cache, out, "test", "made scenes", lambda step, means: None)


def test_training_interrupted_and_resumed_gives_the_same_bits(cache: Cache, tmp_path: Path) -> None:
    class Killed(Exception):
        """Stands for kill -9 right after a save."""

    def die(step: int, means: object) -> None:
        if step == 4:
            raise Killed

    whole = quietly(CONFIG, cache, tmp_path / "whole")
    with pytest.raises(Killed):
        train(CONFIG, cache, tmp_path / "cut", "test", "made scenes", die)
    resumed = quietly(CONFIG, cache, tmp_path / "cut")
    assert whole.read_bytes()[-1000:] == resumed.read_bytes()[-1000:]
    first, second = (load_checkpoint(path)[0].state_dict() for path in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]


def test_the_loss_falls(cache: Cache, tmp_path: Path) -> None:
    losses: list[float] = []
    config = replace(CONFIG, steps=120, save_every=20, learning_rate=5e-3)
    train(config, cache, tmp_path, "test", "made scenes", lambda step, means: losses.append(means["loss"]))
    assert losses[-1] < 0.7 * losses[0]


def test_a_state_of_other_settings_is_refused(cache: Cache, tmp_path: Path) -> None:
    quietly(CONFIG, cache, tmp_path)
    with pytest.raises(BadCheckpoint, match="was trained with another learning_rate"):
        quietly(replace(CONFIG, learning_rate=1.0), cache, tmp_path)


def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="at step"):
        quietly(replace(CONFIG, learning_rate=1e30, clip=1e30, steps=50), cache, tmp_path)
    assert (tmp_path / "diverged.npz").is_file()


def test_too_few_scenes_are_named(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds 10 scenes, a batch needs 64"):
        quietly(replace(CONFIG, batch=64), cache, tmp_path)


def test_the_rate_warms_up_and_comes_down() -> None:
    config = TrainConfig(steps=1000, warm_up=100, learning_rate=1.0)
    rates = [learning_rate(config, step) for step in (0, 99, 500, 999)]
    assert rates[0] == pytest.approx(0.01, rel=0.01)
    assert rates[1] > rates[2] > rates[3] == pytest.approx(0.05, abs=0.01)
