"""nuPlan log databases (SQLite, `<log name>.db`): agents and red lights; the map is in files of its own and not read.

Format: nuplan-devkit `nuplan/database/nuplan_db_orm`. Licence: CC BY-NC-SA 4.0 with Motional's dataset terms.

Read: the ego, all boxes, lights as far as the log has them (it has the red ones). Sweeps come at 20 Hz; of each 0.1 s
the nearest one is taken, nothing is interpolated. The log is cut into windows. Lost: the map, mission routes, scenario
tags, sensors. Sensor calibrations are pickles inside the database and are never touched.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from traj_diffusion.datasets.readers.assemble import MAX_STATES, Report, add, check_size, grid, windows
from traj_diffusion.datasets.readers.database import connect, rows, tables
from traj_diffusion.errors import BadFile, BadRecord, BadScene
from traj_diffusion.scene import AgentKind, Agents, Lights, LightState, Map, Routes, Scene, check_scene

NAME = "nuPlan log database"
PATTERNS = ("*_veh-*.db",)
DT = 0.1
MICROSECONDS = 1e-6
# nuPlan's car, a Chrysler Pacifica: length, width, height, and how far its centre lies ahead of the rear axle, which is
# the place of a pose (nuplan-devkit, `get_pacifica_parameters`).
_EGO_SIZE, _EGO_AHEAD = (5.176, 2.297, 1.777), 1.461
_KINDS = {"vehicle": AgentKind.VEHICLE, "bicycle": AgentKind.CYCLIST, "pedestrian": AgentKind.PEDESTRIAN}
_LIGHTS = {"red": LightState.STOP, "yellow": LightState.CAUTION, "green": LightState.GO}
_TABLES = {"lidar_pc", "lidar_box", "track", "category", "ego_pose", "traffic_light_status"}
_SWEEPS = """SELECT p.token, p.timestamp, e.x, e.y, e.z, e.qw, e.qx, e.qy, e.qz, e.vx, e.vy
FROM lidar_pc p JOIN ego_pose e ON e.token = p.ego_pose_token ORDER BY p.timestamp"""
_TRACKS = "SELECT t.token, c.name FROM track t JOIN category c ON c.token = t.category_token"
_BOXES = "SELECT lidar_pc_token, track_token, x, y, z, yaw, vx, vy, length, width, height FROM lidar_box"
_STATES = "SELECT lidar_pc_token, lane_connector_id, status FROM traffic_light_status"


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is a SQLite database with nuPlan's tables."""
    return tables(head, path) >= _TABLES


def read(path: Path) -> Iterator[Scene]:
    """Yield the windows of a log. Raises BadFile, BadRecord where what it holds is broken."""
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
        sweeps = rows(database, _SWEEPS, MAX_STATES)
        tracks = rows(database, _TRACKS, MAX_STATES)
        boxes = rows(database, _BOXES, MAX_STATES)
        states = rows(database, _STATES, MAX_STATES)
    if not sweeps:
        raise ValueError("the log has no sweeps with a pose")
    report: Report = {}
    add(report, "no map in a nuPlan database, agents only")
    time = _table(sweeps, 1)[:, 0]
    chosen = grid((time - time[0]) * MICROSECONDS, report)
    step_of = {sweeps[row][0]: index for index, row in enumerate(chosen.tolist()) if row >= 0}
    steps = len(chosen)
    agents = _agents(_ego(_table(sweeps, 2), chosen), tracks, boxes, step_of, steps, report)
    return Scene(
        id=Path(path).name.split(".db")[0],
        source="nuplan",
        dt=DT,
        current_index=0,
        ego=0,
        agents=agents,
        map=Map.empty(),
        lights=_lights(states, step_of, steps, report),
        routes=Routes.absent(len(agents)),
        report=tuple(report.items()),
    )


def _table(found: list[tuple[Any, ...]], first: int) -> np.ndarray:
    """Return the columns from `first` on as float64; what is NULL becomes NaN."""
    width = len(found[0]) - first if found else 0
    return np.array([row[first:] for row in found], np.float64).reshape(len(found), width)


