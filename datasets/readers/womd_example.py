"""Waymo Open Motion Dataset as `tf.Example` messages in TFRecord files, of all splits.

Format: waymo.com/open/data/motion/tfexample. Licence: Waymo Dataset License Agreement for Non-Commercial Use.

Read: up to 128 agents (padding is left out), road samples as one polyline per feature id, lights. What the format
itself lost: more agents than 128 and more road samples than 20,000 or 30,000, lane links (derived), speed limits,
double precision. The `Scenario` files of the same data set have all of it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from traj_diffusion.datasets.derive import with_links
from traj_diffusion.datasets.readers.assemble import Features, Report, add, check_size, step_length
from traj_diffusion.datasets.readers.womd import is_example
from traj_diffusion.datasets.readers.womd_lights import lights_of_entries
from traj_diffusion.datasets.tf_example import ExampleFault, Values, decode_example
from traj_diffusion.datasets.tfrecord import is_tfrecord, read_records
from traj_diffusion.errors import BadRecord, BadScene
from traj_diffusion.scene import (
    AgentKind,
    Agents,
    EdgeType,
    LaneType,
    Lights,
    LineType,
    Map,
    MapKind,
    Origin,
    Routes,
    Scene,
    check_scene,
)

NAME = "WOMD tf.Example TFRecord"
PATTERNS = ("*.tfrecord*",)
MAX_RECORD = 64 * 2**20
_SIZES = ("length", "width", "height")
_PARTS = ("past", "current", "future")
# `roadgraph_samples/type`: lanes from 0, lines from 5, edges from 14, each in the order of its enum; then the rest.
_TYPES: dict[int, tuple[MapKind, int]] = {
    **{0 + int(kind): (MapKind.LANE, int(kind)) for kind in LaneType},
    **{5 + int(kind): (MapKind.ROAD_LINE, int(kind)) for kind in LineType},
    **{14 + int(kind): (MapKind.ROAD_EDGE, int(kind)) for kind in EdgeType},
    17: (MapKind.STOP_SIGN, 0),
    18: (MapKind.CROSSWALK, 0),
    19: (MapKind.SPEED_BUMP, 0),
    20: (MapKind.DRIVEWAY, 0),
}


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file's first bytes are a TFRecord's, and what is framed is a tf.Example."""
    return is_tfrecord(head) and is_example(head)


def read(path: Path) -> Iterator[Scene]:
    """Yield the scenes of a file in order. Raises BadFile, or BadRecord naming file and record when it is reached."""
    for number, record in enumerate(read_records(path)):
        try:
            if len(record) > MAX_RECORD:
                raise ExampleFault(f"it has {len(record):,} bytes; at most {MAX_RECORD:,} are read")
            yield example_to_scene(record)
        except (BadScene, ValueError, OverflowError) as error:
            raise BadRecord(f"{path}, record {number}: {error}") from error


@np.errstate(over="ignore", invalid="ignore")  # absurd values are `check_scene`'s to name
def example_to_scene(record: bytes) -> Scene:
    """Return the scene of one serialised tf.Example. Raises BadScene or ValueError."""
    features = decode_example(record)
    report: Report = {}
    ids = _numbers(features, "state/id")
    steps = [_steps(features, part, len(ids)) for part in _PARTS]
    if steps[1] != 1:
        raise ExampleFault(f"'state/current/valid' holds {steps[1]} steps; 1 would fit")
    check_size(len(ids), sum(steps))
    agents, ego = _agents(features, ids, steps, report)
    name = features.get("scenario/id")
    return check_scene(
        Scene(
            id=name[0].decode("utf-8", "replace") if isinstance(name, list) and name else "",
            source="womd",
            dt=_dt(features, len(ids), steps, report),
            current_index=steps[0],
            ego=ego,
            agents=agents,
            map=with_links(_map(features, report)),
            lights=_lights(features, steps, report),
            routes=Routes.absent(len(agents)),
            report=tuple(report.items()),
        )
    )


def _numbers(features: dict[str, Values], name: str, count: int | None = None) -> np.ndarray:
    """Return a feature's numbers, which must be that many."""
    values = features.get(name)
    if not isinstance(values, np.ndarray):
        raise ExampleFault(f"no feature {name!r} of numbers")
    if count is not None and len(values) != count:
        raise ExampleFault(f"feature {name!r} holds {len(values)} numbers, wanted are {count}")
    return values


def _steps(features: dict[str, Values], part: str, agents: int) -> int:
    """Return how many steps a part has; the test split has no future."""
    name = f"state/{part}/valid"
    if part == "future" and name not in features:
        return 0
    count = len(_numbers(features, name))
    if not agents or count % agents:
        raise ExampleFault(f"feature {name!r} holds {count} numbers for {agents} agents")
    return count // agents


def _over_time(features: dict[str, Values], name: str, rows: int, steps: list[int]) -> np.ndarray:
    """Return state/{past, current, future}/name as [rows, T]."""
    parts = [
        _numbers(features, f"state/{part}/{name}", rows * count).reshape(rows, count)
        for part, count in zip(_PARTS, steps, strict=True)
        if count
    ]
    return np.concatenate(parts, 1)


