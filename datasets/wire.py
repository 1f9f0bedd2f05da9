"""The protobuf wire format: compiled functions that walk it, plain ones that write it.

Spec: protobuf.dev/programming-guides/encoding. Walkers take a uint8 array and never read at or beyond `end`; what is
wrong with the bytes comes back as a negative position, one of the codes below. Groups, which nobody has written for
fifteen years, count as an unknown wire type.

Numba keeps compiled code beside each file and looks only at that file's own date: after a change here, delete
`__pycache__` next to the files that call these functions.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Any, no_type_check

import numba
import numpy as np

VARINT, FIXED64, SPAN, FIXED32 = 0, 1, 2, 5

TRUNCATED, OVERLONG, OUTSIDE, UNKNOWN_TYPE, WRONG_TYPE, FIELD_ZERO, TWO_KINDS = -1, -2, -3, -4, -5, -6, -7
FAULTS = {
    TRUNCATED: "it ends inside a value",
    OVERLONG: "a varint is longer than 10 bytes",
    OUTSIDE: "a length points beyond the end of its message",
    UNKNOWN_TYPE: "a field has an unknown wire type",
    WRONG_TYPE: "a field has another wire type than its schema says",
    FIELD_ZERO: "a field has the number 0",
    TWO_KINDS: "a map feature is of two kinds at once",
}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function compiled by numba, from its cache where one can be kept."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True)(function)


@compiled
@no_type_check
def read_varint(data, at, end):
    """Return a varint as int64 (two's complement) and the position behind it."""
    # Unsigned indices, here and below, spare numba's test for negative ones.
    if at < end and data[np.uint64(at)] < 128:
        return np.int64(data[np.uint64(at)]), at + 1
    value = np.uint64(0)
    for count in range(10):
        if at + count >= end:
            return np.int64(0), TRUNCATED
        byte = data[np.uint64(at + count)]
        value |= np.uint64(byte & 127) << np.uint64(7 * count)
        if byte < 128:
            return np.int64(value), at + count + 1
    return np.int64(0), OVERLONG


@compiled
@no_type_check
def read_key(data, at, end):
    """Return field number, wire type and the position behind a key."""
    key, at = read_varint(data, at, end)
    if at < 0:
        return np.int64(0), np.int64(0), at
    field = (key >> 3) & 0x1FFFFFFF
    if field == 0:
        return field, key & 7, FIELD_ZERO
    return field, key & 7, at


@compiled
@no_type_check
def read_span(data, at, end):
    """Return where a length-delimited value starts and ends; the end is negative where it does not fit."""
    length, at = read_varint(data, at, end)
    if at < 0:
        return at, at
    if length < 0 or length > end - at:
        return at, OUTSIDE
    return at, at + length


@compiled
@no_type_check
def skip_value(data, at, end, wire):
    """Return the position behind a value of the given wire type."""
    if wire == VARINT:
        return read_varint(data, at, end)[1]
    if wire == SPAN:
        return read_span(data, at, end)[1]
    if wire == FIXED64:
        return at + 8 if end - at >= 8 else TRUNCATED
    if wire == FIXED32:
        return at + 4 if end - at >= 4 else TRUNCATED
    return UNKNOWN_TYPE


@compiled
@no_type_check
def bits64(data, at):
    """Return eight little-endian bytes as uint64, a double's bits say; the caller has checked that they are there."""
    low = np.uint64(bits32(data, at))
    return low | (np.uint64(bits32(data, at + 4)) << np.uint64(32))


@compiled
@no_type_check
def bits32(data, at):
    """Return four little-endian bytes as uint32; the caller has checked that they are there."""
    first = np.uint64(at)
    return (
        np.uint32(data[first])
        | (np.uint32(data[first + np.uint64(1)]) << np.uint32(8))
        | (np.uint32(data[first + np.uint64(2)]) << np.uint32(16))
        | (np.uint32(data[first + np.uint64(3)]) << np.uint32(24))
    )


@compiled
@no_type_check
def count_varints(data, at, end):
    """Return how many varints a packed field holds at most: its bytes without a continuation bit."""
    total = 0
    for position in range(at, end):
        if data[position] < 128:
            total += 1
    return total


def varint(value: int) -> bytes:
    """Return a value as a varint; negative ones as ten bytes of two's complement, as protobuf does for int32 too."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer_field(number: int, value: int) -> bytes:
    """Return an int, bool or enum field."""
    return varint(number << 3 | VARINT) + varint(int(value))


def double_field(number: int, value: float) -> bytes:
    """Return a double field."""
    return varint(number << 3 | FIXED64) + struct.pack("<d", value)


def float_field(number: int, value: float) -> bytes:
    """Return a float field."""
    return varint(number << 3 | FIXED32) + struct.pack("<f", value)


def bytes_field(number: int, value: bytes) -> bytes:
    """Return a field of bytes, text or an encoded message."""
    return varint(number << 3 | SPAN) + varint(len(value)) + value


def packed_integers_field(number: int, values: Iterable[int]) -> bytes:
    """Return a packed repeated int field; nothing at all for no values."""
    packed = b"".join(varint(value) for value in values)
    return bytes_field(number, packed) if packed else b""


def packed_floats_field(number: int, values: np.ndarray) -> bytes:
    """Return a packed repeated float field; nothing at all for no values."""
    packed = np.ascontiguousarray(values, "<f4").tobytes()
    return bytes_field(number, packed) if packed else b""
