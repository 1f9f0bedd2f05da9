"""Windows of 9.1 s around an ego, cut out of a run as a recording vehicle would have made them."""

from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Int64

from traj_diffusion.datasets.synthesis.network import Network
from traj_diffusion.datasets.synthesis.record import DT, Tracks
from traj_diffusion.datasets.synthesis.roadmap import RoadMap
from traj_diffusion.datasets.synthesis.routes import planned_rows
from traj_diffusion.datasets.synthesis.sensing import FROZEN, add_noise, lose_tracks
from traj_diffusion.geometry import box_corners
from traj_diffusion.scene import AgentKind, Agents, Csr, Lights, Links, Map, Origin, Routes, Scene, check_scene

STEPS, CURRENT = 91, 10
REACH = 85.0  # m from the ego, how far agents are seen
MAP_REACH = 110.0  # m from the ego, how far map features reach; features are kept whole
TO_PREDICT = 8
SHORTEST = 5  # steps that a track must have
MARGIN = 0.2  # m by which boxes are grown before they must not touch; noise comes on top of the truth
PADDING = 25  # steps before and after a window that tell whether an agent really stands


@dataclass(frozen=True)
class Window:
    """When a scene starts, and whose eyes it is seen with."""

    first: int
    ego: int
    agents: Int64[np.ndarray, " n"]  # rows of the tracks


def cut_scene(
    rng: np.random.Generator,
    scene_id: str,
    window: Window,
    tracks: Tracks,
    network: Network,
    roads: RoadMap,
    routes: dict[str, list[str]],
) -> Scene:
    """Return one window as a scene, as its ego would have recorded it."""
    steps = slice(window.first, window.first + STEPS)
    rows = window.agents[~overlapping(tracks, window, steps)]
    ego = int(np.flatnonzero(rows == window.ego)[0])
    centre = tracks.centre[window.ego, window.first + CURRENT]
    features, kept = crop(roads.features, centre)
    present = tracks.valid[rows, steps]
    apart = np.linalg.norm(tracks.centre[rows, steps] - tracks.centre[window.ego, steps], axis=-1)
    valid = lose_tracks(rng, present & (apart < rng.uniform(0.8, 1.0) * REACH), apart, DT, ego, CURRENT)
    seen = valid.sum(1) >= SHORTEST
    seen[ego] = True
    rows, valid, ego = rows[seen], valid[seen], int(seen[:ego].sum())
    agents = _measure(rng, tracks, rows, valid, window.first, ego)
    driven = []
    for row in rows:
        lanes = planned_rows(
            tracks.row[row, steps], tracks.passed[row, steps], routes.get(tracks.name[row]), network, roads
        )
        driven.append(_first_stretch(kept[np.array(lanes, np.int64)]))
    origin = np.array([Origin.RECORDED if lanes else Origin.ABSENT for lanes in driven], np.uint8)
    return check_scene(
        Scene(
            id=scene_id,
            source="sumo",
            dt=DT,
            current_index=CURRENT,
            ego=ego,
            agents=agents,
            map=features,
            lights=_lights(tracks, roads, kept, steps),
            routes=Routes(Csr.from_lists(driven), origin),
        )
    )


