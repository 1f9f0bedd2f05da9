"""Parked cars: in strips at the kerb, in lots beside the road, in the driveways of houses."""

from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Float64

from traj_diffusion.datasets.synthesis.network import NetLane, Network
from traj_diffusion.geometry import arc_length, box_corners, resample

STALL = (2.7, 5.4)  # m wide and deep; US stalls are 2.6-2.75 by 5.5
FAST = 18.0  # m/s; no houses and lots beside faster roads
AISLE = 6.5  # m


@dataclass(frozen=True)
class Parked:
    """Cars that stand all along, the lots they stand in, and the driveways across the sidewalk."""

    centre: Float64[np.ndarray, "N 2"]
    heading: Float64[np.ndarray, " N"]
    size: Float64[np.ndarray, "N 3"]
    lots: tuple[Float64[np.ndarray, "4 2"], ...]  # ground for vehicles, their ways in included
    driveways: tuple[Float64[np.ndarray, "4 2"], ...]


def draw_parked(rng: np.random.Generator, network: Network, drivable: shapely.Geometry) -> Parked:
    """Return random parked cars that touch neither each other nor the lanes."""
    kerb: list[tuple[np.ndarray, float]] = []
    places: list[tuple[np.ndarray, float]] = []
    occupancy = rng.uniform(0.3, 0.9)
    for lane in network.lanes.values():
        if lane.parking and not lane.internal:
            kerb += _kerb(rng, lane, occupancy)
    lots: list[np.ndarray] = []
    driveways: list[np.ndarray] = []
    taken = shapely.buffer(drivable, 0.3)
    shapely.prepare(taken)
    lot_share, house_share = rng.uniform(0, 0.7), rng.uniform(0.3, 1.0)
    for edge, names in network.edges.items():
        outer = network.lanes[names[0]] if names else None
        if edge not in network.ends or outer is None or outer.length < 45 or outer.speed > FAST:
            continue
        if rng.random() < lot_share:
            stalls, ground, way = _lot(rng, outer, float(rng.uniform(0.2, 0.95)))
            body = shapely.polygons(ground)
            if not shapely.intersects(taken, body) and not any(
                shapely.intersects(shapely.polygons(o), body) for o in lots
            ):
                places += stalls
                lots += [ground, way]
                driveways.append(way)
        elif rng.random() < house_share:
            for spot, heading, way in _houses(rng, outer):
                if not shapely.intersects(taken, shapely.Point(spot).buffer(2.6)):
                    places.append((spot, heading))
                    driveways.append(way)
    if kerb and driveways:  # nobody parks before a driveway
        kept_clear = shapely.union_all(shapely.buffer(shapely.polygons(np.stack(driveways)), 2.6))
        shapely.prepare(kept_clear)
        kerb = [place for place in kerb if not shapely.intersects(kept_clear, shapely.Point(place[0]))]
    return _keep_apart(rng, kerb + places, lots, driveways)


def _kerb(rng: np.random.Generator, lane: NetLane, occupancy: float) -> list[tuple[np.ndarray, float]]:
    """Return places one behind the other along a strip, facing its direction."""
    length = float(arc_length(lane.shape)[-1])
    at = np.arange(rng.uniform(4, 7), length - 5, rng.uniform(5.8, 7.0))
    at = at[rng.random(len(at)) < occupancy * rng.uniform(0.6, 1.2)]
    at = at + rng.uniform(-0.3, 0.3, len(at))
    point, heading, right = _frame(lane.shape, at)
    point = point + right * rng.normal(0, 0.08, (len(at), 1))
    heading = heading + rng.normal(0, 0.02, len(at))
    return list(zip(point, heading.tolist(), strict=True))


