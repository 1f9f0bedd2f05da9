"""Realistic, varied traffic for any driving simulator. `import traj_diffusion as td` is the whole public face.

Names are imported when first used, so that importing the package is instant and pulls in no extra.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "ConstantVelocity": "traj_diffusion.policies",
    "GivenFuture": "traj_diffusion.scene",
    "Guidance": "traj_diffusion.policies",
    "Observation": "traj_diffusion.scene",
    "Rollouts": "traj_diffusion.scene",
    "Scene": "traj_diffusion.scene",
    "TrafficModel": "traj_diffusion.sim_adapter",
    "TrajDiffusionError": "traj_diffusion.errors",
    "evaluate": "traj_diffusion.metrics",
    "load_model": "traj_diffusion.policies",
    "load_policy": "traj_diffusion.policies",
    "player": "traj_diffusion.viz",
    "read_scenes": "traj_diffusion.datasets",
    "rollout": "traj_diffusion.sim_adapter",
    "save_picture": "traj_diffusion.viz",
}
_ALIAS = {"evaluate": "score"}
_ROOMS = (
    "datasets",
    "diffusion",
    "errors",
    "evaluation",
    "metrics",
    "model",
    "policies",
    "scene",
    "sim_adapter",
    "viz",
)

__all__ = ["__version__", *_PUBLIC, *_ROOMS]

if TYPE_CHECKING:
    from traj_diffusion import (
        datasets,
        diffusion,
        errors,
        evaluation,
        metrics,
        model,
        policies,
        scene,
        sim_adapter,
        viz,
    )
    from traj_diffusion.datasets import read_scenes
    from traj_diffusion.errors import TrajDiffusionError
    from traj_diffusion.metrics import score as evaluate
    from traj_diffusion.policies import ConstantVelocity, Guidance, load_model, load_policy
    from traj_diffusion.scene import GivenFuture, Observation, Rollouts, Scene
    from traj_diffusion.sim_adapter import TrafficModel, rollout
    from traj_diffusion.viz import player, save_picture


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), _ALIAS.get(name, name))
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted(__all__)
