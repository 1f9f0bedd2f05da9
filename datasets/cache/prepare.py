"""Any number of source files to one cache, over processes or machines, resumable at any moment.

The files are cut into parts by a rule that looks at nothing but their order, number and size. Each part becomes one
shard, which appears under its name only when it is whole, with the report of its files inside. What is there already
is not made again, so that a second call goes on where the first was killed; the bytes do not depend on who made which.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from traj_diffusion.datasets.cache.pool import over_parts
from traj_diffusion.datasets.cache.report import CacheReport, FileReport
from traj_diffusion.datasets.cache.sample import NOW
from traj_diffusion.datasets.cache.shard import (
    SCHEMA_VERSION,
    CannotWrite,
    ShardIndex,
    ShardWriter,
    new_shard,
    open_shard,
)
from traj_diffusion.datasets.cache.store import INDEX
from traj_diffusion.datasets.cache.survey import Source, list_files, why_no_recording
from traj_diffusion.datasets.sources import Entry, find_reader, is_named_like_scenes, known_formats, read_scenes
from traj_diffusion.errors import BadFile, BadScene, TrajDiffusionError
from traj_diffusion.scene import Scene
from traj_diffusion.scene.archive import atomic_path

PLAN, REPORT = "plan.json", "report.json"
FILES_PER_PART = 64
BYTES_PER_PART = 64 * 2**20
_WHOLE = 91  # steps of a window
_SECOND = 10  # steps


@dataclass(frozen=True)
class Part:
    """Files that become one shard."""

    shard: Path
    sources: tuple[Source, ...]

    @property
    def digest(self) -> str:
        """What the shard depends on."""
        keys = [SCHEMA_VERSION, *(source.key for source in self.sources)]
        return hashlib.blake2b(json.dumps(keys).encode(), digest_size=16).hexdigest()


def prepare_cache(
    sources: Sequence[str],
    out: Path,
    workers: int = 1,
    ray: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CacheReport:
    """Make one cache of all scenes of all files that `sources` stand for, and return what became of each file.

    `workers` processes do it, or the machines of the Ray cluster at the address `ray`, which must all see the same
    files. `progress` is told (files done, of how many). The same call on a folder that an earlier one left unfinished
    goes on there. A file that cannot be read is reported and stops nothing. Raises BadFile where `out` holds something
    else, cannot be written, or no file has a scene.
    """
    files = list_files(sources, out)
    parts = _parts(files, out)
    _begin(out, parts)
    done = sum(len(part.sources) for part in parts)
    missing = [part for part in parts if _finished(part) is None]
    done -= sum(len(part.sources) for part in missing)
    progress(done, len(files))
    for count in over_parts(_make, missing, workers, ray):
        done += count
        progress(done, len(files))
    return _end(out, parts)


def write_cache(out: Path, scenes: Iterable[Scene]) -> int:
    """Make a cache of scenes that are in memory and return how many it holds. Raises BadScene, BadFile."""
    _require_new(out)
    with new_shard(out / _shard_name(0)) as shard:
        report = FileReport("")
        for scene in scenes:
            _add(shard, scene, report)
        shard.finish({"files": [asdict(report)]})
    _write_index(out, [open_shard(out / _shard_name(0))[0]])
    return report.scenes


def _parts(files: Sequence[Source], out: Path) -> list[Part]:
    groups: list[list[Source]] = []
    size = 0
    for source in files:
        if not groups or len(groups[-1]) == FILES_PER_PART or size + source.bytes > BYTES_PER_PART:
            groups.append([])
            size = 0
        groups[-1].append(source)
        size += source.bytes
    return [Part(out.absolute() / _shard_name(number), tuple(group)) for number, group in enumerate(groups)]


def _shard_name(number: int) -> str:
    return f"{number:06d}.shard"


def _begin(out: Path, parts: Sequence[Part]) -> None:
    """Note in the folder what is going to be made in it, or see that it is the same as before."""
    digest = hashlib.blake2b("".join(part.digest for part in parts).encode(), digest_size=16).hexdigest()
    plan = {"schema_version": SCHEMA_VERSION, "sources": digest}
    path = out / PLAN
    try:
        if path.is_file():
            if json.loads(path.read_text(encoding="utf-8")) != plan:
                raise BadFile(
                    f"{out}: holds a cache of other files, or of files that have changed; choose another --out"
                )
            return
        _require_new(out)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(plan) + "\n", encoding="utf-8")
    except ValueError as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(f"{path}: damaged ({error}); remove the folder to start anew") from error
    except OSError as error:
        raise BadFile(f"{out}: cannot be written ({error.strerror or error})") from error


def _require_new(out: Path) -> None:
    if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise BadFile(f"{out}: not an empty folder; a new cache wants one of its own")


def _finished(part: Part) -> ShardIndex | None:
    """Return a part's shard if it is there, belongs to these files, and each block of it is what was written."""
    if not part.shard.is_file():
        return None
    try:
        index, data = open_shard(part.shard)
        with data:
            index.check(data)
    except BadFile:
        return None
    return index if index.meta.get("digest") == part.digest else None


