"""Copies of a bundled checkpoint, each spoilt in one way under a valid header: the right check fails for each."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from traj_diffusion.cli import main
from traj_diffusion.doctor import examine, load_data, subject_of_model
from traj_diffusion.model import Provenance, find_checkpoint, load_checkpoint, save_checkpoint
from traj_diffusion.model.neighbours import RELATIVE_FEATURES
from traj_diffusion.scene import AgentKind
from traj_diffusion.training import TrainConfig
from traj_diffusion.training.batch import Batch, make_batch

BUNDLED = find_checkpoint("small")
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def batch() -> Batch:
    """The bundled scenes."""
    return make_batch(load_data("bundled")[0], TrainConfig(), None)


def zeroed(start: str) -> Callable[[Weights], None]:
    def alter(weights: Weights) -> None:
        names = [name for name in weights if start in name]
        assert names
        for name in names:
            weights[name].zero_()

    return alter


def scaled(name: str, *by: float) -> Callable[[Weights], None]:
    def alter(weights: Weights) -> None:
        weights[name].mul_(torch.tensor(by))

    return alter


def forget_history(weights: Weights) -> None:
    weights["encoder.history.0.weight"][:, : 10 * 7] = 0  # seven features of each of ten past steps


def forget_shapes(weights: Weights) -> None:
    zeroed("encoder.map.shape.")(weights)
    weights["encoder.see_map.where.0.weight"][:, RELATIVE_FEATURES:] = 0  # points as the agent sees them


def scramble_levels(weights: Weights) -> None:
    weight = weights["denoiser.level.0.weight"]
    weight.copy_(weight[:, torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(0))])


def swap_layers(weights: Weights) -> None:
    last = max(int(name.split(".")[2]) for name in weights if name.startswith("denoiser.layers."))
    for name in [name for name in weights if name.startswith("denoiser.layers.0.")]:
        other = weights[name.replace("layers.0.", f"layers.{last}.")]
        kept = other.clone()
        other.copy_(weights[name])
        weights[name].copy_(kept)


def overflow(weights: Weights) -> None:
    weights["denoiser.layers.0.feed_forward.up.weight"].mul_(1e9)  # beyond what half precision holds


def add_noise(weights: Weights) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, value in weights.items():
        if name != "action_scale":
            value.add_(value.std(correction=0) * torch.randn(value.shape, generator=generator))


CASES: dict[str, tuple[Callable[[Weights], None], str]] = {
    "time embedding zeroed": (zeroed("denoiser.level."), "model.timestep"),
    "features of t scrambled": (scramble_levels, "model.timestep"),
    "two layers swapped": (swap_layers, "model.one_step"),
    "noise on the weights": (add_noise, "model.one_step"),
    "overflow of half precision": (overflow, "checkpoint.ema"),
    "attention to the scene zeroed": (zeroed(".scene."), "checkpoint.ema"),
    "neighbours' relation zeroed": (zeroed("encoder.see_agent."), "checkpoint.ema"),
    "map encoder zeroed": (zeroed("encoder.map."), "conditioning.map"),
    "shape of map pieces zeroed": (forget_shapes, "conditioning.map"),
    "place of map pieces zeroed": (zeroed("encoder.see_map.where."), "conditioning.map"),
    "history zeroed": (zeroed("encoder.history."), "conditioning.history"),
    "past zeroed": (forget_history, "conditioning.history"),
    "lights zeroed": (zeroed("encoder.light."), "conditioning.lights"),
    "route zeroed": (zeroed("encoder.route."), "conditioning.route"),
    "others' plans zeroed": (zeroed(".others."), "conditioning.agents"),
    "action scale threefold": (scaled("action_scale", 3.0), "data.normalisation"),
    "action scale a third": (scaled("action_scale", 1 / 3), "data.normalisation"),
    "yaw rates turned": (scaled("action_scale", 1.0, -1.0, 1.0), "data.normalisation"),
    "output turned": (scaled("denoiser.out.weight", -1.0), "model.parameterisation"),
    "output doubled": (scaled("denoiser.out.weight", 2.0), "model.noise_scale"),
}


def altered(folder: Path, alter: Callable[[Weights], None]) -> Path:
    model, header = load_checkpoint(BUNDLED)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    alter(state)
    model.load_state_dict(state)
    return save_checkpoint(folder / "altered.safetensors", model, Provenance(**header["provenance"]))


def with_config(folder: Path, **settings: str) -> Path:
    """Copy the bundled checkpoint with its config edited; the digest is of the weights alone."""
    with safe_open(BUNDLED, framework="pt") as file:
        header = json.loads(file.metadata()["header"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header["config"].update(settings)
    path = folder / "edited.safetensors"
    save_file(tensors, path, metadata={"header": json.dumps(header)})
    return path


def failing(path: Path, batch: Batch, *checks: str) -> set[str]:
    model, _ = load_checkpoint(path)
    report = examine(subject_of_model(model, batch, (), "altered"), checks, seconds=600.0)
    return {finding.check for finding in report.findings if finding.verdict == "fail"}


def test_the_bundled_checkpoint_itself_fails_in_none_of_them(batch: Batch) -> None:
    assert failing(BUNDLED, batch, *sorted({check for _, check in CASES.values()})) == set()


def test_few_on_foot_are_no_reason_to_blame_the_normaliser(batch: Batch) -> None:
    on_foot = batch.conditioning.kind == AgentKind.PEDESTRIAN
    assert on_foot.any()
    first = on_foot & (on_foot.flatten().cumsum(0).view_as(on_foot) <= 8)
    few = replace(batch, action_valid=batch.action_valid & (first | ~on_foot)[..., None])
    assert failing(BUNDLED, few, "data.normalisation") == set()


@pytest.mark.parametrize("name", CASES)
def test_the_right_check_fails(name: str, tmp_path: Path, batch: Batch) -> None:
    alter, check = CASES[name]
    assert failing(altered(tmp_path, alter), batch, check) == {check}


@pytest.mark.parametrize(
    ("settings", "checks"),
    [
        ({"parameterisation": "eps"}, ("model.parameterisation",)),
        ({"parameterisation": "x0"}, ("model.parameterisation",)),
        ({"schedule": "flow"}, ("model.noise_scale", "model.one_step", "model.timestep")),
        ({"schedule": "edm"}, ("model.noise_scale", "model.one_step", "model.timestep")),
    ],
)
def test_an_edited_config_is_noticed(settings: dict, checks: tuple[str, ...], tmp_path: Path, batch: Batch) -> None:
    assert failing(with_config(tmp_path, **settings), batch, *checks)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"schedule": "cosinus"}, "did you mean 'cosine'"),
        ({"schedule": "linear_beta"}, "t in [0, 1]"),
        ({"parameterisation": "epsilon"}, "did you mean 'eps'"),
    ],
)
def test_a_config_that_cannot_be_is_refused_in_one_line(
    settings: dict, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = with_config(tmp_path, **settings)
    with pytest.raises(SystemExit) as stopped:
        main(("doctor", str(path), "--only", "checkpoint.ema"))
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert says in error
    assert str(path) in error
    assert len(error.strip().splitlines()) == 1
