"""What readers share: counting what they repaired, a map from named features, windows of long recordings."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from traj_diffusion.scene import Agents, Csr, Lights, Links, Map, MapKind, Origin, Routes, Scene

WINDOW = 91  # steps of a scene that is cut from a longer recording: 1.0 s of history, now, 8 s of future
CURRENT_INDEX = 10
STEP = 0.1  # s
NEAR = 0.45  # of a step: how far off it a sweep may be
MAX_POINTS = 5_000_000  # of one map
MAX_STATES = 4_000_000  # agents times steps of one recording

Report = dict[str, int]


def add(report: Report, what: str, count: int = 1) -> None:
    """Count something that was repaired or dropped; nothing for a count of 0."""
    if count:
        report[what] = report.get(what, 0) + count


def numbers(names: Sequence[Any]) -> np.ndarray:
    """Return the ids as int64 where all are such numbers, or spell them, and row numbers otherwise."""
    try:
        found = [int(name) for name in names]
    except (ValueError, TypeError):
        return np.arange(len(names), dtype=np.int64)
    if len(set(found)) < len(found) or any(abs(value) >= 2**62 for value in found):
        return np.arange(len(names), dtype=np.int64)
    return np.array(found, np.int64)


def check_size(agents: int, steps: int) -> None:
    """Raise ValueError where arrays of that many agents and steps would be too large for one recording."""
    if agents * steps > MAX_STATES:
        raise ValueError(f"{agents:,} agents over {steps:,} steps; at most {MAX_STATES:,} states are read")


def grid(time: np.ndarray, report: Report) -> np.ndarray:
    """Return for each step of 0.1 s the sweep [index into `time`, s] that is nearest to it, -1 for none near enough.

    Nothing is interpolated: a sweep stands for its step as it was recorded. Raises ValueError where time does not rise.
    """
    if not len(time) or not np.isfinite(time).all():
        raise ValueError("there is no sweep, or one has no time")
    if (np.diff(time) <= 0).any():
        raise ValueError("the time of the sweeps does not rise")
    at = (time - time[0]) / STEP
    step = np.rint(at)
    check_size(1, int(at[-1] + NEAR) + 1)
    chosen = np.full(int(at[-1] + NEAR) + 1, -1)
    # The nearest sweep of each step is written last.
    order = np.argsort(-np.abs(at - step), kind="stable")
    near = order[np.abs(at - step)[order] < NEAR]
    chosen[step[near].astype(np.int64)] = near
    add(report, "steps without a sweep, nobody valid there", int((chosen < 0).sum()))
    return chosen


def step_length(gaps: np.ndarray, report: Report) -> float:
    """Return the step [s] of a recording with these times between its steps: 0.1 where they allow it, or their median.

    Raises ValueError where time does not rise.
    """
    if not len(gaps):
        return STEP
    if not (gaps > 0).all():  # also for NaN
        raise ValueError(
            f"its time does not rise: step {int(np.argmin(gaps > 0)) + 1} comes no later than the one before"
        )
    median = float(np.median(gaps))
    dt = STEP if abs(median - STEP) < 0.1 * STEP else median
    add(report, "steps whose timestamps are more than 10 % off the step", int((np.abs(gaps - dt) > 0.1 * dt).sum()))
    return dt


class Features:
    """Map features by the names that their source calls them, and the links between them."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self._kinds: list[int] = []
        self._subtypes: list[int] = []
        self._lines: list[np.ndarray] = []
        self._limits: list[float] = []
        self._points = 0
        self._links: dict[str, list[tuple[int, str]]] = {
            name: [] for name in ("successors", "predecessors", "left", "right", "controls")
        }

    def add(self, name: str | None, kind: MapKind, subtype: int, points: np.ndarray, limit: float = np.nan) -> None:
        """Append a feature of points [P, 2 or 3], z 0 where they have none; the limit is in m/s.

        One without a name gets a number that none of the others has.
        """
        if points.ndim != 2 or points.shape[1] not in (2, 3):
            raise ValueError(f"map feature {name}: its points have shape {points.shape}; [P, 2] or [P, 3] would fit")
        self._points += len(points)
        if self._points > MAX_POINTS:
            raise ValueError(f"the map has more than {MAX_POINTS:,} points, too many for one scene")
        line = np.zeros((len(points), 3))
        line[:, : points.shape[1]] = points
        self.names.append(name)
        self._kinds.append(int(kind))
        self._subtypes.append(int(subtype))
        self._lines.append(line)
        self._limits.append(limit)

    def link(self, relation: str, to: str) -> None:
        """Note that the latest feature has a lane as successor, predecessor, left, right, or controls it."""
        self._links[relation].append((len(self.names) - 1, to))

    def build(self, report: Report, edge_origin: Origin) -> Map:
        """Return the map; links to lanes that are not in it are dropped and counted."""
        count = len(self.names)
        lanes = {name: row for row, name in enumerate(self.names) if name and self._kinds[row] == MapKind.LANE}
        found = {name: self._csr(pairs, lanes, report) for name, pairs in self._links.items()}
        recorded = any(self._links.values())
        edges = MapKind.ROAD_EDGE in self._kinds
        return Map(
            points=np.concatenate(self._lines) if count else np.zeros((0, 3)),
            start=np.concatenate([[0], np.cumsum([len(line) for line in self._lines])]).astype(np.int64),
            kind=np.array(self._kinds, np.uint8),
            subtype=np.array(self._subtypes, np.uint8),
            id=self._ids(),
            speed_limit=np.array(self._limits, np.float32),
            links=Links(**found, origin=Origin.RECORDED if recorded else Origin.ABSENT),
            edge_origin=edge_origin if edges else Origin.ABSENT,
        )

    def _ids(self) -> np.ndarray:
        named = [row for row, name in enumerate(self.names) if name is not None]
        ids = np.zeros(len(self.names), np.int64)
        ids[named] = numbers([self.names[row] for row in named])
        unnamed = np.setdiff1d(np.arange(len(ids)), named)
        ids[unnamed] = ids[named].max(initial=-1) + 1 + np.arange(len(unnamed))
        return ids

    def _csr(self, pairs: list[tuple[int, str]], lanes: dict[str, int], report: Report) -> Csr:
        inside = [(row, lanes[to]) for row, to in pairs if to in lanes]
        add(report, "links to lanes outside the map, dropped", len(pairs) - len(inside))
        rows = np.array([row for row, _ in inside], np.int64)
        start = np.zeros(len(self.names) + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=len(self.names)), out=start[1:])
        return Csr(start, np.array([lane for _, lane in inside], np.int32))


