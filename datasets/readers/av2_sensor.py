"""Argoverse 2 sensor logs: `annotations.feather` with `city_SE3_egovehicle.feather` and `map/` beside it. Extra: [av2].

Format: av2-api `datasets/sensor` and `structures/cuboid.py`. Licence: CC BY-NC-SA 4.0.

Read: all cuboids with sizes, moved from the car's frame into the city's; the car itself as ego; the vector map with
heights. Of each 0.1 s the nearest sweep is taken; the log is cut into windows. Derived: velocities, from the motion;
centre lines, midway between lane boundaries; road edges. Not in the data: lights, speed limits. Lost: lidar, cameras.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from traj_diffusion.datasets.derive import upright
from traj_diffusion.datasets.readers.arrow import is_arrow, read_arrow
from traj_diffusion.datasets.readers.assemble import MAX_STATES, Report, add, check_size, grid, windows
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
    velocity_of_motion,
)

NAME = "Argoverse 2 sensor log"
PATTERNS = ("annotations*.feather",)
DT = 0.1
NANOSECONDS = 1e-9
_POSES = "city_SE3_egovehicle.feather"
_TURN, _PLACE, _SIZE = ("qw", "qx", "qy", "qz"), ("tx_m", "ty_m", "tz_m"), ("length_m", "width_m", "height_m")
_LATE = 0.05  # s between a sweep and the pose that is nearest to it
# The car, a Ford Fusion: its size is that of the EGO_VEHICLE cuboids of scenario-mining logs, its centre lies ahead of
# the rear axle, which is the origin of its frame, as py123d 0.7 has it (`av2_constants.py`).
_EGO, _EGO_SIZE, _EGO_CENTRE = "EGO_VEHICLE", (4.877, 2.0, 1.473), (1.339, 0.0, 0.438)
# `AnnotationCategories`; all others are OTHER. A ridden bicycle or motorcycle has a cuboid beside its rider's, so the
# rider is the agent and the thing is an object.
_KINDS = {
    **dict.fromkeys(
        (
            "REGULAR_VEHICLE", "LARGE_VEHICLE", "BUS", "BOX_TRUCK", "TRUCK", "VEHICULAR_TRAILER", "TRUCK_CAB",
            "SCHOOL_BUS", "ARTICULATED_BUS", "RAILED_VEHICLE", "MOTORCYCLIST", _EGO,
        ),
        AgentKind.VEHICLE,
    ),
    **dict.fromkeys(("BICYCLIST", "WHEELED_RIDER"), AgentKind.CYCLIST),
    **dict.fromkeys(("PEDESTRIAN", "OFFICIAL_SIGNALER", "WHEELCHAIR"), AgentKind.PEDESTRIAN),
}  # fmt: skip


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is an Arrow file with the columns of annotations."""
    return is_arrow(head, b"track_uuid", b"category", b"tx_m", b"length_m")


def read(path: Path) -> Iterator[Scene]:
    """Yield the windows of a log. Raises BadFile, BadRecord where what it holds is broken, MissingExtra."""
    path, report = Path(path), Report()
    table = read_arrow(path, ["timestamp_ns", "track_uuid", "category", *_TURN, *_PLACE, *_SIZE])
    try:
        poses = read_arrow(path.with_name(_POSES), ["timestamp_ns", *_TURN, *_PLACE])
    except BadFile as error:
        raise BadFile(f"{path}: the poses of its car: {error}") from error
    map_ = read_map(path, path.parent / "map", path.parent.name, True, report)
    try:
        for window in windows(_scene(path.parent.name, table, poses, map_, report)):
            yield check_scene(window)
    except (BadScene, ValueError, TypeError, OverflowError) as error:
        raise BadRecord(f"{path}, record 0: {error}") from error


