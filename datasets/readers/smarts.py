"""SMARTS traffic histories (SQLite, `.shf`): recorded vehicles of NGSIM, INTERACTION and others, without a map.

Format: SMARTS `sstudio/genhistories.py` and `core/traffic_history.py`. Licence: that of the recording (NGSIM: open data
of the US DOT). Read: all vehicles; headings are turned from SMARTS's 0 = north to ours, 0 = east. The recording is cut
into windows. Lost: the map, which is a SUMO net or another file beside it, lane numbers, traffic lights.
"""

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from traj_diffusion.datasets.readers.assemble import MAX_STATES, Report, add, check_size, windows
from traj_diffusion.datasets.readers.database import connect, rows, tables
from traj_diffusion.errors import BadFile, BadRecord, BadScene
from traj_diffusion.geometry import wrap_angle
from traj_diffusion.scene import AgentKind, Agents, Lights, Map, Routes, Scene, check_scene

NAME = "SMARTS traffic history"
PATTERNS = ("*.shf",)
DT = 0.1
# `Vehicle.type`, as NGSIM numbers it: kind, and length, width, height [m] where they are not recorded.
_TYPES = {
    1: (AgentKind.VEHICLE, (2.2, 0.8, 1.5)),  # motorcycle
    2: (AgentKind.VEHICLE, (4.5, 1.9, 1.6)),  # car
    3: (AgentKind.VEHICLE, (10.0, 2.5, 3.5)),  # truck
    4: (AgentKind.PEDESTRIAN, (0.7, 0.7, 1.7)),  # pedestrian or bicycle
}
_OTHER = (AgentKind.OTHER, (1.0, 1.0, 1.0))
_VEHICLES = "SELECT id, type, length, width, height, is_ego_vehicle FROM Vehicle ORDER BY id"
_STATES = """SELECT vehicle_id, sim_time, position_x, position_y, heading_rad, speed FROM Trajectory
ORDER BY sim_time, vehicle_id"""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is a SQLite database with the tables of a traffic history."""
    return {"Spec", "Vehicle", "Trajectory"} <= tables(head, path)


def read(path: Path) -> Iterator[Scene]:
    """Yield the windows of a history. Raises BadFile, BadRecord where what it holds is broken."""
    try:
        scene = _scene(path)
        for window in windows(scene):
            yield check_scene(window)
    except BadFile:
        raise
    except (BadScene, ValueError, TypeError, OverflowError) as error:
        raise BadRecord(f"{path}, record 0: {error}") from error


@np.errstate(over="ignore", invalid="ignore")  # absurd values are `check_scene`'s to name
def _scene(path: Path) -> Scene:
    with connect(path) as database:
        vehicles = rows(database, _VEHICLES, MAX_STATES)
        states = np.array(rows(database, _STATES, MAX_STATES), np.float64).reshape(-1, 6)
        signals = rows(database, "SELECT DISTINCT lane FROM TrafficLightState", MAX_STATES) if _lit(database) else []
    if not len(states):
        raise ValueError("the history has no states")
    report: Report = {}
    add(report, "no map in a traffic history, agents only")
    add(report, "traffic lights without a lane of a map, dropped", len(signals))
    dt, step = _steps(states[:, 1], report)
    ids = [row[0] for row in vehicles]
    steps, count = int(step.max()) + 1, len(ids)
    check_size(count, steps)
    row_of = {float(number): row for row, number in enumerate(ids)}
    if len(row_of) < count:
        raise ValueError("a vehicle's id is used more than once")
    row = np.array([row_of.get(number, -1) for number in states[:, 0].tolist()], np.int64)
    add(report, "states of unknown vehicles, dropped", int((row < 0).sum()))
    states, step, row = states[row >= 0], step[row >= 0], row[row >= 0]
    valid = np.zeros((count, steps), bool)
    valid[row, step] = True
    add(report, "states given twice for a vehicle and step, the later kept", len(row) - int(valid.sum()))
    position, velocity = np.zeros((count, steps, 3)), np.zeros((count, steps, 2), np.float32)
    heading = np.zeros((count, steps), np.float32)
    position[row, step, :2] = states[:, 2:4]
    angle = wrap_angle(states[:, 4] + math.pi / 2)
    heading[row, step] = angle
    velocity[row, step] = states[:, 5:6] * np.stack([np.cos(angle), np.sin(angle)], -1)
    kind, size = _kinds(vehicles, report)
    ego = [number for number, vehicle in enumerate(vehicles) if vehicle[5] == 1]
    return Scene(
        id=Path(path).name.split(".shf")[0],
        source="smarts",
        dt=dt,
        current_index=0,
        ego=ego[0] if ego else None,
        agents=Agents(
            id=np.array(ids, np.int64),
            kind=kind,
            position=position,
            heading=heading,
            velocity=velocity,
            size=np.where(valid[..., None], size[:, None], np.float32(0)),
            valid=valid,
            to_predict=np.zeros(count, bool),
        ),
        map=Map.empty(),
        lights=Lights.none(steps),
        routes=Routes.absent(count),
        report=tuple(report.items()),
    )


def _lit(database: sqlite3.Connection) -> bool:
    """Return whether the history has a table of traffic lights; older ones have none."""
    return bool(rows(database, "SELECT 1 FROM sqlite_master WHERE name = 'TrafficLightState' AND type = 'table'", 1))


def _steps(time: np.ndarray, report: Report) -> tuple[float, np.ndarray]:
    """Return the step, 0.1 s where the times allow it and else their median difference, and each state's number."""
    if not (np.isfinite(time).all() and (np.abs(time) < 1e9).all()):
        raise ValueError("a state's time is no number of seconds")
    gaps = np.diff(np.unique(np.round(time, 6)))
    median = float(np.median(gaps)) if len(gaps) else DT
    dt = DT if abs(median - DT) < 0.1 * DT else median
    at = (time - time.min()) / dt
    check_size(1, int(at.max()) + 1)
    add(report, "states more than 10 % of a step off the step", int((np.abs(at - np.rint(at)) > 0.1).sum()))
    return dt, np.rint(at).astype(np.int64)


def _kinds(vehicles: list[tuple[Any, ...]], report: Report) -> tuple[np.ndarray, np.ndarray]:
    """Return kinds [N] and sizes [N, 3]; a number that is not recorded is the usual one of its type."""
    kind, size = np.zeros(len(vehicles), np.uint8), np.zeros((len(vehicles), 3), np.float32)
    for row, (_, number, *given, _) in enumerate(vehicles):
        kind[row], usual = _TYPES.get(number, _OTHER) if isinstance(number, int) else _OTHER
        size[row] = [assumed if found is None else found for found, assumed in zip(given, usual, strict=True)]
    for axis, name in enumerate(("length", "width", "height")):
        missing = sum(vehicle[2 + axis] is None for vehicle in vehicles)
        add(report, f"agents without a {name}, the usual one of their type assumed", missing)
    add(report, "agents of a type without a kind, read as OTHER", int((kind == AgentKind.OTHER).sum()))
    return kind, size
