"""One file of a cache: compressed blocks one after the other, then an index of them with checksums.

    magic | block of a map | block of a scene | block of a scene | ... | index | trailer

A map that several scenes share is there once. The trailer says where the index is, and in which version all of it is
written. A file takes its name when it is whole, so what has the name can be read.
"""

import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int64

from traj_diffusion.datasets.cache.codec import MAX_BYTES, Reader, Writer
from traj_diffusion.datasets.cache.compact import (
    CompactMap,
    CompactScene,
    compact_scene,
    map_cell,
    map_digest,
    scene_origin,
)
from traj_diffusion.errors import BadFile, BadRecord
from traj_diffusion.scene import Map, Scene
from traj_diffusion.scene.archive import atomic_path

SCHEMA_VERSION = 2
_MAGIC = b"TDshard\n"
_COUNTS = struct.Struct("<III")  # of scenes, maps, bytes of JSON
_TRAILER = struct.Struct("<QQII8s")  # start, length and checksum of the index, version, magic


class CannotWrite(OSError):
    """The disk is full, or gone: nothing that the scenes could be blamed for."""


class ShardWriter:
    """Writes scenes to an open file, and the index at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = file.write(_MAGIC)
        self._maps: dict[bytes, int] = {}
        self._latest: tuple[Map, tuple[float, ...], CompactMap, int] | None = None
        self._map_blocks: list[tuple[int, int, int]] = []
        self._blocks: list[tuple[int, int, int]] = []
        self._rows: list[tuple[int, int, int]] = []  # map, current index, steps
        self._present: list[np.ndarray] = []
        self._ids: list[str] = []

    def add(self, scene: Scene) -> CompactScene:
        """Append a scene and return what is kept of it. Raises BadScene where a cache cannot hold it."""
        cell = map_cell(scene.map, scene_origin(scene))
        shared = self._latest if self._latest is not None and self._latest[0] is scene.map else None
        if shared is not None and shared[1] == cell:
            compact, number = compact_scene(scene, shared[2]), shared[3]
        else:
            compact = compact_scene(scene)
            block = compact.map.pack()
            number = self._maps.setdefault(map_digest(block), len(self._maps))
            if number == len(self._map_blocks):
                self._map_blocks.append(self._write(block))
            self._latest = (scene.map, cell, compact.map, number)
        self._blocks.append(self._write(compact.pack()))
        self._rows.append((number, compact.current_index, compact.steps))
        self._present.append(compact.valid.sum(0))
        self._ids.append(scene.id)
        return compact

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Write the index, with anything else that is worth keeping about the scenes, and leave the file on disk."""
        text = json.dumps({"ids": self._ids, "meta": dict(meta)}, sort_keys=True).encode("ascii")
        index = Writer()
        index.put(_table(self._map_blocks), 1)
        index.put(_table(self._blocks), 1)
        index.put(_table(self._rows))
        index.put(np.concatenate([np.zeros(0, np.int64), *self._present])[None], 1)
        index.put(np.frombuffer(text, np.uint8)[None])
        block = _COUNTS.pack(len(self._ids), len(self._map_blocks), len(text)) + index.block()
        start, length, checksum = self._write(block)
        self._file.write(_TRAILER.pack(start, length, checksum, SCHEMA_VERSION, _MAGIC))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _write(self, block: bytes) -> tuple[int, int, int]:
        try:
            self._file.write(block)
        except OSError as error:
            raise CannotWrite(error.errno, error.strerror) from error
        self._at += len(block)
        return self._at - len(block), len(block), zlib.crc32(block)


@contextmanager
def new_shard(path: Path) -> Iterator[ShardWriter]:
    """Yield a writer to a file that gets its name at the end. Raises BadFile where the disk is full or not ours."""
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            yield ShardWriter(file)
    except OSError as error:
        raise BadFile(f"{path}: cannot be written ({error.strerror or error})") from error


