"""Broken variants of good bytes, for fuzzing readers: each mutation is one that files really suffer, or an attack."""

from copy import deepcopy
from typing import Any

import numpy as np

from traj_diffusion.datasets.wire import varint

_INTERESTING = [
    b"\x00",
    b"\xff" * 10,
    varint(2**31),
    varint(2**62),
    varint(2**63 - 1),
    varint(2**64 - 1),
    np.float64(np.nan).tobytes(),
    np.float64(np.inf).tobytes(),
    np.float64(1e300).tobytes(),
    np.float32(np.nan).tobytes(),
]
_TEXT = [b"null", b"-1e999", b"NaN", b"[]", b"{}", b'"x"', b"1" * 400, b"[" * 5000, b"true", b"99999999999999999999"]
_VALUES: list[Any] = [
    None,
    True,
    -1,
    2**70,
    1e300,
    float("nan"),
    float("-inf"),
    "x",
    [],
    {},
    [[]],
    [None],
    {"x": 1},
    7.5,
]


def mutate(data: bytes, rng: np.random.Generator, text: bool = False) -> bytes:
    """Return the data after one to four random changes: bits, cuts, insertions, doubled pieces, odd values."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not out:
            break
        # Half of the changes hit the first bytes, where counts, ids and keys of the outermost level lie.
        at = int(rng.integers(0, len(out) if rng.random() < 0.5 else min(64, len(out))))
        kind = int(rng.integers(0, 7))
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            out[at:at] = rng.integers(0, 256, int(rng.integers(1, 20)), np.uint8).tobytes()
        elif kind == 3:
            del out[at : at + int(rng.integers(1, 50))]
        elif kind == 4:
            values = _TEXT if text else _INTERESTING
            value = values[int(rng.integers(0, len(values)))]
            out[at : at + int(rng.integers(0, len(value) + 1))] = value
        elif kind == 5:
            piece = out[at : at + int(rng.integers(1, 400))]
            other = int(rng.integers(0, len(out)))
            out[other:other] = piece
        else:
            out[at] = out[at] & 0xF8 | int(rng.integers(0, 8))  # another wire type, where this is a key
    return bytes(out)


def mutate_document(document: Any, rng: np.random.Generator) -> Any:
    """Return a document in which one value, at any depth, was dropped, doubled or replaced by an odd one."""
    copy = deepcopy(document)
    node, path = copy, rng.random(12)
    for turn in path:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key: Any = keys[int(turn * len(keys))]
        if turn > 0.8 or not isinstance(node[key], dict | list) or not node[key]:
            break
        node = node[key]
    choice = int(rng.integers(0, len(_VALUES) + 2))
    if choice == len(_VALUES):
        del node[key]
    elif choice == len(_VALUES) + 1 and isinstance(node, list):
        node.insert(key, node[key])
    else:
        node[key] = _VALUES[choice % len(_VALUES)]
    return copy
