"""R worlds side by side: their recent past, how they are asked about, and how they advance by one step."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from traj_diffusion.errors import BadScene
from traj_diffusion.scene import Plan, Scene, WorldState


@dataclass
class Worlds:
    """The H most recent steps of R worlds that share agents and signals. `advance` moves all of them on by one step."""

    state: WorldState

    @classmethod
    def at_current_index(cls, scene: Scene, worlds: int, history_steps: int) -> "Worlds":
        """Return R equal worlds as the scene is at its current index, with the history that was recorded.

        Only agents that are valid now take part. Steps before the recording are marked invalid, never invented.
        """
        rows = scene.sim_agents
        if not len(rows):
            raise BadScene(
                f"scene {scene.id}: no agent is valid at its current index {scene.current_index}, nobody to simulate"
            )
        agents, lights, now = scene.agents, scene.lights, scene.current_index
        first = max(now + 1 - history_steps, 0)
        missing = history_steps - (now + 1 - first)

        def past(values: np.ndarray) -> np.ndarray:
            recent = np.pad(values[rows, first : now + 1], ((0, 0), (missing, 0), *((0, 0),) * (values.ndim - 2)))
            return np.repeat(recent[None], worlds, axis=0)

        stop, state, observed = lights.last_seen(now)
        return cls(
            WorldState(
                agent_id=agents.id[rows],
                kind=agents.kind[rows],
                size=agents.size[rows, now],
                position=past(agents.position),
                heading=past(agents.heading),
                velocity=past(agents.velocity),
                valid=past(agents.valid),
                light_lane=lights.lane_id,
                light_stop=stop,
                light_state=np.repeat(state[None], worlds, axis=0),
                light_observed=np.repeat(observed[None], worlds, axis=0),
                dt=scene.dt,
            )
        )

    def advance(
        self,
        position: Float64[np.ndarray, "R A 3"],
        heading: Float32[np.ndarray, "R A"],
        velocity: Float32[np.ndarray, "R A 2"],
        valid: Bool[np.ndarray, "R A"],
        light_state: UInt8[np.ndarray, "R S"],
        light_observed: Bool[np.ndarray, "R S"],
    ) -> None:
        """Append the next step and forget the oldest."""
        old = self.state

        def shifted(past: np.ndarray, new: np.ndarray) -> np.ndarray:
            return np.concatenate([past[:, :, 1:], new[:, :, None]], axis=2)

        self.state = WorldState(
            agent_id=old.agent_id,
            kind=old.kind,
            size=old.size,
            position=shifted(old.position, position),
            heading=shifted(old.heading, heading),
            velocity=shifted(old.velocity, velocity),
            valid=shifted(old.valid, valid),
            light_lane=old.light_lane,
            light_stop=old.light_stop,
            light_state=light_state,
            light_observed=light_observed,
            dt=old.dt,
        )


def take(
    plan: Plan, future: Int32[np.ndarray, " R"], step: int
) -> tuple[Float64[np.ndarray, "R A 3"], Float32[np.ndarray, "R A"], Float32[np.ndarray, "R A 2"]]:
    """Return all agents' states at one step of the future that each world follows."""
    worlds: Int64[np.ndarray, " R"] = np.arange(len(future))
    return (
        plan.position[worlds, future, :, step],
        plan.heading[worlds, future, :, step],
        plan.velocity[worlds, future, :, step],
    )
