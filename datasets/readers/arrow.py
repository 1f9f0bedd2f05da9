"""Arrow files (Feather version 2) that nobody vouches for. Extra: [av2].

What a file's compressed buffers claim to hold is added up before pyarrow unpacks them, and what it unpacked is
validated before it is looked at. Format: arrow.apache.org/docs/format/Columnar.html, `format/Message.fbs`.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from traj_diffusion.datasets.readers.unpack import read_bytes
from traj_diffusion.errors import BadFile, MissingExtra

MAGIC = b"ARROW1\0\0"
MAX_BYTES = 256 * 2**20  # of a file, and again of what it holds unpacked
_BUFFERS = 2  # field of a RecordBatch: (offset, length) of each buffer in the message's body
_COMPRESSION = 3


def is_arrow(head: bytes, *names: bytes) -> bool:
    """Return whether a file's first bytes are an Arrow file's, and its schema, which comes first, names all columns."""
    return head.startswith(MAGIC) and all(name in head for name in names)


def read_arrow(path: Path, columns: Sequence[str]) -> Any:
    """Return these columns of an Arrow file as a pyarrow table. Raises BadFile, MissingExtra."""
    arrow = pyarrow()
    data = read_bytes(path, MAX_BYTES, "an Arrow file")
    if not data.startswith(MAGIC):
        raise BadFile(f"{path}: no Arrow file; Feather version 2 would fit")
    try:
        _check_claims(arrow, data[len(MAGIC) :])
        with arrow.ipc.open_stream(arrow.BufferReader(data[len(MAGIC) :])) as stream:
            lacking = [name for name in columns if name not in stream.schema.names]
            if lacking:
                raise BadFile(f"{path}: no column {lacking[0]!r}; wanted are {', '.join(columns)}")
            table = stream.read_all()
        table.validate(full=True)
        return table.select(list(columns)).combine_chunks()
    except (arrow.ArrowException, OSError, ValueError, TypeError, MemoryError, OverflowError, struct.error) as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(f"{path}: not a readable Arrow file ({' '.join(str(error).split())[:200]})") from error


def pyarrow() -> ModuleType:
    """Return the package, or raise MissingExtra."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise MissingExtra("pyarrow", "av2") from error
    return pyarrow


def _check_claims(arrow: ModuleType, data: bytes) -> None:
    """Raise ValueError where the record batches together claim more than MAX_BYTES."""
    total = 0
    for message in arrow.ipc.MessageReader.open_stream(arrow.BufferReader(data)):
        if message.type in ("record batch", "dictionary"):
            body = message.body
            for offset, length in _compressed_buffers(message.metadata.to_pybytes(), message.type):
                if length >= 8 and 0 <= offset <= body.size - length:
                    # Each compressed buffer starts with its unpacked length; -1 says that it is not compressed.
                    claimed = struct.unpack("<q", body.slice(offset, 8).to_pybytes())[0]
                    total += max(claimed, 0)
            if total > MAX_BYTES:
                raise ValueError(f"it claims more than {MAX_BYTES:,} bytes unpacked, too many for one recording")


def _compressed_buffers(metadata: bytes, kind: str) -> list[tuple[int, int]]:
    """Return where the buffers of a message's record batch lie in its body; none where nothing is compressed."""
    batch = _table(metadata, _root(metadata), 2)
    if kind == "dictionary" and batch is not None:
        batch = _table(metadata, batch, 1)
    if batch is None or _field(metadata, batch, _COMPRESSION) is None:
        return []
    at = _table(metadata, batch, _BUFFERS)
    if at is None:
        return []
    (count,) = struct.unpack_from("<I", metadata, at)
    if count * 16 > len(metadata):
        raise ValueError("a record batch lists more buffers than fit into its message")
    return [struct.unpack_from("<qq", metadata, at + 4 + 16 * row) for row in range(count)]


def _root(flat: bytes) -> int:
    return int(struct.unpack_from("<I", flat, 0)[0])


def _field(flat: bytes, table: int, number: int) -> int | None:
    """Return where a field of a flatbuffer table lies, None where it is absent."""
    vtable = table - struct.unpack_from("<i", flat, table)[0]
    entry = 4 + 2 * number
    if vtable < 0 or entry + 2 > struct.unpack_from("<H", flat, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", flat, vtable + entry)[0]
    return table + offset if offset else None


def _table(flat: bytes, table: int, number: int) -> int | None:
    """Return where the table or vector that a field points to starts, None where it is absent."""
    at = _field(flat, table, number)
    return None if at is None else int(at + struct.unpack_from("<I", flat, at)[0])
