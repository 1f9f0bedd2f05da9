"""What can drive agents: the `Policy` protocol, and what passes between a policy and the loop that asks it.

A policy keeps no memory of an episode. All that it needs comes with each `PlanRequest`, and what it wants to know
the next time goes into `Plan.memory`; so forking and many worlds side by side need no care.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from traj_diffusion.scene.scene import Routes, Scene


@dataclass(frozen=True)
class WorldState:
    """What R worlds look like at one tick. The worlds share their agents and their signals, not their states.

    The H history steps end with the present one. Where `valid` is False an agent was not there, or not seen. `routes`
    are rows of the encoded map; where it says nothing of an agent, what the encoded scene said holds.
    """

    agent_id: Int64[np.ndarray, " A"]
    kind: UInt8[np.ndarray, " A"]
    size: Float32[np.ndarray, "A 3"]
    position: Float64[np.ndarray, "R A H 3"]
    heading: Float32[np.ndarray, "R A H"]
    velocity: Float32[np.ndarray, "R A H 2"]
    valid: Bool[np.ndarray, "R A H"]
    light_lane: Int64[np.ndarray, " S"]
    light_stop: Float64[np.ndarray, "S 3"]
    light_state: UInt8[np.ndarray, "R S"]
    light_observed: Bool[np.ndarray, "R S"]
    dt: float
    routes: Routes | None = None

    @property
    def worlds(self) -> int:
        """Number of worlds R."""
        return self.valid.shape[0]


@dataclass(frozen=True)
class Plan:
    """K joint futures of all agents of R worlds, F steps of `dt` from the tick they were sampled at (excluded)."""

    position: Float64[np.ndarray, "R K A F 3"]
    heading: Float32[np.ndarray, "R K A F"]
    velocity: Float32[np.ndarray, "R K A F 2"]
    log_weight: Float32[np.ndarray, "R K"]
    dt: float
    memory: Any = None


@dataclass(frozen=True)
class Given:
    """Futures that are settled beforehand: an ego's plan, a log, another controller's. Steps are those of the state.

    What stands where `valid` is False is not read; an agent's valid steps are the first ones, without a hole. F may
    differ from that of the plan that is asked for.
    """

    position: Float64[np.ndarray, "R K A F 3"]
    heading: Float32[np.ndarray, "R K A F"]
    velocity: Float32[np.ndarray, "R K A F 2"]
    valid: Bool[np.ndarray, "R K A F"]


@dataclass(frozen=True)
class PlanRequest:
    """One question to a policy: K joint futures from this state.

    Randomness is keyed by (seed, world, agent id, tick, future), so that more futures, worlds or workers leave the
    first ones as they were. `world` numbers the R worlds of this state among all that are run.

    Policies that can, sample futures that fit those `given`, start from the `previous` plan, whose future `followed`
    each world has been on, and take no more than `steps` denoising steps. A policy that knows steps tells how many it
    usually takes by an attribute `steps`; otherwise it is asked only for fewer futures when time is short.
    """

    context: Any
    state: WorldState
    futures: int
    tick: int
    seed: int
    world: Int32[np.ndarray, " R"]
    previous: Plan | None = None
    followed: Int32[np.ndarray, " R"] | None = None
    given: Given | None = None
    steps: int | None = None


@runtime_checkable
class Policy(Protocol):
    """Anything that can drive agents.

    `encode` is called once per map and may take long; `plan` is called at every replanning. Neither may change the
    policy. A plan covers every agent of the state, in its order; an agent whose present step is invalid may get any
    finite future. `plan` must not depend on anything but its request.
    """

    @property
    def name(self) -> str:
        """Short name for tables and provenance."""
        ...

    @property
    def history_steps(self) -> int:
        """How many steps of history a request must hold, the present one included."""
        ...

    def encode(self, scene: Scene) -> Any:
        """Return whatever the policy wants to remember of a scene: its map, the routes of its agents."""
        ...

    def plan(self, request: PlanRequest) -> Plan:
        """Return K joint futures."""
        ...
