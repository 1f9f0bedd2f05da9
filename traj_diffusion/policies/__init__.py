"""Everything that can drive an agent."""

from collections.abc import Callable, Mapping
from pathlib import Path

from traj_diffusion.errors import BadConfig
from traj_diffusion.policies.diffusion import DEFAULT_STEPS, DiffusionPolicy, load_model
from traj_diffusion.policies.idm import IdmFollower
from traj_diffusion.policies.runtime import is_exported, load_exported
from traj_diffusion.policies.simple import ConstantVelocity, Stationary
from traj_diffusion.policies.surroundings import Guidance
from traj_diffusion.policies.turning import ConstantTurnRate
from traj_diffusion.scene import Policy

BASELINES: Mapping[str, Callable[[], Policy]] = {
    "constant_velocity": ConstantVelocity,
    "constant_turn_rate": ConstantTurnRate,
    "idm": IdmFollower,
    "stationary": Stationary,
}


def load_policy(name: str, steps: int | None = None) -> Policy:
    """Return a baseline by its name, or the diffusion policy of a bundled checkpoint, a file, or an exported folder.

    `steps` are denoising steps; baselines have none. What was exported runs in onnxruntime (see `load_exported`).
    """
    if name in BASELINES:
        return BASELINES[name]()
    if is_exported(name):
        return load_exported(name, steps=steps or DEFAULT_STEPS)
    try:
        return load_model(name, steps=steps or DEFAULT_STEPS)
    except ValueError as error:
        if Path(name).is_file():
            raise
        raise BadConfig(f"{error}; baselines: {', '.join(BASELINES)}") from error


__all__ = [
    "BASELINES",
    "ConstantTurnRate",
    "ConstantVelocity",
    "DiffusionPolicy",
    "Guidance",
    "IdmFollower",
    "Stationary",
    "load_exported",
    "load_model",
    "load_policy",
]
