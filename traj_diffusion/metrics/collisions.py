"""Who touches whom: oriented boxes in the x-y plane. Height plays no part, as in WOMD's Sim Agents metrics."""

import numpy as np
from jaxtyping import Bool, Float64

from traj_diffusion.metrics.compiled import compiled
from traj_diffusion.metrics.figures import Figures, absent, by_kind, tally, with_kinds
from traj_diffusion.metrics.matching import AgentSet, Matched

TOUCH = 1e-6
"""Metres that two boxes must reach into each other, so that boxes that only touch do not collide by rounding."""


def collisions(matched: Matched, agents: AgentSet = AgentSet.EVALUATED) -> Figures:
    """Return collision rates, all in [0, 1], lower is better, over (rollout, agent) pairs of the counted agents.

    Two agents collide at a step if their boxes share more than their border (separating-axis test; Gottschalk, Lin &
    Manocha 1996). Everyone simulated can be collided with. As in WOMD's Sim Agents metrics (Montali et al.
    2023) an agent counts once however long it touches; unlike there, corners are sharp and all valid steps of the
    rollout count, whether the log is valid there or not.

    - `collision_rate`, and per kind: share that overlaps anyone at any step.
    - `new_collision_rate`, and per kind: the same without pairs whose boxes already overlap at the current step.
    - `collision_pair_rate`: share of pairs, among those with a counted member that are ever there at the same step.
    - `initial_overlap_rate`: share of counted agents that overlap somebody at the current step of the log.
    """
    names = [*with_kinds("collision_rate"), *with_kinds("new_collision_rate"), "collision_pair_rate"]
    chosen = matched.counted(agents)
    if not chosen.any():
        return absent([*names, "initial_overlap_rate"], "no agent to count")
    met, hit = overlaps(
        matched.position[..., :2], matched.heading.astype(np.float64), matched.size[..., :2], matched.valid
    )
    now = overlaps(
        matched.now_position[None, :, None, :2],
        matched.now_heading[None, :, None].astype(np.float64),
        matched.now_size[None, :, :2],
        np.ones((1, len(chosen), 1), bool),
    )[1][0]
    present = np.any(matched.valid, axis=-1) & chosen
    reason = "no counted agent is valid in any rollout"
    found = by_kind("collision_rate", np.any(hit, axis=-1), present, matched.kind, reason)
    found |= by_kind("new_collision_rate", np.any(hit & ~now, axis=-1), present, matched.kind, reason)
    pairs = np.triu(chosen[:, None] | chosen[None, :], 1)
    found["collision_pair_rate"] = tally(hit.astype(np.float64), met & pairs, "no two agents are ever there together")
    found["initial_overlap_rate"] = tally(now.any(-1).astype(np.float64), chosen, reason)
    return found


def overlaps(
    centre: Float64[np.ndarray, "R A F 2"],
    heading: Float64[np.ndarray, "R A F"],
    size: Float64[np.ndarray, "R A 2"],
    valid: Bool[np.ndarray, "R A F"],
) -> tuple[Bool[np.ndarray, "R A A"], Bool[np.ndarray, "R A A"]]:
    """Return which agents are ever valid together, and which ever overlap (both symmetric, diagonal False).

    `size` is length and width [m].
    """
    half = size / 2
    met, hit = _overlaps(
        np.ascontiguousarray(centre[..., 0]),
        np.ascontiguousarray(centre[..., 1]),
        np.cos(heading),
        np.sin(heading),
        np.ascontiguousarray(half[..., 0]),
        np.ascontiguousarray(half[..., 1]),
        valid,
        TOUCH,
    )
    return met, hit


@compiled
def _overlaps(x, y, cos, sin, half_length, half_width, valid, touch):  # type: ignore[no-untyped-def]
    runs, agents, steps = x.shape
    met = np.zeros((runs, agents, agents), np.bool_)
    hit = np.zeros((runs, agents, agents), np.bool_)
    for r in range(runs):
        for i in range(agents):
            reach_i = np.hypot(half_length[r, i], half_width[r, i])
            for j in range(i + 1, agents):
                reach = (reach_i + np.hypot(half_length[r, j], half_width[r, j])) ** 2
                for f in range(steps):
                    if not (valid[r, i, f] and valid[r, j, f]):
                        continue
                    met[r, i, j] = met[r, j, i] = True
                    dx, dy = x[r, j, f] - x[r, i, f], y[r, j, f] - y[r, i, f]
                    if dx * dx + dy * dy >= reach:
                        continue
                    if _boxes_overlap(
                        dx,
                        dy,
                        cos[r, i, f],
                        sin[r, i, f],
                        half_length[r, i],
                        half_width[r, i],
                        cos[r, j, f],
                        sin[r, j, f],
                        half_length[r, j],
                        half_width[r, j],
                        touch,
                    ):
                        hit[r, i, j] = hit[r, j, i] = True
                        break
    return met, hit


@compiled
def _boxes_overlap(dx, dy, cos_a, sin_a, length_a, width_a, cos_b, sin_b, length_b, width_b, touch):  # type: ignore[no-untyped-def]
    """Whether box b, whose centre lies at (dx, dy) from that of a, overlaps a. Lengths and widths are halves."""
    along = abs(cos_a * cos_b + sin_a * sin_b)
    across = abs(cos_a * sin_b - sin_a * cos_b)
    return (
        abs(dx * cos_a + dy * sin_a) + touch < length_a + length_b * along + width_b * across
        and abs(dy * cos_a - dx * sin_a) + touch < width_a + length_b * across + width_b * along
        and abs(dx * cos_b + dy * sin_b) + touch < length_b + length_a * along + width_a * across
        and abs(dy * cos_b - dx * sin_b) + touch < width_b + length_a * across + width_a * along
    )
