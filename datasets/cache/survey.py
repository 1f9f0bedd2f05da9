"""Which files there are, and why a file is no recording: `prepare` accounts for every one of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from traj_diffusion.datasets.sources import BUNDLED, find_reader, list_sources, read_head
from traj_diffusion.errors import BadFile

# What lies beside recordings: (bytes in its head, end of its name, what it is). Either of the first two may be empty.
_KNOWN = (
    (b"<OpenSCENARIO", "", "a storyboard for a simulator (OpenSCENARIO)"),
    (b"<routes", "", "traffic demand for SUMO"),
    (b"Configuration", ".sumocfg", "settings for SUMO"),
    (b'"lane_segments"', "", "a map of Argoverse 2, which is read with the scenario beside it"),
    (b"ARROW1", ".feather", "a table of an Argoverse 2 sensor log, which is read with the annotations beside it"),
    (b"ARROW1", "", "an Arrow table"),
    (b"", ".md", "text"),
    (b"", ".txt", "text"),
    (b"", ".textproto", "settings as text"),
    (b"", "_Sim2_city.json", "the frame of an image of a map"),
    (b"", ".binproto.gz", "serialized rollouts of a submission"),
    (b"", ".binproto", "serialized rollouts of a submission"),
    (b"", ".pb", "serialized protobuf; CommonRoad's scenarios are read as XML"),
    (b"", ".csv", "a table without a format of its own"),
)


@dataclass(frozen=True)
class Source:
    """A file to prepare. `ids` are the scenes wanted of it, None stands for all."""

    file: Path
    ids: tuple[str, ...] | None
    bytes: int
    changed: int  # ns

    @property
    def key(self) -> list[object]:
        """What makes it another file than it was before."""
        return [str(self.file), None if self.ids is None else list(self.ids), self.bytes, self.changed]


def list_files(sources: Sequence[str], out: Path) -> list[Source]:
    """Return every file that sources stand for, each once, in order.

    Of a folder these are all files in it and below, sorted by path, whatever they hold, but for the cache itself.
    Raises BadFile where a source does not exist.
    """
    out = Path(os.path.abspath(out))
    wanted: dict[Path, tuple[str, ...] | None] = {}
    for source in sources:
        path = Path(source)
        if source != BUNDLED and path.is_dir():
            found: list[tuple[Path, list[str | None]]]
            found = [(file, [None]) for file in sorted(path.rglob("*")) if file.is_file()]
            if not found:
                raise BadFile(f"{path}: a folder without a file")
        else:
            entries = groupby(list_sources(source), key=lambda entry: entry.file)
            found = [(file, [entry.id for entry in group]) for file, group in entries]
        for file, names in found:
            file = Path(os.path.abspath(file))
            if out in file.parents:
                continue
            before = wanted.get(file, ())
            ids = [*(before or ()), *(name for name in names if name is not None)]
            wanted[file] = None if None in names or before is None else tuple(dict.fromkeys(ids))
    return [_source(file, ids) for file, ids in wanted.items()]


def _source(file: Path, ids: tuple[str, ...] | None) -> Source:
    try:
        stat = file.stat()
    except OSError as error:
        raise BadFile(f"{file}: cannot be read ({error.strerror or error})") from error
    return Source(file, ids, stat.st_size, stat.st_mtime_ns)


def why_no_recording(file: Path) -> str | None:
    """Return why a file cannot be read as scenes, or None where some reader knows it."""
    if file.name.startswith("."):
        return "a hidden file"
    try:
        if find_reader(file) is not None:
            return None
        head = read_head(file)
    except BadFile as error:
        return str(error)
    if not head:
        return "an empty file"
    for content, ending, what in _KNOWN:
        if content in head and file.name.endswith(ending):
            return f"no recording: {what}"
    if head.lstrip()[:1] == b"[":
        return "no recording: a list, of scenes perhaps, which are read where they lie"
    return "not in a format that can be read"