def _ego(poses: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return x, y, z, heading, vx, vy of the ego's box over time [T, 6], NaN at steps without a sweep."""
    x, y, z, qw, qx, qy, qz, ahead, left = poses.T
    heading = np.arctan2(2 * (qw * qz + qx * qy), 1 - 2 * (qy**2 + qz**2))
    cos, sin = np.cos(heading), np.sin(heading)
    # Velocities of the ego are in its own frame, those of boxes in the map's.
    velocity = cos * ahead - sin * left, sin * ahead + cos * left
    found = np.stack([x + _EGO_AHEAD * cos, y + _EGO_AHEAD * sin, z, heading, *velocity], -1)
    return np.where((chosen >= 0)[:, None], found[chosen], np.nan)


def _agents(
    ego: np.ndarray,
    tracks: list[tuple[Any, ...]],
    boxes: list[tuple[Any, ...]],
    step_of: dict[Any, int],
    steps: int,
    report: Report,
) -> Agents:
    """Return the ego in row 0 and the tracks below it."""
    row_of = {token: row for row, (token, _) in enumerate(tracks, 1)}
    count = len(tracks) + 1
    check_size(count, steps)
    kind = np.array([AgentKind.VEHICLE, *(_KINDS.get(str(name), AgentKind.OTHER) for _, name in tracks)], np.uint8)
    add(report, "agents of a type without a kind, read as OTHER", int((kind == AgentKind.OTHER).sum()))
    values, valid = np.zeros((count, steps, 9)), np.zeros((count, steps), bool)
    valid[0] = np.isfinite(ego[:, 0])
    values[0] = np.concatenate([ego, np.broadcast_to(_EGO_SIZE, (steps, 3))], 1)
    inside = [row for row in boxes if row[0] in step_of and row[1] in row_of]
    lost = sum(row[1] not in row_of for row in boxes)
    add(report, "boxes of unknown tracks, dropped", lost)
    agent, step = [row_of[row[1]] for row in inside], [step_of[row[0]] for row in inside]
    table = _table(inside, 2)
    if len(table):
        # A velocity that is not recorded is unknown, not a reason to refuse the box.
        unknown = ~np.isfinite(table[:, 4:6])
        add(report, "boxes without a velocity, read as standing", int(unknown.any(1).sum()))
        table[:, 4:6][unknown] = 0
        values[agent, step], valid[agent, step] = table, True
    values[~valid] = 0
    return Agents(
        id=np.arange(count, dtype=np.int64),
        kind=kind,
        position=values[..., :3].copy(),
        heading=values[..., 3].astype(np.float32),
        velocity=values[..., 4:6].astype(np.float32),
        size=values[..., 6:].astype(np.float32),
        valid=valid,
        to_predict=np.zeros(count, bool),
        source_id=("ego", *(_text(token) for token, _ in tracks)),
    )


def _text(token: Any) -> str:
    return token.hex() if isinstance(token, bytes) else str(token)


def _lights(states: list[tuple[Any, ...]], step_of: dict[Any, int], steps: int, report: Report) -> Lights:
    """Return one signal per lane connector; where it stands is in the map, so that its stop point is unknown."""
    lanes = list(dict.fromkeys(lane for token, lane, _ in states if token in step_of))
    if any(isinstance(lane, bool) or not isinstance(lane, int) for lane in lanes):
        raise ValueError("a light's lane connector is no number")
    check_size(len(lanes), steps)
    state, observed = np.zeros((len(lanes), steps), np.uint8), np.zeros((len(lanes), steps), bool)
    row_of = {lane: row for row, lane in enumerate(lanes)}
    for token, lane, status in states:
        if token in step_of:
            if status not in _LIGHTS:
                add(report, "light states of unknown name, read as UNKNOWN")
            state[row_of[lane], step_of[token]] = _LIGHTS.get(status, LightState.UNKNOWN)
            observed[row_of[lane], step_of[token]] = True
    add(report, "lights whose stop points are in the map, left at 0", len(lanes))
    return Lights(np.array(lanes, np.int64), np.zeros((len(lanes), steps, 3)), state, observed)
