"""The worlds of a TorchDriveSim batch, each with its traffic: tensors in, tensors out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from traj_diffusion.errors import HostError
from traj_diffusion.scene import AgentKind, LightState, Map, Observation
from traj_diffusion.sim_adapter.episode import JUMP_FACTOR, JUMP_METRES
from traj_diffusion.sim_adapter.hosts.torchdrivesim_map import STATES, Signal, lanelet_map, signals
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

KINDS = {
    "pedestrian": AgentKind.PEDESTRIAN,
    "bicycle": AgentKind.CYCLIST,
    "cyclist": AgentKind.CYCLIST,
    "bicyclist": AgentKind.CYCLIST,
}  # all others are vehicles
HEIGHT = 1.6  # m; TorchDriveSim has none
SLOTS = 1 << 20  # ids of one world, of one entry of an agent into it


@dataclass(frozen=True)
class World:
    """One world of the batch. Whoever enters a slot anew, or is put elsewhere, is somebody new: `entry` counts them."""

    traffic: TrafficModel
    number: int
    roads: Map | None
    signals: tuple[Signal, ...]
    mirror: np.ndarray
    entry: np.ndarray
    there: np.ndarray  # in the tick before
    put: np.ndarray  # [A, 2] where they were after it

    def advance(
        self,
        time: float,
        kinds: np.ndarray,
        sizes: np.ndarray,
        states: np.ndarray,
        present: np.ndarray,
        driven: np.ndarray,
        lights: Sequence[LightState],
    ) -> tuple["World", np.ndarray]:
        """Return the world and all states one step later; those of agents that are not driven, or absent, are kept."""
        began = self.there.shape == present.shape
        entry = self.entry if began else np.zeros(len(present), np.int64)
        if began:
            moved = np.linalg.norm(states[:, :2] - self.put, axis=-1)
            elsewhere = moved > JUMP_METRES + JUMP_FACTOR * np.abs(states[:, 3]) * self.traffic.dt
            entry = entry + (present & (elsewhere | ~self.there))
        rows = np.flatnonzero(present)
        heading = states[rows, 2] * self.mirror[1]
        facing = np.stack([np.cos(heading), np.sin(heading)], -1)
        seen = Observation.from_arrays(
            time,
            agent_id=(self.number * SLOTS + entry[rows]) * SLOTS + rows,
            kind=kinds[rows],
            position=states[rows, :2] * self.mirror,
            heading=heading,
            velocity=states[rows, 3:4] * facing,
            size=np.concatenate([sizes[rows], np.full((len(rows), 1), HEIGHT)], -1),
            is_controlled=driven[rows],
            light_lane=[one.lane for one in self.signals],
            light_stop=np.array([one.stop for one in self.signals]).reshape(-1, 3),
            light_state=[lights[one.light] for one in self.signals],
        )
        traffic = self.traffic.fork()
        if not began:
            traffic.reset(self.roads, seen)
        step = traffic.step(seen)
        after, at = states.copy(), step.agent_id % SLOTS
        facing = np.stack([np.cos(step.heading), np.sin(step.heading)], -1)
        after[at, :2] = step.position[:, :2] * self.mirror
        after[at, 2] = step.heading * self.mirror[1]
        after[at, 3] = (step.velocity * facing).sum(-1)
        return replace(self, traffic=traffic, entry=entry, there=present, put=after[:, :2]), after


class Worlds:
    """The worlds of a simulator, made when it is first looked at. Copies go on by themselves, with the same noise."""

    def __init__(self, traffic: TrafficModel, roads: Map | None = None) -> None:
        self._traffic, self._roads = traffic, roads
        self._worlds: list[World] = []

    def advance(
        self,
        simulator: Any,
        time_step: int,
        dt: float,
        kinds: Tensor,
        sizes: Tensor,
        states: Tensor,
        present: Tensor,
        driven: Tensor,
    ) -> Tensor:
        """Return the states [B, A, 4] of all agents one step after `time_step`. If one world is refused, all stay.

        `simulator` is the innermost one; `kinds` [B, A] are AgentKinds, `driven` [B, A] says who is the traffic's.
        """
        if abs(dt - self._traffic.dt) > 1e-9:
            raise HostError(f"TorchDriveSim steps by {dt} s and the traffic model by {self._traffic.dt} s; use dt={dt}")
        worlds = self._worlds or [self._world(simulator, number) for number in range(states.shape[0])]
        lights = _lights(simulator)
        sight = [part.detach().cpu().numpy() for part in (kinds, sizes, states, present, driven)]
        done = []
        for b, world in enumerate(worlds):
            kind, size, state, there, ours = (part[b] for part in sight)
            shown = lights[b] if lights else []
            done.append(world.advance(time_step * dt, kind, size, state, there, ours, shown))
        self._worlds = [world for world, _ in done]
        return torch.from_numpy(np.stack([after for _, after in done])).to(states)

    def chosen(self, index: list[int]) -> "Worlds":
        """Return the worlds of those numbers, which may repeat; each goes on by itself."""
        other = Worlds(self._traffic, self._roads)
        other._worlds = [self._worlds[b] for b in index] if self._worlds else []
        return other

    def _world(self, simulator: Any, number: int) -> World:
        mirror = np.array([1.0, -1.0 if simulator.cfg.left_handed_coordinates else 1.0])
        roads, known = self._roads, simulator.lanelet_map
        if roads is None and known is not None and known[number] is not None:
            shift = simulator.recenter_offset
            roads = lanelet_map(known[number], mirror, np.zeros(2) if shift is None else shift[number].cpu().numpy())
        control = (simulator.traffic_controls or {}).get("traffic_light")
        found: list[Signal] = []
        if roads is not None and control is not None:
            lines = control.pos[number].cpu().numpy().astype(np.float64)
            found = signals(
                roads, [line for line, there in zip(lines, control.mask[number].tolist(), strict=True) if there], mirror
            )
        nobody = np.zeros(0, bool)
        return World(
            self._traffic, number, roads, tuple(found), mirror, nobody.astype(np.int64), nobody, np.zeros((0, 2))
        )


def _lights(simulator: Any) -> list[list[LightState]]:
    """Return what each light of each world shows."""
    control = (simulator.traffic_controls or {}).get("traffic_light")
    if control is None:
        return []
    names = [STATES.get(name, LightState.UNKNOWN) for name in control.allowed_states]
    return [[names[int(one)] for one in row] for row in control.state.tolist()]
