"""Scenes packed for training: fixed shapes, one memory-mapped array per field, and an index that says what they are."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from traj_diffusion.datasets.conditioning import PIECE_POINTS, cut_map, light_poses, light_rows, route_codes
from traj_diffusion.datasets.sources import list_sources, read_scenes
from traj_diffusion.errors import BadFile
from traj_diffusion.scene import Scene
from traj_diffusion.scene.archive import atomic_path

SCHEMA_VERSION = 1
Sample = dict[str, np.ndarray]


@dataclass(frozen=True)
class CacheShape:
    """How much of a scene a sample holds. What is nearest to the ego comes first; the rest is cut off."""

    agents: int = 40
    pieces: int = 448
    lights: int = 32
    steps: int = 91

    def fields(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of each array of one sample."""
        a, m, s, t = self.agents, self.pieces, self.lights, self.steps
        return {
            "position": ((a, t, 2), "f4"),
            "heading": ((a, t), "f4"),
            "velocity": ((a, t, 2), "f4"),
            "valid": ((a, t), "?"),
            "size": ((a, 3), "f4"),
            "kind": ((a,), "u1"),
            "map_points": ((m, PIECE_POINTS, 2), "f2"),
            "map_pose": ((m, 3), "f4"),
            "map_length": ((m,), "f4"),
            "map_code": ((m,), "u1"),
            "map_speed": ((m,), "f4"),
            "map_valid": ((m,), "?"),
            "light_pose": ((s, 3), "f4"),
            "light_state": ((s,), "u1"),  # when last seen up to the current index
            "light_seen": ((s,), "?"),
            "route": ((a, m), "u1"),
            "light_route": ((a, s), "u1"),
            "current_index": ((), "i4"),
        }


def pack(scene: Scene, shape: CacheShape) -> Sample:
    """Return one scene as arrays of fixed shape, relative to its ego (or the mean of its agents) at the current index.

    Only agents that are valid at the current index are kept: the others are not simulated.
    """
    agents, now = scene.agents, scene.current_index
    rows = scene.sim_agents
    centre = agents.position[rows, now, :2].mean(0) if scene.ego is None else agents.position[scene.ego, now, :2]
    rows = rows[np.argsort(np.linalg.norm(agents.position[rows, now, :2] - centre, axis=-1), kind="stable")]
    rows = rows[: shape.agents]
    steps = min(scene.steps, shape.steps)

    pieces = cut_map(scene.map, centre)
    near = np.argsort(np.linalg.norm(pieces.pose[:, :2], axis=-1), kind="stable")[: shape.pieces]
    near = np.sort(near)
    stop, state, ever = scene.lights.last_seen(now)
    poses = light_poses(scene.map, scene.lights.lane_id, stop, centre)
    reach = np.where(ever, np.linalg.norm(poses[:, :2], axis=-1), np.inf)
    lights = np.argsort(reach, kind="stable")[: shape.lights]

    position = (agents.position[rows, :steps, :2] - centre) * agents.valid[rows, :steps, None]
    found = {
        "position": position,
        "heading": agents.heading[rows, :steps],
        "velocity": agents.velocity[rows, :steps] * agents.valid[rows, :steps, None],
        "valid": agents.valid[rows, :steps],
        "size": agents.size[rows, now],
        "kind": agents.kind[rows],
        "map_points": pieces.points[near],
        "map_pose": pieces.pose[near],
        "map_length": pieces.length[near],
        "map_code": pieces.code[near],
        "map_speed": pieces.speed_limit[near],
        "map_valid": np.ones(len(near), bool),
        "light_pose": poses[lights],
        "light_state": state[lights],
        "light_seen": ever[lights],
        "route": route_codes(scene.routes, rows, pieces.row[near]),
        "light_route": route_codes(scene.routes, rows, light_rows(scene.map, scene.lights.lane_id[lights])),
        "current_index": np.asarray(now),
    }
    sample = {}
    for name, (wanted, dtype) in shape.fields().items():
        array = np.zeros(wanted, dtype)
        array[tuple(slice(size) for size in found[name].shape)] = found[name]
        sample[name] = array
    return sample


def write_cache(
    out: Path,
    scenes: Iterator[Scene],
    count: int,
    shape: CacheShape | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Pack at most `count` scenes into a new cache folder and return how many it holds."""
    shape = shape or CacheShape()
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.json").unlink(missing_ok=True)
    arrays = {
        name: np.lib.format.open_memmap(out / f"{name}.npy", "w+", np.dtype(dtype), (count, *wanted))
        for name, (wanted, dtype) in shape.fields().items()
    }
    ids: list[str] = []
    for scene in scenes:
        if len(ids) == count:
            break
        for name, value in pack(scene, shape).items():
            arrays[name][len(ids)] = value
        ids.append(scene.id)
        progress(len(ids))
    for array in arrays.values():
        array.flush()
    index = {"schema_version": SCHEMA_VERSION, "shape": asdict(shape), "ids": ids}
    with atomic_path(out / "index.json") as temporary:
        temporary.write_text(json.dumps(index), encoding="utf-8")
    return len(ids)


def prepare_cache(sources: Sequence[str], out: Path, progress: Callable[[int], None]) -> str:
    """Pack the scenes of all sources into one cache and return a line that says what it holds."""
    entries = [entry for source in sources for entry in list_sources(source)]
    count = sum(1 for _ in read_scenes(entries)) if any(entry.id is None for entry in entries) else len(entries)
    held = write_cache(out, read_scenes(entries), count, progress=progress)
    return f"{held} scenes of {len(entries)} files: {out}"


class Cache:
    """A folder that `write_cache` made, read at random."""

    def __init__(self, folder: Path) -> None:
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if index["schema_version"] != SCHEMA_VERSION:
                raise BadFile(f"{folder}: cache schema {index['schema_version']}, this release reads {SCHEMA_VERSION}")
            self.shape = CacheShape(**index["shape"])
            self.ids: list[str] = index["ids"]
            self._arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in self.shape.fields()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadFile(f"{folder}: not a finished cache: {error}; `traj-diffusion prepare` makes one") from error

        self.agents = self._arrays["valid"].any(-1).sum(-1)[: len(self.ids)]  # how many each sample holds

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: np.ndarray) -> Sample:
        """Return those samples with a leading batch axis, as copies in memory."""
        return {name: array[rows] for name, array in self._arrays.items()}
