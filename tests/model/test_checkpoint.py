"""Checkpoints: they come back as they were, and what is not one of ours is refused in one line."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from traj_diffusion.errors import BadCheckpoint
from traj_diffusion.model import ModelConfig, Provenance, TrafficDiffusion, load_checkpoint, save_checkpoint

ORIGIN = Provenance(name="test", data="none", seed=0, steps=0, scenes_seen=0, hours=0.0, metrics={})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = TrafficDiffusion(ModelConfig(width=16, n_heads=2, denoiser_layers=1))
    return save_checkpoint(tmp_path / "a.safetensors", model, ORIGIN, half=False)


def edited(path: Path, change: dict[str, object]) -> Path:
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["header"]) | change
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    out = path.with_name("edited.safetensors")
    save_file(tensors, out, {"header": json.dumps(header)})
    return out


def test_weights_and_origin_come_back(saved: Path) -> None:
    model, header = load_checkpoint(saved)
    torch.manual_seed(0)
    again = TrafficDiffusion(ModelConfig(width=16, n_heads=2, denoiser_layers=1))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert header["provenance"]["name"] == "test"


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(BadCheckpoint, match="pickled checkpoints are never loaded"):
        load_checkpoint(path)


def test_a_truncated_file_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(BadCheckpoint, match="not a safetensors checkpoint"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "schema version 99"),
        ({"content": "something else"}, "not written by traj-diffusion"),
        ({"config": {"wdth": 3}}, "known keys"),
        ({"config": {"width": 32, "n_heads": 2, "denoiser_layers": 1}}, "weights do not fit"),
        ({"weights_sha256": "0" * 64}, "normaliser"),
    ],
)
def test_a_foreign_header_is_refused(saved: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(BadCheckpoint, match=message):
        load_checkpoint(edited(saved, change))
