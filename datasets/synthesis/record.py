"""A SUMO run as arrays: where everyone is at each step."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from traj_diffusion.datasets.synthesis.demand import Demand
from traj_diffusion.datasets.synthesis.parking import Parked
from traj_diffusion.datasets.synthesis.roadmap import RoadMap
from traj_diffusion.datasets.synthesis.tools import require_libsumo
from traj_diffusion.errors import HostError
from traj_diffusion.scene import AgentKind, LightState

DT = 0.1
JUMP = 0.6  # m in one step beyond what the speed explains
STATES = {
    "G": LightState.GO,
    "g": LightState.GO,
    "y": LightState.CAUTION,
    "Y": LightState.CAUTION,
    "r": LightState.STOP,
    "R": LightState.STOP,
    "u": LightState.STOP,
    "s": LightState.FLASHING_STOP,
    "o": LightState.FLASHING_CAUTION,
}


@dataclass(frozen=True)
class Tracks:
    """Everyone seen in T steps of 0.1 s, and what the signals of the map showed."""

    name: tuple[str, ...]
    kind: UInt8[np.ndarray, " N"]
    size: Float64[np.ndarray, "N 3"]
    centre: Float64[np.ndarray, "N T 2"]
    heading: Float64[np.ndarray, "N T"]
    speed: Float64[np.ndarray, "N T"]
    valid: Bool[np.ndarray, "N T"]
    row: Int64[np.ndarray, "N T"]  # of the map's lane, -1 off the lanes
    passed: Int64[np.ndarray, "N T"]  # edges of its route that a vehicle has behind it
    lights: UInt8[np.ndarray, "S T"]  # LightState


def with_parked(tracks: Tracks, parked: Parked) -> Tracks:
    """Return the tracks followed by those of parked cars, which are there at all steps."""
    count, steps = len(parked.heading), tracks.valid.shape[1]
    return replace(
        tracks,
        name=(*tracks.name, *(f"parked{i}" for i in range(count))),
        kind=np.concatenate([tracks.kind, np.full(count, AgentKind.VEHICLE, np.uint8)]),
        size=np.concatenate([tracks.size, parked.size]),
        centre=np.concatenate([tracks.centre, np.repeat(parked.centre[:, None], steps, 1)]),
        heading=np.concatenate([tracks.heading, np.repeat(parked.heading[:, None], steps, 1)]),
        speed=np.concatenate([tracks.speed, np.zeros((count, steps))]),
        valid=np.concatenate([tracks.valid, np.ones((count, steps), bool)]),
        row=np.concatenate([tracks.row, np.full((count, steps), -1)]),
        passed=np.concatenate([tracks.passed, np.zeros((count, steps), np.int64)]),
    )


def record(
    network_file: Path, route_file: Path, demand: Demand, roads: RoadMap, warm_up: float, steps: int, seed: int
) -> Tracks:
    """Return `steps` steps of the simulation after it has run for `warm_up` seconds.

    SUMO gives a vehicle's front bumper and degrees clockwise from north; tracks hold box centres and radians from east.
    Raises HostError if SUMO refuses, MissingExtra without libsumo.
    """
    libsumo = require_libsumo()
    options = (
        f"sumo -n {network_file} -r {route_file} --step-length {DT} --lateral-resolution 0.8 --seed {seed}"
        " --no-step-log true --no-warnings true --duration-log.disable true --time-to-teleport -1"
        " --collision.action none --ignore-route-errors true"
    )
    try:
        libsumo.start(options.split())
    except Exception as error:  # libsumo raises its own kinds
        raise HostError(f"SUMO does not start: {error}") from error
    try:
        return _record(libsumo, demand, roads, warm_up, steps)
    except libsumo.TraCIException as error:
        raise HostError(f"SUMO stopped: {error}") from error
    finally:
        libsumo.close()


def _record(libsumo: Any, demand: Demand, roads: RoadMap, warm_up: float, steps: int) -> Tracks:
    libsumo.simulationStep(warm_up)
    # Asked a million times in a run: the functions behind libsumo's classes, mapped over all names at once.
    ask = libsumo._libsumo
    numbers = _Numbers()
    lane_number = _Known({lane: number for number, lane in enumerate(roads.rows)})
    programs = sorted({light.program for light in roads.signals})
    seen: list[_Seen] = []
    shown: list[dict[str, str]] = []
    for _ in range(steps):
        libsumo.simulationStep()
        vehicles, people = ask.vehicle_getIDList(), ask.person_getIDList()
        places = chain(map(ask.vehicle_getPosition, vehicles), map(ask.person_getPosition, people))
        seen.append(
            _Seen(
                who=_integers(chain(map(numbers.__getitem__, vehicles), map(numbers.__getitem__, people))),
                xy=_reals(chain.from_iterable(places)).reshape(-1, 2),
                angle=_reals(chain(map(ask.vehicle_getAngle, vehicles), map(ask.person_getAngle, people))),
                speed=_reals(chain(map(ask.vehicle_getSpeed, vehicles), map(ask.person_getSpeed, people))),
                lane=_integers(map(lane_number.__getitem__, map(ask.vehicle_getLaneID, vehicles))),
                at=_reals(map(ask.vehicle_getLanePosition, vehicles)),
                passed=_integers(map(ask.vehicle_getRouteIndex, vehicles)),
            )
        )
        shown.append({program: ask.trafficlight_getRedYellowGreenState(program) for program in programs})
    return _tracks(list(numbers), seen, demand, roads, shown)


class _Numbers(dict[str, int]):
    """Names, numbered as they come."""

    def __missing__(self, name: str) -> int:
        self[name] = len(self)
        return self[name]


class _Known(dict[str, int]):
    """Numbers of names, -1 for a name that has none."""

    def __missing__(self, name: str) -> int:
        return -1


@dataclass(frozen=True)
class _Seen:
    """One step of SUMO: its vehicles, and behind them its people, of whom no lane is asked."""

    who: Int64[np.ndarray, " n"]
    xy: Float64[np.ndarray, "n 2"]  # a vehicle's front bumper
    angle: Float64[np.ndarray, " n"]  # degrees clockwise from north
    speed: Float64[np.ndarray, " n"]
    lane: Int64[np.ndarray, " v"]  # number in RoadMap.rows, -1 for none
    at: Float64[np.ndarray, " v"]  # m along the lane
    passed: Int64[np.ndarray, " v"]


def _integers(values: Iterable[int]) -> Int64[np.ndarray, " n"]:
    return np.fromiter(values, np.int64)


def _reals(values: Iterable[float]) -> Float64[np.ndarray, " n"]:
    return np.fromiter(values, np.float64)


def _tracks(names: list[str], seen: list[_Seen], demand: Demand, roads: RoadMap, shown: list[dict[str, str]]) -> Tracks:
    count, steps = len(names), len(shown)
    kind = np.array([demand.kind[name] for name in names], np.uint8)
    size = np.array([demand.size[name] for name in names], np.float64).reshape(count, 3)
    xy, angle, speed = np.zeros((count, steps, 2)), np.zeros((count, steps)), np.zeros((count, steps))
    row, passed = np.full((count, steps), -1), np.zeros((count, steps), np.int64)
    valid = np.zeros((count, steps), bool)
    first, pieces, length = _lanes(roads)
    for step, now in enumerate(seen):
        xy[now.who, step], angle[now.who, step], speed[now.who, step] = now.xy, now.angle, now.speed
        valid[now.who, step] = True
        vehicles = now.who[: len(now.lane)]
        piece = (now.at / length[now.lane] * pieces[now.lane]).astype(np.int64)
        piece = np.minimum(np.maximum(piece, 0), pieces[now.lane] - 1)
        row[vehicles, step] = first[now.lane] + piece
        passed[vehicles, step] = now.passed
    heading = np.pi / 2 - np.deg2rad(angle)
    ahead = np.stack([np.cos(heading), np.sin(heading)], -1)
    to_centre = np.where(kind == AgentKind.PEDESTRIAN, 0.0, size[:, 0] / 2)[:, None, None]
    lights = [
        [STATES.get(states[light.program][light.index], LightState.UNKNOWN) for states in shown]
        for light in roads.signals
    ]
    return Tracks(
        name=tuple(names),
        kind=kind,
        size=size,
        centre=xy - ahead * to_centre,
        heading=heading,
        speed=speed,
        valid=_longest_stretch(xy, speed, valid),
        row=row,
        passed=passed,
        lights=np.array(lights, np.uint8).reshape(len(roads.signals), steps),
    )


def _lanes(roads: RoadMap) -> tuple[Int64[np.ndarray, " L"], Int64[np.ndarray, " L"], Float64[np.ndarray, " L"]]:
    """Return the first row, the number of rows and the length of each lane; the last one is no lane, in row -1."""
    first = [*(rows.start for rows in roads.rows.values()), -1]
    pieces = [*(len(rows) for rows in roads.rows.values()), 1]
    length = [*(roads.lengths[lane] for lane in roads.rows), 1.0]
    return np.array(first, np.int64), np.array(pieces, np.int64), np.array(length, np.float64)


def _longest_stretch(
    xy: Float64[np.ndarray, "N T 2"], speed: Float64[np.ndarray, "N T"], valid: Bool[np.ndarray, "N T"]
) -> Bool[np.ndarray, "N T"]:
    """Return each track's longest part without a jump: SUMO sets a pedestrian back where ways are jammed."""
    went = np.linalg.norm(np.diff(xy, axis=1), axis=-1)
    explained = 1.5 * DT * np.maximum(speed[:, 1:], speed[:, :-1]) + JUMP
    joined = valid[:, 1:] & valid[:, :-1] & (went <= explained)
    kept = np.zeros_like(valid)
    for i in np.flatnonzero(valid.any(1)):
        breaks = np.flatnonzero(~joined[i]) + 1
        starts, ends = np.append(0, breaks), np.append(breaks, valid.shape[1])
        length = np.where(valid[i, starts], ends - starts, 0)
        best = int(length.argmax())
        kept[i, starts[best] : ends[best]] = True
    return kept
