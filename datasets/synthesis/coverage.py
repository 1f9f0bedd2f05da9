"""What a set of scenes holds: how many of whom, how fast, which turns, and whether anything is out of order."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Float64

from traj_diffusion.geometry import box_corners, wrap_angle
from traj_diffusion.scene import AgentKind, LightState, MapKind, Scene

MOVES = 2.0  # m from the current index on, above which an agent counts as moving
TURN = np.deg2rad(30)
GAP = 4.0  # s between two that merge
ARROWS = (LightState.ARROW_STOP, LightState.ARROW_CAUTION, LightState.ARROW_GO)
PASSES = 2.5  # m from a lane's start; who comes as near drives into it
FASTEST = {AgentKind.VEHICLE: 60.0, AgentKind.PEDESTRIAN: 10.0, AgentKind.CYCLIST: 20.0, AgentKind.OTHER: 60.0}  # m/s
SPEEDS = (0.0, 0.5, 2.0, 5.0, 8.0, 11.0, 14.0, 17.0, 20.0, 25.0, 30.0)  # m/s, borders of the histogram


def coverage(scenes: Iterable[Scene]) -> dict[str, Any]:
    """Return counts over all scenes, ready for JSON.

    Agents are those valid at the current index. Turns are of vehicles that move over 2 m, by the change of heading from
    the current index to their last step (30 degrees and more). Merges are vehicles that drive into a lane within 4 s of
    another that came into it from a different one. Yields are vehicles that slow down to less than 1 m/s and drive on,
    with no red light on their route meanwhile. Signalled and arrows are scenes with lights, and with arrows for turns.
    `out_of_order` should hold zeros: vehicles that touch another at the
    current index, steps in which an agent jumps more than 1 m beyond what its speed explains, and moving vehicles whose
    centre at the current index lies off the road.
    """
    kinds = {kind.name.lower(): 0 for kind in AgentKind}
    turns = dict.fromkeys(("left", "right", "straight"), 0)
    totals = dict.fromkeys(
        (
            "scenes",
            "agents",
            "vehicles",
            "stationary",
            "stopping",
            "starting",
            "merges",
            "yields",
            "signalled",
            "arrows",
            "late",
        ),
        0,
    )
    wrong = dict.fromkeys(("overlapping", "jumps", "off_road"), 0)
    histogram = np.zeros(len(SPEEDS) - 1, np.int64)
    per_scene = []
    for scene in scenes:
        agents, now = scene.agents, scene.current_index
        rows = scene.sim_agents
        totals["scenes"] += 1
        totals["agents"] += len(rows)
        totals["late"] += int((~agents.valid[:, : now + 1].any(1)).sum())
        totals["signalled"] += bool(len(scene.lights))
        totals["arrows"] += bool(np.isin(scene.lights.state, ARROWS).any())
        per_scene.append(len(rows))
        for kind in agents.kind[rows]:
            kinds[AgentKind(int(kind)).name.lower()] += 1
        speed = np.linalg.norm(agents.velocity, axis=-1)
        vehicles = rows[agents.kind[rows] == AgentKind.VEHICLE]
        last = np.array([np.flatnonzero(agents.valid[row])[-1] for row in vehicles], np.int64)
        went = np.linalg.norm(agents.position[vehicles, last] - agents.position[vehicles, now], axis=-1)
        moving = went > MOVES
        totals["vehicles"] += len(vehicles)
        totals["stationary"] += int((~moving).sum())
        start, end = speed[vehicles, now], speed[vehicles, last]
        totals["stopping"] += int((moving & (start > 2) & (end < 0.5)).sum())
        totals["starting"] += int((moving & (start < 0.5) & (end > 2)).sum())
        change = wrap_angle(agents.heading[vehicles, last].astype(float) - agents.heading[vehicles, now].astype(float))
        turns["left"] += int((moving & (change > TURN)).sum())
        turns["right"] += int((moving & (change < -TURN)).sum())
        turns["straight"] += int((moving & (np.abs(change) <= TURN)).sum())
        totals["merges"] += merges(scene, vehicles)
        totals["yields"] += int(yields(scene, vehicles).sum())
        histogram += np.histogram(speed[vehicles, now], SPEEDS)[0]
        wrong["overlapping"] += int(overlapping(scene, now).sum())
        wrong["jumps"] += int(jumps(scene).sum())
        wrong["off_road"] += int((distance_off_road(scene, vehicles[moving], now) > 0).sum())
    count = np.array(per_scene or [0])
    return {
        **totals,
        "agents_per_scene": {str(q): float(np.percentile(count, q)) for q in (5, 50, 95)}
        | {"mean": float(count.mean())},
        "kinds": kinds,
        "turns": turns,
        "speed_histogram": {"borders": list(SPEEDS), "vehicles": histogram.tolist()},
        "out_of_order": wrong,
    }


def merges(scene: Scene, rows: np.ndarray) -> int:
    """Return how many agents drive into a lane within 4 s of another that came into it from a different lane."""
    entered: dict[int, list[tuple[int, int, int]]] = {}  # lane -> (step, from which lane, agent)
    links = scene.map.links
    for row in rows:
        seen = np.flatnonzero(scene.agents.valid[row])
        track = scene.agents.position[row, seen, :2]
        for lane, following in itertools.pairwise(scene.routes.lanes[int(row)].tolist()):
            if following not in links.successors[lane]:
                continue
            apart = np.linalg.norm(track - scene.map.polyline(following)[0, :2], axis=1)
            at = int(apart.argmin())
            if 0 < at < len(seen) - 1 and apart[at] < PASSES:
                entered.setdefault(following, []).append((int(seen[at]), lane, int(row)))
    return len(
        {
            agent
            for arrivals in entered.values()
            for (step, lane, agent), (other, before, _) in itertools.permutations(arrivals, 2)
            if lane != before and abs(step - other) * scene.dt <= GAP
        }
    )


def yields(scene: Scene, rows: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Return which agents slow down to less than 1 m/s and drive on, with no red light on their route meanwhile."""
    agents, lights = scene.agents, scene.lights
    lane_row = {int(number): row for row, number in enumerate(scene.map.id)}
    controlled = np.array([lane_row.get(int(number), -1) for number in lights.lane_id], np.int64)
    red = np.isin(lights.state, (LightState.STOP, LightState.ARROW_STOP, LightState.CAUTION, LightState.ARROW_CAUTION))
    found = np.zeros(len(rows), bool)
    for place, row in enumerate(rows):
        steps = np.flatnonzero(agents.valid[row])
        speed = np.linalg.norm(agents.velocity[row, steps], axis=-1)
        slowest = int(speed.argmin())
        if speed[slowest] >= 1 or speed[:slowest].max(initial=0) <= 3 or speed[slowest:].max() <= 3:
            continue
        mine = np.isin(controlled, scene.routes.lanes[int(row)])
        found[place] = not red[mine][:, steps[speed < 1]].any()
    return found


