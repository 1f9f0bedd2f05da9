"""Red lights run: who crosses the stop line of a red signal while on that signal's lane.

Two oddities of the official code decide results and are kept. The "distance" of a point p to a lane segment is the
length of (p - start) + t (end - start), with a plus where a minus was meant. And every lane that is shorter than the
longest one ends in a phantom segment to the origin, because the code pads lanes with zeros and only looks at starts.
"""

import math
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, Int32

from traj_diffusion.metrics.compiled import compiled
from traj_diffusion.metrics.wosac.segments import projection
from traj_diffusion.scene import LaneType, LightState, MapKind, Scene

_ZERO = np.float32(0)
_ONE = np.float32(1)
_FAR = np.float32(np.inf)
_RED = (LightState.ARROW_STOP, LightState.STOP)


@dataclass(frozen=True)
class Signals:
    """Lane segments in recorded order, phantoms included, and per signal and step where its stop line lies."""

    start: Float32[np.ndarray, "P 2"]
    along: Float32[np.ndarray, "P 2"]  # end - start
    first: Int32[np.ndarray, " lanes_and_end"]  # first segment of each lane
    lane: Int32[np.ndarray, " S"]  # which lane each signal controls
    line: Int32[np.ndarray, "S T"]  # the segment that its stop point projects to
    stop: Float32[np.ndarray, "S T"]  # where along that segment, in parts of it
    red: Bool[np.ndarray, "S T"]


def index_signals(scene: Scene) -> Signals | None:
    """Return the scene's signals on surface streets; None where there is none, so that nobody can run a red light."""
    features, lights = scene.map, scene.lights
    rows = [int(row) for row in features.rows(MapKind.LANE) if features.subtype[row] == LaneType.SURFACE_STREET]
    lines = {row: features.polyline(row)[:, :2].astype(np.float32) for row in rows}
    lines = {row: line for row, line in lines.items() if len(line) >= 2}
    lane_of = {int(features.id[row]): lane for lane, row in enumerate(lines)}
    known = [signal for signal in range(len(lights)) if int(lights.lane_id[signal]) in lane_of]
    if not known:
        return None
    longest = max(len(line) for line in lines.values())
    origin = np.zeros((1, 2), np.float32)
    padded = [line if len(line) == longest else np.concatenate([line, origin]) for line in lines.values()]
    observed = lights.observed[known]
    points = np.where(observed[..., None], lights.stop_point[known][..., :2], 0).astype(np.float32)
    start = np.concatenate([line[:-1] for line in padded])
    along = np.concatenate([line[1:] - line[:-1] for line in padded])
    first = np.concatenate([[0], np.cumsum([len(line) - 1 for line in padded])]).astype(np.int32)
    lane = np.array([lane_of[int(lights.lane_id[signal])] for signal in known], np.int32)
    line = np.zeros(observed.shape, np.int32)
    stop = np.zeros(observed.shape, np.float32)
    _stop_lines(points, lane, start, along, first, line, stop)
    return Signals(start, along, first, lane, line, stop, observed & np.isin(lights.state[known], _RED))


@compiled
@no_type_check
def _slipped_distance(px, py, start, along, i):
    """Return the official "distance" to segment i, sign slip included; never below that to the segment's start."""
    t = min(max(projection(px, py, start, along, i), _ZERO), _ONE)
    dx = (px - start[i, 0]) + t * along[i, 0]
    dy = (py - start[i, 1]) + t * along[i, 1]
    return np.float32(math.sqrt(dx * dx + dy * dy))


@compiled
@no_type_check
def _nearest_of_lane(px, py, start, along, low, high):
    """Return the first segment of least distance in [low, high), and that distance."""
    best, least = low, _FAR
    for i in range(low, high):
        distance = _slipped_distance(px, py, start, along, i)
        if distance < least:
            best, least = i, distance
    return best, least


@compiled
@no_type_check
def _stop_lines(points, lane, start, along, first, line, stop):
    signals, steps = line.shape
    for s in range(signals):
        for step in range(steps):
            px, py = points[s, step, 0], points[s, step, 1]
            i, _ = _nearest_of_lane(px, py, start, along, first[lane[s]], first[lane[s] + 1])
            line[s, step] = i
            stop[s, step] = projection(px, py, start, along, i)


@compiled
@no_type_check
def _is_current_lane(px, py, start, along, first, lane):
    """Return whether the lane holds the first segment of least distance among all lanes'."""
    low, high = first[lane], first[lane + 1]
    _, least = _nearest_of_lane(px, py, start, along, low, high)
    for i in range(first[len(first) - 1]):
        if low <= i < high:
            continue
        dx, dy = px - start[i, 0], py - start[i, 1]
        # The start is a lower bound (see `_slipped_distance`); a thousandth covers its rounding.
        if dx * dx + dy * dy > least * least * np.float32(1.001):
            continue
        distance = _slipped_distance(px, py, start, along, i)
        if distance < least or (distance == least and i < low):
            return False
    return True


@compiled
@no_type_check
def red_lights_run(x, y, valid, rows, first_step, start, along, first, lane, line, stop, red, out):
    """Set out [R, E, T - first_step] where an agent runs a red light. Agents' inputs are [R, T, N], the rest `Signals`.

    The current lane, a search among all lanes, is looked up only for agents that cross a red signal's stop line.
    """
    runs, steps, _ = x.shape
    out[:] = False
    for run in range(runs):
        for e in range(len(rows)):
            n = rows[e]
            for step in range(max(first_step, 1), steps):
                if not valid[run, step, n]:
                    continue
                px, py = x[run, step, n], y[run, step, n]
                for s in range(len(lane)):
                    if not red[s, step]:
                        continue
                    if not projection(px, py, start, along, line[s, step]) > stop[s, step]:
                        continue
                    was = projection(x[run, step - 1, n], y[run, step - 1, n], start, along, line[s, step - 1])
                    if not was < stop[s, step - 1]:
                        continue
                    if _is_current_lane(px, py, start, along, first, lane[s]):
                        out[run, e, step - first_step] = True
                        break