def windows(scene: Scene) -> Iterator[Scene]:
    """Yield a recording in pieces of 91 steps that share none, each with the first second as its history.

    What is left over at the end is dropped; the last piece's report says how many steps. A recording that is shorter
    than one piece is yielded whole. Agents that a piece never sees are not in it.
    """
    count = scene.steps // WINDOW
    if not count:
        yield replace(scene, current_index=min(CURRENT_INDEX, scene.steps - 1))
        return
    for number in range(count):
        first = number * WINDOW
        report = scene.report
        if number == count - 1 and scene.steps % WINDOW:
            report = (*report, ("steps at the end, too few for a window, dropped", scene.steps % WINDOW))
        name = f"{scene.id}.{first}"
        yield replace(_piece(scene, slice(first, first + WINDOW)), id=name, current_index=CURRENT_INDEX, report=report)


def _piece(scene: Scene, steps: slice) -> Scene:
    agents, lights = scene.agents, scene.lights
    kept = np.flatnonzero(agents.valid[:, steps].any(1))
    seen = np.flatnonzero(lights.observed[:, steps].any(1))
    ego = None if scene.ego is None or scene.ego not in kept else int(np.searchsorted(kept, scene.ego))
    return replace(
        scene,
        ego=ego,
        agents=Agents(
            id=agents.id[kept],
            kind=agents.kind[kept],
            position=agents.position[kept, steps],
            heading=agents.heading[kept, steps],
            velocity=agents.velocity[kept, steps],
            size=agents.size[kept, steps],
            valid=agents.valid[kept, steps],
            to_predict=agents.to_predict[kept],
            source_id=None if agents.source_id is None else tuple(agents.source_id[row] for row in kept),
        ),
        lights=Lights(
            lane_id=lights.lane_id[seen],
            stop_point=lights.stop_point[seen, steps],
            state=lights.state[seen, steps],
            observed=lights.observed[seen, steps],
        ),
        routes=Routes.absent(len(kept)),
    )
