"""SUMO: chosen vehicles, bicycles and pedestrians of a running simulation are driven by a TrafficModel.

SUMO counts differently, and this is the one place that knows: a vehicle's position is the middle of its front bumper
(a pedestrian's is its centre), angles are degrees clockwise from north, names are text.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from traj_diffusion.datasets.synthesis.network import read_network
from traj_diffusion.datasets.synthesis.record import STATES
from traj_diffusion.datasets.synthesis.roadmap import build_map, drivable_area
from traj_diffusion.datasets.synthesis.tools import require_libsumo
from traj_diffusion.errors import HostError, MissingExtra
from traj_diffusion.scene import AgentKind, LightState, Observation, Step
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

FREE_PLACEMENT = 2  # moveToXY's keepRoute: anywhere, on or off the route
BY_ITSELF = {"speed": 31, "lane_change": 1621}  # SUMO's own defaults for setSpeedMode and setLaneChangeMode
INVALID = -1e8  # SUMO's mark for "no position" is -2^30
AT_END = 1.0  # m before the end of its last lane at which a vehicle has arrived
OUTSIDE = 30.0  # m beyond the network's bounds
ARRIVED = 2  # vehicle.remove's reason


class _Body(NamedTuple):
    """One vehicle or pedestrian in our terms."""

    name: str
    walks: bool
    kind: AgentKind
    centre: tuple[float, float]
    heading: float
    speed: float
    size: tuple[float, float, float]


class SumoTraffic:
    """Drives chosen vehicles and pedestrians of a running SUMO; one `step` advances the simulation by one step.

    ```
    libsumo.start(["sumo", "-c", "town.sumocfg", "--step-length", "0.1", "--time-to-teleport", "-1"])
    with SumoTraffic(TrafficModel(policy), libsumo, "town.net.xml", vehicles=["car0", "car1"]) as traffic:
        while running:
            step = traffic.step()
    ```

    `connection` is the module libsumo (None finds it) or traci, or a connection of traci's. `vehicles` are the names to
    take over, or a function that says of each name whether to; a name is taken when it appears, until it arrives or
    is released. Everyone else stays SUMO's and is context. Signals reach the model as conditioning. The network's file
    must be the one that SUMO runs.

    A vehicle leaves where its route ends or the network does. A move that SUMO refuses is a warning in the step, and so
    is a driven vehicle that SUMO teleports. `--lateral-resolution` is refused (HostError), since SUMO crashes
    when vehicles are placed under it. Closing gives everyone back and closes the traffic model, but not SUMO.
    """

    def __init__(
        self,
        traffic: TrafficModel,
        connection: Any,
        net_file: str | Path,
        vehicles: Callable[[str], bool] | Iterable[str],
    ) -> None:
        self._sumo = connection if connection is not None else require_libsumo()
        self._error = _exception(self._sumo)
        self.traffic = traffic
        if isinstance(vehicles, str):
            raise ValueError(f"vehicles must be several names or a function, not one string: {vehicles!r}")
        self._wanted: Callable[[str], bool] = vehicles if callable(vehicles) else frozenset(vehicles).__contains__
        self._refuse_settings()
        network = read_network(Path(net_file))
        self._roads = build_map(network, drivable_area(network))
        self._dead_ends = network.dead_ends
        self._ends = {edge: ends[1] for edge, ends in network.ends.items()}
        self._lights = [light for light in self._roads.signals if light.program in self._sumo.trafficlight.getIDList()]
        low, high = self._sumo.simulation.getNetBoundary()
        self._low, self._high = np.array(low[:2]) - OUTSIDE, np.array(high[:2]) + OUTSIDE
        self._taken: dict[str, str] = {}  # name -> the edge where its route ends; "" for pedestrians
        self._left: dict[str, float] = {}  # m that are left of the edge where a vehicle's way ends
        self._given_back: set[str] = set()
        self._driven: dict[int, tuple[str, bool]] = {}
        self._velocity: dict[str, tuple[float, float]] = {}
        self._began = False

    @property
    def driven(self) -> frozenset[str]:
        """Names of those that are driven now."""
        return frozenset(self._taken)

    def step(self) -> Step:
        """Show the model what is there, place its agents where it says, and let SUMO advance by one step.

        Raises HostError if SUMO ends or the model refuses what SUMO shows.
        """
        try:
            warnings = self._leave()
            observation = self.observe()
            if not self._began:
                self.traffic.reset(self._roads.features, observation)
                self._began = True
            step = self.traffic.step(observation)
            warnings += self._place(step, observation)
            self._sumo.simulationStep()
        except self._error as error:
            raise HostError(f"SUMO refused or stopped: {error}") from error
        return replace(step, warnings=(*step.warnings, *warnings))

    def observe(self) -> Observation:
        """Return everyone in the simulation in our terms. Takes over those that are wanted and new."""
        bodies = [*self._vehicles(), *self._pedestrians()]
        bodies = [body for body in bodies if body.centre[0] > INVALID]
        ids = [agent_id(body.name, body.walks) for body in bodies]
        self._driven = {one: (b.name, b.walks) for one, b in zip(ids, bodies, strict=True) if b.name in self._taken}
        velocity = [
            self._velocity.get(b.name, (b.speed * np.cos(b.heading), b.speed * np.sin(b.heading))) for b in bodies
        ]
        shown = {light.program: "" for light in self._lights}
        for program in shown:
            shown[program] = self._sumo.trafficlight.getRedYellowGreenState(program)
        return Observation.from_arrays(
            float(self._sumo.simulation.getTime()),
            agent_id=ids,
            kind=[body.kind for body in bodies],
            position=[body.centre for body in bodies],
            heading=[body.heading for body in bodies],
            velocity=velocity,
            size=[body.size for body in bodies],
            is_controlled=[body.name in self._taken for body in bodies],
            light_lane=[self._roads.features.id[light.row] for light in self._lights],
            light_stop=[(*light.stop_point, 0.0) for light in self._lights],
            light_state=[STATES.get(shown[light.program][light.index], LightState.UNKNOWN) for light in self._lights],
        )

    def release(self, name: str) -> None:
        """Give a vehicle or pedestrian back to SUMO, for good: its own driver, its own way to where its route ended."""
        if name not in self._taken:
            raise ValueError(f"{name!r} is not driven, so it cannot be released; driven: {sorted(self._taken)[:10]}")
        target = self._taken[name]
        self._forget(name)
        self._given_back.add(name)
        vehicle = self._sumo.vehicle
        if target and name in vehicle.getIDList():
            vehicle.setSpeedMode(name, BY_ITSELF["speed"])
            vehicle.setLaneChangeMode(name, BY_ITSELF["lane_change"])
            vehicle.setSpeed(name, -1)
            try:
                vehicle.changeTarget(name, target)
            except self._error as error:
                raise HostError(f"SUMO finds no way for {name!r} to its target {target!r}: {error}") from error

    def close(self) -> None:
        """Give everyone back that is still there and close the traffic model. SUMO goes on."""
        for name in sorted(self._taken):
            try:
                self.release(name)
            except (HostError, self._error):  # SUMO may have ended, or a vehicle stands where no way leads on
                self._forget(name)
        self.traffic.close()

    def __enter__(self) -> "SumoTraffic":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _refuse_settings(self) -> None:
        if float(self._sumo.simulation.getOption("lateral-resolution")) > 0:
            raise HostError(
                "SUMO runs with --lateral-resolution, under which it crashes when vehicles are placed; start it without"
            )
        step = float(self._sumo.simulation.getDeltaT())
        if abs(step - self.traffic.dt) > 1e-9:
            raise HostError(f"SUMO steps by {step} s and the traffic model by {self.traffic.dt} s; use dt={step}")

    def _vehicles(self) -> list[_Body]:
        vehicle, found = self._sumo.vehicle, []
        for name in vehicle.getIDList():
            self._take(name, False)
            length, heading = vehicle.getLength(name), np.pi / 2 - np.deg2rad(vehicle.getAngle(name))
            x, y = vehicle.getPosition(name)
            centre = x - length / 2 * float(np.cos(heading)), y - length / 2 * float(np.sin(heading))
            kind = AgentKind.CYCLIST if vehicle.getVehicleClass(name) == "bicycle" else AgentKind.VEHICLE
            size = length, vehicle.getWidth(name), vehicle.getHeight(name)
            found.append(_Body(name, False, kind, centre, float(heading), vehicle.getSpeed(name), size))
        return found

    def _pedestrians(self) -> list[_Body]:
        person, found = self._sumo.person, []
        for name in person.getIDList():
            if person.getVehicle(name):
                continue  # sits in it
            self._take(name, True)
            heading = float(np.pi / 2 - np.deg2rad(person.getAngle(name)))
            size = person.getLength(name), person.getWidth(name), 1.7
            place, pace = person.getPosition(name), person.getSpeed(name)
            found.append(_Body(name, True, AgentKind.PEDESTRIAN, tuple(place), heading, pace, size))
        return found

    def _take(self, name: str, walks: bool) -> None:
        if name in self._taken or name in self._given_back or not self._wanted(name):
            return
        if walks:
            self._taken[name] = ""
            return
        self._taken[name] = self._sumo.vehicle.getRoute(name)[-1]
        self._sumo.vehicle.setSpeedMode(name, 0)
        self._sumo.vehicle.setLaneChangeMode(name, 0)

    def _place(self, step: Step, observation: Observation) -> list[str]:
        warnings = []
        lengths = dict(zip(observation.agent_id.tolist(), observation.size[:, 0].tolist(), strict=True))
        for agent, place, heading, velocity in zip(
            step.agent_id.tolist(), step.position, step.heading.tolist(), step.velocity.tolist(), strict=True
        ):
            name, walks = self._driven[agent]
            angle = float(np.rad2deg(np.pi / 2 - heading) % 360)
            try:
                if walks:
                    self._sumo.person.moveToXY(name, "", float(place[0]), float(place[1]), angle, FREE_PLACEMENT)
                else:
                    front = place[:2] + lengths[agent] / 2 * np.array([np.cos(heading), np.sin(heading)])
                    self._sumo.vehicle.moveToXY(name, "", -1, float(front[0]), float(front[1]), angle, FREE_PLACEMENT)
                # SUMO caps the speed that it reports by the limit of lane and vehicle; the model's own is exact.
                self._velocity[name] = velocity
            except self._error as error:
                self._velocity.pop(name, None)
                warnings.append(f"SUMO refused to move {name!r} at {observation.time:.2f} s: {error}")
        return warnings

    def _leave(self) -> list[str]:
        """Forget who is gone, and take those out of the simulation whose way ends here."""
        vehicle, person = self._sumo.vehicle, self._sumo.person
        there = {*vehicle.getIDList(), *person.getIDList()}
        teleporting = set(self._sumo.simulation.getStartingTeleportIDList())
        warnings = [f"SUMO teleports {name!r}" for name in sorted(teleporting & self._taken.keys())]
        for name in sorted(self._taken.keys() - there):
            self._forget(name)
        self._given_back &= there
        for name, target in sorted(self._taken.items()):
            if target and self._has_arrived(name, target):
                vehicle.remove(name, ARRIVED)
                self._forget(name)
                self._given_back.add(name)  # SUMO takes it out at its next step
        return warnings

    def _has_arrived(self, name: str, target: str) -> bool:
        vehicle = self._sumo.vehicle
        place = np.array(vehicle.getPosition(name))
        if (place < self._low).any() or (place > self._high).any():
            return bool(place[0] > INVALID)  # out of the network where no lane is
        edge, lane = vehicle.getRoadID(name), vehicle.getLaneID(name)
        if lane and (edge == target or self._ends.get(edge) in self._dead_ends):
            self._left[name] = float(self._sumo.lane.getLength(lane) - vehicle.getLanePosition(name))
            return self._left[name] <= AT_END
        # Beyond the end of the edge, or beside it?
        return bool(self._left.pop(name, np.inf) <= AT_END + 2 * vehicle.getSpeed(name) * self.traffic.dt)

    def _forget(self, name: str) -> None:
        self._taken.pop(name, None)
        self._velocity.pop(name, None)
        self._left.pop(name, None)


def agent_id(name: str, walks: bool = False) -> int:
    """Return the id of SUMO's vehicle or person of that name: the same in every run, so its noise is the same too."""
    digest = hashlib.blake2b(f"{'person' if walks else 'vehicle'} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _exception(connection: Any) -> type[Exception]:
    """Return the class of what this connection raises."""
    found: type[Exception] | None = getattr(connection, "TraCIException", None)
    if found is not None:
        return found
    try:
        from traci.exceptions import TraCIException
    except ImportError:
        raise MissingExtra("traci", "sumo") from None
    refused: type[Exception] = TraCIException
    return refused
