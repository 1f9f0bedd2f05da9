"""Which way the rollouts go where lanes part: how many of the open routes are taken, is the log's among them, and
who leaves the route that he has."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from traj_diffusion.geometry import arc_length, wrap_angle
from traj_diffusion.metrics.figures import Absent, Figures, Tally, absent, tally
from traj_diffusion.metrics.matching import AgentSet, Matched, is_vehicle
from traj_diffusion.scene import LaneType, MapKind, Origin

ON_LANE = 2.5
"""Metres to a centre line, and 45 degrees to its direction, within which a vehicle begins on that lane."""
FOLLOWS = 2.5
"""Metres between a path and a route, on average over the last second, up to which the path follows the route."""
CLEARLY = 1.0
"""Metres by which the second-best route must be farther, or else the path has not chosen yet."""
_MAX_ROUTES = 32
_DRIVES = 10.0
_NAMES = ("route_coverage", "route_log_recall", "route_undecided_rate")


@dataclass(frozen=True)
class Way:
    """A way on from where a vehicle is: a chain of lanes, and its centre line from there on."""

    rows: tuple[int, ...]  # of the map
    line: Float64[np.ndarray, "p 2"]  # a point each metre, less the matched origin


def left_routes(matched: Matched, agents: AgentSet = AgentSet.EVALUATED) -> Figures:
    """Return `route_left_rate`: share of (rollout, vehicle) pairs that end off their route. [0, 1], lower is better.

    Counted are vehicles that begin on the route that the scene states for them and are on it in the log's last step. A
    vehicle is off where its centre is more than 2.5 m from the centre lines of the route's lanes and of those beside
    them: changing lanes leaves no route. Who ends ahead of the route's last point has not left it.
    """
    name, features = "route_left_rate", matched.scene.map
    chosen = matched.counted(agents) & is_vehicle(matched.kind) & matched.log_valid[:, -1]
    left = np.zeros(matched.valid.shape[:2])
    counted = np.zeros(matched.valid.shape[:2], bool)
    for agent in np.flatnonzero(chosen):
        route = matched.scene.routes.lanes[int(matched.rows[agent])].tolist()
        if not route:
            continue
        beside = {
            int(row) for lane in route for way in (features.links.left, features.links.right) for row in way[lane]
        }
        lines = [features.polyline(row)[:, :2] - matched.origin[:2] for row in (*route, *sorted(beside - {*route}))]
        lines = [line for line in lines if len(line) >= 2]
        end = features.polyline(route[-1])[-2:, :2] - matched.origin[:2]
        places = np.stack([matched.now_position[agent, :2], matched.log_position[agent, -1, :2]])
        if not lines or len(end) < 2 or _off(places, lines, end).any():
            continue
        left[:, agent] = _off(matched.position[:, agent, -1, :2], lines, end)
        counted[:, agent] = matched.valid[:, agent, -1]
    return {name: tally(left, counted, "no counted vehicle keeps to a route in the log")}


def _off(
    places: Float64[np.ndarray, "n 2"], lines: list[Float64[np.ndarray, "_ 2"]], end: Float64[np.ndarray, "2 2"]
) -> Bool[np.ndarray, " n"]:
    """Return which places are beside all lines and not ahead of the last segment `end`."""
    along = end[1] - end[0]
    along = along / max(float(np.linalg.norm(along)), 1e-9)
    offset = places - end[1]
    ahead, aside = offset @ along, np.abs(offset @ np.array([-along[1], along[0]]))
    gaps = np.array([min(_project(line, place)[1] for line in lines) for place in places])
    off: Bool[np.ndarray, " n"] = (gaps > FOLLOWS) & ~((ahead > 0) & (aside < ahead))
    return off


def route_modes(matched: Matched, agents: AgentSet = AgentSet.EVALUATED) -> Figures:
    """Return how the rollouts share out over the lane choices ahead. Our own definitions.

    Counted are vehicles that begin on a lane and have more than one route within what they cover in the log (at the
    present speed, where there is no future), which must be 10 m at least. A route is a chain of successors of the lane
    (or lanes) they begin on, as long as that. A path takes the route that it lies nearest to in its last second within
    that distance, if that is within 2.5 m and by 1 m more clearly than the next.

    - `route_coverage`: share of a vehicle's routes that some rollout takes. [0, 1], higher is more varied; not all
      routes need to be likely, so compare models rather than expect 1.
    - `route_log_recall`: share of vehicles whose logged route is taken by some rollout, among those whose log takes
      one (mode coverage). [0, 1], higher is better.
    - `route_undecided_rate`: share of (rollout, vehicle) pairs that take no route: off them all, or not at the fork
      yet.
    """
    features = matched.scene.map
    if features.links.origin == Origin.ABSENT:
        return absent(_NAMES, "the map has no lane links" if len(features) else "the scene has no map")
    chosen = matched.counted(agents) & is_vehicle(matched.kind)
    last = max(1, round(1 / matched.dt))
    paths = with_now(matched.position, matched.now_position[None])
    logs = with_now(matched.log_position, matched.now_position)
    reach = travelled(logs)[:, -1] if matched.has_future else _at_present_speed(matched)
    coverage: list[float] = []
    recalled: list[bool] = []
    undecided = driven = 0
    for agent in np.flatnonzero(chosen & (reach >= _DRIVES)):
        routes = [way.line for way in ways_ahead(matched, int(agent), float(reach[agent]))]
        if len(routes) < 2:
            continue
        taken = [way_taken(path, routes, float(reach[agent]), last) for path in paths[:, agent]]
        coverage.append(len(set(taken) - {None}) / len(routes))
        undecided += sum(one is None for one in taken)
        driven += len(taken)
        logged = way_taken(logs[agent], routes, float(reach[agent]), last) if matched.has_future else None
        if logged is not None:
            recalled.append(logged in taken)
    if not coverage:
        return absent(_NAMES, "no counted vehicle has a choice of routes")
    recall = Tally(float(sum(recalled)), len(recalled)) if recalled else Absent("no log takes a route clearly")
    return {
        "route_coverage": Tally(float(sum(coverage)), len(coverage)),
        "route_log_recall": recall,
        "route_undecided_rate": Tally(float(undecided), driven),
    }


def ways_ahead(matched: Matched, agent: int, reach: float) -> list[Way]:
    """Return the lane chains that begin where the agent is, cut `reach` metres on.

    Chains that part only beyond are one; a chain that the map ends earlier is as long as the map has it.
    """
    features = matched.scene.map
    place, heading = matched.now_position[agent, :2] + matched.origin[:2], float(matched.now_heading[agent])
    rows = features.rows(MapKind.LANE)
    rows = rows[features.subtype[rows] != LaneType.BIKE_LANE]
    begins = []
    for row in rows:
        line = features.polyline(int(row))[:, :2]
        if len(line) >= 2 and (np.abs(line - place).min(0) < 100).all():
            along, aside, direction = _project(line, place)
            if aside <= ON_LANE and abs(wrap_angle(heading - direction)) <= np.pi / 4:
                begins.append((int(row), arc_length(line)[-1] - along))
    chains = [([row], left) for row, left in begins]
    done: list[list[int]] = []
    while chains and len(chains) + len(done) <= _MAX_ROUTES:
        chain, length = chains.pop()
        after = [int(row) for row in features.links.successors[chain[-1]] if int(row) not in chain]
        if length >= reach or not after:
            done.append(chain)
            continue
        chains += [([*chain, row], length + arc_length(features.polyline(row)[:, :2])[-1]) for row in after]
    lines = [np.concatenate([features.polyline(row)[:, :2] for row in chain]) - matched.origin[:2] for chain in done]
    cut = [_cut(line, matched.now_position[agent, :2], reach) for line in lines]
    return _different([Way(tuple(chain), line) for chain, line in zip(done, cut, strict=True)])


def _project(line: Float64[np.ndarray, "p 2"], point: Float64[np.ndarray, " 2"]) -> tuple[float, float, float]:
    """Return distance along the line, distance aside, and the direction there."""
    steps = np.diff(line, axis=0)
    t = np.clip(((point - line[:-1]) * steps).sum(-1) / np.maximum((steps**2).sum(-1), 1e-12), 0, 1)
    gaps = np.linalg.norm(line[:-1] + t[:, None] * steps - point, axis=-1)
    at = int(gaps.argmin())
    along = arc_length(line)[at] + t[at] * np.linalg.norm(steps[at])
    return float(along), float(gaps[at]), float(np.arctan2(steps[at, 1], steps[at, 0]))


def _cut(
    line: Float64[np.ndarray, "p 2"], begin: Float64[np.ndarray, " 2"], reach: float
) -> Float64[np.ndarray, "q 2"]:
    """Return the line's points every metre from beside `begin` on, `reach` metres far or to its end."""
    start, _, _ = _project(line, begin)
    length = arc_length(line)
    at = np.arange(start, min(start + reach, length[-1]) + 1e-9, 1.0)
    return np.stack([np.interp(at, length, line[:, axis]) for axis in range(2)], -1)


