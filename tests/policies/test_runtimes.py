"""Exported networks: what they hand on, parity with torch at each denoising step, and policies in other runtimes."""

import copy
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from traj_diffusion.cli.main import cli
from traj_diffusion.datasets import read_scenes
from traj_diffusion.diffusion import uniform_grid
from traj_diffusion.errors import BadCheckpoint, BadConfig, MissingExtra
from traj_diffusion.model import Prepared
from traj_diffusion.policies import DiffusionPolicy, load_exported, load_model, load_policy
from traj_diffusion.policies.export import example, export_model
from traj_diffusion.policies.flat import leaves, rebuilt, tensors
from traj_diffusion.policies.runtime import RUNTIMES, RuntimeModel, fastest, is_exported
from traj_diffusion.scene import Observation, PlanRequest, Scene
from traj_diffusion.sim_adapter import rollout
from traj_diffusion.sim_adapter.history import world_state

PARITY = 1e-4
STEPS = 8


@dataclass(frozen=True)
class Pair:
    first: Tensor
    more: tuple[tuple[Tensor, Tensor], ...]


def test_nested_tensors_are_flattened_by_path_and_built_again() -> None:
    pair = Pair(torch.zeros(1), ((torch.ones(2), torch.ones(3)), (torch.ones(4), torch.ones(5))))
    assert [name for name, _ in leaves(pair)] == ["first", "more.0.0", "more.0.1", "more.1.0", "more.1.1"]
    again = rebuilt(pair, tensors(pair))
    assert type(again) is Pair
    assert all(one is other for one, other in zip(tensors(pair), tensors(again), strict=True))
    with pytest.raises(ValueError, match="4 tensors for a Pair of 5"):
        rebuilt(pair, tensors(pair)[:-1])


