"""Readers of others, found by the entry point group `traj_diffusion.readers`; one that is broken is named and left out.

An entry point leads to a module, or any object, with what each of our readers has.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from traj_diffusion.errors import BadFile, BadRecord, BadScene, TrajDiffusionError
from traj_diffusion.scene import Scene, check_scene

GROUP = "traj_diffusion.readers"


@runtime_checkable
class Reader(Protocol):
    """What a reader owes: its name in messages, usual file names, whether it knows a file, and what is in it."""

    NAME: str
    PATTERNS: Sequence[str]

    def sniff(self, head: bytes, path: Path) -> bool:
        """Return whether a file is of its format, by the first 64 KiB, unpacked."""

    def read(self, path: Path) -> Iterator[Scene]:
        """Yield the scenes of a file in order. Raises BadFile, or BadRecord naming file and record."""


@dataclass
class OtherReader:
    """A reader of somebody else, kept from doing harm: what it yields is checked, what it raises becomes one line."""

    NAME: str
    PATTERNS: Sequence[str]
    where: str
    module: Any

    def sniff(self, head: bytes, path: Path) -> bool:
        """Return its answer; no, and a warning, where it fails."""
        try:
            return bool(self.module.sniff(head, path))
        except Exception as error:
            warnings.warn(f"{self.where}: sniff failed ({type(error).__name__}: {error}); passed over", stacklevel=2)
            return False

    def read(self, path: Path) -> Iterator[Scene]:
        """Yield its scenes, checked."""
        number = 0
        try:
            for scene in self.module.read(path):
                yield check_scene(scene)
                number += 1
        except BadScene as error:
            raise BadRecord(f"{path}, record {number}: {error}") from error
        except TrajDiffusionError:
            raise
        except Exception as error:
            raise BadFile(f"{path}: {self.where} failed ({type(error).__name__}: {error})") from error


@cache
def other_readers() -> list[Reader]:
    """Return the readers that other packages offer, by name; looked for once."""
    found = (_load(point) for point in sorted(entry_points(group=GROUP), key=lambda point: point.name))
    return [reader for reader in found if reader is not None]


def _load(point: EntryPoint) -> Reader | None:
    package = f" of the package {point.dist.name!r}" if point.dist is not None else ""
    where = f"the reader {point.name!r}{package}"
    try:
        module = point.load()
        lacking = [name for name in ("NAME", "PATTERNS", "sniff", "read") if not hasattr(module, name)]
        if lacking:
            raise AttributeError(f"it has no {', '.join(lacking)}")
        return OtherReader(str(module.NAME), tuple(module.PATTERNS), where, module)
    except Exception as error:
        warnings.warn(f"{where}: cannot be loaded ({type(error).__name__}: {error}); left out", stacklevel=2)
        return None
