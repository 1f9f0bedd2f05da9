"""TorchDriveSim: the NPCs of a simulator, of every world of its batch, are driven by a TrafficModel.

```
npcs = DrivenNPCs(TrafficModel(policy), npc_size, npc_state)          # TorchDriveSim's repository after release 0.2.3
simulator = Simulator(..., npc_controller=npcs)

simulator = DrivenWrapper(simulator, TrafficModel(policy), npc_mask)   # release 0.2.3, which has no NPCController
```

Positions are box centres, angles turn from x to y. Maps of CARLA are left-handed there, so their worlds are mirrored on
the x axis, both ways. The map is the simulator's `lanelet_map` (lanelet2 must be installed to have one), or the `roads`
that are given; the simulator's traffic lights are seen. `speed` is along the heading, so nobody slides.
"""

from typing import Any

import torch
from torch import Tensor

from traj_diffusion.errors import HostError, MissingExtra
from traj_diffusion.scene import AgentKind, Map
from traj_diffusion.sim_adapter.hosts.torchdrivesim_worlds import KINDS, Worlds
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

try:
    from torchdrivesim import simulator as simulators
except ImportError:
    raise MissingExtra("torchdrivesim", "torchdrivesim") from None

if hasattr(simulators, "NPCController"):

    class DrivenNPCs(simulators.NPCController):
        """An NPCController whose NPCs go where the traffic says; spawning and despawning are its SpawnController's."""

        def __init__(
            self,
            traffic: TrafficModel,
            npc_size: Tensor,
            npc_state: Tensor,
            npc_present_mask: Tensor | None = None,
            npc_types: Tensor | None = None,
            agent_type_names: list[str] | None = None,
            spawn_controller: Any = None,
            roads: Map | None = None,
        ) -> None:
            present = (
                torch.ones_like(npc_state[..., 0], dtype=torch.bool) if npc_present_mask is None else npc_present_mask
            )
            super().__init__(npc_size, npc_state, present, npc_types, agent_type_names, spawn_controller)
            self.traffic, self.worlds = traffic, Worlds(traffic, roads)

        def advance_npcs(self, simulator: Any) -> None:
            """Show the traffic the simulator before its step, and put the NPCs where it says after it."""
            own = simulator.agent_count
            states = simulator.get_all_agent_state()
            driven = torch.arange(states.shape[1]).expand(states.shape[:2]) >= own
            kinds = _kinds(self.agent_type_names)[simulator.get_all_agent_type().cpu()]
            sizes, present = simulator.get_all_agent_size(), simulator.get_all_agent_present_mask()
            time_step, dt = simulator.internal_time - 1, simulator.kinematic_model.dt  # it counts before it asks
            after = self.worlds.advance(simulator, time_step, dt, kinds, sizes, states, present, driven)
            self.npc_state = after[:, own:]
            self.spawn_despawn_npcs(simulator)

        def copy(self) -> "DrivenNPCs":
            """Return a controller that goes on by itself from here, with the same noise."""
            other = DrivenNPCs(
                self.traffic,
                self.npc_size,
                self.npc_state,
                self.npc_present_mask,
                self.npc_types,
                self.agent_type_names,
                self.spawn_controller.copy(),
            )
            other.worlds = self.worlds.chosen(list(range(len(self.npc_size))))
            return other

        def extend(self, n: int, in_place: bool = True) -> "DrivenNPCs":
            """Repeat each world n times."""
            one = self if in_place else self.copy()
            one.worlds = one.worlds.chosen([b for b in range(len(one.npc_size)) for _ in range(n)])
            super(DrivenNPCs, one).extend(n, in_place=True)
            return one

        def select_batch_elements(self, idx: Any, in_place: bool = True) -> "DrivenNPCs":
            """Keep those worlds."""
            one = self if in_place else self.copy()
            one.worlds = one.worlds.chosen(torch.arange(len(one.npc_size))[idx].tolist())
            super(DrivenNPCs, one).select_batch_elements(idx, in_place=True)
            return one


if hasattr(simulators, "NPCWrapper"):

    class DrivenWrapper(simulators.NPCWrapper):
        """An NPCWrapper whose NPCs, the agents of `npc_mask`, go where the traffic says."""

        def __init__(self, simulator: Any, traffic: TrafficModel, npc_mask: Any, roads: Map | None = None) -> None:
            super().__init__(simulator, npc_mask)
            self.traffic, self.worlds = traffic, Worlds(traffic, roads)
            self._after: Tensor | None = None

        def _get_npc_action(self) -> Any:
            """Look before the step; the actions are overridden by `_npc_teleport_to`."""
            inner, base = self.inner_simulator, self.get_innermost_simulator()
            kinds = self.across_agent_types(
                lambda size, index: _kinds(base.agent_types)[index.cpu()],
                inner.get_agent_size(),
                inner.get_agent_type(),
            )
            parts = [kinds, inner.get_agent_size(), inner.get_state(), inner.get_present_mask()]
            driven = self.across_agent_types(
                lambda mask, there: mask.expand_as(there), self.npc_mask, inner.get_present_mask()
            )
            steps = {model.dt for model in base.kinematic_model.values()}
            if len(steps) > 1:
                raise HostError(f"TorchDriveSim's kinematic models step by {sorted(steps)} s; one step is needed")
            together = [_joined(part) for part in (*parts, driven)]
            self._after = self.worlds.advance(base, base.internal_time, steps.pop(), *together)
            return super()._get_npc_action()

        def _npc_teleport_to(self) -> Any:
            """Return where the NPCs are after the step."""
            state = self.inner_simulator.get_state()
            assert self._after is not None  # `_get_npc_action` comes first
            if isinstance(state, Tensor):
                return self._after
            counts = [part.shape[1] for part in state.values()]
            return dict(zip(state, torch.split(self._after, counts, 1), strict=True))

        def copy(self) -> "DrivenWrapper":
            """Return a simulator that goes on by itself from here, with the same noise."""
            other = DrivenWrapper(self.inner_simulator.copy(), self.traffic, self.npc_mask)
            other.worlds = self.worlds.chosen(list(range(self.batch_size)))
            return other

        def extend(self, n: int, in_place: bool = True) -> "DrivenWrapper":
            """Repeat each world n times."""
            one = self if in_place else self.copy()
            one.worlds = one.worlds.chosen([b for b in range(one.batch_size) for _ in range(n)])
            one.inner_simulator.extend(n)
            return one

        def select_batch_elements(self, idx: Any, in_place: bool = True) -> "DrivenWrapper":
            """Keep those worlds."""
            one = self if in_place else self.copy()
            one.worlds = one.worlds.chosen(torch.arange(one.batch_size)[idx].tolist())
            one.inner_simulator.select_batch_elements(idx)
            return one


def __getattr__(name: str) -> Any:
    if name in ("DrivenNPCs", "DrivenWrapper"):
        base, other = ("NPCController", "DrivenWrapper") if name == "DrivenNPCs" else ("NPCWrapper", "DrivenNPCs")
        raise HostError(f"{name} needs {base}, which this TorchDriveSim has not; take {other}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _kinds(names: list[str] | None) -> Tensor:
    """Return the kind of each of TorchDriveSim's agent types."""
    return torch.tensor([int(KINDS.get(name, AgentKind.VEHICLE)) for name in names or ["vehicle"]])


def _joined(part: Any) -> Tensor:
    """Return what is one tensor per agent type as one."""
    return part if isinstance(part, Tensor) else torch.cat(list(part.values()), 1)
