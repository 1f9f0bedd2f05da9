"""SCENES, as commands take it: a file, a folder, a JSON list of {file, id}, or the word `bundled`."""

import importlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from traj_diffusion.datasets.plugins import Reader, other_readers
from traj_diffusion.datasets.readers.unpack import read_bytes
from traj_diffusion.errors import BadFile
from traj_diffusion.scene import Scene

# Modules of `readers`, asked in this order.
READERS = (
    "archive",
    "womd",
    "womd_example",
    "gpudrive",
    "scenarionet",
    "av2",
    "av2_sensor",
    "py123d",
    "nuplan",
    "smarts",
    "opendrive",
    "sumo_net",
    "sumo_fcd",
    "commonroad",
)
BUNDLED = "bundled"
HEAD_BYTES = 64 * 2**10
MAX_LIST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Entry:
    """A file to read, and which scene of it; `id` None stands for all of its scenes."""

    file: Path
    id: str | None = None


def read_scenes(source: str | Path | Iterable[Entry]) -> Iterator[Scene]:
    """Yield the scenes of a source in order, one in memory at a time.

    `source` is what `list_sources` takes, or entries of it, those that are still to do, say. Neighbouring entries of
    one file share one pass over it. Raises BadFile, BadRecord or BadScene when the broken thing is reached.
    """
    entries = list_sources(source) if isinstance(source, str | Path) else source
    for (file, _), group in groupby(entries, key=lambda entry: (entry.file, entry.id is None)):
        yield from _read_entries(file, list(group))


def _read_entries(file: Path, entries: list[Entry]) -> Iterator[Scene]:
    if entries[0].id is None:
        for _ in entries:
            yield from read_file(file)
        return
    wanted = Counter(entry.id for entry in entries)
    scenes, early = read_file(file), dict[str | None, Scene]()
    for entry in entries:
        while entry.id not in early:
            scene = next(scenes, None)
            if scene is None:
                raise BadFile(f"{file}: holds no scene {entry.id!r}, which a list of scenes asks for")
            if scene.id in wanted:
                early[scene.id] = scene
        wanted[entry.id] -= 1
        yield early[entry.id] if wanted[entry.id] else early.pop(entry.id)


def read_file(path: str | Path) -> Iterator[Scene]:
    """Yield the scenes of one file of any known format, recognised by its content."""
    file = Path(path)
    reader = find_reader(file)
    if reader is None:
        raise BadFile(f"{file}: not in a format that can be read; known are {known_formats()}")
    yield from reader.read(file)


def list_sources(source: str | Path) -> list[Entry]:
    """Return what a SCENES argument stands for, in the order in which it is read. Raises BadFile.

    A folder is searched with its subfolders, sorted by path. Files of no known format in it are passed over, unless
    their name says that they should be readable: then they are an error and not silently left out.
    """
    if source == BUNDLED:
        return _bundled()
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise BadFile(f"{path}: no such file or folder; SCENES is a file, a folder, a JSON list, or {BUNDLED!r}")
    if read_head(path).lstrip()[:1] == b"[":
        return _json_list(path)
    return [Entry(path)]


def known_formats() -> str:
    """Return the names of all formats that can be read, for messages."""
    return ", ".join(str(reader.NAME) for reader in _readers())


def is_named_like_scenes(path: Path) -> bool:
    """Return whether the name of a file says that some reader should be able to read it."""
    return any(fnmatch(path.name, pattern) for reader in _readers() for pattern in reader.PATTERNS)


def find_reader(path: Path) -> Reader | None:
    """Return the reader that recognises a file by its content, or None."""
    head = read_head(path)
    return next((reader for reader in _readers() if reader.sniff(head, path)), None)


def read_head(path: Path) -> bytes:
    """Return a file's first bytes, unpacked where it is gzip. Raises BadFile where it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror or error})") from error
    if not head.startswith(b"\x1f\x8b"):
        return head
    unpacked = b""
    try:
        while head and len(unpacked) < HEAD_BYTES:  # SUMO writes its header as a gzip member of its own
            member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            unpacked += member.decompress(head, HEAD_BYTES - len(unpacked))
            head = member.unused_data
    except zlib.error as error:
        if not unpacked:
            raise BadFile(f"{path}: the gzip stream is damaged ({error})") from error
    return unpacked


def _readers() -> list[Reader]:
    """Return our readers and, behind them, those of others."""
    ours: list[Reader] = [importlib.import_module(f"traj_diffusion.datasets.readers.{name}") for name in READERS]
    return ours + other_readers()


def _bundled() -> list[Entry]:
    folder = Path(str(files("traj_diffusion.datasets"))) / "bundled"
    found = sorted(folder.glob("*.scene.npz"))
    if not found:
        raise BadFile(f"{folder}: no bundled scenes; this installation of traj-diffusion is incomplete")
    return [Entry(path) for path in found]


def _folder(folder: Path) -> list[Entry]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    found = []
    for path in files:
        if find_reader(path) is not None:
            found.append(Entry(path))
        elif is_named_like_scenes(path):
            raise BadFile(f"{path}: named like scenes, but not in a format that can be read: {known_formats()}")
    if not found:
        raise BadFile(f"{folder}: none of its {len(files)} files is in a format that can be read: {known_formats()}")
    return found


def _json_list(path: Path) -> list[Entry]:
    """Return the entries of a JSON list of {file, id}; files are named relative to the list's own folder."""
    try:
        rows = json.loads(read_bytes(path, MAX_LIST_BYTES, "a list of scenes"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadFile(f"{path}: not a JSON list of scenes ({error})") from error
    entries = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("file"), str):
            raise BadFile(f"{path}, entry {number}: wanted is {{'file': ..., 'id': ...}}, found {str(row)[:80]}")
        if not isinstance(row.get("id"), str | None):
            raise BadFile(f"{path}, entry {number}: an id is text, found {row['id']!r}")
        entries.append(Entry(path.parent / row["file"], row.get("id")))
    return entries
