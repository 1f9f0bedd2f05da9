"""Checkpoints: safetensors with a JSON header that says what they are and where they come from. Never a pickle."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from traj_diffusion import __version__
from traj_diffusion.errors import BadCheckpoint
from traj_diffusion.model.config import ModelConfig
from traj_diffusion.model.model import TrafficDiffusion
from traj_diffusion.scene.archive import atomic_path

SCHEMA_VERSION = 2  # 1 had keys and values of its own for the denoiser
MAX_BYTES = 2**30


@dataclass(frozen=True)
class Provenance:
    """Where weights come from: data, seeds, hours, figures. All of it is stored in the checkpoint's header."""

    name: str
    data: str  # what they were fitted to, with its licence
    seed: int
    steps: int
    scenes_seen: int
    hours: float
    metrics: Mapping[str, float]


def save_checkpoint(path: Path, model: TrafficDiffusion, provenance: Provenance, half: bool = True) -> Path:
    """Write weights (as float16 unless told otherwise; the normaliser always as float32) and header."""
    tensors = {
        name: (value.half() if half and name != "action_scale" else value).contiguous()
        for name, value in model.state_dict().items()
    }
    header = {
        "content": "traj-diffusion checkpoint",
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "config": asdict(model.config),
        "provenance": asdict(provenance),
        "weights_sha256": _digest(tensors),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"header": json.dumps(header)})
    return path


def load_checkpoint(path: Path, device: str = "cpu") -> tuple[TrafficDiffusion, dict[str, Any]]:
    """Return the model in float32, ready to use, and its header. Raises BadCheckpoint."""
    header, tensors = _read(path)
    try:
        config = ModelConfig(**header["config"])
    except (KeyError, TypeError, ValueError) as error:
        known = ", ".join(field.name for field in fields(ModelConfig))
        raise BadCheckpoint(f"{path}: its config does not fit ({error}); known keys: {known}") from error
    if header.get("weights_sha256") != _digest(tensors):
        raise BadCheckpoint(f"{path}: weights or normaliser are not those that its header was written for")
    model = TrafficDiffusion(config)
    try:
        model.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise BadCheckpoint(f"{path}: weights do not fit its config: {str(error).splitlines()[-1].strip()}") from error
    return model.eval().to(device), header


def find_checkpoint(name_or_file: str | Path) -> Path:
    """Return the path of a bundled checkpoint by its name, or of a file."""
    bundled = Path(str(resources.files("traj_diffusion.model"))) / "checkpoints"
    by_name = bundled / f"{name_or_file}.safetensors"
    if by_name.is_file():
        return by_name
    path = Path(name_or_file)
    if path.is_file():
        return path
    names = sorted(file.stem for file in bundled.glob("*.safetensors"))
    raise BadCheckpoint(f"{name_or_file}: neither a file nor a bundled model; bundled: {', '.join(names) or 'none'}")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise BadCheckpoint(f"{path}: {size:,} bytes; at most {MAX_BYTES:,} are read")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("header", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise BadCheckpoint(
            f"{path}: not a safetensors checkpoint ({error}); pickled checkpoints are never loaded"
        ) from error
    if not isinstance(header, dict) or header.get("content") != "traj-diffusion checkpoint":
        raise BadCheckpoint(f"{path}: safetensors, but not written by traj-diffusion: it has no header of ours")
    if header.get("schema_version") != SCHEMA_VERSION:
        raise BadCheckpoint(
            f"{path}: schema version {header.get('schema_version')!r}, written by traj-diffusion "
            f"{header.get('version')}; this release reads {SCHEMA_VERSION}: use the one that wrote it, or train again"
        )
    return header, tensors


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
