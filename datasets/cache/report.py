"""What became of the source files of a cache, each accounted for."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_SHOWN = 20  # files that are named for one reason; the file has them all


@dataclass
class FileReport:
    """What became of one source file."""

    file: str
    format: str | None = None
    scenes: int = 0  # in the cache
    windows: int = 0  # in those: current indices, one a second, with 1.0 s of history before and 8.0 s of future after
    agents: int = 0  # in those: valid at the current index
    left_out: dict[str, int] = field(default_factory=dict)  # why scenes of it are not in the cache, counted
    repaired: dict[str, int] = field(default_factory=dict)  # what its reader repaired or dropped, counted
    why: str | None = None  # why it is no recording, or could not be read to its end
    broken: bool = False  # it should be readable, and was not


@dataclass(frozen=True)
class CacheReport:
    """What a cache was made of."""

    out: str
    shards: int
    bytes: int
    shared_ids: int  # scenes whose id another one before has: the same recording in two formats, say
    files: tuple[FileReport, ...]

    @property
    def scenes(self) -> int:
        """Scenes in the cache."""
        return sum(file.scenes for file in self.files)

    @property
    def broken(self) -> tuple[FileReport, ...]:
        """Files that should be readable, and were not."""
        return tuple(file for file in self.files if file.broken)

    def as_json(self) -> dict[str, Any]:
        """Return all of it, for a file."""
        totals = {name: sum(getattr(file, name) for file in self.files) for name in ("scenes", "windows", "agents")}
        about = {"shards": self.shards, "bytes": self.bytes, "shared_ids": self.shared_ids, "broken": len(self.broken)}
        return {**totals, **about, "files": [asdict(file) for file in self.files]}

    def text(self) -> str:
        """Return what a person wants to see: totals, and each file that gave no scene with the reason."""
        read = [file for file in self.files if file.scenes]
        windows, agents = sum(file.windows for file in read), sum(file.agents for file in read)
        lines = [
            f"{len(self.files)} files, {len(read)} of them with scenes: "
            f"{self.scenes} scenes, {windows} whole windows, {agents} agents"
        ]
        lines += [f"  {count} files: {name}" for name, count in _most(Counter(file.format or "?" for file in read))]
        lines += _named("without a scene", [file for file in self.files if not file.scenes and not file.broken])
        lines += _named("broken", list(self.broken))
        lines += _counted("scenes left out", [file.left_out for file in self.files])
        lines += _counted("repaired or dropped by readers", [file.repaired for file in self.files])
        if self.shared_ids:
            lines.append(f"{self.shared_ids} scenes share their id with another one")
        each = self.bytes / max(self.scenes, 1)
        lines.append(f"cache: {self.scenes} scenes, {self.bytes:,} bytes, {each:,.0f} a scene: {self.out}")
        return "\n".join(lines)


def _named(title: str, files: list[FileReport]) -> list[str]:
    if not files:
        return []
    lines = [f"{len(files)} files {title}:"]
    reasons: dict[str, list[str]] = {}
    for file in files:
        why = (file.why or "; ".join(file.left_out)).removeprefix(f"{file.file}: ").removeprefix(f"{file.file}, ")
        reasons.setdefault(why, []).append(file.file)
    for why, names in reasons.items():
        lines.append(f"  {why}")
        lines += [f"    {name}" for name in names[:_SHOWN]]
        lines += [f"    and {len(names) - _SHOWN} more"] * (len(names) > _SHOWN)
    return lines


def _counted(title: str, counts: list[dict[str, int]]) -> list[str]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return [f"{title}:", *(f"  {count:,} {what}" for what, count in _most(total))] if total else []


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
