"""Training: it learns, and after a kill it goes on bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from traj_diffusion.datasets.cache import Cache, CacheShape, write_cache
from traj_diffusion.errors import BadCheckpoint, BadConfig, BadInput, TrainingDiverged
from traj_diffusion.model import ModelConfig, load_checkpoint
from traj_diffusion.testing import crossing, straight_road
from traj_diffusion.training import Machine, TrainConfig, train, validation
from traj_diffusion.training.order import learning_rate

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


CPU = Machine("cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("cache")
    scenes = [straight_road(speeds=(4.0 + i, 6.0)) for i in range(6)] + [crossing() for _ in range(4)]
    write_cache(folder, scenes)
    return Cache(folder, CacheShape(agents=4, pieces=32, lights=2))


def quietly(config: TrainConfig, cache: Cache, out: Path) -> Path:
    return train(config, cache, out, "test", "made scenes", machine=CPU)


def test_training_interrupted_and_resumed_gives_the_same_bits(cache: Cache, tmp_path: Path) -> None:
    class Killed(Exception):
        """Stands for kill -9 right after a save."""

    def die(step: int, means: object) -> None:
        if step == 4:
            raise Killed

    whole = quietly(CONFIG, cache, tmp_path / "whole")
    with pytest.raises(Killed):
        train(CONFIG, cache, tmp_path / "cut", "test", "made scenes", die, CPU)
    resumed = quietly(CONFIG, cache, tmp_path / "cut")
    assert whole.read_bytes()[-1000:] == resumed.read_bytes()[-1000:]
    first, second = (load_checkpoint(path)[0].state_dict() for path in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]


def test_the_loss_falls(cache: Cache, tmp_path: Path) -> None:
    losses: list[float] = []
    config = replace(CONFIG, steps=120, save_every=20, learning_rate=5e-3, disturb=0.0)

    def note(step: int, means: Mapping[str, float]) -> None:
        losses.extend([means["loss"]] if means else [])

    train(config, cache, tmp_path, "test", "made scenes", note, CPU)
    assert losses[-1] < 0.7 * losses[0]


def test_a_state_of_other_settings_is_refused(cache: Cache, tmp_path: Path) -> None:
    quietly(CONFIG, cache, tmp_path)
    with pytest.raises(BadCheckpoint, match="was trained with another learning_rate"):
        quietly(replace(CONFIG, learning_rate=1.0), cache, tmp_path)


def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="at step"):
        quietly(replace(CONFIG, learning_rate=1e30, clip=1e30, steps=50), cache, tmp_path)
    assert (tmp_path / "diverged.npz").is_file()


def test_a_batch_in_parts_learns_from_all_of_it(cache: Cache, tmp_path: Path) -> None:
    parts: list[Mapping[str, float]] = []
    config = replace(CONFIG, accumulate=2, steps=2)
    train(config, cache, tmp_path, "test", "made scenes", lambda step, means: parts.append(means), CPU)
    assert np.isfinite(parts[-1]["loss"])
    with pytest.raises(BadConfig, match="a batch of 4 scenes cannot be shared among 3 parts"):
        quietly(replace(CONFIG, accumulate=3), cache, tmp_path / "other")


def test_validation_scores_rollouts_and_keeps_the_weights(cache: Cache, tmp_path: Path) -> None:
    scenes = [straight_road(speeds=(5.0, 6.0))]
    config = replace(CONFIG, validate_every=4)
    train(config, cache, tmp_path, "test", "made scenes", machine=CPU, validate=partial(validation, scenes))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    found = [line for line in lines if "validation/metametric" in line]
    assert [line["step"] for line in found] == [4, 6]
    assert all(0 < line["validation/metametric"] < 1 for line in found)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.safetensors"))
    assert kept == ["test-4.safetensors", "test-6.safetensors"]
    assert load_checkpoint(tmp_path / "test.safetensors")[1]["provenance"]["metrics"]["validation/metametric"] > 0


def test_too_few_scenes_are_named(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds 10 scenes, a batch needs 64"):
        quietly(replace(CONFIG, batch=64), cache, tmp_path)


def test_the_rate_warms_up_and_comes_down() -> None:
    config = TrainConfig(steps=1000, warm_up=100, decay=0.2, learning_rate=1.0)
    assert [learning_rate(config, step) for step in (0, 99, 799, 900)] == pytest.approx([0.01, 1.0, 1.0, 0.5])
    assert 0 < learning_rate(config, 999) < 0.01


def test_a_longer_training_has_the_same_rates_until_the_shorter_ones_come_down() -> None:
    short, long = TrainConfig(steps=1000, decay=0.25), TrainConfig(steps=4000, decay=0.25)
    assert all(learning_rate(short, step) == learning_rate(long, step) for step in range(0, 750, 50))
