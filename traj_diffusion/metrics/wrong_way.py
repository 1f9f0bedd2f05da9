"""Who drives against the traffic."""

import math

import numpy as np

from traj_diffusion.metrics.compiled import compiled
from traj_diffusion.metrics.figures import Absent, Figures, tally
from traj_diffusion.metrics.matching import AgentSet, Matched, is_vehicle
from traj_diffusion.metrics.segments import STRETCH, Segments, candidates, squared_distance
from traj_diffusion.scene import LaneType, MapKind

REACH = 1.75
"""Metres to a lane's centre line within which a vehicle is on that lane: half of a 3.5 m lane."""
AGAINST = math.radians(120)
SPEED = 2.0
SECONDS = 1.0


def wrong_way(matched: Matched, agents: AgentSet = AgentSet.EVALUATED) -> Figures:
    """Return `wrong_way_rate`: share of (rollout, vehicle) pairs against the traffic. [0, 1], lower is better.

    A vehicle is so at a step if it moves at 2 m/s or more, is on a lane (its centre within 1.75 m of a centre line),
    and heads more than 120 degrees away from every lane that it is on. It counts if it does for 1 s in all, so that a
    lane change across the middle line of a junction does not. Our own definition; nuPlan's driving_direction_compliance
    measures metres driven against the traffic instead.
    """
    name = "wrong_way_rate"
    features = matched.scene.map
    rows = features.rows(MapKind.LANE)
    lanes = Segments.of(features, rows[features.subtype[rows] != LaneType.BIKE_LANE], matched.origin)
    if not len(lanes):
        return {name: Absent("the map has no lane" if len(features) else "the scene has no map")}
    chosen = matched.counted(agents) & is_vehicle(matched.kind)
    before = np.concatenate(
        [
            np.broadcast_to(matched.now_position[None, :, None], matched.position[:, :, :1].shape),
            matched.position[:, :, :-1],
        ],
        2,
    )
    speed = np.linalg.norm((matched.position - before)[..., :2], axis=-1) / matched.dt
    asked = matched.valid & chosen[:, None] & (speed >= SPEED)
    points, heading = matched.position[asked], matched.heading[asked].astype(np.float64)
    near = candidates(points, np.ones(len(points), bool), lanes, REACH)
    direction = np.arctan2(*(lanes.end - lanes.start)[:, 1::-1].T)
    against = np.zeros(matched.valid.shape, bool)
    against[asked] = _against(
        points, heading, near.cell, near.start, near.index, lanes.stretched, direction, REACH, AGAINST, STRETCH
    )
    flagged = against.sum(-1) * matched.dt >= SECONDS - 1e-9
    counted = matched.valid.any(-1) & chosen
    return {name: tally(flagged.astype(np.float64), counted, "no vehicle among the counted agents")}


@compiled
def _against(points, heading, cell, start, index, stretched, direction, reach, limit, stretch):  # type: ignore[no-untyped-def]
    """Whether each point has a lane within reach, and all such lanes lead more than `limit` away from its heading."""
    out = np.zeros(len(points), np.bool_)
    for q in range(len(points)):
        if cell[q] < 0:
            continue
        least = np.inf
        for at in range(start[cell[q]], start[cell[q] + 1]):
            s = index[at]
            if squared_distance(points[q, 0], points[q, 1], stretch * points[q, 2], stretched[s]) <= reach * reach:
                turn = (heading[q] - direction[s] + np.pi) % (2 * np.pi) - np.pi
                least = min(least, abs(turn))
        out[q] = limit < least < np.inf
    return out
