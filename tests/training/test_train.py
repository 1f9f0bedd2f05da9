"""Training: it learns, and after a kill it goes on bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from traj_diffusion.datasets.cache import Cache, CacheShape, write_cache
from traj_diffusion.datasets.conditioning import KIND_OF_CODE, PLAIN_CODE
from traj_diffusion.diffusion import Schedule, add_noise, target
from traj_diffusion.errors import BadCheckpoint, BadConfig, BadInput, TrainingDiverged
from traj_diffusion.model import ModelConfig, TrafficDiffusion, load_checkpoint
from traj_diffusion.scene import MapKind
from traj_diffusion.testing import crossing, straight_road
from traj_diffusion.training import Machine, TrainConfig, train, validation
from traj_diffusion.training.batch import make_batch
from traj_diffusion.training.loss import Objective
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


@pytest.mark.parametrize("roll_in", [0.0, 0.5])
def test_training_interrupted_and_resumed_gives_the_same_bits(roll_in: float, cache: Cache, tmp_path: Path) -> None:
    config = replace(CONFIG, roll_in=roll_in, roll_in_from=0.5)

    class Killed(Exception):
        """Stands for kill -9 right after a save."""

    def die(step: int, means: object) -> None:
        if step == 4:
            raise Killed

    whole = quietly(config, cache, tmp_path / "whole")
    with pytest.raises(Killed):
        train(config, cache, tmp_path / "cut", "test", "made scenes", die, CPU)
    resumed = quietly(config, cache, tmp_path / "cut")
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


@pytest.mark.parametrize("parameterisation", ["x0", "eps", "v"])
def test_a_network_is_held_to_what_it_says(
    parameterisation: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, model=replace(CONFIG.model, parameterisation=parameterisation))
    objective = Objective(TrafficDiffusion(config.model), config)
    schedule, noised = objective.schedule, {}

    def remember(x0: Tensor, eps: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        noised.update(x0=x0, eps=eps, t=t)
        return add_noise(x0, eps, t, schedule)

    def off_by_a_half(*_: object) -> Tensor:
        x0, eps, t = noised["x0"], noised["eps"], noised["t"]
        return target(parameterisation, x0, eps, schedule.alpha(t), schedule.sigma(t)) + 0.5

    monkeypatch.setattr("traj_diffusion.training.loss.add_noise", remember)
    monkeypatch.setattr(objective.model, "forward", off_by_a_half)
    batch = make_batch(cache.batch(np.arange(4), (0, 0)), config, None)
    _, parts = objective(batch, torch.Generator().manual_seed(0))
    assert parts["action"].item() == pytest.approx(0.25, abs=1e-4)  # at whatever level of noise


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


def test_who_will_move_is_denoised_first_and_the_rest_is_only_seen(cache: Cache) -> None:
    sample = cache.batch(np.arange(4), (0, 0))
    config = replace(CONFIG, focus=1, disturb=0.0, drop_history=0.0)
    batch = make_batch(sample, config, torch.Generator().manual_seed(0))
    agents = sample["valid"].shape[1]
    assert batch.weight.shape == (4, 1)
    assert batch.conditioning.valid.shape == (4, agents)
    moved = (batch.position.norm(dim=-1) * batch.valid).amax(-1) > 0.5
    assert moved.all()  # somebody moves in each of these scenes
    whole = make_batch(sample, config, None)
    assert whole.weight.shape == (4, agents)


def test_the_context_of_those_in_focus_does_not_depend_on_who_else_is_denoised(cache: Cache) -> None:
    batch = make_batch(cache.batch(np.arange(4), (0, 0)), CONFIG, None)
    model = TrafficDiffusion(CONFIG.model).eval()
    tokens = model.encode_map(batch.map)
    whole = model.encoder(batch.conditioning, batch.map, tokens)
    part = model.encoder(batch.conditioning, batch.map, tokens, 1)
    valid = batch.conditioning.valid[:, :1]
    torch.testing.assert_close(part.agent[valid], whole.agent[:, :1][valid])
    for ours, everybodys in zip(part.memory, whole.memory, strict=True):
        torch.testing.assert_close(ours[valid], everybodys[:, :1][valid])


def test_limits_and_types_are_hidden_as_sources_lack_them(cache: Cache) -> None:
    sample = cache.batch(np.arange(4), (0, 0))
    sample["map_speed"] = 13.0 * sample["map_valid"].astype(np.float32)
    config = replace(CONFIG, drop_limits=1.0, drop_types=1.0, mistake_types=0.0)
    bare = make_batch(sample, config, torch.Generator().manual_seed(0)).map
    assert not bare.speed_limit.any()
    assert torch.equal(bare.code, torch.tensor(PLAIN_CODE)[bare.code])
    config = replace(CONFIG, drop_limits=0.0, drop_types=0.0, mistake_types=1.0)
    mistaken = make_batch(sample, config, torch.Generator().manual_seed(0)).map
    kinds = np.array(KIND_OF_CODE)
    before, after = kinds[sample["map_code"]], kinds[mistaken.code.numpy()]
    same = (before == after) | ((before == MapKind.CROSSWALK) & (after == MapKind.SPEED_BUMP))
    assert same[sample["map_valid"]].all()
    assert torch.equal(mistaken.speed_limit, torch.from_numpy(sample["map_speed"]))


def test_fine_tuning_begins_at_the_weights_of_a_checkpoint_and_says_so(cache: Cache, tmp_path: Path) -> None:
    first = quietly(CONFIG, cache, tmp_path / "first")
    gentle = replace(CONFIG, steps=1, learning_rate=1e-12)
    second = train(gentle, cache, tmp_path / "second", "mine", "my scenes", machine=CPU, start=first)
    before, after = (load_checkpoint(path) for path in (first, second))
    for name, value in before[0].state_dict().items():
        torch.testing.assert_close(after[0].state_dict()[name], value, rtol=1e-3, atol=1e-4)
    assert after[1]["provenance"]["data"].startswith("my scenes; began at test (6 steps")
    other = replace(CONFIG, model=replace(CONFIG.model, width=24))
    with pytest.raises(BadConfig, match="another shape"):
        train(other, cache, tmp_path / "third", "mine", "my scenes", machine=CPU, start=first)


def test_training_ends_saved_when_its_time_is_over(cache: Cache, tmp_path: Path) -> None:
    train(CONFIG, cache, tmp_path / "run", "test", "made scenes", machine=CPU, seconds=0.0)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2]
    whole = quietly(CONFIG, cache, tmp_path / "whole")
    again = quietly(CONFIG, cache, tmp_path / "run")
    first, second = (load_checkpoint(path)[0].state_dict() for path in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
