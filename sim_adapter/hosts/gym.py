"""Gymnasium: the user drives a scene's ego, a TrafficModel everyone else. Importing it registers `TrajDiffusion-v0`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from traj_diffusion.datasets import read_scenes
from traj_diffusion.errors import BadScene, MissingExtra
from traj_diffusion.policies import load_policy
from traj_diffusion.scene import Policy, Scene
from traj_diffusion.sim_adapter.hosts.learning import DT, SHAPES, SIGHT, Episode

try:
    import gymnasium
    from gymnasium import spaces
except ImportError:
    raise MissingExtra("gymnasium", "gym") from None


class TrajDiffusionEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """A recorded scene in which the agent of the reinforcement learner is the ego.

    `hosts/learning.py` says what an action is, what is seen and what is earned. A collision ends the episode; it is
    truncated after `seconds`. `scenes` (SCENES as commands take it, or scenes) are drawn from at each reset by the
    environment's seed; each needs an ego. `policy` drives everyone else; a name is loaded. Same seed and actions, same
    episode.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # Gymnasium's own declaration

    def __init__(
        self, scenes: str | Sequence[Scene] = "bundled", policy: str | Policy = "small", seconds: float = 20.0
    ) -> None:
        self._scenes = list(read_scenes(scenes) if isinstance(scenes, str) else scenes)
        for scene in self._scenes:
            if scene.ego is None or not scene.agents.valid[scene.ego, scene.current_index]:
                raise BadScene(f"scene {scene.id}: it has no ego that is valid now, so nobody can drive it")
        if not self._scenes:
            raise ValueError("scenes is empty; at least one scene is needed")
        self._policy = load_policy(policy) if isinstance(policy, str) else policy
        self._ticks = round(seconds / DT)
        self.observation_space = spaces.Dict(
            {name: spaces.Box(-SIGHT, SIGHT, shape, np.float32) for name, shape in SHAPES.items()}
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._episode: Episode | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode on a scene drawn by the seed, at its current index."""
        super().reset(seed=seed)
        self.close()
        scene = self._scenes[int(self.np_random.integers(len(self._scenes)))]
        assert scene.ego is not None
        self._ego, self._tick = int(scene.agents.id[scene.ego]), 0
        self._episode = Episode(scene, self._policy, int(self.np_random.integers(2**31)), [self._ego])
        return self._episode.observe(self._ego), {"scene": scene.id}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Advance by 0.1 s."""
        if self._episode is None:
            raise RuntimeError("step before reset")
        outcome = self._episode.step({self._ego: action})[self._ego]
        self._tick += 1
        over = self._tick >= self._ticks
        return self._episode.observe(self._ego), outcome.reward, outcome.crashed, over, {"tick": self._tick}

    def close(self) -> None:
        """Let go of the traffic."""
        if self._episode is not None:
            self._episode.close()
            self._episode = None


gymnasium.register("TrajDiffusion-v0", entry_point=TrajDiffusionEnv)