def _measure(
    rng: np.random.Generator, tracks: Tracks, rows: np.ndarray, valid: np.ndarray, first: int, ego: int
) -> Agents:
    """Return the agents with sensor noise; velocities stay those of the motion itself, but for a tracker's error."""
    steps = slice(first, first + STEPS)
    xy, heading, speed = tracks.centre[rows, steps], tracks.heading[rows, steps], tracks.speed[rows, steps]
    # Where nobody is, the tracks hold no position; what moves just before or after the window is not frozen.
    around = slice(max(first - PADDING, 0), first + STEPS + PADDING)
    there = tracks.valid[rows, around, None]
    low = np.where(there, tracks.centre[rows, around], np.inf).min(1)
    high = np.where(there, tracks.centre[rows, around], -np.inf).max(1)
    kind = tracks.kind[rows]
    frozen = (np.linalg.norm(high - low, axis=-1) < FROZEN) & (kind == AgentKind.VEHICLE)
    start = valid.argmax(1)
    each = np.arange(len(rows))
    xy = np.where(frozen[:, None, None], xy[each, start][:, None], xy)
    heading = np.where(frozen[:, None], heading[each, start][:, None], heading)
    speed = np.where(frozen[:, None], 0.0, speed)
    velocity = speed[..., None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    velocity = velocity + rng.normal(0, 0.03, velocity.shape) * ~frozen[:, None, None]
    xy, heading = add_noise(rng, kind, xy, heading, speed, frozen, ego)
    size = np.repeat(tracks.size[rows, None], STEPS, 1)
    position = np.round(np.concatenate([xy, size[..., 2:] / 2], -1), 4)
    moved = np.linalg.norm(xy[:, -1] - xy[:, CURRENT], axis=-1)
    good = valid[:, CURRENT] & (valid.mean(1) > 0.85) & (moved > 2)
    to_predict = np.zeros(len(rows), bool)
    to_predict[rng.permutation(np.flatnonzero(good))[:TO_PREDICT]] = True
    there = valid[..., None]
    return Agents(
        id=np.arange(1, len(rows) + 1, dtype=np.int64),
        kind=kind,
        position=np.where(there, position, 0.0),
        heading=np.where(valid, heading, 0).astype(np.float32),
        velocity=np.where(there, velocity, 0.0).astype(np.float32),
        size=np.where(there, size, 0.0).astype(np.float32),
        valid=valid,
        to_predict=to_predict,
        source_id=tuple(tracks.name[row] for row in rows),
    )


def overlapping(tracks: Tracks, window: Window, steps: slice) -> Bool[np.ndarray, " n"]:
    """Return which agents to leave out so that none of those left touch: parked cars first, never the ego.

    Every fifth step is looked at.
    """
    rows = window.agents
    moves = np.ptp(tracks.centre[rows, steps], axis=1).max(-1) > FROZEN
    rank = np.where(rows == window.ego, 2, moves)
    bad = np.zeros(len(rows), bool)
    for step in range(window.first, window.first + STEPS, 5):
        here = np.flatnonzero(tracks.valid[rows, step] & ~bad)
        who = rows[here]
        size = tracks.size[who] + MARGIN
        corners = box_corners(tracks.centre[who, step], tracks.heading[who, step], size[:, 0], size[:, 1])
        boxes = shapely.polygons(corners)
        one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
        for i, j in zip(here[one[one < other]], here[other[one < other]], strict=True):
            if not (bad[i] or bad[j]):
                bad[i if rank[i] < rank[j] else j] = True
    return bad


def crop(features: Map, centre: np.ndarray) -> tuple[Map, Int64[np.ndarray, " M"]]:
    """Return the features that come within MAP_REACH (in x and y) of a point, and each feature's new row or -1."""
    near = (np.abs(features.points[:, :2] - centre) < MAP_REACH).all(-1)
    hits = np.add.reduceat(near, features.start[:-1]) > 0
    rows = np.flatnonzero(hits)
    renumbered = np.full(len(features), -1, np.int64)
    renumbered[rows] = np.arange(len(rows))
    length = np.diff(features.start)
    links = features.links

    def kept(csr: Csr) -> Csr:
        entries = renumbered[csr.index]
        owner = np.repeat(np.arange(len(csr)), np.diff(csr.start))
        good = (entries >= 0) & hits[owner]
        counts = np.bincount(renumbered[owner[good]], minlength=len(rows))
        return Csr(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), entries[good].astype(np.int32))

    return (
        Map(
            points=features.points[np.repeat(hits, length)],
            start=np.concatenate([[0], np.cumsum(length[rows])]).astype(np.int64),
            kind=features.kind[rows],
            subtype=features.subtype[rows],
            id=features.id[rows],
            speed_limit=features.speed_limit[rows],
            links=Links(
                kept(links.successors),
                kept(links.predecessors),
                kept(links.left),
                kept(links.right),
                kept(links.controls),
                links.origin,
            ),
            edge_origin=features.edge_origin,
        ),
        renumbered,
    )


def _first_stretch(rows: np.ndarray) -> list[int]:
    """Return the rows up to where the route first leaves the map."""
    inside = np.flatnonzero(rows >= 0)
    if not len(inside):
        return []
    rest = rows[inside[0] :]
    outside = np.flatnonzero(rest < 0)
    return [int(row) for row in (rest[: outside[0]] if len(outside) else rest)]


def _lights(tracks: Tracks, roads: RoadMap, kept: np.ndarray, steps: slice) -> Lights:
    shown = [(i, light) for i, light in enumerate(roads.signals) if kept[light.row] >= 0]
    if not shown:
        return Lights.none(STEPS)
    which = np.array([i for i, _ in shown])
    stop = np.array([[*light.stop_point, 0.0] for _, light in shown])
    state = tracks.lights[which, steps]
    return Lights(
        lane_id=np.array([roads.features.id[light.row] for _, light in shown], np.int64),
        stop_point=np.repeat(stop[:, None], STEPS, 1),
        state=state,
        observed=np.ones(state.shape, bool),
    )


def find_windows(rng: np.random.Generator, tracks: Tracks, first: int, most: int) -> list[Window]:
    """Return up to `most` windows that start at a step, around egos so far apart that they share no agent."""
    steps = slice(first, first + STEPS)
    valid = tracks.valid[:, steps]
    xy = tracks.centre[:, steps]
    whole = np.flatnonzero((tracks.kind == AgentKind.VEHICLE) & valid.all(1) & (tracks.row[:, steps] >= 0).all(1))
    if not len(whole):
        return []
    moving = np.linalg.norm(xy[whole, -1] - xy[whole, 0], axis=-1) > 2
    # Recording vehicles mostly drive, and more of them where more is going on.
    movers = np.flatnonzero(valid[:, CURRENT] & valid[:, -1])
    movers = movers[np.linalg.norm(xy[movers, -1] - xy[movers, CURRENT], axis=-1) > 4]
    company = (np.linalg.norm(xy[whole, CURRENT][:, None] - xy[movers, CURRENT], axis=-1) < 0.7 * REACH).sum(1)
    weight = (1.0 + company) * np.where(moving, 1.0, 0.1)
    order = rng.choice(len(whole), len(whole), replace=False, p=weight / weight.sum())
    egos: list[int] = []
    for ego in whole[order]:
        if len(egos) == most:
            break
        if all(np.linalg.norm(xy[ego, CURRENT] - xy[other, CURRENT]) > 2 * REACH for other in egos):
            egos.append(int(ego))
    distance = np.linalg.norm(xy[None] - xy[egos][:, None, :, :], axis=-1)  # [E, N, T]
    distance = np.where(valid, distance, np.inf)
    # Who is near one ego at the current step belongs to it, whoever else it meets later.
    near = distance[:, :, CURRENT]
    settled = np.where((near < REACH).any(0), near.argmin(0), distance.min(2).argmin(0))
    reached = distance.min(2)[settled, np.arange(len(settled))] < REACH
    return [Window(first, ego, np.flatnonzero(reached & (settled == i))) for i, ego in enumerate(egos)]