def test_without_the_extra_export_and_runtimes_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("traj_diffusion.policies.export.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'traj-diffusion\[onnx\]'"):
        export_model(load_model().model, "any", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("traj_diffusion.policies.runtime.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'traj-diffusion\[openvino\]'"):
        RuntimeModel(tmp_path, "openvino")
    with pytest.raises(BadConfig, match="runtime 'tensorrt' is unknown; known: onnx, openvino"):
        RuntimeModel(tmp_path, "tensorrt")
    for runtime in RUNTIMES:
        with pytest.raises(MissingExtra, match=rf"pip install 'traj-diffusion\[{runtime}\]'"):
            load_model(runtime=runtime)
    with pytest.raises(MissingExtra, match=r"pip install 'traj-diffusion\[onnx\]'"):
        load_model(runtime="fastest")
    with pytest.raises(BadConfig, match="runtime 'tensorrt' is unknown"):
        load_model(runtime="tensorrt")
    with pytest.raises(BadConfig, match="runtime 'onnx' runs on the CPU, not on 'cuda'"):
        load_model(device="cuda", runtime="onnx")


def test_the_fastest_network_is_the_one_whose_steps_took_least(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model().model
    slow, fast = copy.copy(model), copy.copy(model)
    now = [0.0]

    def step(seconds: float) -> Callable[..., Tensor]:
        def forward(x_t: Tensor, t: Tensor, scene: Prepared) -> Tensor:
            now[0] += seconds
            return x_t

        return forward

    monkeypatch.setattr("traj_diffusion.policies.runtime.time", SimpleNamespace(perf_counter=lambda: now[0]))
    slow.forward, fast.forward = step(2.0), step(1.0)  # type: ignore[method-assign]
    assert fastest({"torch": slow, "onnx": fast, "openvino": slow}) == "onnx"
    assert fastest({"torch": fast, "onnx": slow}) == "torch"
    assert fastest({"openvino": slow}) == "openvino"


needs_onnx = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the extra [onnx]",
)
installed = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(package) is None, reason=f"needs the extra [{name}]"))
    for name, package in RUNTIMES.items()
]
pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore")]  # of the exporter's own


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    done = CliRunner().invoke(cli, ["export", "--out", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"{load_model().name} -> ")
    return folder


def request_of(scene: Scene, policy: DiffusionPolicy, futures: int) -> PlanRequest:
    context = policy.encode(scene.history_only())
    seen = tuple(Observation.from_scene(scene, index) for index in range(scene.current_index + 1))
    return PlanRequest(context, world_state(seen, 11), futures, 0, 0, np.zeros(1, np.int32))


@needs_onnx
@pytest.mark.parametrize("runtime", installed)
@torch.no_grad()
def test_parity_with_torch_at_every_denoising_step_of_every_bundled_scene(exported: Path, runtime: str) -> None:
    ours, theirs = load_model(steps=STEPS), RuntimeModel(exported, runtime)
    grid = uniform_grid(ours._schedule, STEPS)
    for scene in read_scenes("bundled"):
        request = request_of(scene, ours, 8)
        c, context = ours.condition(request), request.context
        assert (theirs.encode_map(context.tensors) - context.tokens).abs().max() < PARITY
        prepared = ours.model.encode(c, context.tensors, context.tokens)
        prepared_there = theirs.encode(c, context.tensors, context.tokens)
        found: list[float] = []

        def network(x_t: Tensor, t: Tensor, here=prepared, there=prepared_there, found=found) -> Tensor:  # type: ignore[no-untyped-def]
            x, level = x_t.transpose(0, 1)[None], t[None, None].expand(1, x_t.shape[1], -1)
            wanted = ours.model(x, level, here)
            found.append(float((theirs(x, level, there) - wanted).abs().max()))
            return wanted[0].transpose(0, 1)

        ours.denoise(network, ours.start(ours._noise(request)[0]), grid)
        assert len(found) == STEPS
        assert max(found) < PARITY, f"{scene.id}: {found}"


@needs_onnx
@pytest.mark.parametrize("runtime", installed)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 1, 1, 0), (1, 300, 700, 40), (8, 3, 40, 2)])
@torch.no_grad()
def test_sizes_that_were_not_traced_work(exported: Path, runtime: str, sizes: tuple[int, int, int, int]) -> None:
    ours, theirs = load_model().model, RuntimeModel(exported, runtime)
    c, map_ = example(*sizes, ours.config.history_steps)
    scattered = torch.Generator().manual_seed(0)
    c = replace(
        c,
        pose=torch.randn(c.pose.shape, generator=scattered) * 30,
        light_pose=torch.randn(c.light_pose.shape, generator=scattered) * 30,
    )
    map_ = replace(map_, pose=torch.randn(map_.pose.shape, generator=scattered) * 60)
    tokens = ours.encode_map(map_)
    x_t, t = torch.randn(*c.valid.shape, 1, 16, 3, generator=scattered), torch.full((*c.valid.shape, 1), 0.3)
    wanted = ours(x_t, t, ours.encode(c, map_, tokens))
    assert (theirs(x_t, t, theirs.encode(c, map_, theirs.encode_map(map_))) - wanted).abs().max() < PARITY


@needs_onnx
@pytest.mark.parametrize("runtime", installed)
def test_the_policy_drives_in_another_runtime_as_it_does_in_torch(exported: Path, runtime: str) -> None:
    scene = next(iter(read_scenes("bundled")))
    policy = load_exported(exported, runtime, steps=2)
    assert policy.name == f"{load_model().name}-{runtime}"
    assert policy.fingerprint != load_model(steps=2).fingerprint
    runs = rollout(scene, policy, rollouts=2, seed=1)
    again = rollout(scene, policy, rollouts=2, seed=1)
    assert np.array_equal(runs.position, again.position), "the same seed gives the same bits in one runtime"
    fewer = rollout(scene, policy, rollouts=1, seed=1)
    assert np.array_equal(runs.position[:1], fewer.position), "more runs leave the first ones as they were"
    torch_runs = rollout(scene, load_model(steps=2), rollouts=2, seed=1)
    assert np.median(np.abs(runs.position - torch_runs.position)) < 0.01


