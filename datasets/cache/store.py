"""A cache as training reads it: any sample at random, batches in the order of a seed, several caches mixed."""

import json
import mmap
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from traj_diffusion.datasets.cache.augment import Augment
from traj_diffusion.datasets.cache.compact import CompactScene
from traj_diffusion.datasets.cache.order import batch_rows, mixed_rows
from traj_diffusion.datasets.cache.sample import NOW, CacheShape, Sample, fill
from traj_diffusion.datasets.cache.shard import SCHEMA_VERSION, ShardIndex, open_shard
from traj_diffusion.errors import BadFile

INDEX = "index.json"
_OPEN = 64  # shards that are mapped at the same time; each costs a file descriptor


@runtime_checkable
class Samples(Protocol):
    """What training wants of a cache, and of a mixture of caches."""

    shape: CacheShape
    agents: Int64[np.ndarray, " n"]
    """How many agents each sample has, before any is cut off."""

    def __len__(self) -> int: ...

    def rows(self, batch: int, seed: int, step: int) -> np.ndarray:
        """Return which samples make up the batch of a step."""

    def batch(self, rows: np.ndarray | Sequence[int], key: Sequence[int] | None = None) -> Sample:
        """Return those samples; with a key they are augmented, as the key and the row say."""


class Cache:
    """A folder that `prepare` or `write_cache` made.

    A sample is a scene at one current index: its own, and with `window_stride` also each so many steps where there
    is a whole history before and a whole future after. `augment` says what `batch` changes when it is given a key.
    """

    def __init__(
        self,
        folder: str | Path,
        shape: CacheShape | None = None,
        window_stride: int | None = None,
        augment: Augment | None = None,
    ) -> None:
        if window_stride is not None and window_stride < 1:
            raise ValueError(f"window_stride is a number of steps, at least 1, not {window_stride}")
        self.folder, self.shape, self.augment = Path(folder), shape or CacheShape(), augment
        self._shards: list[ShardIndex] = []
        self._open: OrderedDict[int, mmap.mmap] = OrderedDict()
        found, agents = [], []
        for number, (path, size) in enumerate(shard_paths(self.folder)):
            shard, _ = open_shard(path)
            if shard.size != size:
                raise BadFile(f"{path}: has {shard.size} bytes, the index of the cache says {size}")
            self._shards.append(replace(shard, present=(), meta={}))  # counts of a million steps are not kept
            for scene in range(len(shard)):
                for now in self._current_indices(shard, scene, window_stride):
                    found.append((number, scene, now))
                    agents.append(int(shard.present[scene][now]))
        self._rows = np.array(found, np.int64).reshape(-1, 3)
        self.agents = np.array(agents, np.int64)

    def _current_indices(self, shard: ShardIndex, scene: int, stride: int | None) -> list[int]:
        own, present = int(shard.current_index[scene]), shard.present[scene]
        if stride is None:
            return [own]
        last = int(shard.steps[scene]) - (self.shape.steps - NOW)
        return sorted({own, *(now for now in range(NOW, last + 1, stride) if present[now])})

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ids(self) -> list[str]:
        """Id of the scene of each sample."""
        return [self._shards[shard].ids[scene] for shard, scene, _ in self._rows.tolist()]

    def scene(self, row: int) -> tuple[CompactScene, int]:
        """Return the scene of a sample as it is kept, and its current index. Raises BadRecord where it is damaged."""
        shard, scene, now = self._rows[row].tolist()
        return self._shards[shard].scene(self._mapped(shard), scene), now

    def rows(self, batch: int, seed: int, step: int) -> np.ndarray:
        """Return which samples make up the batch of a step; an epoch visits all of them once."""
        return batch_rows(self.agents, batch, seed, step)

    def batch(self, rows: np.ndarray | Sequence[int], key: Sequence[int] | None = None) -> Sample:
        """Return those samples with a leading batch axis, as arrays of their own.

        With a key, (seed, step) say, they are augmented: what happens to a sample depends on the key and its row, and
        not on the rest of the batch.
        """
        out = self.shape.zeros(len(rows))
        for number, row in enumerate(np.asarray(rows).tolist()):
            scene, now = self.scene(row)
            augment = self.augment if key is not None else None
            rng = np.random.default_rng([*key, row]) if augment is not None and key is not None else None
            fill({name: array[number] for name, array in out.items()}, scene, now, self.shape, augment, rng)
        return out

    def _mapped(self, shard: int) -> mmap.mmap:
        if shard not in self._open:
            while len(self._open) >= _OPEN:
                self._open.popitem(last=False)[1].close()
            index, self._open[shard] = open_shard(self._shards[shard].path)
            if index.size != self._shards[shard].size:
                raise BadFile(f"{index.path}: has changed since the cache was opened")
        self._open.move_to_end(shard)
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": OrderedDict()}  # a process that it is sent to maps the files itself