@np.errstate(over="ignore", invalid="ignore")  # absurd values are `check_scene`'s to name
def _scene(name: str, table: Any, poses: Any, map_: Map, report: Report) -> Scene:
    if not table.num_rows or table.num_rows > MAX_STATES:
        raise ValueError(f"it holds {table.num_rows:,} cuboids; 1 to {MAX_STATES:,} would fit")
    sweeps, sweep = np.unique(_whole(table, "timestamp_ns"), return_inverse=True)
    chosen = grid((sweeps - sweeps[0]) * NANOSECONDS, report)
    step_of = np.full(len(sweeps), -1)
    step_of[chosen[chosen >= 0]] = np.flatnonzero(chosen >= 0)
    turn, place, seen = _ego_poses(poses, sweeps, report)
    step_of[~seen] = -1
    category = table["category"].to_pylist()
    uuids = table["track_uuid"].to_pylist()
    used = step_of[sweep] >= 0
    given = _EGO in category
    row_of: dict[str, int] = {} if given else {"ego": 0}
    row = np.array([row_of.setdefault(str(uuid), len(row_of)) for uuid in uuids])
    count, steps = len(row_of), len(chosen)
    check_size(count, steps)
    kind = np.full(count, AgentKind.VEHICLE, np.uint8)
    kind[row] = [_KINDS.get(str(text), AgentKind.OTHER) for text in category]
    add(report, "agents of a type without a kind, read as OTHER", int((kind == AgentKind.OTHER).sum()))
    ego = int(row[category.index(_EGO)]) if given else 0
    box, centre = _rotations(_columns(table, _TURN)), _columns(table, _PLACE)
    if given:
        centre[np.array(category) == _EGO] = _EGO_CENTRE
        add(report, "the ego's boxes lay on its rear axle, moved to its centre")
    valid = np.zeros((count, steps), bool)
    position, heading = np.zeros((count, steps, 3)), np.zeros((count, steps), np.float32)
    size = np.zeros((count, steps, 3), np.float32)
    step = step_of[sweep][used]
    row, frame = row[used], turn[sweep][used]
    valid[row, step] = True
    add(report, "cuboids given twice for a track and sweep, the later kept", len(row) - int(valid.sum()))
    position[row, step] = (frame @ centre[used][..., None])[..., 0] + place[sweep][used]
    heading[row, step] = _yaw(frame @ box[used])
    size[row, step] = _columns(table, _SIZE)[used]
    if not given:
        there = step_of >= 0
        at = step_of[there]
        valid[0, at] = True
        position[0, at] = turn[there] @ np.array(_EGO_CENTRE) + place[there]
        heading[0, at], size[0, at] = _yaw(turn[there]), _EGO_SIZE
    add(report, "vehicles with length and width swapped, put right", upright(size, valid, kind == AgentKind.VEHICLE))
    add(report, "agents without velocities, taken from their motion", count)
    return Scene(
        id=name,
        source="av2_sensor",
        dt=DT,
        current_index=0,
        ego=ego,
        agents=Agents(
            id=np.arange(count, dtype=np.int64),
            kind=kind,
            position=position,
            heading=heading,
            velocity=velocity_of_motion(position[..., :2], valid, DT).astype(np.float32),
            size=size,
            valid=valid,
            to_predict=np.zeros(count, bool),
            source_id=tuple(row_of),
        ),
        map=map_,
        lights=Lights.none(steps),
        routes=Routes.absent(count),
        report=tuple(report.items()),
    )


def _whole(table: Any, name: str) -> np.ndarray:
    values: np.ndarray = table[name].to_numpy()
    if values.dtype.kind not in "iu" or (len(values) and (values < 0).any()):
        raise ValueError(f"column {name!r} holds something else than nanoseconds")
    return values.astype(np.int64)


def _columns(table: Any, names: tuple[str, ...]) -> np.ndarray:
    """Return columns of numbers side by side, as float64."""
    return np.stack([table[name].to_numpy().astype(np.float64) for name in names], -1)


def _rotations(quaternion: np.ndarray) -> np.ndarray:
    """Return the matrices [., 3, 3] of quaternions w, x, y, z [., 4], which need not be of unit length."""
    w, x, y, z = (quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _yaw(rotation: np.ndarray) -> np.ndarray:
    angle: np.ndarray = np.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return angle


def _ego_poses(poses: Any, sweeps: np.ndarray, report: Report) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rotation [S, 3, 3] and place [S, 3] of the car at each sweep, and whether a pose is near enough."""
    times = _whole(poses, "timestamp_ns")
    if not len(times):
        raise ValueError("there are no poses of its car")
    order = np.argsort(times, kind="stable")
    after = np.clip(np.searchsorted(times[order], sweeps), 1, max(len(times) - 1, 1)) - (len(times) == 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(sweeps - times[order][before] <= times[order][after] - sweeps, before, after)
    chosen = order[nearest]
    seen = np.abs(times[chosen] - sweeps) * NANOSECONDS <= _LATE
    add(report, "sweeps without a pose of the car, dropped", int((~seen).sum()))
    return _rotations(_columns(poses, _TURN)[chosen]), _columns(poses, _PLACE)[chosen], seen
