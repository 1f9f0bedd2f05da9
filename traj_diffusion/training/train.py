"""The training loop, on Lightning Fabric: one CPU, one GPU, many nodes. It saves as it goes, and survives a kill."""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from traj_diffusion.datasets.cache import Sample, Samples
from traj_diffusion.errors import BadConfig, BadInput, MissingExtra, TrainingDiverged
from traj_diffusion.model import Provenance, TrafficDiffusion, load_checkpoint, save_checkpoint
from traj_diffusion.scene.archive import atomic_path
from traj_diffusion.training.batch import make_batch
from traj_diffusion.training.config import TrainConfig
from traj_diffusion.training.log import Log
from traj_diffusion.training.loss import Objective
from traj_diffusion.training.order import key_of, learning_rate
from traj_diffusion.training.state import FILE, TrainState

Progress = Callable[[int, Mapping[str, float]], None]
Validate = Callable[[TrafficDiffusion], Mapping[str, float]]


@dataclass(frozen=True)
class Machine:
    """Where a training runs, in the words of Lightning Fabric."""

    accelerator: str = "auto"  # cpu, cuda, mps
    devices: str = "auto"  # how many of them on each node; on CPUs, how many processes
    nodes: int = 1
    precision: str = "32-true"  # or bf16-mixed, 16-mixed


def train(
    config: TrainConfig,
    cache: Samples,
    out: Path,
    name: str,
    data: str,
    progress: Progress = lambda step, means: None,
    machine: Machine | None = None,
    validate: Validate | None = None,
    start: Path | None = None,
    seconds: float | None = None,
) -> Path:
    """Train until `config.steps`, from `out`'s saved state where there is one, and return the checkpoint's path.

    Without a saved state it begins at the weights of the checkpoint `start`, where one is given, or at random ones.
    With `seconds` it ends, saved, at the first save after so long; called again, it goes on.

    `data` says what the cache holds, with its licence, and goes into the checkpoint. `progress` is told of every step,
    and at every save of the averages of the loss since the last one; these also go to `out`/log.jsonl and to
    TensorBoard files. Every `config.validate_every` steps `validate` scores the moving average of the weights, and the
    weights are kept in `out`/checkpoints. On one CPU the result after a kill has the same bits as without.
    """
    fabric = _fabric(machine or Machine())
    parts = fabric.world_size * config.accumulate
    if config.batch % parts:
        raise BadConfig(f"a batch of {config.batch} scenes cannot be shared among {parts} parts")
    if len(cache) < config.batch:
        raise BadInput(f"the cache holds {len(cache)} scenes, a batch needs {config.batch}")
    torch.manual_seed(config.seed)
    model = TrafficDiffusion(config.model).to(fabric.device)
    if start is not None:
        data = f"{data}; {_begin_at(start, model)}"
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    state = TrainState(model, deepcopy(model).requires_grad_(False), optimiser)
    if (out / FILE).is_file():
        state.load(out, config)
    out.mkdir(parents=True, exist_ok=True)
    log = Log(out, state.step) if fabric.is_global_zero else None
    objective, stepper = fabric.setup(Objective(model, config), optimiser)

    sums: dict[str, Tensor] = {}
    began, first = perf_counter() - state.seconds, state.step
    called, is_late = perf_counter(), False
    while state.step < config.steps and not is_late:
        means: dict[str, float] = {}
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, state.step)
        driver = state.average if config.roll_in and state.step >= config.roll_in_from * config.steps else None
        found = _descend(fabric, objective, stepper, cache, config, state.step, out, driver)
        _average(state.average, model, min(config.ema, (1 + state.step) / (10 + state.step)))
        state.step += 1
        for key, value in found.items():
            sums[key] = sums.get(key, torch.zeros_like(value)) + value
        last = state.step == config.steps
        if state.step % config.save_every == 0 or last:
            state.seconds = perf_counter() - began
            count = min((state.step - 1) % config.save_every + 1, state.step - first)
            means = {key: float(total) / count for key, total in sums.items()}
            sums = {}
            if log is not None:
                state.save(out, config)
                log.write(state.step, state.seconds, means)
            is_late = seconds is not None and perf_counter() - called > seconds
        if validate is not None and log is not None and (state.step % config.validate_every == 0 or last):
            figures = dict(validate(state.average))
            log.write(state.step, state.seconds, figures)
            export(state, config, out / "checkpoints" / f"{name}-{state.step}.safetensors", name, data, figures)
            means |= figures
        progress(state.step, means)
    path = out / f"{name}.safetensors"
    if log is not None:
        log.close()
        export(state, config, path, name, data, means if validate is not None else {})
    fabric.barrier()
    return path


def _begin_at(start: Path, model: TrafficDiffusion) -> str:
    """Give the model a checkpoint's weights, and return what those had been fitted to. Raises BadConfig."""
    known, header = load_checkpoint(start)
    if known.config != model.config:
        raise BadConfig(f"{start}: a model of another shape ({known.config}) than the one to train ({model.config})")
    model.load_state_dict(known.state_dict())
    before, digest = header["provenance"], header["weights_sha256"][:16]
    return f"began at {before['name']} ({before['steps']} steps, weights {digest}): {before['data']}"


def _fabric(machine: Machine) -> Any:
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingExtra("lightning-fabric", "train") from error
    devices: str | int = int(machine.devices) if machine.devices.isdigit() else machine.devices
    if machine.accelerator == "cpu" and devices == "auto":
        devices = 1
    precision: Any = machine.precision  # Fabric's type lists all words that it knows
    fabric = Fabric(accelerator=machine.accelerator, devices=devices, num_nodes=machine.nodes, precision=precision)
    fabric.launch()
    return fabric


def _descend(
    fabric: Any,
    objective: Any,
    optimiser: Any,
    cache: Samples,
    config: TrainConfig,
    step: int,
    out: Path,
    driver: TrafficDiffusion | None,
) -> dict[str, Tensor]:
    """Take one step down the gradient of this process's parts of the batch, and return what was found on the way."""
    rows = cache.rows(config.batch, config.seed, step)
    parts = np.array_split(rows, fabric.world_size * config.accumulate)
    mine = range(fabric.global_rank * config.accumulate, (fabric.global_rank + 1) * config.accumulate)
    optimiser.zero_grad(set_to_none=True)
    found: dict[str, Tensor] = {}
    for part in mine:
        generator = torch.Generator().manual_seed(key_of(config.seed, step, part))
        sample = trimmed(cache.batch(parts[part], (config.seed, step)))
        batch = make_batch(sample, config, generator, driver).to(fabric.device)
        with fabric.no_backward_sync(objective, enabled=part != mine[-1]):
            loss, pieces = objective(batch, generator)
            fabric.backward(loss / config.accumulate)
        for key, value in pieces.items():
            found[key] = found.get(key, torch.zeros_like(value)) + value / config.accumulate
    norm = fabric.clip_gradients(objective, optimiser, max_norm=config.clip, error_if_nonfinite=False)
    if not torch.isfinite(norm + found["loss"]):
        np.savez(out / "diverged.npz", allow_pickle=False, **sample)
        raise TrainingDiverged(
            f"the loss is {found['loss'].item()} and its gradient {norm.item()} at step {step}; its batch is "
            f"{out}/diverged.npz"
        )
    optimiser.step()
    return {**found, "gradient": norm}


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


@torch.no_grad()
def _average(average: TrafficDiffusion, model: TrafficDiffusion, decay: float) -> None:
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
