"""What one plan leaves to the next: its actions, moved on in time, from which a few steps lead to new ones."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from traj_diffusion.kinematics import STEPS_PER_KNOT
from traj_diffusion.scene import PlanRequest


@dataclass(frozen=True)
class Memory:
    """Clean actions of a plan, as the network has them."""

    agent_id: Int64[np.ndarray, " A"]
    tick: int
    x0: Float[Tensor, "R K A k 3"]


def carried_over(request: PlanRequest) -> Float[Tensor, "R A k 3"] | None:
    """Return the actions that each world was about to take, from now on; None where no plan can say.

    An action is held for a knot; where knots of now begin within knots of then, theirs is the mean over time. Beyond
    the plan's end, and for agents that it did not know, the action is zero: they go on as they do.
    """
    memory = request.previous.memory if request.previous is not None else None
    if not isinstance(memory, Memory) or request.followed is None or len(request.followed) != len(memory.x0):
        return None
    elapsed = (request.tick - memory.tick) / STEPS_PER_KNOT
    knots = memory.x0.shape[3]
    if not 0 <= elapsed < knots:
        return None
    chosen = memory.x0[torch.arange(len(memory.x0)), torch.from_numpy(request.followed.astype(np.int64))]
    whole, share = int(elapsed), elapsed - int(elapsed)
    padded = torch.nn.functional.pad(chosen, (0, 0, 0, whole + 1))
    moved = (1 - share) * padded[..., whole : whole + knots, :] + share * padded[..., whole + 1 : whole + 1 + knots, :]
    _, rows, before = np.intersect1d(request.state.agent_id, memory.agent_id, assume_unique=True, return_indices=True)
    carried = moved.new_zeros(len(moved), len(request.state.agent_id), knots, moved.shape[-1])
    carried[:, rows] = moved[:, before]
    return carried
