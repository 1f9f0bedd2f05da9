"""Random places to drive: towns of streets with lanes and junctions, and motorways with ramps."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from traj_diffusion.datasets.synthesis.layouts import Layout, Road
from traj_diffusion.datasets.synthesis.mixes import Mix
from traj_diffusion.datasets.synthesis.plans import Pairs, grid, irregular, rings
from traj_diffusion.datasets.synthesis.signals import LeftTurns, Signals, draw_signals
from traj_diffusion.geometry import rotate

PLANS = {"grid": grid, "roundabouts": grid, "rings": rings, "irregular": irregular}
JUNCTIONS = ("traffic_light", "priority", "allway_stop", "priority_stop")


def draw_layout(rng: np.random.Generator, mix: Mix) -> Layout:
    """Return a random layout of a kind drawn from the mix, turned by a random angle."""
    kind = str(rng.choice(list(mix.kinds), p=list(mix.kinds.values())))
    if kind == "motorway":
        return motorway(rng)
    signals = draw_signals(rng) if mix.signals else Signals()
    nodes, pairs = PLANS[kind](rng)
    nodes = rotate(nodes - nodes.mean(0), np.full(len(nodes), rng.uniform(-np.pi, np.pi)))
    return replace(
        streets(rng, nodes, pairs, signals, roundabouts=0.5 if kind == "roundabouts" else 0.0), narrowed=mix.narrowed
    )


def streets(
    rng: np.random.Generator, nodes: np.ndarray, pairs: Pairs, signals: Signals, roundabouts: float = 0.0
) -> Layout:
    """Return the layout of these streets with lanes, speeds, curves and junction types drawn at random."""
    arterial_share, curved, parking = rng.uniform(0, 0.6), rng.uniform(0, 0.8), rng.uniform(0.1, 1)
    town_speed = rng.uniform(8, 18)
    sidewalk = float(rng.uniform(1.6, 3.0)) if rng.random() < 0.9 else 0.0
    cycling, turning = rng.uniform(0, 0.5) * (rng.random() < 0.4), rng.uniform(0, 0.8)
    # A lane shared with those who go straight on must not wait for an arrow: all streets get lanes for left turns.
    pockets = signals.left == LeftTurns.PROTECTED
    roads: list[Road] = []
    for start, end in pairs:
        arterial = rng.random() < arterial_share
        lanes = int(rng.integers(2, 5)) if arterial else int(rng.random() < 0.15) + 1
        lanes = min(lanes, 3) if rng.random() < 0.8 else lanes
        lanes = min(lanes, 2) if pockets else lanes
        length = float(np.linalg.norm(nodes[start] - nodes[end]))
        park = bool(rng.random() < parking * (0.3 if arterial else 1.0)) and not pockets
        turn = pockets or (not park and length > 110 and rng.random() < turning)
        bike = float(rng.uniform(1.4, 1.9)) if not (park or turn) and rng.random() < cycling else 0.0
        roads.append(
            Road(
                start,
                end,
                curve(rng, nodes[start], nodes[end], bend=rng.random() < curved),
                lanes=lanes,
                speed=float(np.clip(town_speed * rng.uniform(0.8, 1.25) * (1.3 if arterial else 1.0), 7, 25)),
                parking=park,
                sidewalk=sidewalk,
                bike_lane=bike,
                turn_lane=_pocket(rng, length, pockets) if turn else 0.0,
            )
        )
    degree = np.bincount(np.array(pairs).ravel(), minlength=len(nodes))
    chosen = rng.choice(4, len(nodes), p=rng.dirichlet([2.0, 0.8, 1.0, 0.7]))
    junction = [JUNCTIONS[k] if arms > 2 else "priority" for k, arms in zip(chosen, degree, strict=True)]
    places = list(nodes)
    for node in np.flatnonzero(degree >= 3):
        if rng.random() < roundabouts:
            _round(rng, int(node), places, junction, roads)
    return Layout(
        np.stack(places),
        tuple(junction),
        tuple(roads),
        float(rng.uniform(2.9, 3.8)),
        float(rng.uniform(5, 12)),
        signals=signals,
    )


def _pocket(rng: np.random.Generator, length: float, storage: bool) -> float:
    """Return how far [m] before a road's end, the junction included, a lane for left turns begins."""
    return min(float(rng.uniform(45, 75)), 0.5 * length) if storage else float(rng.uniform(25, 40))