def _dt(features: dict[str, Values], rows: int, steps: list[int], report: Report) -> float:
    times = _over_time(features, "timestamp_micros", rows, steps).max(0, initial=-1)
    return step_length(np.diff(times.astype(np.float64)[times >= 0]) * 1e-6, report)


def _agents(
    features: dict[str, Values], ids: np.ndarray, steps: list[int], report: Report
) -> tuple[Agents, int | None]:
    """Return the agents that are no padding, and the row of the ego."""
    rows = len(ids)

    def over_time(*names: str) -> np.ndarray:
        return np.stack([_over_time(features, name, rows, steps) for name in names], -1)

    valid = over_time("valid")[..., 0] == 1
    kept = np.flatnonzero(valid.any(1))
    number = ids[kept].astype(np.float64)
    if not (np.isfinite(number).all() and (np.abs(number) < 2**53).all()):
        raise ExampleFault("an agent's id is no number")
    kind = _numbers(features, "state/type", rows)[kept]
    known = np.isin(kind, [int(value) for value in AgentKind])
    add(report, "agents of unset or unknown type, read as OTHER", int((~known).sum()))
    valid = valid[kept]
    position = over_time("x", "y", "z")[kept].astype(np.float64)
    velocity = over_time("velocity_x", "velocity_y")[kept].astype(np.float32)
    heading = over_time("bbox_yaw")[kept, :, 0].astype(np.float32)
    size = over_time(*_SIZES)[kept].astype(np.float32)
    for values in (position, velocity, heading, size):
        values[~valid] = 0  # -1 in the file
    sdc = np.flatnonzero(_numbers(features, "state/is_sdc", rows)[kept] == 1)
    agents = Agents(
        id=number.astype(np.int64),
        kind=np.where(known, kind, int(AgentKind.OTHER)).astype(np.uint8),
        position=position,
        heading=heading,
        velocity=velocity,
        size=size,
        valid=valid,
        to_predict=np.zeros(len(kept), bool)
        if "state/tracks_to_predict" not in features
        else _numbers(features, "state/tracks_to_predict", rows)[kept] == 1,
    )
    return agents, int(sdc[0]) if len(sdc) else None


def _map(features: dict[str, Values], report: Report) -> Map:
    """Return one polyline per feature id, its samples in recorded order, features in order of first appearance."""
    kind = _numbers(features, "roadgraph_samples/type")
    count = len(kind)
    xyz = _numbers(features, "roadgraph_samples/xyz", 3 * count).reshape(count, 3)
    number = _numbers(features, "roadgraph_samples/id", count)
    valid = _numbers(features, "roadgraph_samples/valid", count) == 1
    add(report, "the map fills its record and may have been cut", int(count > 0 and bool(valid.all())))
    return map_of_samples(kind, xyz, number, valid, report)


def map_of_samples(kind: np.ndarray, xyz: np.ndarray, number: np.ndarray, valid: np.ndarray, report: Report) -> Map:
    """Return the map that `roadgraph_samples` are points of: types [P], places [P, 3], ids [P], valid or not [P]."""
    known = valid & np.isin(kind, list(_TYPES))
    add(report, "road samples of no known type, dropped", int((valid & ~known).sum()))
    kind, xyz, number = kind[known], xyz[known], number[known]
    # One id, one feature: a stable sort keeps the samples of each in order.
    _, first, place = np.unique(number, return_index=True, return_inverse=True)
    order = np.argsort(first[place], kind="stable")
    pieces = np.split(order, np.cumsum(np.bincount(np.searchsorted(np.sort(first), first[place])))[:-1])
    built = Features()
    for piece in pieces if len(order) else []:
        if (kind[piece] != kind[piece[0]]).any():
            add(report, "features whose samples are of several types, the first taken")
        built.add(str(int(number[piece[0]])), *_TYPES[int(kind[piece[0]])], xyz[piece].astype(np.float64))
    return built.build(report, Origin.RECORDED)


def _lights(features: dict[str, Values], steps: list[int], report: Report) -> Lights:
    total, parts = sum(steps), []
    slots = len(_numbers(features, "traffic_light_state/current/id"))
    check_size(slots, total)
    for part, count in zip(_PARTS, steps, strict=True):
        if count and f"traffic_light_state/{part}/id" in features:
            names = ("id", "state", "valid", "x", "y", "z")
            rows = [_numbers(features, f"traffic_light_state/{part}/{name}", slots * count) for name in names]
            parts.append(np.stack(rows, -1).astype(np.float64).reshape(count, slots, 6))
        else:
            parts.append(np.zeros((count, slots, 6)))
    table = np.concatenate(parts)
    step, slot = np.nonzero(table[..., 2] == 1)
    entries = table[step, slot]
    if not (np.abs(entries[:, 0]) < 2**53).all():
        raise ExampleFault("a light's lane id is no number")
    return lights_of_entries(entries[:, 0].astype(np.int64), step, entries[:, 1], entries[:, 3:], total, report)