def _lot(
    rng: np.random.Generator, lane: NetLane, occupancy: float
) -> tuple[list[tuple[np.ndarray, float]], np.ndarray, np.ndarray]:
    """Return the places of a lot with two rows along a lane's right side, its ground, and its way in."""
    length = float(arc_length(lane.shape)[-1])
    stalls = int(rng.integers(4, 12))
    half = stalls * STALL[0] / 2
    middle, heading, right = (value[0] for value in _frame(lane.shape, np.array([rng.uniform(0.4, 0.6) * length])))
    along = np.array([np.cos(heading), np.sin(heading)])
    near = lane.width / 2 + rng.uniform(1.5, 5.0)
    depth = 2 * STALL[1] + AISLE
    origin = middle + near * right
    ground = np.stack([origin - half * along, origin + half * along, origin + half * along + depth * right])
    ground = np.concatenate([ground, [origin - half * along + depth * right]])
    # The way in leads through the middle of the first row, where two stalls are left out.
    kerb = middle - (lane.width / 2 + 0.5) * right
    way = np.stack([kerb - 3 * along, kerb + 3 * along, origin + 3 * along + STALL[1] * right])
    way = np.concatenate([way, [origin - 3 * along + STALL[1] * right]])
    places = []
    for row in (0, 1):
        for stall in range(stalls):
            shift = (stall + 0.5) * STALL[0] - half
            if rng.random() > occupancy or (row == 0 and abs(shift) < 3 + STALL[0] / 2):
                continue
            deep = STALL[1] / 2 if row == 0 else depth - STALL[1] / 2
            spot = origin + shift * along + (deep + rng.normal(0, 0.15)) * right
            nose_in = rng.random() < 0.8
            away = heading - np.pi / 2 if (row == 1) == nose_in else heading + np.pi / 2
            places.append((spot, float(away + rng.normal(0, 0.03))))
    return places, ground, way


def _houses(rng: np.random.Generator, lane: NetLane) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Return cars in driveways across the sidewalk of a lane: place, heading, and the driveway's corners."""
    length = float(arc_length(lane.shape)[-1])
    at = np.arange(rng.uniform(12, 20), length - 12, rng.uniform(12, 22))
    point, heading, right = _frame(lane.shape, at)
    found = []
    for spot, yaw, aside in zip(point, heading, right, strict=True):
        if rng.random() < 0.5:
            continue
        along = np.array([np.cos(yaw), np.sin(yaw)])
        base = spot + aside * lane.width / 2
        deep = rng.uniform(3.5, 6.0)
        kerb = spot - aside * lane.width / 2
        way = np.stack([kerb - 1.6 * along, kerb + 1.6 * along, base + 1.6 * along + (deep + 3) * aside])
        way = np.concatenate([way, [base - 1.6 * along + (deep + 3) * aside]])
        turned = yaw + (np.pi / 2 if rng.random() < 0.3 else -np.pi / 2)
        found.append((base + deep * aside, float(turned + rng.normal(0, 0.05)), way))
    return found


def _frame(line: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points, headings and unit vectors to the right at distances along a line."""
    chord = resample(line, at + 0.5) - resample(line, at - 0.5)
    heading = np.arctan2(chord[:, 1], chord[:, 0])
    return resample(line, at), heading, np.stack([np.sin(heading), -np.cos(heading)], -1)


def _keep_apart(
    rng: np.random.Generator,
    places: list[tuple[np.ndarray, float]],
    lots: list[np.ndarray],
    driveways: list[np.ndarray],
) -> Parked:
    count = len(places)
    centre = np.array([spot for spot, _ in places]).reshape(count, 2)
    heading = np.array([yaw for _, yaw in places], np.float64)
    length = np.clip(rng.normal(4.7, 0.45, count), 3.6, 5.6)
    width = np.clip(rng.normal(1.95, 0.12, count), 1.7, 2.2)
    boxes = np.asarray(shapely.polygons(box_corners(centre, heading, length + 0.2, width + 0.1)))
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    keep = np.ones(count, bool)
    for i, j in zip(one, other, strict=True):
        if i < j and keep[i] and keep[j]:
            keep[j] = False
    size = np.stack([length, width, rng.uniform(1.4, 2.0, count)], -1)
    return Parked(centre[keep], heading[keep], size[keep], tuple(lots), tuple(driveways))
