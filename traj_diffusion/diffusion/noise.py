"""Keyed normal noise: the stream of a row depends on the words of its key, and on nothing else.

A sequential generator gives another row other numbers as soon as somebody asks for one more. Here each row has a 64-bit
key, mixed from its words, and its numbers come from a counter: Philox4x32-10 (Salmon et al. 2011) turns (counter, key)
into four 32-bit words, Box-Muller in float64 turns these into four normals. So rows and counts can grow and leave the
first ones bit for bit as they were.
"""

import math
from collections.abc import Sequence
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, UInt64
from numba import njit, uint32, uint64

from traj_diffusion.diffusion.checks import whole

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_PER_BLOCK = 4


def keyed_normal(keys: Sequence[np.ndarray | np.integer | int], count: int) -> Float32[np.ndarray, "n {count}"]:
    """Return `count` unit normals for each row of keys.

    `keys` are the words of the key, integer arrays or numbers that broadcast to [n] together: seed, world, id, ... The
    order of the words matters. Values beyond 6.7 do not occur (32-bit uniforms).

    >>> few = keyed_normal([7, np.arange(2)], 3)
    >>> bool((keyed_normal([7, np.arange(100)], 50)[:2, :3] == few).all())
    True
    """
    whole(count, "count", 0)
    key = fold_keys(keys)
    out = np.empty((len(key), count), np.float32)
    _fill(key, out)
    return out


def fold_keys(keys: Sequence[np.ndarray | np.integer | int]) -> UInt64[np.ndarray, " n"]:
    """Return one 64-bit key per row, by the mixing function of splitmix64 (Steele et al. 2014) word after word."""
    if not keys:
        raise ValueError("a key needs at least one word")
    words = [np.atleast_1d(np.asarray(word)) for word in keys]
    for i, word in enumerate(words):
        if word.dtype.kind not in "iu" or word.ndim != 1:
            raise ValueError(
                f"word {i} of the key has dtype {word.dtype} and shape {list(word.shape)}: integers [n] or one integer "
                "are wanted"
            )
    rows = np.broadcast_arrays(*words)
    key = np.full(rows[0].shape, _GOLDEN)
    for row in rows:
        key = _mix(key ^ _mix(row.astype(np.int64 if row.dtype.kind == "i" else np.uint64).view(np.uint64) + _GOLDEN))
        key += _GOLDEN
    return key


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed


@njit(cache=True)
@no_type_check  # a run-time check of shapes would wrap the function before numba sees it
def philox(c0: int, c1: int, c2: int, c3: int, k0: int, k1: int) -> tuple[int, int, int, int]:  # pragma: no cover
    """Return the four words that Philox4x32-10 makes of a counter of four 32-bit words and a key of two."""
    c0, c1, c2, c3, k0, k1 = uint32(c0), uint32(c1), uint32(c2), uint32(c3), uint32(k0), uint32(k1)
    for _ in range(10):
        p0 = uint64(0xD2511F53) * uint64(c0)
        p1 = uint64(0xCD9E8D57) * uint64(c2)
        c0, c1, c2, c3 = (
            uint32(uint32(p1 >> uint64(32)) ^ c1 ^ k0),
            uint32(p1),
            uint32(uint32(p0 >> uint64(32)) ^ c3 ^ k1),
            uint32(p0),
        )
        k0 = uint32(k0 + uint32(0x9E3779B9))
        k1 = uint32(k1 + uint32(0xBB67AE85))
    return c0, c1, c2, c3


@njit(cache=True)
@no_type_check
def _fill(key: np.ndarray, out: np.ndarray) -> None:  # pragma: no cover
    count = out.shape[1]
    block = np.empty(_PER_BLOCK, np.float64)
    for row in range(out.shape[0]):
        k0, k1 = uint32(key[row]), uint32(key[row] >> uint64(32))
        for start in range(0, count, _PER_BLOCK):
            number = uint64(start // _PER_BLOCK)
            w0, w1, w2, w3 = philox(uint32(number), uint32(number >> uint64(32)), uint32(0), uint32(0), k0, k1)
            block[0], block[1] = _normals(w0, w1)
            block[2], block[3] = _normals(w2, w3)
            for i in range(min(_PER_BLOCK, count - start)):
                out[row, start + i] = block[i]


@njit(cache=True)
@no_type_check
def _normals(a: int, b: int) -> tuple[float, float]:  # pragma: no cover
    radius = math.sqrt(-2.0 * math.log((a + 0.5) * 2.0**-32))  # the half keeps the logarithm finite
    angle = (2.0 * math.pi) * ((b + 0.5) * 2.0**-32)
    return radius * math.cos(angle), radius * math.sin(angle)
