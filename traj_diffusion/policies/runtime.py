"""An exported network in another runtime, with the methods of `TrafficDiffusion`, so that `DiffusionPolicy` takes it.

```
policy = load_exported("out/tiny-onnx", runtime="openvino")   # or: DiffusionPolicy(RuntimeModel(folder), "tiny")
```
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from traj_diffusion.datasets.conditioning import Conditioning, MapTensors
from traj_diffusion.errors import BadCheckpoint, BadConfig, MissingExtra
from traj_diffusion.kinematics import ACTION
from traj_diffusion.model import ModelConfig, Prepared, TrafficDiffusion
from traj_diffusion.policies.diffusion import DEFAULT_STEPS, DEFAULT_WARM, DiffusionPolicy
from traj_diffusion.policies.export import CONTENT, SCHEMA_VERSION, example
from traj_diffusion.policies.flat import leaves, rebuilt

Arrays = Mapping[str, np.ndarray]
Call = Callable[[Arrays], list[np.ndarray]]
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}  # name -> the package that it needs
TRIES = 5  # of a step, to find out which runtime is the fastest
TRIED_AGENTS = 16


class RuntimeModel:
    """Three ONNX files behind the interface of `TrafficDiffusion`. On the CPU, for inference only.

    Each call runs in `threads` threads; the policy calls from several at once. The numbers differ from torch's by
    rounding (docs/adapter.md has by how much), so a run repeats itself bit for bit in one runtime, not across them.

    Raises BadCheckpoint where the folder is not what `traj-diffusion export` wrote, MissingExtra without the runtime.
    """

    def __init__(self, folder: str | Path, runtime: str = "onnx", threads: int = 1) -> None:
        if runtime not in RUNTIMES:
            raise BadConfig(f"runtime {runtime!r} is unknown; known: {', '.join(RUNTIMES)}")
        if find_spec(RUNTIMES[runtime]) is None:
            raise MissingExtra(RUNTIMES[runtime], runtime)
        self.folder, self.runtime = Path(folder), runtime
        said = _read(self.folder)
        try:
            self.config = ModelConfig(**said["config"])
            self._inputs = {part: file["inputs"] for part, file in said["files"].items()}
            paths = {part: self.folder / file["file"] for part, file in said["files"].items()}
            wanted = {part: file["sha256"] for part, file in said["files"].items()}
            self._twin, self._template = _twin(self.config, torch.tensor(said["action_scale"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BadCheckpoint(f"{self.folder}/model.json does not fit this release: {error}") from error
        for part, path in paths.items():
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != wanted[part]:
                raise BadCheckpoint(f"{path}: absent, or not the file that model.json was written for; export it again")
        self._digest = torch.tensor([int(digest[:15], 16) for digest in wanted.values()])
        started = _onnxruntime if runtime == "onnx" else _openvino
        self._calls = {part: started(path, threads) for part, path in paths.items()}
        names = [f"prepared.{name}" for name, _ in leaves(self._template)]
        if said["files"]["scene"]["outputs"] != names:
            raise BadCheckpoint(f"{self.folder}: exported from a network of another structure; export it again")

    @property
    def action_scale(self) -> Float[Tensor, "kinds 3"]:
        """Physical actions per normalised one, by kind of agent."""
        return self._twin.action_scale

    def state_dict(self) -> dict[str, Tensor]:
        """Return what tells this model from others: digests of its files. The weights themselves are in there."""
        runtime = torch.tensor([*self.runtime.encode()])
        return {"files": self._digest, "runtime": runtime, "action_scale": self.action_scale}

    def encode_map(self, tensors: MapTensors) -> Float[Tensor, "B M d"]:
        """Return one vector per map piece; once per map."""
        (tokens,) = self._run("map", _fields(tensors))
        return tokens

    def encode(self, c: Conditioning, tensors: MapTensors, map_tokens: Float[Tensor, "b M d"]) -> Prepared:
        """Return the scene as the denoiser wants it; once per tick."""
        flat = self._run("scene", [*_fields(c), *_fields(tensors), map_tokens])
        return cast(Prepared, rebuilt(self._template, flat))

    def __call__(
        self, x_t: Float[Tensor, "B A K k 3"], t: Float[Tensor, "B A K"], scene: Prepared
    ) -> Float[Tensor, "B A K k 3"]:
        """Return what the network predicts for x_t at diffusion time t."""
        (prediction,) = self._run("step", [x_t, t, *(value for _, value in leaves(scene))])
        return prediction

    forward = __call__

    def normalise(self, action: Float[Tensor, "B A *rest 3"], kind: Int[Tensor, "B A"]) -> Float[Tensor, "B A *rest 3"]:
        """Return x0 of physical actions."""
        return self._twin.normalise(action, kind)

    def denormalise(self, x0: Float[Tensor, "B A *rest 3"], kind: Int[Tensor, "B A"]) -> Float[Tensor, "B A *rest 3"]:
        """Return physical actions of x0."""
        return self._twin.denormalise(x0, kind)

    def _run(self, part: str, flat: list[Tensor]) -> list[Tensor]:
        arrays = {name: value.contiguous().numpy() for name, value in zip(self._inputs[part], flat, strict=True)}
        return [torch.from_numpy(np.ascontiguousarray(array)) for array in self._calls[part](arrays)]


def load_exported(
    folder: str | Path, runtime: str = "onnx", steps: int = DEFAULT_STEPS, warm: float | None = DEFAULT_WARM
) -> DiffusionPolicy:
    """Return the policy of an exported network in a runtime: onnx, openvino, or whichever is fastest here.

    "fastest" times a denoising step in each one that is installed. Which one wins may change from run to run, and with
    it the last bits of every future: name one where runs are to be repeated.
    """
    if runtime == "fastest":
        runtime = min(took := step_times(folder), key=took.__getitem__)
    model = RuntimeModel(folder, runtime)
    name = f"{_read(Path(folder))['name']}-{runtime}"
    return DiffusionPolicy(cast(TrafficDiffusion, model), name, steps, warm)


def step_times(folder: str | Path, threads: int = 1) -> dict[str, float]:
    """Return how long a denoising step of 8 futures takes [s, the best of a few] in each runtime that is installed.

    Raises MissingExtra where none is.
    """
    took = {}
    for runtime, package in RUNTIMES.items():
        if find_spec(package) is None:
            continue
        model = RuntimeModel(folder, runtime, threads)
        c, map_ = example(1, TRIED_AGENTS, model.config.near_map, model.config.near_lights, model.config.history_steps)
        scene = model.encode(c, map_, model.encode_map(map_))
        x_t, t = torch.zeros(1, TRIED_AGENTS, 8, model.config.knots, ACTION), torch.full((1, TRIED_AGENTS, 8), 0.5)
        times = []
        for _ in range(TRIES):
            began = time.perf_counter()
            model(x_t, t, scene)
            times.append(time.perf_counter() - began)
        took[runtime] = min(times)
    if not took:
        raise MissingExtra("onnxruntime", "onnx")
    return took


def is_exported(folder: str | Path) -> bool:
    """Return whether a path looks like a folder that `traj-diffusion export` wrote."""
    return (Path(folder) / "model.json").is_file()


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


def _twin(config: ModelConfig, scale: Tensor) -> tuple[TrafficDiffusion, Prepared]:
    """Return a network without weights that knows the scale of actions, and what it would hand on of a scene."""
    with torch.device("meta"), torch.no_grad():
        network = TrafficDiffusion(config).eval()
        c, map_ = example(1, 1, 1, 1, config.history_steps, "meta")
        prepared = network.encode(c, map_, network.encode_map(map_))
    if network.action_scale.shape != scale.shape:
        raise ValueError(f"action_scale has shape {list(scale.shape)}, not {list(network.action_scale.shape)}")
    network.action_scale = scale
    return network, prepared


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
