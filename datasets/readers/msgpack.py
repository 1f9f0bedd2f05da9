"""MessagePack, as far as files of others hold it: plain values, and numpy arrays as py123d packs them.

Spec: github.com/msgpack/msgpack/blob/master/spec.md. Nothing is built but values of Python and arrays of numbers that
the bytes themselves hold.
"""

import struct
from typing import Any

import numpy as np

_DEPTH = 16
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_LENGTHS = {
    0xC4: ("bytes", ">B"), 0xC5: ("bytes", ">H"), 0xC6: ("bytes", ">I"),
    0xD9: ("text", ">B"), 0xDA: ("text", ">H"), 0xDB: ("text", ">I"),
    0xDC: ("list", ">H"), 0xDD: ("list", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip


def unpack(data: bytes) -> Any:
    """Return the value that the bytes stand for. Raises ValueError where they are none, or something is left over."""
    try:
        value, at = _value(data, 0, 0)
    except (struct.error, IndexError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"not readable MessagePack ({error})") from error
    if at != len(data):
        raise ValueError(f"not readable MessagePack ({len(data) - at} bytes are left over)")
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > _DEPTH:
        raise ValueError("not readable MessagePack (nested too deeply)")
    tag = data[at]
    at += 1
    if tag < 0x80 or tag >= 0xE0:
        return (tag if tag < 0x80 else tag - 256), at
    if tag in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[tag], at
    if tag in _NUMBERS:
        return struct.unpack_from(_NUMBERS[tag], data, at)[0], at + struct.calcsize(_NUMBERS[tag])
    if tag in _LENGTHS:
        kind, form = _LENGTHS[tag]
        (length,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
    elif tag < 0xC0:
        kind = "map" if tag < 0x90 else "list" if tag < 0xA0 else "text"
        length = tag & (0x1F if kind == "text" else 0x0F)
    else:
        raise ValueError(f"not readable MessagePack (tag {tag:#x})")
    if length * (2 if kind == "map" else 1) > len(data) - at:
        raise ValueError("not readable MessagePack (a length points beyond its end)")
    if kind in ("bytes", "text"):
        piece = data[at : at + length]
        return (piece if kind == "bytes" else piece.decode()), at + length
    entries = []
    for _ in range(length * (2 if kind == "map" else 1)):
        entry, at = _value(data, at, depth + 1)
        entries.append(entry)
    if kind == "list":
        return entries, at
    return _array(dict(zip(entries[::2], entries[1::2], strict=True))), at


def _array(found: dict[Any, Any]) -> Any:
    """Return the array that a map packs, or the map itself."""
    if b"__ndarray__" not in found:
        return found
    dtype, shape, content = (found.get(key) for key in (b"dtype", b"shape", b"data"))
    if dtype not in ("<f8", "<f4", "<i8", "<i4") or not isinstance(content, bytes) or not isinstance(shape, list):
        raise ValueError(f"not readable MessagePack (an array of type {dtype!r})")
    return np.frombuffer(content, dtype).reshape(shape)
