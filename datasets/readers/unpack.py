"""Files that nobody vouches for, as bytes: plain or gzip, never more than the reader asked for."""

import gzip
import zlib
from pathlib import Path

from traj_diffusion.errors import BadFile


def is_gzip(path: Path) -> bool:
    """Return whether a file is gzip. Raises BadFile where it cannot be read."""
    try:
        with path.open("rb") as raw:
            return raw.read(2) == b"\x1f\x8b"
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error})") from error


def read_bytes(path: Path, most: int, what: str) -> bytes:
    """Return a file's bytes, unpacked where it is gzip. Raises BadFile beyond `most` bytes of `what`.

    A decompression bomb is unpacked up to that size and no further.
    """
    zipped = is_gzip(path)
    try:
        with path.open("rb") as raw:
            data = (gzip.GzipFile(fileobj=raw) if zipped else raw).read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadFile(f"{path}: cannot be read ({error})") from error
    if len(data) > most:
        raise BadFile(f"{path}: more than {most:,} bytes of {what}, too many for one recording")
    return data
