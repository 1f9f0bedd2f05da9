"""Which samples a step sees, with which noise, at which rate: functions of seed and step, so nothing need be saved."""

import numpy as np

from traj_diffusion.training.config import TrainConfig


def batch_rows(agents: np.ndarray, batch: int, seed: int, step: int) -> np.ndarray:
    """Return the rows of one batch, given how many agents each sample has.

    Every epoch visits all samples once, in an order of its own. Samples of like size share a batch, sorted among some
    hundreds at a time, so that little of it is padding.
    """
    per_epoch = len(agents) // batch
    epoch, place = divmod(step, per_epoch)
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(agents))[: per_epoch * batch]
    parts = [order[first : first + 32 * batch] for first in range(0, len(order), 32 * batch)]
    like = np.concatenate([part[np.argsort(agents[part], kind="stable")] for part in parts])
    return np.sort(like.reshape(per_epoch, batch)[rng.permutation(per_epoch)[place]])


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