def _round(
    rng: np.random.Generator, node: int, places: list[np.ndarray], junction: list[str], roads: list[Road]
) -> None:
    """Replace a junction by a one-way ring with a junction for each of its roads, if they leave room for it."""
    arms = [i for i, road in enumerate(roads) if node in (road.start, road.end)]
    radius = float(rng.uniform(18, 26))
    centre = places[node]

    def angle_of(i: int) -> float:
        shape = roads[i].shape if roads[i].start == node else roads[i].shape[::-1]
        away = shape[np.argmax(np.linalg.norm(shape - centre, axis=1) > radius)] - centre
        return float(np.arctan2(away[1], away[0]))

    arms.sort(key=angle_of)
    angle = np.array([angle_of(i) for i in arms])
    between = np.diff(np.append(angle, angle[0] + 2 * np.pi))
    if between.min() * radius < 20 or any(np.linalg.norm(np.diff(roads[i].shape[[0, -1]], axis=0)) < 70 for i in arms):
        return
    rim = [len(places) + k for k in range(len(arms))]
    for i, at, name in zip(arms, angle, rim, strict=True):
        road = roads[i]
        places.append(centre + radius * np.array([np.cos(at), np.sin(at)]))
        junction.append("priority")
        outside = road.shape[np.linalg.norm(road.shape - centre, axis=1) > radius + 5]
        from_here = road.start == node
        shape = np.concatenate([places[-1][None], outside] if from_here else [outside, places[-1][None]])
        roads[i] = Road(
            name if from_here else road.start,
            road.end if from_here else name,
            shape,
            lanes=min(road.lanes, 2),
            speed=road.speed,
            sidewalk=road.sidewalk,
        )
    for k, (at, width) in enumerate(zip(angle, between, strict=True)):
        along = at + np.linspace(0, width, 12)
        arc = centre + radius * np.stack([np.cos(along), np.sin(along)], -1)
        roads.append(Road(rim[k], rim[(k + 1) % len(rim)], arc, lanes=1, speed=8.0, two_way=False))
    # The old junction stays as a node without roads; netconvert drops it.


def motorway(rng: np.random.Generator) -> Layout:
    """Return a dual carriageway with slip roads that join and leave it."""
    lanes, gap = int(rng.integers(2, 5)), rng.uniform(4, 12)
    speed, length = float(rng.uniform(20, 25)), rng.uniform(1100, 1500)
    bend = rng.uniform(-0.04, 0.04) * length
    turn = rng.uniform(-np.pi, np.pi)
    places: list[np.ndarray] = []
    roads: list[Road] = []
    connections: list[tuple[int, int, int, int]] = []
    width = float(rng.uniform(3.4, 3.8))

    for back in (False, True):
        base = len(places)
        side = gap / 2 + lanes * width / 2
        # The bend is the same curve for both carriageways, seen from the other end.
        sign = -1.0 if back else 1.0
        joins = np.sort(rng.uniform(0.15, 0.75, 2)) * length
        if joins[1] - joins[0] < 350:
            joins = np.array([0.2, 0.6]) * length
        cuts = [0.0, joins[0], joins[0] + rng.uniform(120, 200), joins[1] - rng.uniform(0, 50), joins[1] + 150, length]
        at = np.array(cuts)

        def line(first: float, last: float, shift: float = side, sign: float = sign, back: bool = back) -> np.ndarray:
            along = np.linspace(first, last, max(int(abs(last - first) / 10), 2) + 1)
            xy = np.stack([along - length / 2, sign * bend * np.sin(np.pi * along / length) - shift], -1)
            return rotate(-xy if back else xy, np.full(len(xy), turn))

        places += [line(position, position + 1)[0] for position in at]
        extra = (0, 1, 0, 1, 0)  # lanes beside the through lanes: after the slip road in, and before the one out
        main = len(roads)
        for k in range(5):
            shape = line(at[k], at[k + 1])
            roads.append(Road(base + k, base + k + 1, shape, lanes + extra[k], speed, two_way=False, bicycles=False))
        for k in range(4):
            shift_from, shift_to = extra[k], extra[k + 1]
            connections += [(main + k, main + k + 1, lane + shift_from, lane + shift_to) for lane in range(lanes)]
        for joint, entering in ((1, True), (4, False)):
            reach = np.linspace(0, 1, 16)
            away = side + lanes * width / 2 + 1.5 + 45 * reach**1.6
            along = at[joint] + (-1 if entering else 1) * reach * 190
            xy = np.stack([along - length / 2, sign * bend * np.sin(np.pi * along / length) - away], -1)
            slip = rotate(-xy if back else xy, np.full(len(xy), turn))
            slip[0] = places[base + joint]
            places.append(slip[-1])
            outer = len(places) - 1
            number = len(roads)
            if entering:
                roads.append(Road(outer, base + joint, slip[::-1], 1, speed * 0.7, two_way=False, bicycles=False))
                connections.append((number, main + joint, 0, 0))
            else:
                roads.append(Road(base + joint, outer, slip, 1, speed * 0.7, two_way=False, bicycles=False))
                connections.append((main + joint - 1, number, 0, 0))
    return Layout(np.stack(places), ("priority",) * len(places), tuple(roads), width, 8.0, tuple(connections))


def curve(rng: np.random.Generator, start: np.ndarray, end: np.ndarray, bend: bool) -> Float64[np.ndarray, "P 2"]:
    """Return a road's line: straight, or bent as a half sine of up to 6 % of its length."""
    length = float(np.linalg.norm(end - start))
    if not bend or length < 50:
        return np.stack([start, end])
    along = np.linspace(0, 1, max(int(length / 4), 3))
    direction = (end - start) / length
    normal = np.array([-direction[1], direction[0]])
    amplitude = rng.uniform(-0.06, 0.06) * length
    return start + along[:, None] * (end - start) + amplitude * np.sin(np.pi * along)[:, None] * normal