class Mixture:
    """Several caches as one, each with the share that its weight gives it. Rows are numbered through."""

    def __init__(self, parts: Sequence[tuple[Samples, float]]) -> None:
        if not parts or any(not np.isfinite(weight) or weight <= 0 or not len(part) for part, weight in parts):
            raise ValueError("a mixture has at least one cache; none is empty, and weights are positive")
        if len({part.shape for part, _ in parts}) > 1:
            raise ValueError("the caches of a mixture have samples of one shape")
        self._parts = [part for part, _ in parts]
        self._weights = [float(weight) for _, weight in parts]
        self._first = np.cumsum([0, *map(len, self._parts)])
        self.shape = self._parts[0].shape
        self.agents = np.concatenate([part.agents for part in self._parts])

    def __len__(self) -> int:
        return len(self.agents)

    def rows(self, batch: int, seed: int, step: int) -> np.ndarray:
        """Return which samples make up the batch of a step; see `mixed_rows` for how shares are kept."""
        return mixed_rows([part.agents for part in self._parts], self._weights, batch, seed, step)

    def batch(self, rows: np.ndarray | Sequence[int], key: Sequence[int] | None = None) -> Sample:
        """Return those samples with a leading batch axis; see `Cache.batch`."""
        rows = np.asarray(rows)
        out = self.shape.zeros(len(rows))
        owner = np.searchsorted(self._first, rows, side="right") - 1
        for number in np.unique(owner).tolist():
            mine = owner == number
            found = self._parts[number].batch(rows[mine] - self._first[number], None if key is None else (*key, number))
            for name, array in found.items():
                out[name][mine] = array
        return out


def open_caches(
    names: Sequence[str],
    shape: CacheShape | None = None,
    window_stride: int | None = None,
    augment: Augment | None = None,
) -> Samples:
    """Return the caches at FOLDER or FOLDER=WEIGHT, mixed where there are several. Raises BadFile."""
    parts: list[tuple[Cache, float]] = []
    for name in names:
        folder, sign, weight = name.rpartition("=")
        try:
            wanted = (Path(folder), float(weight)) if sign and not Path(name).is_dir() else (Path(name), 1.0)
        except ValueError:
            wanted = (Path(name), 1.0)
        cache = Cache(wanted[0], shape, window_stride, augment)
        if not 0 < wanted[1] < np.inf or not len(cache):
            raise BadFile(f"{name}: an empty cache, or a weight that is not a positive number")
        parts.append((cache, wanted[1]))
    return parts[0][0] if len(parts) == 1 else Mixture(parts)


def stream(samples: Samples, batch: int, seed: int, first: int = 0) -> Iterator[Sample]:
    """Yield the batches of steps `first`, `first` + 1, ... without end, augmented where the cache says so."""
    step = first
    while True:
        yield samples.batch(samples.rows(batch, seed, step), (seed, step))
        step += 1


def shard_paths(folder: Path) -> list[tuple[Path, int]]:
    """Return the shards that a finished cache has, in order, and their bytes. Raises BadFile."""
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        version = index["schema_version"]
        if version == SCHEMA_VERSION:
            shards = [(str(entry["name"]), int(entry["bytes"])) for entry in index["shards"]]
            if any(Path(name).name != name for name, _ in shards):
                raise ValueError("a shard lies outside the folder")
            return [(folder / name, size) for name, size in shards]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{folder}: not a finished cache: {error}; `traj-diffusion prepare` makes one") from error
    raise BadFile(
        f"{folder}: a cache of version {version}, this release reads {SCHEMA_VERSION}; "
        "`traj-diffusion prepare` makes one"
    )
