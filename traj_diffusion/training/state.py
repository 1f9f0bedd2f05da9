"""What a training must remember to go on after a kill as if nothing had happened: safetensors, written atomically.

Batches, noise and dropout are keyed by (seed, step), so no generator has a state that would have to be saved.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from traj_diffusion.errors import BadCheckpoint
from traj_diffusion.model import TrafficDiffusion
from traj_diffusion.scene.archive import atomic_path
from traj_diffusion.training.config import TrainConfig

FILE = "state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class TrainState:
    """Model, its moving average, optimiser, and how far they are."""

    model: TrafficDiffusion
    average: TrafficDiffusion
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0

    def save(self, folder: Path, config: TrainConfig) -> None:
        """Write all of it to `folder`/state.safetensors."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for moment in _MOMENTS:
                if parameter in self.optimiser.state:
                    tensors[f"{moment}.{name}"] = self.optimiser.state[parameter][moment]
        header = {"step": self.step, "seconds": self.seconds, "config": asdict(config)}
        with atomic_path(folder / FILE) as temporary:
            save_file(
                {name: value.contiguous() for name, value in tensors.items()}, temporary, {"header": json.dumps(header)}
            )

    def load(self, folder: Path, config: TrainConfig) -> None:
        """Take up what `save` wrote. Raises BadCheckpoint where it belongs to another configuration."""
        path = folder / FILE
        try:
            with safe_open(path, framework="pt") as file:
                header: dict[str, Any] = json.loads((file.metadata() or {})["header"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise BadCheckpoint(f"{path}: not a training state: {error}") from error
        mine = json.loads(json.dumps(asdict(config)))
        differing = [name for name in mine if name != "steps" and header["config"].get(name) != mine[name]]
        if differing:
            raise BadCheckpoint(
                f"{path}: was trained with another {', '.join(differing)}; choose another --out, or the same settings"
            )
        _load(self.model, tensors, "model.")
        _load(self.average, tensors, "average.")
        for name, parameter in self.model.named_parameters():
            if f"exp_avg.{name}" in tensors:
                self.optimiser.state[parameter] = {
                    "step": torch.tensor(float(header["step"])),
                    **{moment: tensors[f"{moment}.{name}"].clone() for moment in _MOMENTS},
                }
        self.step, self.seconds = header["step"], header["seconds"]


def _load(model: TrafficDiffusion, tensors: dict[str, torch.Tensor], prefix: str) -> None:
    model.load_state_dict({n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)})
