"""Realistic, varied traffic for any driving simulator. `import traj_diffusion as td` is the whole public face.

Names are imported when first used, so that importing the package is instant and pulls in no extra.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Scene": "traj_diffusion.scene",
    "Rollouts": "traj_diffusion.scene",
    "TrajDiffusionError": "traj_diffusion.errors",
}
_ROOMS = ("datasets", "diffusion", "errors", "scene")

__all__ = ["__version__", *_PUBLIC, *_ROOMS]

if TYPE_CHECKING:
    from traj_diffusion import datasets, diffusion, errors, scene
    from traj_diffusion.errors import TrajDiffusionError
    from traj_diffusion.scene import Rollouts, Scene


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted(__all__)
