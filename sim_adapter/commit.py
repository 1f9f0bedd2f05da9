"""Which of the K futures of a plan the world follows until the next one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from traj_diffusion.metrics.collisions import overlaps
from traj_diffusion.metrics.offroad import edge_distance
from traj_diffusion.metrics.segments import Segments
from traj_diffusion.scene import AgentKind, Map, MapKind, Plan, WorldState

# What `cheapest` minimises, summed over controlled agents: each that touches another, each vehicle that leaves the
# road, and the mean square of the acceleration in m²/s⁴ (hard braking at 5 m/s² all along costs 2.5).
COLLISION_COST = 10.0
OFFROAD_COST = 5.0
DISCOMFORT_COST = 0.1
COLLISION_STRIDE = 2  # steps; at 10 Hz two cars that meet at 30 m/s move 6 m between looks, their length is 4.5 m
OFFROAD_STRIDE = 5


class Ground:
    """A map, and what rules need of it: worked out once, when first asked for."""

    def __init__(self, features: Map) -> None:
        self.map = features

    @cached_property
    def origin(self) -> Float64[np.ndarray, " 3"]:
        """The point that `edges` is relative to."""
        return self.map.points.mean(axis=0) if len(self.map.points) else np.zeros(3)

    @cached_property
    def edges(self) -> Segments:
        """The map's road edges."""
        return Segments.of(self.map, self.map.rows(MapKind.ROAD_EDGE).astype(np.int64), self.origin)


@dataclass(frozen=True)
class Following:
    """What the worlds were about to do by the last plan, in step with the new one: step i is the same moment in both.

    It may be shorter than the new plan, and know other agents.
    """

    agent_id: Int64[np.ndarray, " L"]
    position: Float64[np.ndarray, "R L G 3"]

    @classmethod
    def of(
        cls, agent_id: Int64[np.ndarray, " L"], plan: Plan, chosen: Int32[np.ndarray, " R"], elapsed: float
    ) -> "Following":
        """Return the rest of the chosen futures after that many steps; between two steps on a straight line."""
        path = plan.position[np.arange(len(chosen)), chosen]
        first, share = int(elapsed), elapsed - int(elapsed)
        rest = path[:, :, first:]
        if share > 0:
            rest = rest[:, :, :-1] + share * (rest[:, :, 1:] - rest[:, :, :-1])
        return cls(agent_id, rest)


@dataclass(frozen=True)
class Choice:
    """What a rule may look at: the new plan of R worlds, the state that it starts from, and the last plan."""

    plan: Plan
    state: WorldState
    is_controlled: Bool[np.ndarray, " A"]
    ground: Ground
    following: Following | None = None  # None at the first plan


Commit = Callable[[Choice], Int32[np.ndarray, " R"]]


def sample(choice: Choice) -> Int32[np.ndarray, " R"]:
    """Return the first future of each world: the K futures are independent draws, so it is a draw as good as any.

    Asking for more futures therefore does not change what the world does.
    """
    return np.zeros(len(choice.plan.log_weight), np.int32)


def likeliest(choice: Choice) -> Int32[np.ndarray, " R"]:
    """Return the future of the largest weight; the first of equals."""
    return choice.plan.log_weight.argmax(axis=1).astype(np.int32)


def consistent(choice: Choice) -> Int32[np.ndarray, " R"]:
    """Return the future nearest to what the world was about to do, by mean distance; the first one at the start.

    Compared are controlled agents that both plans know, over the steps that both reach.
    """
    if choice.following is None:
        return sample(choice)
    driven = np.flatnonzero(choice.is_controlled)
    _, new, old = np.intersect1d(choice.state.agent_id[driven], choice.following.agent_id, return_indices=True)
    steps = min(choice.plan.position.shape[3], choice.following.position.shape[2])
    if not len(new) or not steps:
        return sample(choice)
    before = choice.following.position[:, None, old, :steps, :2]
    gap = np.linalg.norm(choice.plan.position[:, :, driven[new], :steps, :2] - before, axis=-1)
    return gap.mean(axis=(2, 3)).argmin(axis=1).astype(np.int32)


