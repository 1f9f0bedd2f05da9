"""Files that nobody vouches for, as bytes: plain or gzip, never more than the reader asked for."""

import gzip
import zlib
from pathlib import Path

from traj_diffusion.errors import BadFile


def read_bytes(path: Path, most: int, what: str) -> bytes:
    """Return a file's bytes, unpacked where it is gzip. Raises BadFile beyond `most` bytes of `what`.

    A decompression bomb is unpacked up to that size and no further.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            data = (gzip.GzipFile(fileobj=raw) if zipped else raw).read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadFile(f"{path}: cannot be read ({error})") from error
    if len(data) > most:
        raise BadFile(f"{path}: more than {most:,} bytes of {what}, too many for one recording")
    return data
