"""A scene in which learners drive some agents and a TrafficModel all others: what Gymnasium and PettingZoo share.

A learner's action [2] in [-1, 1] is its acceleration and yaw rate, as shares of 5 m/s² and 1 rad/s; it obeys the
limits of its kind. It sees, all in its own frame in metres and m/s: `ego` [2] speed and yaw rate; `agents` [16, 9] the
nearest others: x, y, cos and sin of the heading, velocity x, y, length, width, and 1 where there is one; `lanes`
[32, 5] the nearest points of lane centres: x, y, cos and sin of the direction, and 1. It earns the metres that it went
forward in a step, and -10 for a collision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from traj_diffusion.geometry import rotate, to_local, to_world, wrap_angle
from traj_diffusion.kinematics import ACTION, decode
from traj_diffusion.metrics.collisions import overlaps
from traj_diffusion.scene import AgentKind, Map, MapKind, Observation, Policy, Scene
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

DT = 0.1  # s
AGENTS, LANES = 16, 32  # how many of the nearest ones a learner sees
ACCELERATION, YAW_RATE = 5.0, 1.0  # what an action of 1 asks for, m/s² and rad/s
SIGHT = 1000.0  # m; what is farther away is shown as this far
COLLISION_REWARD = -10.0
SHAPES = {"ego": (2,), "agents": (AGENTS, 9), "lanes": (LANES, 5)}


class Outcome(NamedTuple):
    """What a step brought a learner."""

    reward: float
    crashed: bool


@dataclass
class _Learner:
    yaw_rate: float
    touched: frozenset[int]  # ids of those whose box its own overlaps


class Episode:
    """One scene from its current index on, in which the agents `learners` (ids) are driven by actions."""

    def __init__(self, scene: Scene, policy: Policy, seed: int, learners: Sequence[int]) -> None:
        self.traffic = TrafficModel(policy, seed=seed, dt=DT)
        self.seen = Observation.from_scene(scene, uncontrolled=learners)
        self._learners = {agent: _Learner(0.0, self._touches(agent)) for agent in learners}
        self._lanes, self._directions = _lane_points(scene.map)
        self.traffic.reset(scene, self.seen)

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, Outcome]:
        """Advance by 0.1 s; every learner that is there needs an action."""
        driven = {agent: self._drive(agent, np.asarray(action, np.float64)) for agent, action in actions.items()}
        seen = self.seen
        step = self.traffic.step(seen)
        position, heading, velocity = seen.position.copy(), seen.heading.copy(), seen.velocity.copy()
        ours = seen.is_controlled
        position[ours], heading[ours], velocity[ours] = step.position, step.heading, step.velocity
        for agent, (place, facing, pace, _) in driven.items():
            row = self._row(agent)
            self._learners[agent].yaw_rate = float(wrap_angle(facing - float(seen.heading[row]))) / DT
            position[row, :2], heading[row], velocity[row] = place, facing, pace
        self.seen = replace(seen, time=step.time, position=position, heading=heading, velocity=velocity)
        outcomes = {}
        for agent, (_, _, _, forward) in driven.items():
            touches = self._touches(agent)
            crashed = bool(touches - self._learners[agent].touched)
            self._learners[agent].touched &= touches
            outcomes[agent] = Outcome(forward + COLLISION_REWARD * crashed, crashed)
        return outcomes

    def remove(self, agent: int) -> None:
        """Take a learner out of the scene."""
        seen, row = self.seen, self._row(agent)
        names = ("agent_id", "kind", "position", "heading", "velocity", "size", "is_controlled")
        self.seen = replace(seen, **{name: np.delete(getattr(seen, name), row, axis=0) for name in names})
        del self._learners[agent]

    def observe(self, agent: int) -> dict[str, np.ndarray]:
        """Return what a learner sees."""
        seen, row = self.seen, self._row(agent)
        centre, heading = seen.position[row, :2], np.float64(seen.heading[row])
        others = np.flatnonzero(np.arange(len(seen)) != row)
        place = to_local(seen.position[others, :2], centre, heading)
        turn = seen.heading[others] - heading
        pace = rotate(seen.velocity[others].astype(np.float64), -heading)
        agents = np.concatenate([place, np.cos(turn)[:, None], np.sin(turn)[:, None], pace, seen.size[others, :2]], -1)
        spots = to_local(self._lanes, centre, heading)
        angle = self._directions - heading
        lanes = np.concatenate([spots, np.cos(angle)[:, None], np.sin(angle)[:, None]], -1)
        own = [float(np.linalg.norm(seen.velocity[row])), self._learners[agent].yaw_rate]
        return {
            "ego": np.array(own, np.float32),
            "agents": _nearest(agents, AGENTS),
            "lanes": _nearest(lanes, LANES),
        }

    def close(self) -> None:
        """Let go of the traffic."""
        self.traffic.close()

    def _row(self, agent: int) -> int:
        return int(np.flatnonzero(self.seen.agent_id == agent)[0])

    def _drive(self, agent: int, action: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, float]:
        """Return a learner's next centre, heading and velocity, and how far ahead [m] it went."""
        seen, row = self.seen, self._row(agent)
        action = np.clip(action, -1, 1)
        heading: np.ndarray = seen.heading[row].astype(np.float64)
        wanted = torch.zeros(1, 1, ACTION)
        wanted[0, 0, 0], wanted[0, 0, 1] = ACCELERATION * action[0], YAW_RATE * action[1]
        speed = rotate(seen.velocity[row].astype(np.float64), -heading)
        kind, length = torch.tensor([int(seen.kind[row])]), torch.from_numpy(seen.size[[row], 0])
        side = speed[1] if seen.kind[row] == AgentKind.PEDESTRIAN else 0.0
        motion = decode(wanted, torch.tensor([[speed[0], side]], dtype=torch.float32), kind, length)
        local = motion.position[0, 0].numpy().astype(np.float64)
        pace = rotate(motion.velocity[0, 0].numpy().astype(np.float64), heading)
        place = to_world(local, seen.position[row, :2], heading)
        return place, float(heading) + float(motion.heading[0, 0]), pace, float(local[0])

    def _touches(self, agent: int) -> frozenset[int]:
        """Return the ids of those whose boxes a learner's own overlaps."""
        seen = self.seen
        hit = overlaps(
            seen.position[None, :, None, :2],
            seen.heading[None, :, None].astype(np.float64),
            seen.size[None, :, :2].astype(np.float64),
            np.ones((1, len(seen), 1), bool),
        )[1][0, self._row(agent)]
        return frozenset(seen.agent_id[hit].tolist())


def _lane_points(features: Map) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of lane centres, and the direction of the lane at each."""
    lines = [line for row in features.rows(MapKind.LANE) if len(line := features.polyline(int(row))[:, :2]) > 1]
    if not lines:
        return np.zeros((0, 2)), np.zeros(0)
    along = np.concatenate([np.gradient(line, axis=0) for line in lines])
    return np.concatenate(lines), np.arctan2(along[:, 1], along[:, 0])


def _nearest(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the rows nearest to the origin with a last column of ones, filled up with zeros."""
    order = np.argsort(np.linalg.norm(rows[:, :2], axis=-1), kind="stable")[:count]
    found = np.pad(rows[order], ((0, 0), (0, 1)), constant_values=1.0)
    return np.clip(np.pad(found, ((0, count - len(order)), (0, 0))), -SIGHT, SIGHT).astype(np.float32)
