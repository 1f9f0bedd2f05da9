"""Histories that have drifted off the record, so that the model learns to find back.

In closed loop a model meets the consequences of its own errors, which no record shows. A rigid motion of an agent's
past about its present place, with the future left as recorded, shows them (after Bansal et al. 2019, ChauffeurNet): the
clean actions are those of the tracking controller in `kinematics.encode`, which steers back to the record.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from traj_diffusion.geometry import rotate
from traj_diffusion.scene import AgentKind
from traj_diffusion.training.config import TrainConfig

FULL_SPEED = 4.0  # m/s, from which on disturbances have their full size; who stands is left alone
MOST = 2.5  # standard deviations


def disturbed(
    position: Float[Tensor, "B A H 2"],
    heading: Float[Tensor, "B A H"],
    velocity: Float[Tensor, "B A H 2"],
    kind: Int[Tensor, "B A"],
    config: TrainConfig,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "B A H 2"], Float[Tensor, "B A H"], Float[Tensor, "B A H 2"]]:
    """Return the pasts (last step now), some of them shifted sideways, turned, and made faster or slower as a whole."""
    now, facing = position[..., -1:, :], heading[..., -1:]
    pace = velocity[..., -1, :].norm(dim=-1)
    chosen = torch.rand(kind.shape, generator=generator) < config.disturb
    chosen &= (kind == AgentKind.VEHICLE) | (kind == AgentKind.CYCLIST)
    size = (pace / FULL_SPEED).clamp(max=1) * chosen

    def draw(deviation: float) -> Float[Tensor, "B A 1"]:
        unit = torch.randn(kind.shape, generator=generator).clamp(-MOST, MOST)
        return (deviation * size * unit)[..., None]

    sideways, turn, faster = draw(config.disturb_sideways), draw(config.disturb_turn), 1 + draw(config.disturb_pace)
    left = torch.stack([-facing.sin(), facing.cos()], -1)
    place = now + sideways[..., None] * left + rotate(position - now, turn) * faster[..., None]
    return place, heading + turn, rotate(velocity, turn) * faster[..., None]