def cheapest(choice: Choice) -> Int32[np.ndarray, " R"]:
    """Return the future in which controlled agents collide, leave the road and hurry least; the first of equals."""
    return costs(choice).argmin(axis=1).astype(np.int32)


def costs(choice: Choice) -> Float64[np.ndarray, "R K"]:
    """Return the cost of each future, as the constants of this module weigh it.

    Boxes that overlap already, and vehicles that are off the road already, cost nothing.
    """
    plan, state = choice.plan, choice.state
    there = state.valid[:, :, -1]
    counted = there & choice.is_controlled
    start = np.broadcast_to(state.velocity[:, None, :, -1:], (*plan.velocity.shape[:3], 1, 2))
    acceleration = np.diff(np.concatenate([start, plan.velocity], axis=3).astype(np.float64), axis=3) / plan.dt
    unease = (acceleration**2).sum(-1).mean(-1)
    cost: np.ndarray = DISCOMFORT_COST * (unease * counted[:, None]).sum(-1)
    size = np.broadcast_to(state.size.astype(np.float64), (*there.shape, 3))
    now = state.position[:, :, -1:], state.heading[:, :, -1:].astype(np.float64)
    touching = overlaps(now[0][..., :2], now[1], size[..., :2], there[..., None])[1]
    for world in range(len(cost)):
        centre = plan.position[world, :, :, COLLISION_STRIDE - 1 :: COLLISION_STRIDE]
        heading = plan.heading[world, :, :, COLLISION_STRIDE - 1 :: COLLISION_STRIDE].astype(np.float64)
        sizes = np.broadcast_to(size[world, :, :2], (len(centre), *size.shape[1:2], 2))
        seen = np.broadcast_to(there[world, :, None], heading.shape)
        hit = overlaps(centre[..., :2], heading, sizes, np.ascontiguousarray(seen))[1] & ~touching[world]
        cost[world] += COLLISION_COST * (hit.any(-1) & counted[world]).sum(-1)
    return cost + OFFROAD_COST * _leavers(choice, counted & (state.kind == AgentKind.VEHICLE), now, size)


def _leavers(
    choice: Choice, cars: Bool[np.ndarray, "R A"], now: tuple[np.ndarray, np.ndarray], size: np.ndarray
) -> np.ndarray:
    """Return how many of those cars are on the road now and leave it, [R, K]."""
    plan, ground = choice.plan, choice.ground
    if not len(ground.edges):
        return np.zeros(plan.log_weight.shape)
    on = edge_distance(now[0] - ground.origin, now[1], size[:, :, None], cars[..., None], ground.edges)[..., 0] <= 0
    place = plan.position[..., OFFROAD_STRIDE - 1 :: OFFROAD_STRIDE, :] - ground.origin
    heading = plan.heading[..., OFFROAD_STRIDE - 1 :: OFFROAD_STRIDE].astype(np.float64)
    asked = np.broadcast_to((cars & on)[:, None, :, None], heading.shape)
    sizes = np.broadcast_to(size[:, None, :, None], place.shape)
    return (edge_distance(place, heading, sizes, asked, ground.edges) > 0).any(-1).sum(-1)


COMMITS: Mapping[str, Commit] = {
    "sample": sample,
    "likeliest": likeliest,
    "cheapest": cheapest,
    "consistent": consistent,
}


def commit_rule(rule: str | Commit) -> Commit:
    """Return the rule of that name, or the caller's own."""
    if callable(rule):
        return rule
    if rule not in COMMITS:
        raise ValueError(f"unknown commit rule {rule!r}; known: {', '.join(COMMITS)}, or a function of a Choice")
    return COMMITS[rule]


def chosen_future(choose: Commit, choice: Choice) -> Int32[np.ndarray, " R"]:
    """Return what the rule chose, or raise ValueError if there is no such future."""
    worlds, futures = choice.plan.log_weight.shape
    chosen = np.asarray(choose(choice))
    whole = chosen.shape == (worlds,) and chosen.dtype.kind in "iu"
    if not whole or ((chosen < 0) | (chosen >= futures)).any():
        raise ValueError(
            f"the commit rule chose {chosen.tolist()}; it must choose one of 0..{futures - 1} for each of the "
            f"{worlds} worlds"
        )
    return chosen.astype(np.int32)
