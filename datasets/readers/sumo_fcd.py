"""SUMO's floating car data (`--fcd-output`, XML, plain or gzip) with the network that lies beside it, as scenes.

Format: sumo.dlr.de/docs/Simulation/Output/FCDOutput.html. Cut into windows of 91 steps of 0.1 s, whatever the step
of the simulation; read as a stream, so that only one window is in memory. SUMO gives a vehicle's front bumper and
degrees clockwise from north; a scene has box centres and radians from east. Lost: heights, accelerations, parameters.

The network is a file beside the data: the one that the header names, `<same stem>.net.xml`, or the only `.net.xml`
there; vehicle types come from the route files found so. Without a network the scenes have no map, and say so.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from traj_diffusion.datasets.readers.assemble import CURRENT_INDEX, WINDOW, Report, add, check_size, numbers
from traj_diffusion.datasets.readers.steps import DT, resample_track
from traj_diffusion.datasets.readers.sumo_net import stem
from traj_diffusion.datasets.readers.sumo_samples import FIELDS, LONGEST_STEP, Samples
from traj_diffusion.datasets.readers.sumo_surroundings import Surroundings
from traj_diffusion.datasets.readers.xml_tree import read_stream, root_of, said
from traj_diffusion.errors import BadFile, BadRecord, BadScene
from traj_diffusion.scene import AgentKind, Agents, Scene, check_scene

NAME = "SUMO FCD"
PATTERNS = ("*.fcd.xml", "*.fcd.xml.gz")
MAX_BYTES = 4 * 2**30  # unpacked


@dataclass(frozen=True)
class _Track:
    """One agent on a window's steps."""

    name: str
    kind: AgentKind
    size: Float64[np.ndarray, " 3"]
    valid: Bool[np.ndarray, " T"]
    centre: Float64[np.ndarray, "T 2"]
    heading: Float64[np.ndarray, " T"]
    velocity: Float64[np.ndarray, "T 2"]
    row: Int64[np.ndarray, " T"]  # of the map's lane, -1 where none is recorded


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is XML whose root is <fcd-export>."""
    return root_of(head) == "fcd-export"


def read(path: Path) -> Iterator[Scene]:
    """Yield the windows of a recording in order. Raises BadFile, or BadRecord naming the window."""
    path = Path(path)
    samples, around = Samples(), None
    pending: Scene | None = None  # a window is held back until it is known whether it is the last one
    window = 0
    pieces = read_stream(path, "fcd-export", samples.start, MAX_BYTES, comment=samples.comment)
    for ended in itertools.chain((False for _ in pieces), [True]):
        while samples.complete(window, ended):
            around = around or _around(path, samples)
            scene = _scene(path, samples, around, window, WINDOW)
            if scene is not None:
                if pending is not None:
                    yield pending
                pending = scene
            window = max(window + 1, samples.drop(window + 1))
    if not samples.times:
        raise BadRecord(f"{path}, record 0: it holds no timestep")
    rest = samples.steps_from(window)
    if pending is None:
        around = around or _around(path, samples)
        pending = _scene(path, samples, around, window, max(rest, 1), whole=True)
        if pending is None:
            raise BadRecord(f"{path}, record 0: nobody is in its timesteps")
    elif rest:
        pending = replace(pending, report=(*pending.report, ("steps at the end, too few for a window, dropped", rest)))
    yield pending


def _around(path: Path, samples: Samples) -> Surroundings:
    try:
        return Surroundings(path, samples)
    except BadFile as error:
        raise BadFile(f"{path}: a file that it names or that lies beside it: {error}") from error


@np.errstate(over="ignore", invalid="ignore")  # absurd values are `check_scene`'s to name
def _scene(
    path: Path, samples: Samples, around: Surroundings, window: int, steps: int, whole: bool = False
) -> Scene | None:
    """Return one window as a scene, None if nobody is in it. Raises BadRecord."""
    name = stem(path, ".fcd.xml")
    try:
        report = dict(around.report)
        at = samples.grid(window, steps)
        tracks = _tracks(samples, around, at, report)
        if not tracks:
            return None
        return check_scene(
            Scene(
                id=name if whole else f"{name}.{window * WINDOW}",
                source="sumo",
                dt=DT,
                current_index=min(CURRENT_INDEX, steps - 1),
                ego=None,
                agents=_agents(tracks),
                map=around.map,
                lights=around.lights(at, report),
                routes=around.routes([track.row for track in tracks]),
                report=tuple(report.items()),
            )
        )
    except (BadScene, ValueError, OverflowError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadRecord(f"{path}, record {window}: {said(error)}") from error


def _tracks(samples: Samples, around: Surroundings, at: np.ndarray, report: Report) -> list[_Track]:
    """Return everyone who is there at some of the steps `at` [s], in order of first appearance."""
    step = samples.step()
    if step > LONGEST_STEP:
        raise ValueError(f"timesteps are {step:g} s apart; at most {LONGEST_STEP:g} s are read")
    longest = max(1.5 * step, 1.5 * DT)
    time, who, lane = np.array(samples.time), np.array(samples.who, np.int64), np.array(samples.lane, np.int64)
    values = np.stack([np.array(samples.values[name]) for name in FIELDS], -1)
    near = np.flatnonzero((time >= at[0] - longest) & (time <= at[-1] + longest))
    order = near[np.argsort(who[near], kind="stable")]
    pieces = np.split(order, np.flatnonzero(np.diff(who[order])) + 1) if len(order) else []
    check_size(len(pieces), len(at))
    tracks = []
    for piece in pieces:
        if (np.diff(time[piece]) <= 0).any():
            raise ValueError(f"{samples.names[int(who[piece[0]])]} is twice in one timestep")
        track = _track(
            samples, around, int(who[piece[0]]), time[piece], lane[piece], values[piece], at, longest, report
        )
        if track is not None:
            tracks.append(track)
    return tracks


def _track(
    samples: Samples,
    around: Surroundings,
    who: int,
    time: np.ndarray,
    lane: np.ndarray,
    values: np.ndarray,
    at: np.ndarray,
    longest: float,
    report: Report,
) -> _Track | None:
    element, name = samples.names[who]
    kind, size, stated = around.types.look_up(samples.types[who], element)
    heading, speed = math.pi / 2 - np.deg2rad(values[:, 2]), values[:, 3]
    centre = values[:, :2] + around.shift
    if element == "vehicle":
        centre = centre - size[0] / 2 * np.stack([np.cos(heading), np.sin(heading)], -1)
    unknown = np.isnan(speed)
    if unknown.any():
        went = np.linalg.norm(np.gradient(centre, time, axis=0), axis=-1) if len(time) > 1 else np.zeros(1)
        speed = np.where(unknown, went, speed)
    found = resample_track(time, np.column_stack([centre, speed]), heading, at, longest)
    if not found.valid.any():
        return None
    add(report, "agents without a recorded speed, taken from their motion", int(unknown.any()))
    add(report, "states between recorded timesteps, interpolated", found.between)
    add(report, "agents without a stated size, SUMO's default of their class assumed", int(not stated))
    add(report, "agents of a class without a kind, read as OTHER", int(kind == AgentKind.OTHER))
    # The lane of the latest state at each step.
    last = np.clip(np.searchsorted(time, at + 1e-6, side="right") - 1, 0, len(time) - 1)
    row = np.full(len(at), -1, np.int64)
    for index in np.flatnonzero(found.valid):
        row[index] = around.row_at(samples.lanes[int(lane[last[index]])], float(values[last[index], 4]))
    return _Track(
        name=name,
        kind=kind,
        size=np.array(size),
        valid=found.valid,
        centre=found.values[:, :2],
        heading=found.heading,
        velocity=found.values[:, 2:] * np.stack([np.cos(found.heading), np.sin(found.heading)], -1),
        row=row,
    )


def _agents(tracks: list[_Track]) -> Agents:
    """Return tracks as agents, standing on the flat map."""
    valid = np.stack([track.valid for track in tracks])
    size = np.where(valid[..., None], np.stack([track.size for track in tracks])[:, None], 0.0)
    names = [track.name for track in tracks]
    return Agents(
        id=numbers(names),
        kind=np.array([int(track.kind) for track in tracks], np.uint8),
        position=np.concatenate([np.stack([track.centre for track in tracks]), size[..., 2:] / 2], -1),
        heading=np.stack([track.heading for track in tracks]).astype(np.float32),
        velocity=np.stack([track.velocity for track in tracks]).astype(np.float32),
        size=size.astype(np.float32),
        valid=valid,
        to_predict=np.zeros(len(tracks), bool),
        source_id=tuple(names),
    )
