"""Which samples make up the batch of a step: a function of (seed, step), so that training can go on anywhere."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

_GROUP = 32  # batches among which samples of like size are brought together


def batch_rows(agents: np.ndarray, batch: int, seed: int, step: int) -> np.ndarray:
    """Return the rows of one batch, given how many agents each sample has.

    Every epoch visits all samples once, in an order of its own. Samples of like size share a batch, sorted among some
    hundreds at a time, so that little of it is padding.
    """
    per_epoch = len(agents) // batch
    epoch, place = divmod(step, per_epoch)
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(agents))[: per_epoch * batch]
    parts = [order[first : first + _GROUP * batch] for first in range(0, len(order), _GROUP * batch)]
    like = np.concatenate([part[np.argsort(agents[part], kind="stable")] for part in parts])
    return np.sort(like.reshape(per_epoch, batch)[rng.permutation(per_epoch)[place]])


def mixed_rows(
    parts: Sequence[np.ndarray], shares: Sequence[float], batch: int, seed: int, step: int
) -> Int64[np.ndarray, " batch"]:
    """Return the rows of one batch of several caches, numbered through, given how many agents each sample of each has.

    32 batches at a time hold as many samples of each cache as its share says, by largest remainder, and at least one.
    Each cache goes through its own samples again and again, every time in another order and each of them once.
    """
    group, place = divmod(step, _GROUP)
    quotas = _quotas(np.asarray(shares, np.float64), _GROUP * batch)
    first = np.cumsum([0, *map(len, parts)])
    rows = np.concatenate(
        [
            start + _endless(len(part), seed, number, group * quota, quota)
            for number, (part, start, quota) in enumerate(zip(parts, first.tolist(), quotas.tolist(), strict=False))
        ]
    )
    rng = np.random.default_rng([seed, len(parts), group])
    rows = rng.permutation(rows)
    like = rows[np.argsort(np.concatenate(parts)[rows], kind="stable")].reshape(_GROUP, batch)
    chosen: np.ndarray = np.sort(like[rng.permutation(_GROUP)[place]])
    return chosen


def _endless(count: int, seed: int, number: int, start: int, length: int) -> np.ndarray:
    """Return a stretch of the endless sequence of permutations of `count` that belongs to a seed and cache."""
    epochs = range(start // count, (start + length - 1) // count + 1)
    orders = [np.random.default_rng([seed, number, epoch, count]).permutation(count) for epoch in epochs]
    skipped = start - epochs[0] * count
    stretch: np.ndarray = np.concatenate(orders)[skipped : skipped + length]
    return stretch


def _quotas(shares: np.ndarray, total: int) -> np.ndarray:
    exact = shares / shares.sum() * total
    quotas = np.maximum(np.floor(exact), 1).astype(np.int64)
    missing = total - int(quotas.sum())
    if missing > 0:
        quotas[np.argsort(quotas - exact, kind="stable")[:missing]] += 1
    elif missing < 0:
        quotas[np.argmax(quotas)] += missing
    return quotas
