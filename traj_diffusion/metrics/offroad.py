"""Who leaves the road. Drivable ground lies to the left of a road edge's direction, as in WOMD."""

import numpy as np
from jaxtyping import Bool, Float64

from traj_diffusion.geometry import box_corners
from traj_diffusion.metrics.figures import Figures, absent, by_kind, tally, with_kinds
from traj_diffusion.metrics.matching import AgentSet, Matched
from traj_diffusion.metrics.segments import Segments, signed_distance
from traj_diffusion.scene import MapKind


def offroad(matched: Matched, agents: AgentSet = AgentSet.EVALUATED) -> Figures:
    """Return off-road rates, all in [0, 1], lower is better, over (rollout, agent) pairs of the counted agents.

    An agent is off the road at a step if a bottom corner of its box lies to the right of the road edge nearest to it
    (Montali et al. 2023, WOMD Sim Agents). Pedestrians belong off the road: read the rates per kind.

    - `offroad_rate`, and per kind: share that is off the road at any step.
    - `new_offroad_rate`, and per kind: the same among agents that are on the road at the current step of the log. Those
      that begin in a parking lot or a driveway are not counted.
    - `initial_offroad_rate`: share of counted agents that are off the road at the current step.
    """
    names = [*with_kinds("offroad_rate"), *with_kinds("new_offroad_rate"), "initial_offroad_rate"]
    edges = Segments.of(matched.scene.map, matched.scene.map.rows(MapKind.ROAD_EDGE), matched.origin)
    if not len(edges):
        return absent(names, "the map has no road edge" if len(matched.scene.map) else "the scene has no map")
    chosen = matched.counted(agents)
    if not chosen.any():
        return absent(names, "no agent to count")
    runs = len(matched.valid)
    asked = matched.valid & chosen[:, None]
    size = np.broadcast_to(matched.size[:, :, None], matched.position.shape)
    off = edge_distance(matched.position, matched.heading.astype(np.float64), size, asked, edges) > 0
    now = (
        edge_distance(matched.now_position, matched.now_heading.astype(np.float64), matched.now_size, chosen, edges) > 0
    )
    present = np.any(asked, axis=-1)
    reason = "no counted agent is valid in any rollout"
    found = by_kind("offroad_rate", np.any(off, axis=-1), present, matched.kind, reason)
    began_on = present & ~np.repeat(now[None], runs, 0)
    found |= by_kind(
        "new_offroad_rate", np.any(off, axis=-1), began_on, matched.kind, "no counted agent begins on the road"
    )
    found["initial_offroad_rate"] = tally(now.astype(np.float64), chosen, reason)
    return found


def edge_distance(
    centre: Float64[np.ndarray, "*shape 3"],
    heading: Float64[np.ndarray, "*shape"],
    size: Float64[np.ndarray, "*shape 3"],
    asked: Bool[np.ndarray, "*shape"],
    edges: Segments,
) -> Float64[np.ndarray, "*shape"]:
    """Return how far the worst bottom corner of each box is beyond the road edge [m]; negative: all are inside.

    -inf where not asked. All in the frame of the edges.
    """
    out = np.full(heading.shape, -np.inf)
    boxes = centre[asked]
    length, width, height = size[asked].T
    corners = box_corners(boxes[:, :2], heading[asked], length, width)
    bottom = np.broadcast_to((boxes[:, 2] - height / 2)[:, None, None], (len(boxes), 4, 1))
    points = np.concatenate([corners, bottom], -1).reshape(-1, 3)
    distance = signed_distance(points, np.ones(len(points), bool), edges)
    out[asked] = distance.reshape(-1, 4).max(-1)
    return out
