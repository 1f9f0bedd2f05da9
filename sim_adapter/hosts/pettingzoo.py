"""PettingZoo: several learners drive agents of one scene, a TrafficModel everyone else."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from traj_diffusion.datasets import read_scenes
from traj_diffusion.errors import BadScene, MissingExtra
from traj_diffusion.policies import load_policy
from traj_diffusion.scene import AgentKind, Policy, Scene
from traj_diffusion.sim_adapter.hosts.learning import DT, SHAPES, SIGHT, Episode

try:
    from gymnasium import spaces
    from pettingzoo import ParallelEnv
except ImportError:
    raise MissingExtra("pettingzoo", "pettingzoo") from None


class TrafficParallelEnv(ParallelEnv[str, dict[str, np.ndarray], np.ndarray]):
    """A recorded scene in which `agent_0` to `agent_<n-1>` are learners: its ego, then the vehicles nearest to it.

    `hosts/learning.py` says what an action is, what is seen and what is earned. Who collides is done and taken out of
    the scene; everybody is truncated after `seconds`. `scenes` (SCENES as commands take it, or scenes) are drawn from
    at each reset by the seed; each needs that many vehicles. `policy` drives everyone else; a name is loaded. Same seed
    and actions, same episode.
    """

    metadata: dict[str, Any] = {"name": "traj_diffusion_v0", "render_modes": []}  # noqa: RUF012  # PettingZoo's own

    def __init__(
        self,
        scenes: str | Sequence[Scene] = "bundled",
        policy: str | Policy = "small",
        learners: int = 2,
        seconds: float = 20.0,
    ) -> None:
        self._scenes = list(read_scenes(scenes) if isinstance(scenes, str) else scenes)
        self._learners = [_learners(scene, learners) for scene in self._scenes]
        if not self._scenes:
            raise ValueError("scenes is empty; at least one scene is needed")
        self._policy = load_policy(policy) if isinstance(policy, str) else policy
        self._ticks = round(seconds / DT)
        self.possible_agents = [f"agent_{number}" for number in range(learners)]
        self.agents: list[str] = []
        self.render_mode = None
        seen = {name: spaces.Box(-SIGHT, SIGHT, shape, np.float32) for name, shape in SHAPES.items()}
        self.observation_spaces = {agent: spaces.Dict(seen) for agent in self.possible_agents}
        self.action_spaces = {agent: spaces.Box(-1.0, 1.0, (2,), np.float32) for agent in self.possible_agents}
        self._random = np.random.default_rng()
        self._episode: Episode | None = None

    def observation_space(self, agent: str) -> spaces.Space:
        """Return the space of what an agent sees."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        """Return the space of what an agent does."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, Any]]]:
        """Begin an episode on a scene drawn by the seed, at its current index."""
        self.close()
        if seed is not None:
            self._random = np.random.default_rng(seed)
        number = int(self._random.integers(len(self._scenes)))
        self.agents = self.possible_agents[:]
        self._id = dict(zip(self.agents, self._learners[number], strict=True))
        scene = self._scenes[number]
        self._episode = Episode(scene, self._policy, int(self._random.integers(2**31)), self._learners[number])
        self._tick = 0
        return self._observe(), {agent: {"scene": scene.id} for agent in self.agents}

    def step(
        self, actions: dict[str, np.ndarray]
    ) -> tuple[
        dict[str, dict[str, np.ndarray]],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Advance by 0.1 s."""
        if self._episode is None:
            raise RuntimeError("step before reset")
        agents = self.agents
        outcomes = self._episode.step({self._id[agent]: actions[agent] for agent in agents})
        self._tick += 1
        over = self._tick >= self._ticks
        found = {agent: outcomes[self._id[agent]] for agent in agents}
        seen = self._observe()
        for agent in agents:
            if found[agent].crashed:
                self._episode.remove(self._id[agent])
        self.agents = [agent for agent in agents if not (found[agent].crashed or over)]
        return (
            seen,
            {agent: found[agent].reward for agent in agents},
            {agent: found[agent].crashed for agent in agents},
            dict.fromkeys(agents, over),
            {agent: {"tick": self._tick} for agent in agents},
        )

    def close(self) -> None:
        """Let go of the traffic."""
        if self._episode is not None:
            self._episode.close()
            self._episode = None

    def _observe(self) -> dict[str, dict[str, np.ndarray]]:
        assert self._episode is not None
        return {agent: self._episode.observe(self._id[agent]) for agent in self.agents}


def _learners(scene: Scene, count: int) -> list[int]:
    """Return the ids of a scene's ego (its first vehicle where it has none) and of the vehicles nearest to it."""
    now = scene.current_index
    rows = [row for row in scene.sim_agents.tolist() if scene.agents.kind[row] == AgentKind.VEHICLE]
    if len(rows) < count or count < 1:
        raise BadScene(
            f"scene {scene.id}: {count} learners need as many vehicles that are valid now; it has {len(rows)}"
        )
    first = scene.ego if scene.ego in rows else rows[0]
    gap = np.linalg.norm(scene.agents.position[rows, now, :2] - scene.agents.position[first, now, :2], axis=-1)
    return [int(scene.agents.id[rows[place]]) for place in np.argsort(gap, kind="stable")[:count]]
