"""Our own files: an .npz of plain arrays and a JSON header with a schema version. No pickle, written atomically."""

import json
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from traj_diffusion.errors import BadFile

_HEADER = "header"
MAX_BYTES = 2 * 2**30
MAX_RATIO = 200  # unpacked to packed; simulated scenes reach 5, an all-zero bomb 1000
_FREE = 256 * 2**20  # unpacked bytes for which no ratio is asked


def file_stem(name: str) -> str:
    """Return a name as part of a file name: letters, digits, `.`, `_` and `-` stay, all else becomes `_`.

    >>> file_stem("../tram 7")
    '.._tram_7'
    """
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:150] or "_"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` at once when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_archive(
    path: Path, content: str, version: int, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write arrays and header as one compressed file. `content` says what it is, `version` of which schema."""
    text = json.dumps({"content": content, "schema_version": version, **header})
    packed = np.frombuffer(text.encode(), np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{_HEADER: packed}, **arrays)


def read_archive(path: Path, content: str, version: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays of a file that holds `content` in a schema up to `version`.

    Sizes that the file claims are added up before memory is asked for. Raises BadFile.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(_claimed_bytes(archive, name) for name in archive.namelist())
        if claimed > MAX_BYTES:
            raise BadFile(f"{path}: claims to hold {claimed:,} bytes; at most {MAX_BYTES:,} are read")
        packed = path.stat().st_size
        if claimed > max(_FREE, MAX_RATIO * packed):
            raise BadFile(f"{path}: claims to hold {claimed:,} bytes in {packed:,}; at most {MAX_RATIO} times are read")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays.pop(_HEADER).tobytes().decode())
    except FileNotFoundError:
        raise BadFile(f"{path}: no such file") from None
    except BadFile:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds on broken bytes
        raise BadFile(f"{path}: not a readable {content} archive ({type(error).__name__}: {error})") from error
    if not isinstance(header, dict) or header.get("content") != content:
        raise BadFile(f"{path}: holds no {content}")
    if not isinstance(header.get("schema_version"), int) or not 1 <= header["schema_version"] <= version:
        raise BadFile(f"{path}: schema version {header.get('schema_version')!r}; this release reads 1 to {version}")
    return header, arrays


def _claimed_bytes(archive: zipfile.ZipFile, name: str) -> int:
    """Return the bytes that an entry's own array header asks for."""
    with archive.open(name) as entry:
        magic = np.lib.format.read_magic(entry)
        read = np.lib.format.read_array_header_1_0 if magic == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(entry)
    return math.prod(shape) * dtype.itemsize
