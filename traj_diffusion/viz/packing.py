"""Arrays as short text inside a page. `player.js` holds the other half, `unpack`.

Values are whole numbers (centimetres, milliradians), int32. Motion is smooth, so their second differences along the
last axis are small; those are folded to be unsigned (0, -1, 1, -2, ... as 0, 1, 2, 3, ...), their bytes are
sorted by significance, the result is deflated (zlib) and written in base64. Arithmetic wraps at 32 bits.
"""

import base64
import zlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer


def pack(values: Integer[np.ndarray, "..."]) -> dict[str, Any]:
    """Return the array as a JSON value: its shape and its packed numbers."""
    numbers = np.asarray(values, np.int64).astype(np.uint32)
    for _ in range(2):
        numbers = np.diff(numbers, axis=-1, prepend=np.uint32(0))
    signed = numbers.view(np.int32)
    folded = ((signed << 1) ^ (signed >> 31)).view(np.uint32)
    planes = folded.reshape(-1).astype("<u4").view(np.uint8).reshape(-1, 4).T
    return {"shape": list(values.shape), "data": base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode()}


def whole(values: Float[np.ndarray, "*shape"], scale: float) -> Integer[np.ndarray, "*shape"]:
    """Return the values times `scale`, rounded."""
    return np.rint(values * scale).astype(np.int64)


def hold(values: Float[np.ndarray, "*rows T D"], valid: Bool[np.ndarray, "*rows T"]) -> Float[np.ndarray, "*rows T D"]:
    """Return the values with those of the last valid step where a step is not; before the first one, the first's.

    What is not drawn then costs no space. Rows that are never valid are zero.
    """
    steps = valid.shape[-1]
    if steps == 0:
        return values
    last = np.maximum.accumulate(np.where(valid, np.arange(steps), -1), -1)
    source = np.where(last < 0, np.argmax(valid, -1)[..., None], last)
    kept = np.take_along_axis(values, source[..., None], -2)
    return np.where(np.any(valid, axis=-1, keepdims=True)[..., None], kept, 0.0)
