"""Small scenes whose answers are known on paper: agents at constant speed on straight roads."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from traj_diffusion.scene import (
    AgentKind,
    Agents,
    Csr,
    EdgeType,
    LaneType,
    Lights,
    LightState,
    Links,
    Map,
    MapKind,
    Origin,
    Routes,
    Scene,
)
from traj_diffusion.scene.kinds import USUAL_SIZE


def make_map(polylines: Sequence[tuple[MapKind, int, np.ndarray]], successors: Sequence[Sequence[int]] = ()) -> Map:
    """Return a map of (kind, subtype, points [P, 2 or 3]); its ids are 100, 101, ..."""
    if not polylines:
        return Map.empty()
    count = len(polylines)
    points = [np.pad(line, ((0, 0), (0, 3 - line.shape[1]))).astype(np.float64) for _, _, line in polylines]
    links = Links.none(count)
    if successors:
        before: list[list[int]] = [[] for _ in range(count)]
        for row, after in enumerate(successors):
            for other in after:
                before[other].append(row)
        forward, backward, none = Csr.from_lists(successors), Csr.from_lists(before), Csr.empty(count)
        links = Links(forward, backward, none, none, none, Origin.RECORDED)
    return Map(
        points=np.concatenate(points),
        start=np.concatenate([[0], np.cumsum([len(line) for line in points])]).astype(np.int64),
        kind=np.array([kind for kind, _, _ in polylines], np.uint8),
        subtype=np.array([subtype for _, subtype, _ in polylines], np.uint8),
        id=np.arange(100, 100 + count, dtype=np.int64),
        speed_limit=np.full(count, np.nan, np.float32),
        links=links,
    )


def make_scene(
    position: np.ndarray,
    velocity: np.ndarray,
    heading: np.ndarray | None = None,
    kind: Sequence[AgentKind] | None = None,
    steps: int = 91,
    current_index: int = 10,
    dt: float = 0.1,
    features: Map | None = None,
    lights: Lights | None = None,
    scene_id: str = "made",
) -> Scene:
    """Return a scene of agents at constant velocity [N, 2], at `position` [N, 2] at the current index; row 0 is ego."""
    count = len(position)
    kinds = np.array(kind if kind is not None else [AgentKind.VEHICLE] * count, np.uint8)
    if heading is None:
        heading = np.arctan2(velocity[:, 1], velocity[:, 0])
    time = (np.arange(steps) - current_index) * dt
    track = np.zeros((count, steps, 3))
    track[..., :2] = position[:, None, :] + velocity[:, None, :] * time[None, :, None]
    size = np.array([USUAL_SIZE[AgentKind(k)] for k in kinds], np.float32).reshape(count, 3)
    agents = Agents(
        id=np.arange(1, count + 1, dtype=np.int64),
        kind=kinds,
        position=track,
        heading=np.repeat(heading[:, None], steps, 1).astype(np.float32),
        velocity=np.repeat(velocity[:, None, :], steps, 1).astype(np.float32),
        size=np.repeat(size[:, None, :], steps, 1),
        valid=np.ones((count, steps), bool),
        to_predict=np.ones(count, bool),
    )
    return Scene(
        id=scene_id,
        source="made",
        dt=dt,
        current_index=current_index,
        ego=0 if count else None,
        agents=agents,
        map=features if features is not None else Map.empty(),
        lights=lights if lights is not None else Lights.none(steps),
        routes=Routes.absent(count),
    )


def straight_road(speeds: Sequence[float] = (10.0, 8.0), gap: float = 30.0, **options: object) -> Scene:
    """Return cars that follow each other east along y = 0, the first one ahead, between edges at y = -4 and y = 4.

    Drivable ground lies to the left of a road edge, as in WOMD.
    """
    along = np.linspace(-200.0, 400.0, 601)
    flat = np.zeros_like(along)
    features = make_map(
        [
            (MapKind.LANE, LaneType.SURFACE_STREET, np.stack([along, flat], -1)),
            (MapKind.ROAD_EDGE, EdgeType.BOUNDARY, np.stack([along, flat - 4], -1)),
            (MapKind.ROAD_EDGE, EdgeType.BOUNDARY, np.stack([along, flat + 4], -1)[::-1]),
        ]
    )
    position = np.stack([-gap * np.arange(len(speeds)), np.zeros(len(speeds))], -1)
    velocity = np.stack([np.asarray(speeds, float), np.zeros(len(speeds))], -1)
    return make_scene(position, velocity, features=features, **options)  # type: ignore[arg-type]


def crossing(light: LightState = LightState.STOP) -> Scene:
    """Return two roads that cross at the origin: a car comes from the west, one from the south, a pedestrian walks.

    The eastbound approach (row 0) ends at a stop line at x = -8 with a light; row 1 is its continuation.
    """
    west, east = np.linspace(-100, -8, 93), np.linspace(-8, 100, 109)
    north = np.linspace(-100, 100, 201)

    def flat(values: np.ndarray) -> np.ndarray:
        return np.zeros_like(values)

    features = make_map(
        [
            (MapKind.LANE, LaneType.SURFACE_STREET, np.stack([west, flat(west)], -1)),
            (MapKind.LANE, LaneType.SURFACE_STREET, np.stack([east, flat(east)], -1)),
            (MapKind.LANE, LaneType.SURFACE_STREET, np.stack([flat(north), north], -1)),
            (MapKind.CROSSWALK, 0, np.array([[-7.0, -5], [-4, -5], [-4, 5], [-7, 5]])),
        ],
        successors=[[1], [], [], []],
    )
    steps = 91
    lights = Lights(
        lane_id=np.array([100], np.int64),
        stop_point=np.tile(np.array([-8.0, 0, 0]), (1, steps, 1)),
        state=np.full((1, steps), light, np.uint8),
        observed=np.ones((1, steps), bool),
    )
    return make_scene(
        position=np.array([[-40.0, 0], [0, -60], [-5.5, -6]]),
        velocity=np.array([[10.0, 0], [0, 8], [0, 1.3]]),
        kind=[AgentKind.VEHICLE, AgentKind.VEHICLE, AgentKind.PEDESTRIAN],
        features=features,
        lights=lights,
        scene_id="crossing",
    )


def busy_scene(
    rng: np.random.Generator,
    agents: int = 12,
    polylines: int = 40,
    steps: int = 91,
    current_index: int = 10,
    origin: tuple[float, float] = (-31_000.25, 12_000.5),
    noise: float = 0.01,
    scene_id: str = "busy",
) -> Scene:
    """Return a scene with the quirks of recorded ones, drawn at random.

    Agents of all kinds drive curves with `noise` [m] on them, come late, are lost in between, and have headings beyond
    pi; far from the origin; with lights that are not always seen, and routes for some. Row 0 is the ego, always valid.
    """
    time = 0.1 * (np.arange(steps) - current_index)
    speed, turn = rng.uniform(0, 15, agents) * (rng.random(agents) < 0.6), rng.uniform(-0.2, 0.2, agents)
    heading = rng.uniform(-4, 4, agents)[:, None] + turn[:, None] * time
    velocity = speed[:, None, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    start = np.asarray(origin) + rng.uniform(-100, 100, (agents, 1, 2))
    place = start + np.cumsum(velocity, axis=1) * 0.1
    moves = (speed > 0)[:, None]
    place += rng.normal(0, noise, place.shape) * moves[..., None]
    valid = np.ones((agents, steps), bool)
    for row in range(1, agents):
        first, last = sorted(rng.integers(0, steps, 2).tolist())
        valid[row] = (np.arange(steps) >= first * (row % 3 == 0)) & (np.arange(steps) <= max(last, current_index))
        valid[row, rng.integers(steps)] = False
    kind = rng.integers(1, 5, agents).astype(np.uint8)
    size = np.repeat(rng.uniform(0.5, 5, (agents, 1, 3)), steps, 1) + rng.normal(0, 0.02, (agents, steps, 3))

    kinds = [MapKind.LANE, MapKind.LANE, MapKind.ROAD_LINE, MapKind.ROAD_EDGE, MapKind.CROSSWALK, MapKind.STOP_SIGN]
    lines = []
    for row in range(polylines):
        count = 1 if kinds[row % len(kinds)] == MapKind.STOP_SIGN else int(rng.integers(2, 60))
        bend = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.02, count))
        step = np.stack([np.cos(bend), np.sin(bend)], -1) * 0.5
        lines.append((kinds[row % len(kinds)], 1, np.asarray(origin) + rng.uniform(-120, 120, 2) + np.cumsum(step, 0)))
    features = make_map(lines)
    lanes = features.rows(MapKind.LANE)
    signals = min(3, len(lanes))
    observed = rng.random((signals, steps)) < 0.8
    stop = np.array([features.polyline(int(row))[-1] for row in lanes[:signals]]).reshape(signals, 1, 3)
    lights = Lights(
        lane_id=features.id[lanes[:signals]],
        stop_point=np.where(observed[..., None], stop, 0.0),
        state=np.where(observed, rng.integers(0, 9, (signals, steps)), 0).astype(np.uint8),
        observed=observed,
    )
    routed = rng.random(agents) < 0.5
    routes = [sorted(rng.choice(lanes, min(4, len(lanes)), replace=False).tolist()) if on else [] for on in routed]
    made = make_scene(place[:, 0], velocity[:, 0], steps=steps, current_index=current_index, features=features)
    return replace(
        made,
        id=scene_id,
        agents=replace(
            made.agents,
            kind=kind,
            position=np.concatenate([place, np.zeros((agents, steps, 1))], -1),
            heading=heading.astype(np.float32),
            velocity=velocity.astype(np.float32),
            size=np.abs(size).astype(np.float32),
            valid=valid,
        ),
        lights=lights,
        routes=Routes(Csr.from_lists(routes), routed.astype(np.uint8)),
    )


def crowded(scene: Scene, count: int) -> Scene:
    """Return the scene with its simulated agents repeated, each time further aside, until there are `count`."""
    rows = scene.sim_agents
    chosen = np.resize(rows, count)
    copy = np.arange(count) // len(rows)
    agents = scene.agents
    position = agents.position[chosen].copy()
    position[..., :2] += (copy * 3.0)[:, None, None]
    ego = None if scene.ego is None else int(np.flatnonzero(chosen == scene.ego)[0])
    return replace(
        scene,
        ego=ego,
        agents=replace(
            agents,
            id=np.arange(1, count + 1, dtype=np.int64),
            kind=agents.kind[chosen],
            position=position,
            heading=agents.heading[chosen],
            velocity=agents.velocity[chosen],
            size=agents.size[chosen],
            valid=agents.valid[chosen],
            to_predict=agents.to_predict[chosen] & (copy == 0),
            source_id=None,
        ),
        routes=Routes(Csr.empty(count), np.zeros(count, np.uint8)),
    )