def _different(ways: list[Way]) -> list[Way]:
    """Return the ways without those that end on another that is kept: they offer no choice within reach."""
    kept: list[Way] = []
    for way in sorted(ways, key=lambda way: len(way.line), reverse=True):
        if all(np.linalg.norm(other.line - way.line[-1], axis=-1).min() > FOLLOWS for other in kept):
            kept.append(way)
    return kept


def way_taken(
    path: Float64[np.ndarray, "steps 2"], routes: list[Float64[np.ndarray, "_ 2"]], reach: float, last: int
) -> int | None:
    """Return which route the path follows in its `last` steps within `reach`, or None."""
    end = path[travelled(path) <= reach + 1e-6][-last:]
    gaps = [float(np.linalg.norm(end[:, None] - route[None], axis=-1).min(1).mean()) for route in routes]
    first, second = np.argsort(gaps, kind="stable")[:2]
    return int(first) if gaps[first] <= FOLLOWS and gaps[second] - gaps[first] >= CLEARLY else None


def with_now(
    future: Float64[np.ndarray, "*shape F 3"], now: Float64[np.ndarray, "*other 3"]
) -> Float64[np.ndarray, "*shape steps 2"]:
    """Return x and y of the present step and of all that follow."""
    first = np.broadcast_to(now[..., None, :], (*future.shape[:-2], 1, 3))
    return np.concatenate([first, future], axis=-2)[..., :2]


def travelled(path: Float64[np.ndarray, "*shape steps 2"]) -> Float64[np.ndarray, "*shape steps"]:
    """Return the distance driven [m] up to each step."""
    steps = np.linalg.norm(np.diff(path, axis=-2), axis=-1)
    return np.concatenate([np.zeros((*steps.shape[:-1], 1)), np.cumsum(steps, axis=-1)], axis=-1)


def _at_present_speed(matched: Matched) -> Float64[np.ndarray, " A"]:
    velocity = matched.scene.agents.velocity[matched.rows, matched.scene.current_index].astype(np.float64)
    return np.linalg.norm(velocity, axis=-1) * matched.valid.shape[2] * matched.dt
