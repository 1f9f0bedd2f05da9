"""SQLite files that nobody vouches for: opened read-only, plain or gzip, every query bounded in rows and in time."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from traj_diffusion.datasets.readers.unpack import is_gzip, read_bytes
from traj_diffusion.errors import BadFile

HEAD = b"SQLite format 3\0"
MAX_UNPACKED = 512 * 2**20
MAX_STEPS = 400_000_000  # of SQLite's machine for one file; a query may otherwise recurse for ever
MAX_VALUE = 2**20  # bytes of one value
_BLOCK = 1_000_000


def tables(head: bytes, path: Path) -> set[str]:
    """Return the names of a file's tables; none where it is no SQLite file that can be read."""
    if not head.startswith(HEAD):
        return set()
    try:
        with connect(path) as database:
            return {str(row[0]) for row in rows(database, "SELECT name FROM sqlite_master WHERE type = 'table'", 1000)}
    except BadFile:
        return set()


@contextmanager
def connect(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for reading. Raises BadFile, also for what SQLite finds wrong inside the block."""
    zipped = is_gzip(path)
    unpacked = read_bytes(path, MAX_UNPACKED, "SQLite") if zipped else b""
    # Immutable: no lock, no journal is looked for, nothing is ever written.
    address = ":memory:" if zipped else f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        database = sqlite3.connect(address, uri=True)
    except sqlite3.Error as error:
        raise BadFile(f"{path}: not a readable SQLite file ({error})") from error
    try:
        if zipped:
            database.deserialize(unpacked)
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
        blocks = iter(range(MAX_STEPS // _BLOCK))
        database.set_progress_handler(lambda: next(blocks, None) is None, _BLOCK)
        yield database
    except (sqlite3.Error, MemoryError, OverflowError) as error:
        raise BadFile(f"{path}: not a readable SQLite file ({error})") from error
    finally:
        database.close()


def rows(database: sqlite3.Connection, query: str, most: int) -> list[tuple[Any, ...]]:
    """Return the rows of a query. Raises ValueError where there are more than `most`."""
    found = database.execute(f"{query} LIMIT {most + 1}").fetchall()
    if len(found) > most:
        raise ValueError(f"more than {most:,} rows, too many for one recording: {query[:60]}")
    return found