@dataclass(frozen=True)
class ShardIndex:
    """What a shard holds, and where."""

    path: Path
    size: int  # bytes
    ids: tuple[str, ...]
    maps: Int64[np.ndarray, "m 3"]  # start, length, checksum
    scenes: Int64[np.ndarray, "n 3"]
    map_of: Int64[np.ndarray, " n"]
    current_index: Int64[np.ndarray, " n"]
    steps: Int64[np.ndarray, " n"]
    present: tuple[np.ndarray, ...]  # per scene [T], how many agents are valid at each step
    meta: dict[str, Any]

    def __len__(self) -> int:
        return len(self.ids)

    def check(self, data: mmap.mmap) -> None:
        """Raise BadRecord for the first block that is not what was written."""
        for what, blocks in (("map", self.maps), ("row", self.scenes)):
            for number, where in enumerate(blocks):
                try:
                    _block(data, where, "it")
                except ValueError as error:
                    raise BadRecord(f"{self.path}, {what} {number}: {error}; `prepare` makes it anew") from error

    def scene(self, data: mmap.mmap, row: int) -> CompactScene:
        """Return one scene out of the mapped file. Raises BadRecord where its bytes are not those that were written."""
        try:
            features = CompactMap.unpack(_block(data, self.maps[self.map_of[row]], "its map"))
            scene = CompactScene.unpack(_block(data, self.scenes[row], "it"), features)
            if scene.steps != self.steps[row]:
                raise ValueError(f"it has {scene.steps} steps, the index says {self.steps[row]}")
            return scene
        except ValueError as error:
            raise BadRecord(f"{self.path}, row {row} ({self.ids[row]}): {error}; `prepare` makes it anew") from error


def open_shard(path: Path) -> tuple[ShardIndex, mmap.mmap]:
    """Return the index of a shard and its bytes, mapped into memory. Raises BadFile."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < len(_MAGIC) + _TRAILER.size:
                raise ValueError(f"{size} bytes are too few")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise BadFile(f"{path}: not a whole shard of a cache: {error}") from error
    try:
        return _read_index(path, data, size), data
    except (ValueError, KeyError, TypeError) as error:
        data.close()
        raise BadFile(f"{path}: not a whole shard of a cache: {error}") from error


def _read_index(path: Path, data: mmap.mmap, size: int) -> ShardIndex:
    start, length, checksum, version, magic = _TRAILER.unpack_from(data, size - _TRAILER.size)
    if magic != _MAGIC or data[: len(_MAGIC)] != _MAGIC:
        raise ValueError("its first or last bytes are not those of a shard; it is cut off, or something else")
    if version != SCHEMA_VERSION:
        raise ValueError(f"it is of version {version}, this release reads {SCHEMA_VERSION}; `prepare` makes a new one")
    block = _block(data, np.array([start, length, checksum]), "its index", size - _TRAILER.size)
    scenes, maps, text = _COUNTS.unpack_from(block)
    index = Reader(block[_COUNTS.size :])
    map_blocks, blocks = index.take(3, maps, 1).T, index.take(3, scenes, 1).T
    map_of, current_index, steps = index.take(3, scenes)
    if (steps < 1).any() or int(steps.sum()) > MAX_BYTES:
        raise ValueError("it claims scenes of an impossible length")
    present = index.take(1, int(steps.sum()), 1)[0]
    about = json.loads(index.take(1, text).astype(np.uint8).tobytes())
    index.end()
    if (map_of < 0).any() or (map_of >= maps).any() or (current_index < 0).any() or (current_index >= steps).any():
        raise ValueError("its index points at what is not there")
    if len(about["ids"]) != scenes or not all(isinstance(name, str) for name in about["ids"]):
        raise ValueError(f"it names {len(about['ids'])} scenes and has {scenes}")
    return ShardIndex(
        path=path,
        size=size,
        ids=tuple(about["ids"]),
        maps=np.ascontiguousarray(map_blocks),
        scenes=np.ascontiguousarray(blocks),
        map_of=map_of,
        current_index=current_index,
        steps=steps,
        present=tuple(np.split(present, np.cumsum(steps)[:-1])) if scenes else (),
        meta=dict(about["meta"]),
    )


def _block(data: mmap.mmap, where: np.ndarray, what: str, end: int | None = None) -> bytes:
    start, length, checksum = where.tolist()
    if start < 0 or not 0 <= length <= MAX_BYTES or start + length > (len(data) if end is None else end):
        raise ValueError(f"{what} lies outside the file, which is cut off or damaged")
    block = data[start : start + length]
    if zlib.crc32(block) != checksum:
        raise ValueError(f"{what} does not match its checksum: the file was damaged or edited")
    return block


def _table(rows: list[tuple[int, int, int]]) -> np.ndarray:
    """Return rows of three as an array [3, n]."""
    return np.array(rows, np.int64).reshape(-1, 3).T
