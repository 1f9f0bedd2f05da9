"""Gymnasium: the user drives a scene's ego, a TrafficModel everyone else. Importing it registers `TrajDiffusion-v0`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from traj_diffusion.datasets import read_scenes
from traj_diffusion.errors import BadScene, MissingExtra
from traj_diffusion.geometry import rotate, to_local, to_world, wrap_angle
from traj_diffusion.kinematics import ACTION, decode
from traj_diffusion.metrics.collisions import overlaps
from traj_diffusion.policies import load_policy
from traj_diffusion.scene import AgentKind, MapKind, Observation, Policy, Scene
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

try:
    import gymnasium
    from gymnasium import spaces
except ImportError:
    raise MissingExtra("gymnasium", "gym") from None

DT = 0.1  # s
AGENTS, LANES = 16, 32  # how many of the nearest ones the ego sees
ACCELERATION, YAW_RATE = 5.0, 1.0  # what an action of 1 asks for, m/s² and rad/s
SIGHT = 1000.0  # m; what is farther away is shown as this far
COLLISION_REWARD = -10.0


class TrajDiffusionEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """A recorded scene in which the agent of the reinforcement learner is the ego.

    Action [2] in [-1, 1]: acceleration and yaw rate, as shares of 5 m/s² and 1 rad/s; the ego obeys the limits of its
    kind. Observation, all in the ego's frame in metres and m/s: `ego` [2] speed and yaw rate; `agents` [16, 9] the
    nearest ones: x, y, cos and sin of the heading, velocity x, y, length, width, and 1 where there is one; `lanes`
    [32, 5] the nearest points of lane centres: x, y, cos and sin of the direction, and 1. Reward: metres that the ego
    went forward in the step, -10 for a collision, which ends the episode. It is truncated after `seconds`.

    `scenes` (SCENES as commands take it, or scenes) are drawn from at each reset by the environment's seed; each needs
    an ego. `policy` drives everyone else; a name is loaded. Same seed and actions, same episode.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # Gymnasium's own declaration

    def __init__(
        self, scenes: str | Sequence[Scene] = "bundled", policy: str | Policy = "tiny", seconds: float = 20.0
    ) -> None:
        self._scenes = list(read_scenes(scenes) if isinstance(scenes, str) else scenes)
        for scene in self._scenes:
            if scene.ego is None or not scene.agents.valid[scene.ego, scene.current_index]:
                raise BadScene(f"scene {scene.id}: it has no ego that is valid now, so nobody can drive it")
        if not self._scenes:
            raise ValueError("scenes is empty; at least one scene is needed")
        self._policy = load_policy(policy) if isinstance(policy, str) else policy
        self._ticks = round(seconds / DT)
        limits = {"ego": (2,), "agents": (AGENTS, 9), "lanes": (LANES, 5)}
        self.observation_space = spaces.Dict(
            {name: spaces.Box(-SIGHT, SIGHT, shape, np.float32) for name, shape in limits.items()}
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._traffic: TrafficModel | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode on a scene drawn by the seed, at its current index."""
        super().reset(seed=seed)
        scene = self._scenes[int(self.np_random.integers(len(self._scenes)))]
        assert scene.ego is not None
        ego = int(scene.agents.id[scene.ego])
        self._traffic = TrafficModel(self._policy, seed=int(self.np_random.integers(2**31)), dt=DT)
        self._seen = Observation.from_scene(scene, uncontrolled=[ego])
        self._ego = int(np.flatnonzero(self._seen.agent_id == ego)[0])
        self._yaw_rate, self._tick = 0.0, 0
        self._touched = self._touches()
        rows = scene.map.rows(MapKind.LANE)
        lines = [line for row in rows if len(line := scene.map.polyline(int(row))[:, :2]) > 1]
        steps = [np.gradient(line, axis=0) for line in lines]
        self._lanes = np.concatenate(lines) if lines else np.zeros((0, 2))
        along = np.concatenate(steps) if steps else np.zeros((0, 2))
        self._directions = np.arctan2(along[:, 1], along[:, 0])
        self._traffic.reset(scene, self._seen)
        return self._observe(), {"scene": scene.id}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Advance by 0.1 s."""
        if self._traffic is None:
            raise RuntimeError("step before reset")
        place, heading, velocity, forward = self._drive(np.clip(np.asarray(action, np.float64), -1, 1))
        seen, ego = self._seen, self._ego
        step = self._traffic.step(seen)
        position, headings, velocities = seen.position.copy(), seen.heading.copy(), seen.velocity.copy()
        driven = seen.is_controlled
        position[driven], headings[driven], velocities[driven] = step.position, step.heading, step.velocity
        self._yaw_rate = float(wrap_angle(heading - float(seen.heading[ego]))) / DT
        position[ego, :2], headings[ego], velocities[ego] = place, heading, velocity
        self._seen = Observation.from_arrays(
            step.time,
            agent_id=seen.agent_id,
            kind=seen.kind,
            position=position,
            heading=headings,
            velocity=velocities,
            size=seen.size,
            is_controlled=driven,
            light_lane=seen.light_lane,
            light_stop=seen.light_stop,
            light_state=seen.light_state,
        )
        self._tick += 1
        touching = self._touches()
        crashed = bool((touching & ~self._touched).any())
        self._touched &= touching
        reward = forward + COLLISION_REWARD * crashed
        return self._observe(), float(reward), crashed, self._tick >= self._ticks, {"tick": self._tick}

    def close(self) -> None:
        """Let go of the traffic."""
        if self._traffic is not None:
            self._traffic.close()
            self._traffic = None

    def _drive(self, action: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, float]:
        """Return the ego's next centre, heading and velocity, and how far ahead [m] it went."""
        seen, ego = self._seen, self._ego
        heading: np.ndarray = seen.heading[ego].astype(np.float64)
        wanted = torch.zeros(1, 1, ACTION)
        wanted[0, 0, 0], wanted[0, 0, 1] = ACCELERATION * action[0], YAW_RATE * action[1]
        speed = rotate(seen.velocity[ego].astype(np.float64), -heading)
        kind, length = torch.tensor([int(seen.kind[ego])]), torch.from_numpy(seen.size[[ego], 0])
        side = speed[1] if seen.kind[ego] == AgentKind.PEDESTRIAN else 0.0
        motion = decode(wanted, torch.tensor([[speed[0], side]], dtype=torch.float32), kind, length)
        local = motion.position[0, 0].numpy().astype(np.float64)
        pace = rotate(motion.velocity[0, 0].numpy().astype(np.float64), heading)
        place = to_world(local, seen.position[ego, :2], heading)
        return place, float(heading) + float(motion.heading[0, 0]), pace, float(local[0])

    def _touches(self) -> np.ndarray:
        """Return which agents the ego's box overlaps."""
        seen = self._seen
        hit: np.ndarray = overlaps(
            seen.position[None, :, None, :2],
            seen.heading[None, :, None].astype(np.float64),
            seen.size[None, :, :2].astype(np.float64),
            np.ones((1, len(seen), 1), bool),
        )[1][0, self._ego]
        return hit

    def _observe(self) -> dict[str, np.ndarray]:
        seen, ego = self._seen, self._ego
        centre, heading = seen.position[ego, :2], np.float64(seen.heading[ego])
        others = np.flatnonzero(np.arange(len(seen)) != ego)
        place = to_local(seen.position[others, :2], centre, heading)
        turn = seen.heading[others] - heading
        pace = rotate(seen.velocity[others].astype(np.float64), -heading)
        agents = np.concatenate([place, np.cos(turn)[:, None], np.sin(turn)[:, None], pace, seen.size[others, :2]], -1)
        spots = to_local(self._lanes, centre, heading)
        angle = self._directions - heading
        lanes = np.concatenate([spots, np.cos(angle)[:, None], np.sin(angle)[:, None]], -1)
        own = [float(np.linalg.norm(seen.velocity[ego])), self._yaw_rate]
        return {
            "ego": np.array(own, np.float32),
            "agents": _nearest(agents, AGENTS),
            "lanes": _nearest(lanes, LANES),
        }


def _nearest(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the rows nearest to the origin with a last column of ones, filled up with zeros."""
    order = np.argsort(np.linalg.norm(rows[:, :2], axis=-1), kind="stable")[:count]
    found = np.pad(rows[order], ((0, 0), (0, 1)), constant_values=1.0)
    return np.clip(np.pad(found, ((0, count - len(order)), (0, 0))), -SIGHT, SIGHT).astype(np.float32)


gymnasium.register("TrajDiffusion-v0", entry_point=TrajDiffusionEnv)