def _make(part: Part) -> int:
    """Write one shard and return how many files it is made of."""
    with new_shard(part.shard) as shard:
        reports = [_read_file(source, shard) for source in part.sources]
        shard.finish({"digest": part.digest, "files": [asdict(report) for report in reports]})
    return len(part.sources)


def _read_file(source: Source, shard: ShardWriter) -> FileReport:
    report = FileReport(str(source.file))
    try:
        report.why = why_no_recording(source.file)
        if report.why is not None:
            report.broken = is_named_like_scenes(source.file)
            return report
        reader = find_reader(source.file)
        report.format = None if reader is None else str(reader.NAME)
        wanted = source.ids or (None,)
        for scene in read_scenes([Entry(source.file, name) for name in wanted]):
            _add(shard, scene, report)
    except TrajDiffusionError as error:
        kept = f"after {report.scenes} scenes, which are kept: " if report.scenes else ""
        report.why, report.broken = f"{kept}{error}", True
    except CannotWrite:
        raise
    except OSError as error:
        report.why, report.broken = f"cannot be read ({error.strerror or error})", True
    except Exception as error:
        error.add_note(f"while {source.file} was read")
        raise
    if not report.scenes and report.why is None and not report.left_out:
        report.why = "holds no scene"
    return report


def _add(shard: ShardWriter, scene: Scene, report: FileReport) -> None:
    for what, count in scene.report:
        report.repaired[what] = report.repaired.get(what, 0) + count
    try:
        kept = shard.add(scene)
    except BadScene as error:
        report.left_out[str(error)] = report.left_out.get(str(error), 0) + 1
        return
    report.scenes += 1
    report.agents += int(kept.valid[:, kept.current_index].sum())
    report.windows += len(range(NOW, kept.steps - _WHOLE + NOW + 1, _SECOND))


def _end(out: Path, parts: Sequence[Part]) -> CacheReport:
    """Write report and index of the finished parts, and clear away what killed writers left."""
    shards = [open_shard(part.shard)[0] for part in parts]
    ids = Counter(name for shard in shards for name in shard.ids)
    report = CacheReport(
        out=str(out),
        shards=sum(1 for shard in shards if len(shard)),
        bytes=sum(shard.size for shard in shards if len(shard)),
        shared_ids=sum(ids.values()) - len(ids),
        files=tuple(FileReport(**file) for shard in shards for file in shard.meta["files"]),
    )
    _write_json(out / REPORT, report.as_json())
    if not report.scenes:
        first = next((file for file in report.files if file.broken), report.files[0])
        why = first.why or "; ".join(first.left_out)
        named = why if why.startswith(first.file) else f"{first.file}: {why}"
        raise BadFile(
            f"none of {len(report.files)} files has a scene for a cache: {named}; formats that can be read are "
            f"{known_formats()}"
        )
    _write_index(out, shards)
    for left in out.glob(".*.tmp"):
        left.unlink(missing_ok=True)
    return report


def _write_index(out: Path, shards: Sequence[ShardIndex]) -> None:
    held = [{"name": shard.path.name, "scenes": len(shard), "bytes": shard.size} for shard in shards if len(shard)]
    _write_json(out / INDEX, {"schema_version": SCHEMA_VERSION, "shards": held})


def _write_json(path: Path, content: object) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadFile(f"{path}: cannot be written ({error.strerror or error})") from error
