"""A SUMO run as arrays: where everyone is at each step."""

from dataclasses import dataclass, replace
from pathlib import Path

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


def _record(libsumo, demand: Demand, roads: RoadMap, warm_up: float, steps: int) -> Tracks:  # type: ignore[no-untyped-def]
    libsumo.simulationStep(warm_up)
    vehicle, person, signal = libsumo.vehicle, libsumo.person, libsumo.trafficlight
    names: dict[str, int] = {}
    samples: list[tuple[int, int, float, float, float, float, int, int]] = []
    programs = sorted({light.program for light in roads.signals})
    shown: list[dict[str, str]] = []
    for step in range(steps):
        libsumo.simulationStep()
        for name in vehicle.getIDList():
            (x, y), lane = vehicle.getPosition(name), vehicle.getLaneID(name)
            row = -1
            if lane in roads.rows:
                row = roads.row_at(lane, vehicle.getLanePosition(name) / roads.lengths[lane])
            passed = vehicle.getRouteIndex(name)
            who = names.setdefault(name, len(names))
            samples.append((who, step, x, y, vehicle.getAngle(name), vehicle.getSpeed(name), row, passed))
        for name in person.getIDList():
            x, y = person.getPosition(name)
            who = names.setdefault(name, len(names))
            samples.append((who, step, x, y, person.getAngle(name), person.getSpeed(name), -1, 0))
        shown.append({program: signal.getRedYellowGreenState(program) for program in programs})
    return _tracks(names, samples, demand, roads, shown)


def _tracks(
    names: dict[str, int],
    samples: list[tuple[int, int, float, float, float, float, int, int]],
    demand: Demand,
    roads: RoadMap,
    shown: list[dict[str, str]],
) -> Tracks:
    count, steps = len(names), len(shown)
    table = np.array(samples, np.float64).reshape(-1, 8)
    who, step = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    kind = np.array([demand.kind[name] for name in names], np.uint8)
    size = np.array([demand.size[name] for name in names], np.float64).reshape(count, 3)
    dense = np.zeros((count, steps, 6))
    dense[who, step] = table[:, 2:]
    valid = np.zeros((count, steps), bool)
    valid[who, step] = True
    heading = np.pi / 2 - np.deg2rad(dense[..., 2])
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
        centre=dense[..., :2] - ahead * to_centre,
        heading=heading,
        speed=dense[..., 3],
        valid=_longest_stretch(dense[..., :2], dense[..., 3], valid),
        row=np.where(valid, dense[..., 4].astype(np.int64), -1),
        passed=dense[..., 5].astype(np.int64),
        lights=np.array(lights, np.uint8).reshape(len(roads.signals), steps),
    )


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
