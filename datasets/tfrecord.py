"""TFRecord files: framed records with checksums, plain or gzip, told apart by content.

Format: tensorflow.org/tutorials/load_data/tfrecord. A record is its length (uint64), a masked CRC-32C of those eight
bytes, the data, and a masked CRC-32C of the data, all little-endian.
"""

import gzip
import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import no_type_check

import numpy as np

from traj_diffusion.datasets.wire import bits64, compiled
from traj_diffusion.errors import BadFile, BadRecord
from traj_diffusion.scene.archive import atomic_path

MAX_RECORD = 256 * 2**20
_CHUNK = 8 * 2**20
_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected


def _tables() -> np.ndarray:
    """Return sixteen tables: entry [k, b] is the CRC of byte b followed by k zero bytes."""
    tables = np.zeros((16, 256), np.uint32)
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        tables[0, byte] = crc
    for shift in range(1, 16):
        before = tables[shift - 1]
        tables[shift] = before >> np.uint32(8) ^ tables[0, before & np.uint32(255)]
    return tables


_TABLES = _tables()


@compiled
@no_type_check
def _crc32c(data, tables):
    crc = np.uint32(0xFFFFFFFF)
    at = 0
    whole = len(data) - len(data) % 16
    while at < whole:
        low = bits64(data, at) ^ np.uint64(crc)
        high = bits64(data, at + 8)
        crc = np.uint32(0)
        for byte in range(8):
            shift = np.uint64(8 * byte)
            crc ^= tables[15 - byte, (low >> shift) & np.uint64(255)]
            crc ^= tables[7 - byte, (high >> shift) & np.uint64(255)]
        at += 16
    while at < len(data):
        crc = (crc >> np.uint32(8)) ^ tables[0, (crc ^ data[at]) & np.uint32(255)]
        at += 1
    return crc ^ np.uint32(0xFFFFFFFF)


def masked_crc32c(data: bytes) -> int:
    """Return the CRC-32C of the data, masked as TFRecord wants it: rotated right by 15 bits, plus a constant."""
    crc = int(_crc32c(np.frombuffer(data, np.uint8), _TABLES))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def is_tfrecord(head: bytes) -> bool:
    """Return whether a file's first (uncompressed) bytes start with a length and its checksum."""
    return len(head) >= 12 and masked_crc32c(head[:8]) == struct.unpack("<I", head[8:12])[0]


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the data of each record of a plain or gzip TFRecord, checked.

    Records that are whole come before the error about one that is not. Raises BadFile where the file cannot be read or
    is no TFRecord, BadRecord where a record is truncated, too long or damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if zipped:
                with gzip.open(raw) as stream:
                    yield from _records(path, stream)
            else:
                yield from _records(path, raw)
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror or error})") from error


def _records(path: Path, stream: io.BufferedIOBase) -> Iterator[bytes]:
    number = 0
    while True:
        where = f"{path}, record {number}"
        head = _read(where, stream, 12)
        if not head and number:
            return
        if not head:
            raise BadFile(f"{path}: the file is empty; a TFRecord file holds at least one record")
        if number == 0 and not (len(head) < 12 or is_tfrecord(head)):
            raise BadFile(f"{path}: not a TFRecord file; its first 12 bytes are not a length and its checksum")
        if len(head) < 12:
            raise BadRecord(f"{where}: the file ends inside the record's header, {len(head)} of 12 bytes")
        if not is_tfrecord(head):
            raise BadRecord(f"{where}: the checksum of its length is wrong")
        length = struct.unpack("<Q", head[:8])[0]
        if length > MAX_RECORD:
            raise BadRecord(f"{where}: claims {length:,} bytes; at most {MAX_RECORD:,} are read")
        data = _read(where, stream, length)
        crc = _read(where, stream, 4)
        if len(data) < length or len(crc) < 4:
            raise BadRecord(f"{where}: the file ends inside the record, {len(data):,} of {length:,} bytes")
        if masked_crc32c(data) != struct.unpack("<I", crc)[0]:
            raise BadRecord(f"{where}: the checksum of its data is wrong; the file is damaged")
        yield data
        number += 1


def _read(where: str, stream: io.BufferedIOBase, length: int) -> bytes:
    """Return up to `length` bytes. Memory grows with what arrives, not with what a header claims."""
    try:
        data = stream.read(min(length, _CHUNK))
        if len(data) == length or not data:
            return data
        parts = [data]
        missing = length - len(data)
        while missing and (data := stream.read(min(missing, _CHUNK))):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadRecord(f"{where}: the gzip stream is damaged ({error})") from error


def write_records(path: Path, records: Iterable[bytes]) -> Path:
    """Write records as a plain TFRecord file, whole or not at all, and return its path."""
    path = Path(path)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for record in records:
            head = struct.pack("<Q", len(record))
            file.write(head + struct.pack("<I", masked_crc32c(head)))
            file.write(record)
            file.write(struct.pack("<I", masked_crc32c(record)))
    return path
