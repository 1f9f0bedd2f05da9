"""The network as ONNX files: `map.onnx` once per map, `scene.onnx` once per tick, `step.onnx` at each denoising step.

All axes that vary are dynamic: worlds, agents, map pieces, lights, futures. A `model.json` beside them says what the
rest of a sampler needs: configuration, scale of the actions, schedule, parameterisation, and what inputs are called.
"""

import hashlib
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from traj_diffusion import __version__
from traj_diffusion.datasets.conditioning import HISTORY_FEATURES, PIECE_POINTS, Conditioning, MapTensors
from traj_diffusion.diffusion import make_schedule, uniform_grid
from traj_diffusion.errors import MissingExtra
from traj_diffusion.kinematics import ACTION
from traj_diffusion.model import TrafficDiffusion
from traj_diffusion.policies.flat import leaves, rebuilt, tensors
from traj_diffusion.scene.archive import atomic_path

CONTENT, SCHEMA_VERSION = "traj-diffusion ONNX", 1
OPSET = 18
LEVELS = 101  # of the schedule that are written down


def export_model(model: TrafficDiffusion, name: str, folder: Path) -> Path:
    """Write the three files and `model.json`, the last of all, into a folder; return the folder.

    Raises MissingExtra without the extra `onnx`.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise MissingExtra(package, "onnx")
    model = model.eval().cpu()
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for part, (module, one, other, outputs) in _parts(model).items():
        with atomic_path(folder / f"{part}.onnx") as temporary:
            _write(module, one, other, outputs, temporary)
            digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        files[part] = {"file": f"{part}.onnx", "sha256": digest, "inputs": list(one), "outputs": outputs}
    schedule = make_schedule(model.config.schedule)
    times = uniform_grid(schedule, LEVELS - 1)
    alpha, sigma = schedule.levels(times)
    said = {
        "content": CONTENT,
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "name": name,
        "config": asdict(model.config),
        "action_scale": model.action_scale.tolist(),
        "parameterisation": model.config.parameterisation,
        "schedule": {
            "name": model.config.schedule,
            "t": times.tolist(),
            "alpha": alpha.tolist(),
            "sigma": sigma.tolist(),
        },
        "files": files,
    }
    with atomic_path(folder / "model.json") as temporary:
        temporary.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return folder


def example(
    worlds: int, agents: int, pieces: int, lights: int, history: int, device: str = "cpu"
) -> tuple[Conditioning, MapTensors]:
    """Return conditioning of these sizes that means nothing, to trace a network with."""

    def yes(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=torch.bool, device=device)

    def number(value: int, *shape: int) -> Tensor:
        return torch.full(shape, value, dtype=torch.long, device=device)

    def spread(*shape: int) -> Tensor:
        return torch.linspace(-1, 1, math.prod(shape), device=device).reshape(shape)

    return Conditioning(
        history=spread(worlds, agents, history, HISTORY_FEATURES),
        pose=spread(worlds, agents, 3),
        speed=spread(worlds, agents, 2),
        velocity=spread(worlds, agents, 2),
        size=spread(worlds, agents, 3),
        kind=number(1, worlds, agents),
        valid=yes(worlds, agents),
        light_pose=spread(worlds, lights, 3),
        light_state=number(0, worlds, lights),
        light_valid=yes(worlds, lights),
        route=number(0, worlds, agents, pieces),
        light_route=number(0, worlds, agents, lights),
    ), MapTensors(
        points=spread(1, pieces, PIECE_POINTS, 2),
        pose=spread(1, pieces, 3),
        length=spread(1, pieces),
        code=number(0, 1, pieces),
        speed_limit=spread(1, pieces),
        valid=yes(1, pieces),
    )


class _Traced(nn.Module):
    """A function of flat tensors as a module that owns the network's weights."""

    def __init__(self, model: TrafficDiffusion, call: Callable[[TrafficDiffusion, Sequence[Tensor]], Any]) -> None:
        super().__init__()
        self.model, self._call = model, call

    def forward(self, *flat: Tensor) -> Any:
        return self._call(self.model, flat)


Part = tuple[nn.Module, dict[str, Tensor], dict[str, Tensor], list[str]]


@torch.no_grad()
def _parts(model: TrafficDiffusion) -> dict[str, Part]:
    """Return each part as a module of flat tensors, its inputs by name in two sizes, and what its outputs are called.

    What differs between the two sizes is a dynamic axis.
    """
    config = model.config
    sizes = ((2, 5, 23, 3), (3, config.near_agents + 5, config.near_map + 9, config.near_lights + 3))
    maps, scenes, steps = [], [], []
    for worlds, agents, pieces, lights in sizes:
        c, map_ = example(worlds, agents, pieces, lights, config.history_steps)
        tokens = model.encode_map(map_)
        prepared = model.encode(c, map_, tokens)
        on_map = {f"map.{name}": value for name, value in leaves(map_)}
        futures = worlds + 3
        maps.append(on_map)
        scenes.append({name: value for name, value in leaves(c)} | on_map | {"map_tokens": tokens})
        steps.append(
            {
                "x_t": torch.zeros(worlds, agents, futures, config.knots, ACTION),
                "t": torch.full((worlds, agents, futures), 0.5),
                **{f"prepared.{name}": value.contiguous() for name, value in leaves(prepared)},
            }
        )
    seen = len(leaves(c))
    names = [f"prepared.{name}" for name, _ in leaves(prepared)]

    def encode_map(network: TrafficDiffusion, flat: Sequence[Tensor]) -> Tensor:
        return network.encode_map(MapTensors(*flat))

    def encode(network: TrafficDiffusion, flat: Sequence[Tensor]) -> tuple[Tensor, ...]:
        scene = network.encode(Conditioning(*flat[:seen]), MapTensors(*flat[seen:-1]), flat[-1])
        return tuple(tensors(scene))

    def step(network: TrafficDiffusion, flat: Sequence[Tensor]) -> Tensor:
        return network(flat[0], flat[1], rebuilt(prepared, flat[2:]))

    return {
        "map": (_Traced(model, encode_map), maps[0], maps[1], ["map_tokens"]),
        "scene": (_Traced(model, encode), scenes[0], scenes[1], names),
        "step": (_Traced(model, step), steps[0], steps[1], ["prediction"]),
    }


def _write(module: nn.Module, one: dict[str, Tensor], other: dict[str, Tensor], outputs: list[str], file: Path) -> None:
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis in range(one[name].ndim) if one[name].shape[axis] != value.shape[axis]}
        for name, value in other.items()
    )
    with _quietly():
        program = torch.onnx.export(
            module,
            tuple(one.values()),
            input_names=list(one),
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=(dynamic,),
            custom_translation_table={torch.ops.aten._cdist_forward.default: _distances},
            verbose=False,
        )
    assert program is not None
    program.save(file)


def _distances(x1: Any, x2: Any, p: float = 2.0, compute_mode: Any = None) -> Any:
    """Return Euclidean distances between all rows, as ONNX operators: the exporter has none for torch.cdist."""
    from onnxscript import opset18 as op

    apart = op.Sub(op.Unsqueeze(x1, op.Constant(value_ints=[-2])), op.Unsqueeze(x2, op.Constant(value_ints=[-3])))
    return op.ReduceL2(apart, op.Constant(value_ints=[-1]), keepdims=0)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the exporter from talking of packages that it does not need."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
