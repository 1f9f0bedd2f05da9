"""Who runs a red light."""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from traj_diffusion.metrics.figures import Absent, Figures, tally
from traj_diffusion.metrics.matching import AgentSet, Matched, is_vehicle
from traj_diffusion.scene import LightState

RED = (LightState.ARROW_STOP, LightState.STOP)
LANE_HALF_WIDTH = 2.0
"""Metres beside its lane's centre line at which a vehicle still crosses that lane's stop point."""
_PASSED = 1.0
_ALIKE = 0.2  # metres: lanes that a path follows about as well
_TOGETHER = 3  # steps: stop lines that are crossed about together


def red_lights(matched: Matched, agents: AgentSet = AgentSet.EVALUATED) -> Figures:
    """Return `red_light_rate`: share of (rollout, vehicle) pairs that run a red light. [0, 1], lower is better.

    A vehicle runs a red light where its centre crosses the stop point of its lane, in the lane's direction and within
    2 m of it, while the lane's signal shows STOP or ARROW_STOP at the step after the crossing; jitter about a stop
    point is no crossing, it must get 1 m beyond. Where several lanes begin at one line its lane is the one that its
    path follows best afterwards; where the path does not tell, the signal that would allow it counts. Crossings after
    the recorded signals end are not judged. The idea is that of WOMD's traffic_light_violation (2025), which takes the
    nearest lane at the crossing step instead. Turning right on red is legal in some places: compare with the log.
    """
    name = "red_light_rate"
    lights, first = matched.scene.lights, matched.scene.current_index + 1
    reached = max(0, min(matched.valid.shape[2], matched.scene.steps - first))
    stops = _stop_lines(matched, first, reached)
    if not stops:
        reason = "no recorded light after the current index" if len(lights) else "the scene has no lights"
        return {name: Absent(reason)}
    chosen = matched.counted(agents) & is_vehicle(matched.kind)
    now = np.broadcast_to(matched.now_position[None, :, None, :2], (*matched.valid.shape[:2], 1, 2))
    paths = np.concatenate([now, matched.position[:, :, :reached, :2]], 2)
    there = np.concatenate([np.ones_like(matched.valid[..., :1]), matched.valid[..., :reached]], 2)
    crossed = np.stack([line.crossings(paths, there) for line in stops], -1)
    at_red = np.stack([line.red[crossed[..., at]] for at, line in enumerate(stops)], -1) & (crossed >= 0)
    ran = np.zeros(matched.valid.shape[:2], bool)
    for run, agent in np.argwhere(at_red.any(-1) & chosen):
        ran[run, agent] = _runs_red(paths[run, agent], there[run, agent], crossed[run, agent], stops)
    counted = matched.valid.any(-1) & chosen
    return {name: tally(ran.astype(np.float64), counted, "no vehicle among the counted agents")}


class _StopLine:
    """One signal over the future: where it stops whom, and when it is red. Step 0 is the first one after now."""

    def __init__(self, stop: np.ndarray, lane: np.ndarray, red: np.ndarray, known: np.ndarray) -> None:
        self.stop, self.lane, self.red, self.known = stop, lane, red, known
        self.along = _direction_at(lane, stop)

    def crossings(
        self, paths: Float64[np.ndarray, "R A steps 2"], there: Bool[np.ndarray, "R A steps"]
    ) -> Int64[np.ndarray, "R A"]:
        """Return the first step (into the future) at which each path crosses the line for good, or -1."""
        offset = paths - self.stop
        ahead = offset @ self.along
        aside = np.abs(offset[..., 1:, :] @ np.array([-self.along[1], self.along[0]]))
        passed = there & (ahead >= _PASSED)
        later = np.maximum.accumulate(passed[..., ::-1], axis=-1)[..., ::-1]
        crossed = (ahead[..., :-1] < 0) & (ahead[..., 1:] >= 0) & there[..., :-1] & there[..., 1:] & later[..., 1:]
        crossed &= (aside <= LANE_HALF_WIDTH) & self.known
        return np.where(crossed.any(-1), crossed.argmax(-1), -1)

    def distance(self, path: np.ndarray) -> float:
        """Return how far the path keeps from the lane on average [m], as far as the lane goes."""
        start, along = self.lane[:-1], np.diff(self.lane, axis=0)
        t = ((path[:, None] - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12)
        gaps = np.linalg.norm(path[:, None] - start - np.clip(t, 0, 1)[..., None] * along, axis=-1)
        beyond = (gaps.argmin(1) == len(along) - 1) & (t[:, -1] > 1)
        kept = gaps.min(1)[~beyond]
        return float(kept.mean()) if len(kept) else float(gaps.min(1)[0])


def _stop_lines(matched: Matched, first: int, reached: int) -> list[_StopLine]:
    lights, features = matched.scene.lights, matched.scene.map
    rows = {int(one): row for row, one in enumerate(features.id)}
    window = slice(first, first + reached)
    found = []
    for signal, lane_id in enumerate(lights.lane_id):
        known = lights.observed[signal, window]
        row = rows.get(int(lane_id))
        if not known.any() or row is None:
            continue
        lane = features.polyline(row)[:, :2] - matched.origin[:2]
        lane = lane[np.concatenate([[True], np.linalg.norm(np.diff(lane, axis=0), axis=-1) > 0])] if len(lane) else lane
        if len(lane) < 2:
            continue
        stop = lights.stop_point[signal, window][known][0, :2] - matched.origin[:2]
        red = known & np.isin(lights.state[signal, window], RED)
        found.append(_StopLine(stop, lane, red, known))
    return found


def _direction_at(lane: Float64[np.ndarray, "p 2"], point: Float64[np.ndarray, " 2"]) -> Float64[np.ndarray, " 2"]:
    """Return the unit direction of the lane's segment nearest to the point."""
    start, along = lane[:-1], np.diff(lane, axis=0)
    t = np.clip(((point - start) * along).sum(-1) / (along**2).sum(-1), 0, 1)
    nearest = int(np.linalg.norm(start + t[:, None] * along - point, axis=-1).argmin())
    return along[nearest] / np.linalg.norm(along[nearest])


def _runs_red(
    path: Float64[np.ndarray, "steps 2"],
    there: Bool[np.ndarray, " steps"],
    crossed: Int64[np.ndarray, " lines"],
    stops: list[_StopLine],
) -> bool:
    """Whether a path, which begins at the current step, crosses a stop line of its own lane while it is red."""
    for line, step in zip(stops, crossed, strict=True):
        if step < 0 or not line.red[step]:
            continue
        after = path[step + 1 :][there[step + 1 :]]
        own = line.distance(after)
        rivals = [
            other
            for other, when in zip(stops, crossed, strict=True)
            if other is not line and when >= 0 and abs(when - step) <= _TOGETHER
        ]
        if own <= LANE_HALF_WIDTH and all(other.red[step] or other.distance(after) > own + _ALIKE for other in rivals):
            return True
    return False
