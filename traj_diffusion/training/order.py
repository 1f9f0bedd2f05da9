"""At which rate a step learns, and with which noise: functions of seed and step, so that nothing need be saved."""

import numpy as np

from traj_diffusion.training.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the rate of a step: a linear warm-up, then constant, and over the last `decay` of all steps down to zero.

    The constant part is the same however many steps are to come, so a training can be taken up again from before its
    decay and made longer (Hu et al. 2024, MiniCPM).
    """
    rise = (step + 1) / config.warm_up
    fall = (config.steps - step) / max(1.0, config.decay * config.steps)
    return config.learning_rate * min(1.0, rise, fall)


def key_of(seed: int, step: int, part: int) -> int:
    """Return the seed of the noise for one part of a step's batch."""
    return int(np.random.SeedSequence([seed, step, part]).generate_state(1, np.uint64)[0] >> np.uint64(1))
