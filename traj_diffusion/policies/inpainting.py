"""Given futures as the network has them: actions that lead where the future goes, and which of them are known."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from traj_diffusion.datasets.conditioning import Conditioning
from traj_diffusion.geometry import to_local, wrap_angle
from traj_diffusion.kinematics import ACTION, STEPS_PER_KNOT, encode
from traj_diffusion.scene import Given


def given_actions(
    given: Given, c: Conditioning, origin: Float64[np.ndarray, " 2"], knots: int
) -> tuple[Float[Tensor, "R K A k 3"], Bool[Tensor, "R K A k"]]:
    """Return physical actions whose motion follows the given futures, and for which knots these futures speak."""
    steps = knots * STEPS_PER_KNOT
    missing = max(steps - given.valid.shape[3], 0)

    def fitted(values: np.ndarray) -> np.ndarray:
        return np.pad(values[:, :, :, :steps], ((0, 0),) * 3 + ((0, missing),) + ((0, 0),) * (values.ndim - 4))

    worlds, futures, agents = given.valid.shape[:3]
    device = c.pose.device
    action = torch.zeros(worlds, futures, agents, knots, ACTION, device=device)
    known = torch.zeros(worlds, futures, agents, knots, dtype=torch.bool, device=device)
    rows = np.flatnonzero(given.valid.any(axis=(0, 1, 3)))
    if not len(rows):
        return action, known
    valid = fitted(given.valid[:, :, rows])
    place = (fitted(given.position[:, :, rows])[..., :2] - origin) * valid[..., None]

    def per_future(value: Tensor) -> Tensor:
        value = value[:, rows]
        return value[:, None].expand(-1, futures, *(-1,) * (value.ndim - 1))

    pose = per_future(c.pose)
    heading = torch.from_numpy(np.where(valid, fitted(given.heading[:, :, rows]), 0)).to(device)
    found, supported = encode(
        to_local(torch.from_numpy(place.astype(np.float32)).to(device), pose[..., None, :2], pose[..., None, 2]),
        wrap_angle(heading - pose[..., None, 2]),
        torch.from_numpy(valid).to(device),
        per_future(c.speed),
        per_future(c.kind),
        per_future(c.size[..., 0]),
    )
    action[:, :, rows], known[:, :, rows] = found, supported
    return action, known