@needs_onnx
def test_an_exported_folder_is_a_policy_by_its_path_and_by_measurement(exported: Path) -> None:
    assert is_exported(exported)
    assert load_policy(str(exported)).name == f"{load_model().name}-onnx"
    assert load_exported(exported, "fastest").name in {f"{load_model().name}-{name}" for name in RUNTIMES}
    assert load_model(exported, runtime="onnx").name == f"{load_model().name}-onnx"
    with pytest.raises(BadConfig, match="was exported and has no weights for torch; runtime='onnx' runs it"):
        load_model(exported)


@needs_onnx
@pytest.mark.parametrize("runtime", [*installed, "fastest"])
def test_a_checkpoint_runs_in_the_runtime_that_is_asked_for(exported: Path, runtime: str) -> None:
    policy = load_model(runtime=runtime, steps=2, guidance=None)
    assert (policy.steps, policy.guidance) == (2, None)
    name = load_model().name
    if runtime == "fastest":
        assert policy.name in {name, *(f"{name}-{one}" for one in RUNTIMES)}
        return
    assert policy.name == f"{name}-{runtime}"
    scene = next(iter(read_scenes("bundled")))
    runs = rollout(scene, policy, rollouts=1, seed=1)
    same = rollout(scene, load_exported(exported, runtime, steps=2, guidance=None), rollouts=1, seed=1)
    assert np.array_equal(runs.position, same.position)


@needs_onnx
def test_model_json_holds_what_a_sampler_elsewhere_needs(exported: Path) -> None:
    said = json.loads((exported / "model.json").read_text(encoding="utf-8"))
    model = load_model().model
    assert said["action_scale"] == pytest.approx(model.action_scale.numpy())
    assert said["parameterisation"] == model.config.parameterisation
    levels = said["schedule"]
    assert len(levels["t"]) == len(levels["alpha"]) == len(levels["sigma"]) == 101
    assert np.square(levels["alpha"]) + np.square(levels["sigma"]) == pytest.approx(np.ones(101))
    assert said["files"]["step"]["inputs"][:2] == ["x_t", "t"]
    assert said["files"]["scene"]["outputs"] == said["files"]["step"]["inputs"][2:]


@needs_onnx
def test_every_axis_that_varies_is_dynamic(exported: Path) -> None:
    import onnxruntime

    free = {}
    for part in ("map", "scene", "step"):
        session = onnxruntime.InferenceSession(str(exported / f"{part}.onnx"), providers=["CPUExecutionProvider"])
        for one in session.get_inputs():
            free[part, one.name] = [isinstance(axis, str) for axis in one.shape]
    assert free["map", "map.points"] == [False, True, False, False]
    assert free["scene", "history"] == [True, True, False, False]
    assert free["scene", "route"] == [True, True, True]
    assert free["scene", "light_pose"] == [True, True, False]
    assert free["step", "x_t"] == [True, True, True, False, False]
    assert all(axes[:2] == [True, True] for (part, _), axes in free.items() if part == "step")


@needs_onnx
def test_damaged_foreign_and_outdated_folders_are_refused_in_one_line(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="no exported model there"):
        RuntimeModel(tmp_path / "nothing")
    for change, message in (
        ({"content": "something else"}, "not written by `traj-diffusion export`"),
        ({"schema_version": 99}, r"schema version 99, written by traj-diffusion .*; this release reads 1"),
        ({"config": {"width": 64, "depth": 3}}, "does not fit this release"),
        ({"action_scale": [[1.0, 1.0, 1.0]]}, "does not fit this release"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(exported, folder)
        said = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        (folder / "model.json").write_text(json.dumps(said | change), encoding="utf-8")
        with pytest.raises(BadCheckpoint, match=message) as caught:
            RuntimeModel(folder)
        assert "\n" not in str(caught.value)
    folder = tmp_path / "cut"
    shutil.copytree(exported, folder)
    (folder / "step.onnx").write_bytes((folder / "step.onnx").read_bytes()[:-1])
    with pytest.raises(BadCheckpoint, match=r"step\.onnx: absent, or not the file"):
        RuntimeModel(folder)
    assert "onnxruntime" in sys.modules
