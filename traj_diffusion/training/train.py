"""The training loop. It saves as it goes, and goes on where it was killed."""

import json
import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from traj_diffusion.datasets.cache import Sample, Samples
from traj_diffusion.diffusion import make_schedule
from traj_diffusion.errors import BadInput, TrainingDiverged
from traj_diffusion.model import Provenance, TrafficDiffusion, save_checkpoint
from traj_diffusion.scene.archive import atomic_path
from traj_diffusion.training.batch import make_batch
from traj_diffusion.training.config import TrainConfig
from traj_diffusion.training.loss import training_loss
from traj_diffusion.training.state import FILE, TrainState

Progress = Callable[[int, Mapping[str, float]], None]


def train(config: TrainConfig, cache: Samples, out: Path, name: str, data: str, progress: Progress) -> Path:
    """Train until `config.steps`, from `out`'s saved state where there is one, and return the checkpoint's path.

    `data` says what the cache holds, with its licence, and goes into the checkpoint. Averages of the loss since the
    last report go to `progress` at every save, and as JSON lines to `out`/log.jsonl.
    """
    if len(cache) < config.batch:
        raise BadInput(f"the cache holds {len(cache)} scenes, a batch needs {config.batch}")
    torch.manual_seed(config.seed)
    model = TrafficDiffusion(config.model)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    state = TrainState(model, deepcopy(model).requires_grad_(False), optimiser)
    if (out / FILE).is_file():
        state.load(out, config)
    out.mkdir(parents=True, exist_ok=True)

    schedule = make_schedule(config.model.schedule)
    sums: dict[str, float] = {}
    began = time.perf_counter() - state.seconds
    while state.step < config.steps:
        generator = torch.Generator().manual_seed(_key(config.seed, state.step))
        rows = cache.rows(config.batch, config.seed, state.step)
        sample = trimmed(cache.batch(rows, (config.seed, state.step)))
        loss, parts = training_loss(model, make_batch(sample, config, generator), schedule, config, generator)
        if not torch.isfinite(loss):
            np.savez(out / "diverged.npz", allow_pickle=False, **sample)
            raise TrainingDiverged(f"the loss is {loss.item()} at step {state.step}; its batch is {out}/diverged.npz")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, state.step)
        optimiser.step()
        _average(state.average, model, min(config.ema, (1 + state.step) / (10 + state.step)))
        state.step += 1
        for key, value in {**parts, "gradient": norm}.items():
            sums[key] = sums.get(key, 0.0) + float(value)
        if state.step % config.save_every == 0 or state.step == config.steps:
            state.seconds = time.perf_counter() - began
            state.save(out, config)
            count = (state.step - 1) % config.save_every + 1
            means = {key: total / count for key, total in sums.items()}
            sums = {}
            with (out / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": state.step, "hours": state.seconds / 3600, **means}) + "\n")
            progress(state.step, means)
    return export(state, config, out / f"{name}.safetensors", name, data, {})


def export(
    state: TrainState, config: TrainConfig, path: Path, name: str, data: str, metrics: Mapping[str, float]
) -> Path:
    """Write the moving average of the weights as a checkpoint with its provenance."""
    provenance = Provenance(
        name=name,
        data=data,
        seed=config.seed,
        steps=state.step,
        scenes_seen=state.step * config.batch,
        hours=round(state.seconds / 3600, 3),
        metrics=dict(metrics),
    )
    save_checkpoint(path, state.average, provenance)
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(vars(provenance), indent=2) + "\n", encoding="utf-8")
    return path


def trimmed(sample: Sample) -> Sample:
    """Return the batch without padding that all of its samples share: agents and pieces are packed from the front."""
    agents = max(1, int(sample["valid"].any((0, 2)).sum()))
    pieces = max(1, int(sample["map_valid"].any(0).sum()))
    per_agent = ("position", "heading", "velocity", "valid", "size", "kind")
    cut: dict[str, tuple[slice, ...]] = {name: (slice(None), slice(agents)) for name in per_agent}
    cut |= {name: (slice(None), slice(pieces)) for name in sample if name.startswith("map_")}
    cut |= {"route": (slice(None), slice(agents), slice(pieces)), "light_route": (slice(None), slice(agents))}
    return {name: np.ascontiguousarray(array[cut[name]]) if name in cut else array for name, array in sample.items()}


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the rate of a step: a linear warm-up, then half a cosine down to a twentieth."""
    warm = min(1.0, (step + 1) / config.warm_up)
    share = min(1.0, step / config.steps)
    return config.learning_rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))


def _key(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@torch.no_grad()
def _average(average: TrafficDiffusion, model: TrafficDiffusion, decay: float) -> None:
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
