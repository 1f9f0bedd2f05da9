"""An exported network in another runtime, with the methods of `TrafficDiffusion`, so that `DiffusionPolicy` takes it.

```
policy = load_model("small", runtime="openvino")          # exports first, which takes a while
policy = load_exported("out/small-onnx", runtime="onnx")  # what `traj-diffusion export` wrote
```
"""

import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from traj_diffusion.datasets.conditioning import Conditioning, MapTensors
from traj_diffusion.errors import BadCheckpoint, BadConfig, MissingExtra
from traj_diffusion.kinematics import ACTION
from traj_diffusion.model import ModelConfig, Prepared, TrafficDiffusion
from traj_diffusion.policies.diffusion import (
    DEFAULT_GUIDANCE,
    DEFAULT_STEPS,
    DEFAULT_WARM,
    DiffusionPolicy,
    single_threaded,
)
from traj_diffusion.policies.export import CONTENT, SCHEMA_VERSION, example, export_model
from traj_diffusion.policies.flat import leaves, rebuilt
from traj_diffusion.policies.surroundings import Guidance

Arrays = Mapping[str, np.ndarray]
Call = Callable[[Arrays], list[np.ndarray]]
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}  # name -> the package that it needs
FASTEST = "fastest"
TRIES = 5  # of a step, to find out which runtime is the fastest
TRIED_AGENTS = 16


