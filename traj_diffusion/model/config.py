"""What a model is made of. Its sizes by name are in configs/model/*.yaml."""

from dataclasses import dataclass

from traj_diffusion.errors import BadConfig


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the scene encoder and of the denoiser."""

    width: int = 96
    n_heads: int = 4
    memory_heads: int = 2  # of keys and values; n_heads is a multiple of it
    encoder_layers: int = 2
    denoiser_layers: int = 3
    expansion: int = 2  # of the feed-forward layers
    near_map: int = 40  # map pieces that an agent sees
    near_lights: int = 8
    near_agents: int = 12
    history_steps: int = 11
    knots: int = 16  # actions of one plan; 0.5 s each, so 8 s
    knots_per_token: int = 2
    parameterisation: str = "x0"  # what the network predicts: x0, eps or v
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        for name in ("width", "n_heads", "memory_heads", "knots", "knots_per_token"):
            if getattr(self, name) < 1:
                raise BadConfig(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.width % self.n_heads:
            raise BadConfig(f"width {self.width} cannot be shared among {self.n_heads} heads")
        if self.n_heads % self.memory_heads:
            raise BadConfig(f"{self.n_heads} heads cannot share {self.memory_heads} heads of keys and values evenly")
        if self.knots % self.knots_per_token:
            raise BadConfig(f"{self.knots} knots cannot be cut into tokens of {self.knots_per_token}")