def overlapping(scene: Scene, step: int) -> Bool[np.ndarray, " N"]:
    """Return which agents' boxes touch another's at a step."""
    agents = scene.agents
    rows = np.flatnonzero(agents.valid[:, step])
    size = agents.size[rows, step].astype(np.float64)
    centre, heading = agents.position[rows, step, :2], agents.heading[rows, step].astype(np.float64)
    boxes = shapely.polygons(box_corners(centre, heading, size[:, 0], size[:, 1])) if len(rows) else np.zeros(0, object)
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    found = np.zeros(len(agents), bool)
    found[rows[one[one != other]]] = True
    return found


def jumps(scene: Scene) -> Bool[np.ndarray, "N steps"]:
    """Return between which steps an agent moves over 1 m more than its speeds explain, or faster than its kind can."""
    agents = scene.agents
    both = agents.valid[:, 1:] & agents.valid[:, :-1]
    went = np.linalg.norm(np.diff(agents.position[..., :2], axis=1), axis=-1)
    speed = np.linalg.norm(agents.velocity, axis=-1)
    most = np.array([FASTEST[AgentKind(int(kind))] for kind in agents.kind]).reshape(-1, 1)
    explained = np.minimum(np.maximum(speed[:, 1:], speed[:, :-1]), most) * scene.dt + 1.0
    return both & (went > explained)


def distance_off_road(scene: Scene, rows: np.ndarray, step: int) -> Float64[np.ndarray, " n"]:
    """Return how far [m] agents' centres are off the road at a step, negative on it: right of the nearest road edge."""
    centre = scene.agents.position[rows, step, :2]
    edges = [scene.map.polyline(int(row))[:, :2] for row in scene.map.rows(MapKind.ROAD_EDGE)]
    if not edges or not len(rows):
        return np.full(len(rows), -np.inf)
    start = np.concatenate([line[:-1] for line in edges])
    along = np.concatenate([np.diff(line, axis=0) for line in edges])
    offset = centre[:, None] - start
    share = ((offset * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12)).clip(0, 1)
    gap = offset - share[..., None] * along
    distance = np.linalg.norm(gap, axis=-1)
    nearest = distance.argmin(1)
    each = np.arange(len(rows))
    side = along[nearest, 0] * gap[each, nearest, 1] - along[nearest, 1] * gap[each, nearest, 0]
    return np.where(side < 0, 1.0, -1.0) * distance[each, nearest]
