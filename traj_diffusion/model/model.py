"""The whole network: encoder, denoiser, and the scale between physical and normalised actions."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from traj_diffusion.datasets.conditioning import Conditioning, MapTensors
from traj_diffusion.kinematics import ACTION
from traj_diffusion.model.config import ModelConfig
from traj_diffusion.model.denoiser import Denoiser, Prepared
from traj_diffusion.model.encoder import N_KINDS, SceneEncoder

# Forward acceleration, yaw rate, lateral acceleration: about one standard deviation of an agent that moves.
ACTION_SCALE = (
    (1.0, 1.0, 1.0),  # nobody
    (1.2, 0.12, 0.3),  # VEHICLE
    (0.4, 0.4, 0.2),  # PEDESTRIAN
    (0.8, 0.3, 0.3),  # CYCLIST
    (0.8, 0.3, 0.3),  # OTHER
)


class TrafficDiffusion(nn.Module):
    """Generates normalised actions of all agents of a scene, jointly."""

    action_scale: Float[Tensor, "kinds 3"]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SceneEncoder(config)
        self.denoiser = Denoiser(config)
        self.register_buffer("action_scale", torch.tensor(ACTION_SCALE))
        assert self.action_scale.shape == (N_KINDS, ACTION)

    def encode_map(self, tensors: MapTensors) -> Float[Tensor, "B M d"]:
        """Return one vector per map piece, as whoever sees it wants it; once per map."""
        return self.encoder.see_map.what(self.encoder.map(tensors))

    def encode(
        self, c: Conditioning, tensors: MapTensors, map_tokens: Float[Tensor, "b M d"], focus: int | None = None
    ) -> Prepared:
        """Return the scene as the denoiser wants it, of the first `focus` agents or of all; once per tick."""
        return self.denoiser.prepare(self.encoder(c, tensors, map_tokens, focus))

    def forward(
        self, x_t: Float[Tensor, "B A K k 3"], t: Float[Tensor, "B A K"], scene: Prepared
    ) -> Float[Tensor, "B A K k 3"]:
        """Return what the network predicts (see `config.parameterisation`) for x_t at diffusion time t."""
        return self.denoiser(x_t, t, scene)

    def normalise(self, action: Float[Tensor, "B A *rest 3"], kind: Int[Tensor, "B A"]) -> Float[Tensor, "B A *rest 3"]:
        """Return x0 of physical actions."""
        return action / self._scale(kind, action.ndim)

    def denormalise(self, x0: Float[Tensor, "B A *rest 3"], kind: Int[Tensor, "B A"]) -> Float[Tensor, "B A *rest 3"]:
        """Return physical actions of x0."""
        return x0 * self._scale(kind, x0.ndim)

    def _scale(self, kind: Int[Tensor, "B A"], ndim: int) -> Tensor:
        scale = self.action_scale[kind]
        return scale.reshape(*kind.shape, *(1,) * (ndim - 3), ACTION)
