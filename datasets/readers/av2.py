"""Argoverse 2 motion forecasting: `scenario_<id>.parquet` with `log_map_archive_<id>.json` beside it. Extra: [av2].

Format: av2-api `datasets/motion_forecasting/data_schema.py` and `map/map_api.py`. Licence: CC BY-NC-SA 4.0.

Read: all tracks with kinds, focal and scored ones to be predicted, the AV as ego; lanes with links, painted lines,
crossings, and the outline of the drivable ground as road edges. Not in the data: sizes (those usual for a class stand
in), heights (the scene is flat, z = 0), lights, speed limits.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from traj_diffusion.datasets.readers.arrow import pyarrow
from traj_diffusion.datasets.readers.assemble import Report, add, check_size, numbers
from traj_diffusion.datasets.readers.av2_map import read_map
from traj_diffusion.errors import BadFile, BadRecord, BadScene
from traj_diffusion.scene import (
    AgentKind,
    Agents,
    Lights,
    Map,
    Routes,
    Scene,
    check_scene,
)

NAME = "Argoverse 2 forecasting parquet"
PATTERNS = ("scenario_*.parquet",)
DT = 0.1
MAX_ROWS = 1_000_000
MAX_BYTES = 256 * 2**20  # of the columns, unpacked
SCORED = 2  # `object_category`: fragment, unscored, scored, focal
_TEXT = ("track_id", "object_type", "scenario_id")
_NUMBERS = ("timestep", "object_category", "position_x", "position_y", "heading", "velocity_x", "velocity_y")
# Kind and usual length, width, height [m]: medians over the tracks of a class in two logs of Argoverse 2's sensor data
# set, adcf7d18 and 3b3570b4 (131 cars, 3 buses, 2 motorcycles, 7 bicycles, 50 pedestrians), rounded to 0.1 m. Neither
# log has a rider, so the height of one is assumed.
_CLASSES = {
    "vehicle": (AgentKind.VEHICLE, (4.1, 1.9, 1.6)),
    "bus": (AgentKind.VEHICLE, (11.6, 2.9, 3.0)),
    "motorcyclist": (AgentKind.VEHICLE, (2.0, 0.5, 1.7)),
    "cyclist": (AgentKind.CYCLIST, (1.6, 0.6, 1.7)),
    "pedestrian": (AgentKind.PEDESTRIAN, (0.7, 0.8, 1.8)),
    "riderless_bicycle": (AgentKind.OTHER, (1.6, 0.6, 1.2)),
}
_OTHER = (AgentKind.OTHER, (1.0, 1.0, 1.0))


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is parquet whose last bytes, where the columns are named, name a forecasting scenario's."""
    if not head.startswith(b"PAR1"):
        return False
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 2**16))
            tail = file.read(2**16)
    except OSError:
        return False
    return path.match("scenario_*.parquet") or (b"focal_track_id" in tail and b"object_category" in tail)


def read(path: Path) -> Iterator[Scene]:
    """Yield the one scene of a file. Raises BadFile, BadRecord where the scene is broken, MissingExtra."""
    columns = _columns(Path(path))
    report: Report = {}
    name = str(columns["scenario_id"][0]) if len(columns["scenario_id"]) else ""
    map_ = read_map(Path(path), Path(path).parent, name, False, report)
    try:
        yield _scene(columns, map_, report)
    except (BadScene, LookupError, ValueError, OverflowError) as error:
        raise BadRecord(f"{path}, record 0: {error}") from error


def _columns(path: Path) -> dict[str, np.ndarray]:
    """Return the columns that are needed: float64, or text as objects."""
    arrow = pyarrow()
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path, thrift_string_size_limit=2**24, thrift_container_size_limit=2**20) as file:
            wanted = [*_TEXT, *_NUMBERS, "observed"]
            lacking = [name for name in wanted if name not in file.schema_arrow.names]
            if lacking:
                raise BadFile(f"{path}: no column {lacking[0]!r}; an Argoverse 2 scenario has {', '.join(wanted)}")
            details = file.metadata
            size = sum(details.row_group(group).total_byte_size for group in range(details.num_row_groups))
            if details.num_rows > MAX_ROWS or size > MAX_BYTES:
                raise BadFile(f"{path}: {details.num_rows:,} rows, {size:,} bytes unpacked, too many for one scenario")
            table = file.read(columns=wanted)
            for name in _TEXT:
                if not arrow.types.is_string(table[name].type) and not arrow.types.is_large_string(table[name].type):
                    raise BadFile(f"{path}: column {name!r} holds {table[name].type}, not text")
            columns = {name: table[name].to_numpy() for name in wanted}
            return {name: values if name in _TEXT else values.astype(np.float64) for name, values in columns.items()}
    except (arrow.ArrowException, OSError, ValueError, TypeError, MemoryError, OverflowError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(f"{path}: not readable parquet ({' '.join(str(error).split())[:200]})") from error


@np.errstate(over="ignore", invalid="ignore")  # absurd values are `check_scene`'s to name
def _scene(columns: dict[str, np.ndarray], map_: Map, report: Report) -> Scene:
    step = columns["timestep"]
    if not len(step):
        raise ValueError("it holds no states")
    if not (np.isfinite(step).all() and step.min() >= 0 and step.max() < MAX_ROWS and (step % 1 == 0).all()):
        raise ValueError("a timestep is no number of a step")
    step, steps = step.astype(np.int64), int(step.max()) + 1
    texts, first, row = np.unique(columns["track_id"].astype(str), return_index=True, return_inverse=True)
    order = np.argsort(first)
    row = np.argsort(order)[row]
    ids, first = texts[order].tolist(), first[order]
    check_size(len(ids), steps)
    if len(np.unique(row * steps + step)) < len(row):
        raise ValueError("a track has two states at one step")
    valid = np.zeros((len(ids), steps), bool)
    position, velocity = np.zeros((len(ids), steps, 3)), np.zeros((len(ids), steps, 2), np.float32)
    heading = np.zeros((len(ids), steps), np.float32)
    valid[row, step] = True
    position[row, step, :2] = np.stack([columns["position_x"], columns["position_y"]], -1)
    velocity[row, step] = np.stack([columns["velocity_x"], columns["velocity_y"]], -1)
    heading[row, step] = columns["heading"]
    classes = [_CLASSES.get(str(name), _OTHER) for name in columns["object_type"][first]]
    kind = np.array([kind for kind, _ in classes], np.uint8)
    size = np.where(valid[..., None], np.array([size for _, size in classes], np.float32)[:, None], np.float32(0))
    add(report, "agents without a size, the usual one of their class assumed", len(ids))
    add(report, "agents of a type without a kind, read as OTHER", int((kind == AgentKind.OTHER).sum()))
    add(report, "agents and map without heights, laid flat at z = 0")
    number = numbers(ids)
    observed = step[columns["observed"] == 1]
    return check_scene(
        Scene(
            id=str(columns["scenario_id"][0]),
            source="av2",
            dt=DT,
            current_index=int(observed.max()) if len(observed) else 0,
            ego=ids.index("AV") if "AV" in ids else None,
            agents=Agents(
                id=number,
                kind=kind,
                position=position,
                heading=heading,
                velocity=velocity,
                size=size,
                valid=valid,
                to_predict=columns["object_category"][first] >= SCORED,
                source_id=tuple(ids),
            ),
            map=map_,
            lights=Lights.none(steps),
            routes=Routes.absent(len(ids)),
            report=tuple(report.items()),
        )
    )
