"""`tf.train.Example` messages: features by name, decoded without TensorFlow or protobuf.

Schema: tensorflow/core/example/example.proto and feature.proto; the numbers below are its field numbers. Later values
of a key replace earlier ones, lists may be packed or not, fields not named here are skipped.
"""

from typing import no_type_check

import numpy as np

from traj_diffusion.datasets.wire import (
    FAULTS,
    FIXED32,
    SPAN,
    VARINT,
    WRONG_TYPE,
    compiled,
    count_varints,
    read_key,
    read_span,
    read_varint,
    skip_value,
)

BYTES, FLOATS, INTEGERS = 1, 2, 3
Values = np.ndarray | list[bytes]


class ExampleFault(ValueError):
    """The bytes are no such message."""


def decode_example(record: bytes) -> dict[str, Values]:
    """Return the features of a serialised Example: float32 or int64 arrays, or lists of bytes. Raises ExampleFault."""
    data = np.frombuffer(record, np.uint8)
    found: dict[str, Values] = {}
    for first, stop in _messages(data, 0, len(data), 1, "the example"):
        for at, end in _messages(data, first, stop, 1, "its features"):
            name, values = b"", (at, at)
            for field, span in _spans(data, at, end, "a feature"):
                if field == 1:
                    name = record[span[0] : span[1]]
                elif field == 2:
                    values = span
            text = name.decode("utf-8", "replace")
            found[text] = _values(data, *values, f"feature {text[:60]!r}")
    return found


def _spans(data: np.ndarray, at: int, end: int, where: str) -> list[tuple[int, tuple[int, int]]]:
    """Return field number and extent of each length-delimited field of a message."""
    found = []
    while at < end:
        field, wire, at = read_key(data, at, end)
        _check(at, where)
        if wire == SPAN:
            first, at = read_span(data, at, end)
            _check(at, where)
            found.append((int(field), (int(first), int(at))))
        else:
            at = skip_value(data, at, end, wire)
            _check(at, where)
    return found


def _messages(data: np.ndarray, at: int, end: int, wanted: int, where: str) -> list[tuple[int, int]]:
    return [span for field, span in _spans(data, at, end, where) if field == wanted]


def _values(data: np.ndarray, at: int, end: int, where: str) -> Values:
    """Return what a Feature holds: the last of its lists that is there."""
    values: Values = np.zeros(0, np.float32)
    for kind, (first, stop) in _spans(data, at, end, where):
        if kind == BYTES:
            values = [data[a:b].tobytes() for a, b in _messages(data, first, stop, 1, where)]
        elif kind in (FLOATS, INTEGERS):
            room = count_varints(data, first, stop) if kind == INTEGERS else (stop - first) // 4
            raw = np.zeros(room, np.int64 if kind == INTEGERS else np.uint32)
            count = _numbers(data, first, stop, kind, raw)
            _check(count, where)
            values = raw[:count] if kind == INTEGERS else raw[:count].view(np.float32)
    return values


def _check(at: int, where: str) -> None:
    if at < 0:
        raise ExampleFault(f"{where}: {FAULTS[int(at)]}")


@compiled
@no_type_check
def _numbers(data, at, end, kind, out):
    """Fill `out` with the numbers of a FloatList (as bits) or Int64List; return how many, or a fault."""
    row = 0
    while at < end:
        field, wire, at = read_key(data, at, end)
        if at < 0:
            return at
        if field != 1:
            at = skip_value(data, at, end, wire)
            if at < 0:
                return at
            continue
        first, stop = at, end
        if wire == SPAN:
            first, stop = read_span(data, at, end)
            if stop < 0:
                return stop
        elif wire != (VARINT if kind == INTEGERS else FIXED32):
            return WRONG_TYPE
        while first < stop:
            if kind == INTEGERS:
                value, first = read_varint(data, first, stop)
                if first < 0:
                    return first
                out[row] = value
            else:
                if stop - first < 4:
                    return -1
                bits = 0
                for byte in range(4):
                    bits |= np.int64(data[first + byte]) << (8 * byte)
                out[row] = bits
                first += 4
            row += 1
            if wire != SPAN:
                break
        at = first
    return row
