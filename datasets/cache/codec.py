"""Whole numbers in few bytes: differences along a row, then one plane of bytes after the other, for zlib to squeeze.

Tracks and lines are smooth, so that second differences of them are small numbers; what is small is all zeros in its
upper bytes, and zlib makes nothing of zeros. A field costs about the entropy of its noise that way.
"""

import zlib
from typing import no_type_check

import numpy as np
from jaxtyping import Int64, Integer
from numba import njit

from traj_diffusion.errors import BadScene

MAX_BYTES = 64 * 2**20  # of one block, unpacked
_LEVEL = 6


class Writer:
    """Collects arrays of whole numbers into one block of bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def put(self, values: Integer[np.ndarray, "rows columns"], order: int = 0) -> None:
        """Append an array; `order` says how often differences along its rows are taken (0, 1 or 2)."""
        whole = values.astype(np.int64)
        if order:
            self.put(whole[:, :1].T)
            rest = whole
            for _ in range(order):  # as if each row had been standing at its first value before
                first = rest[:, :1] if rest is whole else np.zeros_like(rest[:, :1])
                rest = np.diff(rest, axis=1, prepend=first)
            whole = rest[:, 1:]
        self._parts.append(_planes(whole))

    def put_bits(self, values: np.ndarray) -> None:
        """Append truth values; changes along the last axis are what is kept."""
        changes = values.copy()
        changes[..., 1:] ^= values[..., :-1]
        self._parts.append(np.packbits(changes).tobytes())

    def block(self) -> bytes:
        """Return all of it, compressed. The same arrays give the same bytes. Raises BadScene where it is too much."""
        raw = b"".join(self._parts)
        if len(raw) > MAX_BYTES:
            raise BadScene(f"it takes {len(raw):,} bytes; a cache holds at most {MAX_BYTES:,} in a piece")
        return zlib.compress(raw, _LEVEL)


class Reader:
    """Takes out of a block what was put, in the same order. Raises ValueError where the block holds less."""

    def __init__(self, block: bytes | memoryview) -> None:
        unpack = zlib.decompressobj()
        try:
            raw = unpack.decompress(block, MAX_BYTES)
        except zlib.error as error:
            raise ValueError(f"its compressed bytes are damaged ({error})") from error
        if not unpack.eof:
            raise ValueError(f"it unpacks to more than {MAX_BYTES:,} bytes, or is cut off")
        self._raw = np.frombuffer(raw, np.uint8)
        self._at = 0

    def take(self, rows: int, columns: int, order: int = 0) -> Int64[np.ndarray, "rows columns"]:
        """Return an array that was put with this shape and order."""
        if rows < 0 or columns < 0:
            raise ValueError(f"it claims an array of {rows} by {columns}")
        first = self.take(1, rows if columns else 0)[0] if order else None
        kept = columns - 1 if order and columns else columns
        width = int(self._bytes(1)[0])
        if width not in (1, 2, 4, 8):
            raise ValueError(f"its numbers have {width} bytes; 1, 2, 4 or 8 would fit")
        planes = self._bytes(rows * kept * width)
        out = np.empty((rows, columns), np.int64)
        if first is None:
            _whole(planes, width, out)
        elif columns:
            out[:, 0] = first
            (_sum_once if order == 1 else _sum_twice)(planes, width, out)
        return out

    def take_bits(self, *shape: int) -> np.ndarray:
        """Return truth values that were put with this shape."""
        count = int(np.prod(shape, dtype=np.int64))
        bits = np.unpackbits(self._bytes((count + 7) // 8), count=count).reshape(shape)
        return np.bitwise_xor.accumulate(bits, axis=-1).view(bool)

    def end(self) -> None:
        """Raise ValueError where something is left."""
        if self._at != len(self._raw):
            raise ValueError(f"it holds {len(self._raw) - self._at} bytes more than it says")

    def _bytes(self, count: int) -> np.ndarray:
        if not 0 <= count <= len(self._raw) - self._at:
            raise ValueError(f"it asks for {count} bytes where {len(self._raw) - self._at} are left")
        self._at += count
        return self._raw[self._at - count : self._at]


def _planes(values: np.ndarray) -> bytes:
    """Return the width of the numbers as one byte, then their lowest bytes, then the next ones, and so on."""
    folded = ((values << 1) ^ (values >> 63)).view(np.uint64).ravel()  # 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
    largest = int(folded.max(initial=0))
    width = next(w for w in (1, 2, 4, 8) if largest < 1 << 8 * w)
    return bytes([width]) + folded.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T.tobytes()


@njit(cache=True, inline="always")
@no_type_check  # a run-time check of shapes would wrap the function before numba sees it
def _unfold(planes, width, count, at):  # pragma: no cover
    folded = np.uint64(0)
    for byte in range(width):
        folded |= np.uint64(planes[byte * count + at]) << np.uint64(8 * byte)
    return np.int64(folded >> np.uint64(1)) ^ -np.int64(folded & np.uint64(1))


@njit(cache=True)
@no_type_check
def _whole(planes, width, out):  # pragma: no cover
    count = out.size
    flat = out.reshape(count)
    for at in range(count):
        flat[at] = _unfold(planes, width, count, at)


@njit(cache=True)
@no_type_check
def _sum_once(planes, width, out):  # pragma: no cover
    rows, columns = out.shape
    count = rows * (columns - 1)
    for row in range(rows):
        value = out[row, 0]
        for column in range(1, columns):
            value += _unfold(planes, width, count, row * (columns - 1) + column - 1)
            out[row, column] = value


@njit(cache=True)
@no_type_check
def _sum_twice(planes, width, out):  # pragma: no cover
    rows, columns = out.shape
    count = rows * (columns - 1)
    for row in range(rows):
        value, slope = out[row, 0], np.int64(0)
        for column in range(1, columns):
            slope += _unfold(planes, width, count, row * (columns - 1) + column - 1)
            value += slope
            out[row, column] = value