class RuntimeModel(TrafficDiffusion):
    """A network whose three parts run from ONNX files; its own weights are empty. On the CPU, for inference only.

    Each call runs in `threads` threads; the policy calls from several at once. The numbers differ from torch's by
    rounding (docs/adapter.md has by how much), so a run repeats itself bit for bit in one runtime, not across them.

    Raises BadCheckpoint where the folder is not what `traj-diffusion export` wrote, MissingExtra without the runtime.
    """

    def __init__(self, folder: str | Path, runtime: str = "onnx", threads: int = 1) -> None:
        _require(runtime)
        said = _read(Path(folder))
        try:
            scale, files = torch.tensor(said["action_scale"]), said["files"]
            with torch.device("meta"), torch.no_grad():
                super().__init__(ModelConfig(**said["config"]))
                c, map_ = example(1, 1, 1, 1, self.config.history_steps, "meta")
                # What the network would hand on of a scene: its structure, without values.
                self._template = super().encode(c, map_, super().encode_map(map_))
            if self.action_scale.shape != scale.shape:
                raise ValueError(f"action_scale has shape {list(scale.shape)}, not {list(self.action_scale.shape)}")
            paths = {part: Path(folder, files[part]["file"]) for part in ("map", "scene", "step")}
            digests = {part: files[part]["sha256"] for part in paths}
            self._inputs = {part: files[part]["inputs"] for part in paths}
            outputs = files["scene"]["outputs"]
        except (KeyError, TypeError, ValueError) as error:
            raise BadCheckpoint(f"{folder}/model.json does not fit this release: {error}") from error
        if outputs != [f"prepared.{name}" for name, _ in leaves(self._template)]:
            raise BadCheckpoint(f"{folder}: exported from a network of another structure; export it again")
        for part, path in paths.items():
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digests[part]:
                raise BadCheckpoint(f"{path}: absent, or not the file that model.json was written for; export it again")
        self.action_scale, self.runtime = scale, runtime
        self._digest = torch.tensor([int(digest[:15], 16) for digest in digests.values()])
        started = _onnxruntime if runtime == "onnx" else _openvino
        self._calls = {part: started(path, threads) for part, path in paths.items()}
        self.eval()

    def state_dict(self, *args: Any, **more: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Return what tells this model from others: digests of its files. The weights themselves are in there."""
        runtime = torch.tensor([*self.runtime.encode()])
        return {"files": self._digest, "runtime": runtime, "action_scale": self.action_scale}

    def encode_map(self, tensors: MapTensors) -> Float[Tensor, "B M d"]:
        """Return one vector per map piece; once per map."""
        (tokens,) = self._run("map", _fields(tensors))
        return tokens

    def encode(
        self, c: Conditioning, tensors: MapTensors, map_tokens: Float[Tensor, "b M d"], focus: int | None = None
    ) -> Prepared:
        """Return the scene as the denoiser wants it, of all agents; once per tick. Raises ValueError for a `focus`."""
        if focus is not None:
            raise ValueError("an exported network encodes all agents; a focus is for training")
        flat = self._run("scene", [*_fields(c), *_fields(tensors), map_tokens])
        rebuilt_scene: Prepared = rebuilt(self._template, flat)
        return rebuilt_scene

    def forward(
        self, x_t: Float[Tensor, "B A K k 3"], t: Float[Tensor, "B A K"], scene: Prepared
    ) -> Float[Tensor, "B A K k 3"]:
        """Return what the network predicts for x_t at diffusion time t."""
        (prediction,) = self._run("step", [x_t, t, *(value for _, value in leaves(scene))])
        return prediction

    def _run(self, part: str, flat: list[Tensor]) -> list[Tensor]:
        arrays = {name: value.contiguous().numpy() for name, value in zip(self._inputs[part], flat, strict=True)}
        return [torch.from_numpy(np.ascontiguousarray(array)) for array in self._calls[part](arrays)]


def load_exported(
    folder: str | Path,
    runtime: str = "onnx",
    steps: int = DEFAULT_STEPS,
    warm: float | None = DEFAULT_WARM,
    guidance: Guidance | None = DEFAULT_GUIDANCE,
) -> DiffusionPolicy:
    """Return the policy of an exported network in a runtime: onnx, openvino, or whichever is fastest here.

    "fastest" times a denoising step in each one that is installed. Which one wins may change from run to run, and with
    it the last bits of every future: name one where runs are to be repeated.
    """
    models = in_runtimes(folder) if runtime == FASTEST else {runtime: RuntimeModel(folder, runtime)}
    chosen = fastest(models)
    return DiffusionPolicy(models[chosen], f"{_read(Path(folder))['name']}-{chosen}", steps, warm, guidance)


def in_runtime(policy: DiffusionPolicy, runtime: str) -> DiffusionPolicy:
    """Return a policy of torch with its network in another runtime, or in the fastest one, torch itself among them.

    Exports to a folder that is gone afterwards. Raises BadConfig where the runtime is unknown, MissingExtra where the
    package is not installed that it needs; for "fastest", the exporter's alone.
    """
    if runtime != FASTEST:
        _require(runtime)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        export_model(policy.model, policy.name, Path(folder))
        models = in_runtimes(folder) if runtime == FASTEST else {runtime: RuntimeModel(folder, runtime)}
    chosen = fastest({"torch": policy.model, **models}) if runtime == FASTEST else runtime
    if chosen == "torch":
        return policy
    return DiffusionPolicy(models[chosen], f"{policy.name}-{chosen}", policy.steps, policy.warm, policy.guidance)


def in_runtimes(folder: str | Path, threads: int = 1) -> dict[str, RuntimeModel]:
    """Return an exported network in each runtime that is installed, by its name. Raises MissingExtra where none is."""
    found = {name: RuntimeModel(folder, name, threads) for name, package in RUNTIMES.items() if find_spec(package)}
    if not found:
        raise MissingExtra("onnxruntime", "onnx")
    return found


def fastest(models: Mapping[str, TrafficDiffusion]) -> str:
    """Return whose denoising step of 8 futures took least: a few in each, in turns, in one thread."""
    if len(models) == 1:
        return next(iter(models))
    tried = {}
    with single_threaded(), torch.no_grad():
        for name, model in models.items():
            config = model.config
            c, map_ = example(1, TRIED_AGENTS, config.near_map, config.near_lights, config.history_steps)
            scene = model.encode(c, map_, model.encode_map(map_))
            x_t = torch.zeros(1, TRIED_AGENTS, 8, config.knots, ACTION)
            tried[name] = (model, x_t, torch.full(x_t.shape[:3], 0.5), scene)
        took = [{name: _seconds(*one) for name, one in tried.items()} for _ in range(TRIES)]
    return min(tried, key=lambda name: min(turn[name] for turn in took))


def _seconds(model: TrafficDiffusion, x_t: Tensor, t: Tensor, scene: Prepared) -> float:
    began = time.perf_counter()
    model(x_t, t, scene)
    return time.perf_counter() - began


def is_exported(folder: str | Path) -> bool:
    """Return whether a path looks like a folder that `traj-diffusion export` wrote."""
    return (Path(folder) / "model.json").is_file()


def _require(runtime: str) -> None:
    if runtime not in RUNTIMES:
        raise BadConfig(f"runtime {runtime!r} is unknown; known: {', '.join(RUNTIMES)}")
    if find_spec(RUNTIMES[runtime]) is None:
        raise MissingExtra(RUNTIMES[runtime], runtime)


def _read(folder: Path) -> dict[str, Any]:
    try:
        said = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{folder}: no exported model there: {error}") from error
    if not isinstance(said, dict) or said.get("content") != CONTENT:
        raise BadCheckpoint(f"{folder}/model.json: not written by `traj-diffusion export`")
    if said.get("schema_version") != SCHEMA_VERSION:
        raise BadCheckpoint(
            f"{folder}: schema version {said.get('schema_version')!r}, written by traj-diffusion "
            f"{said.get('version')}; this release reads {SCHEMA_VERSION}"
        )
    return said


def _fields(value: Any) -> list[Tensor]:
    return [getattr(value, field.name) for field in fields(value)]


def _onnxruntime(path: Path, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    asked = {one.name for one in session.get_inputs()}

    def call(arrays: Arrays) -> list[np.ndarray]:
        return list(session.run(None, {name: value for name, value in arrays.items() if name in asked}))

    return call


def _openvino(path: Path, threads: int) -> Call:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    asked = {name for one in compiled.inputs for name in one.get_names()}
    own = threading.local()  # a request serves one thread at a time

    def call(arrays: Arrays) -> list[np.ndarray]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        found = own.request.infer({name: value for name, value in arrays.items() if name in asked})
        return [np.array(found[output]) for output in compiled.outputs]

    return call
