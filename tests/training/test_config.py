"""Settings: read by name, overridden as text, and refused with the nearest known one."""

import pytest

from traj_diffusion.errors import BadConfig
from traj_diffusion.training.config import load_train_config


def test_named_settings_are_overridden() -> None:
    config = load_train_config("tiny", ["steps=7", "learning_rate=8e-4", "weight_decay=0"])
    assert (config.steps, config.learning_rate, config.weight_decay, config.model.width) == (7, 8e-4, 0.0, 64)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stepps=3", "did you mean 'steps'"),
        ("steps=many", "steps wants int, found 'many'"),
        ("steps", "write key=value"),
        ("steps=0", "steps must be at least 1"),
        ("drop_route=2", "a share between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(assignment: str, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        load_train_config("tiny", [assignment])


def test_an_unknown_config_names_the_known_ones() -> None:
    with pytest.raises(BadConfig, match="known: base, small, tiny"):
        load_train_config("huge")
