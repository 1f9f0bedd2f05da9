"""Waymo Open Motion Dataset: `Scenario` messages in TFRecord files, 9 s and 20 s, training and test splits alike."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from traj_diffusion.datasets.readers.assemble import Report, add, step_length
from traj_diffusion.datasets.readers.womd_decode import RawScenario, WireFault, decode_scenario
from traj_diffusion.datasets.readers.womd_lights import lights_of_entries
from traj_diffusion.datasets.readers.womd_schema import CONTROLS, LEFT, PREDECESSOR, RIGHT, SUCCESSOR
from traj_diffusion.datasets.tfrecord import is_tfrecord, read_records
from traj_diffusion.errors import BadRecord, BadScene
from traj_diffusion.scene import (
    AgentKind,
    Agents,
    Csr,
    EdgeType,
    LaneType,
    Lights,
    LineType,
    Links,
    Map,
    MapKind,
    Origin,
    Routes,
    Scene,
    check_scene,
)

NAME = "WOMD Scenario TFRecord"
PATTERNS = ("*.tfrecord*",)
METRES_PER_SECOND = 0.44704  # one mile per hour
_SUBTYPES = {MapKind.LANE: LaneType, MapKind.ROAD_LINE: LineType, MapKind.ROAD_EDGE: EdgeType}


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file's first bytes are a TFRecord's, and what is framed is no tf.Example."""
    return is_tfrecord(head) and not is_example(head)


def is_example(head: bytes) -> bool:
    """Return whether the first record is one field 1 from end to end, as a tf.Example is and a Scenario cannot be."""
    length = struct.unpack("<Q", head[:8])[0]
    if head[12:13] != b"\x0a":
        return False
    inner, at, shift = 0, 13, 0
    while at < min(len(head), 23):
        inner |= (head[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if head[at - 1] < 128:
            break
    return bool(inner == length - (at - 12))


def read(path: Path) -> Iterator[Scene]:
    """Yield the scenes of a file in order. Raises BadFile, or BadRecord naming file and record when it is reached."""
    for number, record in enumerate(read_records(path)):
        try:
            yield scenario_to_scene(record)
        except (ValueError, BadScene) as error:
            raise BadRecord(f"{path}, record {number}: {error}") from error


@np.errstate(over="ignore", invalid="ignore")  # absurd values are `check_scene`'s to name
def scenario_to_scene(record: bytes) -> Scene:
    """Return the scene of one serialised Scenario. Raises ValueError or BadScene.

    Headings and the values of invalid states stay as recorded. Lane links that leave the map are dropped and counted.
    """
    raw = decode_scenario(record)
    report: Report = {}
    steps = _steps(raw)
    dt = step_length(np.diff(raw.timestamps), report)
    scene = Scene(
        id=raw.id.decode("utf-8", "replace"),
        source="womd",
        dt=dt,
        current_index=raw.current_index,
        ego=None if raw.sdc == -1 else raw.sdc,
        agents=_agents(raw, steps, report),
        map=_map(raw, report),
        lights=_lights(raw, steps, report),
        routes=Routes.absent(len(raw.track_id)),
        report=tuple(report.items()),
    )
    return check_scene(scene)


def _steps(raw: RawScenario) -> int:
    """Return the number of steps T, on which timestamps and every track must agree."""
    if len(raw.timestamps):
        steps = len(raw.timestamps)
    elif len(raw.states):
        steps = int(raw.states[0])
    else:
        raise WireFault("the scenario: it holds neither timestamps nor tracks")
    odd = np.flatnonzero(raw.states != steps)
    if len(odd):
        raise WireFault(f"track {odd[0]}: it has {raw.states[odd[0]]} states; the scenario has {steps} steps")
    return steps


def _agents(raw: RawScenario, steps: int, report: Report) -> Agents:
    count = len(raw.track_id)
    known = np.isin(raw.track_kind, [int(kind) for kind in AgentKind])
    add(report, "agents of unset or unknown type, read as OTHER", int((~known).sum()))
    to_predict = np.zeros(count, bool)
    odd = raw.predict[(raw.predict < 0) | (raw.predict >= count)]
    if len(odd):
        raise WireFault(f"the scenario: track_index {odd[0]} is to be predicted; it has {count} tracks")
    to_predict[raw.predict] = True
    box = raw.box.reshape(count, steps, 6)
    return Agents(
        id=raw.track_id,
        kind=np.where(known, raw.track_kind, int(AgentKind.OTHER)).astype(np.uint8),
        position=raw.centre.reshape(count, steps, 3),
        heading=np.ascontiguousarray(box[..., 3]),
        velocity=np.ascontiguousarray(box[..., 4:6]),
        size=np.ascontiguousarray(box[..., :3]),
        valid=raw.valid.reshape(count, steps),
        to_predict=to_predict,
    )


def _map(raw: RawScenario, report: Report) -> Map:
    add(report, "map features of no known kind, dropped", raw.features_without_kind)
    subtype = raw.subtype
    for kind, known in _SUBTYPES.items():
        odd = (raw.feature_kind == kind) & ((subtype < 0) | (subtype > max(known)))
        if odd.any():
            add(report, "map features of unknown subtype, read as undefined", int(odd.sum()))
            subtype = np.where(odd, 0, subtype)
    return Map(
        points=raw.points,
        start=raw.start,
        kind=raw.feature_kind.astype(np.uint8),
        subtype=subtype.astype(np.uint8),
        id=raw.feature_id,
        speed_limit=(raw.speed_limit_mph * METRES_PER_SECOND).astype(np.float32),
        links=_links(raw, report),
    )


def _links(raw: RawScenario, report: Report) -> Links:
    """Return the lane links as row numbers; those to lanes outside the map are dropped."""
    count = len(raw.feature_id)
    lanes = np.flatnonzero(raw.feature_kind == MapKind.LANE)
    order = lanes[np.argsort(raw.feature_id[lanes], kind="stable")]
    ids = raw.feature_id[order]
    relation, row, target = raw.links.T
    place = np.minimum(np.searchsorted(ids, target), max(len(ids) - 1, 0))
    inside = ids[place] == target if len(ids) else np.zeros(len(target), bool)
    add(report, "links to lanes outside the map, dropped", int((~inside).sum()))

    def csr(wanted: int) -> Csr:
        chosen = inside & (relation == wanted)
        start = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(row[chosen], minlength=count), out=start[1:])
        return Csr(start, order[place[chosen]].astype(np.int32) if len(ids) else np.zeros(0, np.int32))

    return Links(
        successors=csr(SUCCESSOR),
        predecessors=csr(PREDECESSOR),
        left=csr(LEFT),
        right=csr(RIGHT),
        controls=csr(CONTROLS),
        origin=Origin.RECORDED if len(raw.links) else Origin.ABSENT,
    )


def _lights(raw: RawScenario, steps: int, report: Report) -> Lights:
    recorded = len(raw.light_start) - 1
    if recorded > steps:
        raise WireFault(f"dynamic map state {steps}: the scenario has only {steps} steps")
    add(report, "steps without a dynamic map state, lights unobserved there", (steps - recorded) % steps)
    step = np.repeat(np.arange(recorded), np.diff(raw.light_start))
    return lights_of_entries(raw.lights[:, 0], step, raw.lights[:, 1], raw.stop_point, steps, report)
