"""Our checkpoints, and our data, as a subject."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from traj_diffusion.datasets import read_scenes
from traj_diffusion.datasets.cache import Cache, CacheShape, pack
from traj_diffusion.diffusion import PARAMETERISATIONS, keyed_normal, make_schedule
from traj_diffusion.diffusion.checks import known
from traj_diffusion.doctor.subject import Bound, Network, Subject, drive, plain_subject
from traj_diffusion.errors import BadCheckpoint, BadInput
from traj_diffusion.model import TrafficDiffusion, find_checkpoint, load_checkpoint
from traj_diffusion.policies import DEFAULT_STEPS, DiffusionPolicy
from traj_diffusion.scene import Scene
from traj_diffusion.training.batch import Batch, make_batch
from traj_diffusion.training.config import TrainConfig
from traj_diffusion.training.state import FILE
from traj_diffusion.training.train import trimmed

EXAMPLES = 8  # scenes, or samples of a cache, that are looked at
_EARLIER = 5


def load_data(source: str | Path, examples: int = EXAMPLES) -> tuple[dict[str, np.ndarray], tuple[Scene, ...]]:
    """Return some samples of a cache, or some scenes packed as a cache would; a cache has no scenes to show."""
    if (Path(source) / "index.json").is_file():
        cache = Cache(Path(source))
        rows = np.unique(np.linspace(0, len(cache) - 1, min(examples, len(cache))).round().astype(np.int64))
        return trimmed(cache.batch(rows)), ()
    scenes = tuple(islice(read_scenes(source), examples))
    if not scenes:
        raise BadInput(f"{source}: holds no scene")
    packed = [pack(scene, CacheShape()) for scene in scenes]
    return trimmed({name: np.stack([one[name] for one in packed]) for name in packed[0]}), scenes


def subject_of_checkpoint(name_or_file: str | Path, data: str | Path, steps: int = DEFAULT_STEPS) -> Subject:
    """Return the subject of a bundled checkpoint or a file, with data. Raises BadCheckpoint, BadFile."""
    path = find_checkpoint(name_or_file)
    model, _ = load_checkpoint(path)
    try:
        if make_schedule(model.config.schedule).discrete:
            raise ValueError(f"its network takes t in [0, 1], the schedule {model.config.schedule} counts steps")
        known(model.config.parameterisation, PARAMETERISATIONS, "parameterisation")
    except ValueError as error:
        raise BadCheckpoint(f"{path}: its config does not fit: {error}") from error
    samples, scenes = load_data(data)
    batch = make_batch(samples, TrainConfig(model=model.config), None)
    subject = subject_of_model(model, batch, scenes, path.stem, steps)
    earlier = tuple(subject_of_model(other, batch, (), name, steps) for other, name in _siblings(path, model))
    return replace(subject, average=_average_beside(path, model), earlier=earlier)


def subject_of_model(
    model: TrafficDiffusion, batch: Batch, scenes: Sequence[Scene], name: str, steps: int = DEFAULT_STEPS
) -> Subject:
    """Return a model of ours as a subject. It samples by the policy's own functions."""
    schedule, policy = make_schedule(model.config.schedule), DiffusionPolicy(model, name, steps)

    def prior(seed: int, shape: tuple[int, ...]) -> Tensor:
        rows = int(np.prod(shape[:-2]))
        eps = torch.from_numpy(keyed_normal([seed, np.arange(rows)], shape[-2] * shape[-1])).reshape(shape)
        return policy.start(eps)

    def fresh() -> tuple[list[torch.nn.Parameter], Network]:
        other = TrafficDiffusion(model.config)
        return list(other.parameters()), network_of(other)

    with torch.random.fork_rng(devices=[]):
        initial = TrafficDiffusion(model.config).state_dict()
    return replace(
        plain_subject(schedule, model.config.parameterisation, steps, name),
        prior=prior,
        sampler=policy.denoise,
        network=network_of(model),
        batch=batch,
        normalise=model.normalise,
        denormalise=model.denormalise,
        drive=drive,
        policy=policy,
        scenes=tuple(scenes),
        fresh=fresh,
        weights=model.state_dict(),
        initial=initial,
    )


def network_of(model: TrafficDiffusion) -> Network:
    """Return the model as a network: conditioning is encoded once, then asked at any x_t and t."""

    def bind(batch: Batch) -> Bound:
        prepared = model.encode(batch.conditioning, batch.map, model.encode_map(batch.map))

        def ask(x_t: Tensor, t: Tensor) -> Tensor:
            prediction: Tensor = model(x_t, t.float()[:, None, None].expand(x_t.shape[:3]), prepared)
            return prediction

        return ask

    return bind


def _average_beside(path: Path, model: TrafficDiffusion) -> dict[str, Tensor] | None:
    """Return the moving average that the training kept beside a checkpoint, where it is of these sizes."""
    state = path.parent / FILE
    if not state.is_file():
        return None
    try:
        with safe_open(state, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith("average.")]  # noqa: SIM118
            average = {name.removeprefix("average."): file.get_tensor(name) for name in names}
    except (SafetensorError, OSError):
        return None
    own = model.state_dict()
    fits = average.keys() == own.keys() and all(average[name].shape == own[name].shape for name in own)
    return average if fits else None


def _siblings(path: Path, model: TrafficDiffusion) -> list[tuple[TrafficDiffusion, str]]:
    """Return other checkpoints of the same sizes and fewer steps in the folder, in order of their steps."""
    _, own = load_checkpoint(path)
    found = []
    for file in sorted(path.parent.glob("*.safetensors")):
        if file == path or file.name == FILE:
            continue
        try:
            other, header = load_checkpoint(file)
        except BadCheckpoint:
            continue  # a folder of somebody's may hold anything
        steps = header["provenance"]["steps"]
        if other.config == model.config and steps < own["provenance"]["steps"]:
            found.append((steps, file.stem, other))
    found.sort(key=lambda entry: entry[:2])
    spread = np.linspace(0, len(found) - 1, min(_EARLIER, len(found))).round().astype(int).tolist()
    return [(found[place][2], found[place][1]) for place in sorted(set(spread))]
