"""How a model is trained. Named settings are in configs/train/*.yaml and hold only what differs from here."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from traj_diffusion.configs import checked, override, read_config
from traj_diffusion.errors import BadConfig
from traj_diffusion.model import ModelConfig

_HIDDEN = ("drop_route", "drop_lights", "drop_limits", "drop_types", "mistake_types", "drop_history")


@dataclass(frozen=True)
class TrainConfig:
    """One training."""

    model: ModelConfig = field(default_factory=ModelConfig)
    steps: int = 20_000
    batch: int = 16  # scenes
    noise_draws: int = 4  # noised futures per scene and step; they share one encoding
    learning_rate: float = 6e-4
    warm_up: int = 300  # steps
    decay: float = 0.25  # share of the steps, the last ones, over which the rate falls to zero
    weight_decay: float = 0.01
    clip: float = 1.0  # norm of the gradient
    ema: float = 0.999
    trajectory_weight: float = 0.3
    standing_weight: float = 0.2  # of agents that do not move; most of them are parked
    focus: int = 16  # agents of a scene that are denoised: those that will move, then others; the rest is only seen
    drop_route: float = 0.5  # share of agents whose route is hidden
    drop_lights: float = 0.05  # share of scenes whose lights are hidden
    drop_limits: float = 0.5  # share of scenes whose speed limits are hidden
    drop_types: float = 0.3  # share of scenes whose lanes, lines and edges are of no type
    mistake_types: float = 0.05  # share of map pieces that are given another type of their kind
    drop_history: float = 0.1  # share of agents of which only the present is shown
    mixed_levels: float = 0.25  # share of futures in which every agent has a noise level of its own
    disturb: float = 0.5  # share of moving vehicles and cyclists whose past is drawn off the record
    disturb_sideways: float = 0.3  # m, standard deviation
    disturb_turn: float = 0.03  # rad
    disturb_pace: float = 0.04  # share of the speed
    roll_in: float = 0.0  # share of batches whose last half or whole second of history the model itself drove
    roll_in_from: float = 0.75  # share of the steps after which that begins
    seed: int = 0
    save_every: int = 500  # steps
    validate_every: int = 2_000  # steps
    accumulate: int = 1  # parts into which a batch is cut, one after the other

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "noise_draws", "focus", "save_every", "validate_every", "accumulate"):
            if getattr(self, name) < 1:
                raise BadConfig(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in (*_HIDDEN, "mixed_levels", "disturb", "roll_in", "roll_in_from", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadConfig(f"{name} is a share between 0 and 1, not {getattr(self, name)}")


def load_train_config(name: str, assignments: Sequence[str] = ()) -> TrainConfig:
    """Return `configs/train/<name>.yaml` with `key=value` texts applied. Raises BadConfig for what is unknown."""
    settings = override(read_config("train", name), assignments)
    size = read_config("model", str(settings.pop("model", "tiny")))
    return TrainConfig(
        model=ModelConfig(**checked(size, types_of(ModelConfig), "model")),
        **checked(settings, types_of(TrainConfig), "training"),
    )


def types_of(config: type) -> dict[str, type]:
    """Return what each plain setting of a config dataclass wants."""
    return {
        field.name: field.type for field in fields(config) if isinstance(field.type, type) and field.name != "model"
    }
