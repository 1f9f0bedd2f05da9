"""SUMO: chosen vehicles, bicycles and pedestrians of a running simulation are driven by a TrafficModel."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from traj_diffusion.datasets.synthesis.tools import require_libsumo
from traj_diffusion.errors import HostError, MissingExtra
from traj_diffusion.scene import Csr, Observation, Origin, Routes, Step
from traj_diffusion.sim_adapter.episode import JUMP_FACTOR, JUMP_METRES
from traj_diffusion.sim_adapter.hosts.sumo_view import Body, SumoView, agent_id
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

NEAREST_LANE, FREE_PLACEMENT = 0, 2  # moveToXY's keepRoute: on the network, or anywhere
BY_ITSELF = {"speed": 31, "lane_change": 1621}  # SUMO's own defaults for setSpeedMode and setLaneChangeMode
AT_END = 1.0  # m before the end of its last lane at which a vehicle has arrived
AT_GOAL = 3.0  # m from the end of its walk at which a pedestrian has arrived
OUTSIDE = 30.0  # m beyond the network's bounds
ASIDE = 2.0  # m beside its lane from which SUMO does not walk a pedestrian on
ARRIVED = 2  # vehicle.remove's reason


class _Taken(NamedTuple):
    """Somebody who is driven: the edge where a vehicle's route ends, or the point where a walk does."""

    walks: bool
    target: str = ""
    goal: tuple[float, float] = (np.inf, np.inf)


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
    is released. Everyone else stays SUMO's and is context. Signals reach the model as conditioning, and so do the
    routes of driven vehicles. The network's file must be the one that SUMO runs.

    A vehicle leaves where its route ends or the network does, a pedestrian where its walk ends (further stages are
    SUMO's). A move that SUMO refuses is a warning in the step, and so is one whom SUMO puts elsewhere (a teleport):
    he is out of the model's sight for that tick. What SUMO crashes under is refused (HostError):
    `--lateral-resolution`, and pedestrians that are driven without `--pedestrian.model nonInteracting`. Closing gives
    everyone back and closes the traffic model, but not SUMO.
    """

    def __init__(
        self,
        traffic: TrafficModel,
        connection: Any,
        net_file: str | Path,
        vehicles: Callable[[str], bool] | Iterable[str],
    ) -> None:
        self._sumo = connection if connection is not None else require_libsumo()
        self._error = _exceptions(self._sumo)
        self.traffic = traffic
        if isinstance(vehicles, str):
            raise ValueError(f"vehicles must be several names or a function, not one string: {vehicles!r}")
        self._wanted: Callable[[str], bool] = vehicles if callable(vehicles) else frozenset(vehicles).__contains__
        self._refuse_settings()
        self.view = SumoView(self._sumo, net_file)
        network = self.view.network
        self._last_edges = {edge for edge, ends in network.ends.items() if ends[1] in network.dead_ends}
        low, high = self._sumo.simulation.getNetBoundary()
        self._low, self._high = np.array(low[:2]) - OUTSIDE, np.array(high[:2]) + OUTSIDE
        self._taken: dict[str, _Taken] = {}
        self._left: dict[str, float] = {}  # m that are left of the edge where a vehicle's way ends
        self._given_back: set[str] = set()
        self._driven: dict[int, str] = {}
        self._seen: dict[int, Body] = {}
        self._velocity: dict[str, tuple[float, float]] = {}
        self._elsewhere: list[str] = []
        self._began = False
        self._unstepped = False  # whether somebody was put back and SUMO has not stepped since

    @property
    def driven(self) -> frozenset[str]:
        """Names of those that are driven now."""
        return frozenset(self._taken)

    def step(self) -> Step:
        """Show the model what is there, place its agents where it says, and let SUMO advance by one step.

        Raises HostError if SUMO ends or the model refuses what SUMO shows.
        """
        try:
            self._leave()
            observation = self.observe()
            if not self._began:
                self.traffic.reset(self.view.roads.features, observation)
                self._began = True
            step = self.traffic.step(observation)
            warnings = (*step.warnings, *self._elsewhere, *self._place(step))
            self._sumo.simulationStep()
            self._unstepped = False
        except self._error as error:
            raise HostError(f"SUMO refused or stopped: {error}") from error
        return replace(step, warnings=warnings)

    def observe(self) -> Observation:
        """Return everyone in the simulation in our terms. Takes over those that are wanted and new."""
        bodies = {agent_id(body.name, body.walks): body for body in self.view.bodies()}
        for body in bodies.values():
            self._take(body)
        jumped = {one for one, body in bodies.items() if self._jumped(self._seen.get(one), body)}
        self._elsewhere = [f"SUMO has put {bodies[one].name!r} elsewhere" for one in sorted(jumped)]
        self._seen = bodies
        shown = {one: body for one, body in bodies.items() if one not in jumped}
        self._driven = {one: body.name for one, body in shown.items() if self._drives(body)}
        ways = [self.view.way(b.name) if self._drives(b) and not b.walks else [] for b in shown.values()]
        return Observation.from_arrays(
            float(self._sumo.simulation.getTime()),
            agent_id=list(shown),
            kind=[body.kind for body in shown.values()],
            position=[body.centre for body in shown.values()],
            heading=[body.heading for body in shown.values()],
            velocity=[self._pace(body) for body in shown.values()],
            size=[body.size for body in shown.values()],
            is_controlled=[one in self._driven for one in shown],
            light_lane=self.view.light_lane,
            light_stop=self.view.light_stop,
            light_state=self.view.light_states(),
            routes=Routes(
                Csr.from_lists(ways), np.array([Origin.RECORDED if way else Origin.ABSENT for way in ways], np.uint8)
            ),
        )

    def release(self, name: str) -> None:
        """Give a vehicle or pedestrian back to SUMO, for good: its own driver, its own way to where its route ended.

        Who is beside the network is put on its nearest lane, since SUMO would take him out or never move him again.
        """
        if name not in self._taken:
            raise ValueError(f"{name!r} is not driven, so it cannot be released; driven: {sorted(self._taken)[:10]}")
        taken = self._taken[name]
        self._forget(name)
        self._given_back.add(name)
        if name not in (self._sumo.person if taken.walks else self._sumo.vehicle).getIDList():
            return
        try:
            if taken.walks:
                self._give_back_walker(name)
            else:
                self._give_back_vehicle(name, taken.target)
        except self._error as error:
            raise HostError(f"SUMO finds no way for {name!r} to its target {taken.target!r}: {error}") from error

    def close(self) -> None:
        """Give everyone back that is still there and close the traffic model. SUMO goes on.

        Where somebody had to be put back onto the network, SUMO takes one step more: a libsumo that is closed before it
        has carried out such a move crashes (segmentation fault) in the next simulation of the process.
        """
        failures: tuple[type[Exception], ...] = (HostError, *self._error)
        for name in sorted(self._taken):
            try:
                self.release(name)
            except failures:  # SUMO may have ended, or a vehicle stands where no way leads on
                self._forget(name)
        if self._unstepped:
            with suppress(*failures):
                self._sumo.simulationStep()
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

    def _drives(self, body: Body) -> bool:
        taken = self._taken.get(body.name)
        return taken is not None and taken.walks == body.walks

    def _pace(self, body: Body) -> tuple[float, float]:
        own = self._velocity.get(body.name) if self._drives(body) else None
        return own or (body.speed * float(np.cos(body.heading)), body.speed * float(np.sin(body.heading)))

    def _jumped(self, before: Body | None, now: Body) -> bool:
        """Return whether a body is where no driving leads: what TrafficModel takes for a jump."""
        if before is None:
            return False
        went = np.hypot(now.centre[0] - before.centre[0], now.centre[1] - before.centre[1])
        pace = float(np.hypot(*self._pace(now)))
        return bool(went > JUMP_METRES + JUMP_FACTOR * max(pace, before.speed) * self.traffic.dt)

    def _take(self, body: Body) -> None:
        name = body.name
        if name in self._taken or name in self._given_back or not self._wanted(name):
            return
        if body.walks:
            if self._sumo.simulation.getOption("pedestrian.model") != "nonInteracting":
                raise HostError(
                    f"SUMO crashes when pedestrians such as {name!r} are placed under its striping model; "
                    "start it with --pedestrian.model nonInteracting, or drive vehicles only"
                )
            stage = self._sumo.person.getStage(name, 0)
            goal = self._sumo.simulation.convert2D(stage.edges[-1], stage.arrivalPos) if stage.edges else (np.inf,) * 2
            self._taken[name] = _Taken(True, goal=(float(goal[0]), float(goal[1])))
            return
        self._taken[name] = _Taken(False, self.view.target(name))
        self._sumo.vehicle.setSpeedMode(name, 0)
        self._sumo.vehicle.setLaneChangeMode(name, 0)

    def _place(self, step: Step) -> list[str]:
        warnings = []
        for agent, place, heading, velocity in zip(
            step.agent_id.tolist(), step.position.tolist(), step.heading.tolist(), step.velocity.tolist(), strict=True
        ):
            name, body = self._driven[agent], self._seen[agent]
            angle = float(np.rad2deg(np.pi / 2 - heading) % 360)
            try:
                if body.walks:
                    self._sumo.person.moveToXY(name, "", place[0], place[1], angle, FREE_PLACEMENT)
                else:
                    half = body.size[0] / 2
                    x, y = place[0] + half * float(np.cos(heading)), place[1] + half * float(np.sin(heading))
                    self._sumo.vehicle.moveToXY(name, "", -1, x, y, angle, FREE_PLACEMENT)
                # SUMO caps the speed that it reports by the limit of lane and vehicle; the model's own is exact.
                self._velocity[name] = velocity[0], velocity[1]
            except self._error as error:
                self._velocity.pop(name, None)
                warnings.append(f"SUMO refused to move {name!r} at {step.time - self.traffic.dt:.2f} s: {error}")
        return warnings

    def _leave(self) -> None:
        """Forget who is gone, and take those out of the simulation whose way ends here."""
        vehicle, person = self._sumo.vehicle, self._sumo.person
        there = {False: set(vehicle.getIDList()), True: set(person.getIDList())}
        self._given_back &= there[False] | there[True]
        for name, taken in sorted(self._taken.items()):
            if name not in there[taken.walks]:
                self._forget(name)
            elif taken.walks and self._has_walked(name, taken.goal):
                person.removeStage(name, 0)
                self._forget(name)
                self._given_back.add(name)
            elif not taken.walks and self._has_arrived(name, taken.target):
                vehicle.remove(name, ARRIVED)
                self._forget(name)
                self._given_back.add(name)  # SUMO takes it out at its next step

    def _outside(self, place: np.ndarray) -> bool:
        return bool((place < self._low).any() or (place > self._high).any()) and bool(place[0] > -1e8)

    def _has_walked(self, name: str, goal: tuple[float, float]) -> bool:
        place = np.array(self._sumo.person.getPosition(name))
        return self._outside(place) or bool(np.hypot(*(place - goal)) <= AT_GOAL)

    def _has_arrived(self, name: str, target: str) -> bool:
        vehicle = self._sumo.vehicle
        if self._outside(np.array(vehicle.getPosition(name))):
            return True
        edge, lane = vehicle.getRoadID(name), vehicle.getLaneID(name)
        if lane and (edge == target or edge in self._last_edges):
            self._left[name] = float(self._sumo.lane.getLength(lane) - vehicle.getLanePosition(name))
            return self._left[name] <= AT_END
        # Beyond the end of the edge, or beside it?
        return bool(self._left.pop(name, np.inf) <= AT_END + 2 * vehicle.getSpeed(name) * self.traffic.dt)

    def _give_back_vehicle(self, name: str, target: str) -> None:
        vehicle = self._sumo.vehicle
        vehicle.setSpeedMode(name, BY_ITSELF["speed"])
        vehicle.setLaneChangeMode(name, BY_ITSELF["lane_change"])
        vehicle.setSpeed(name, -1)
        if not vehicle.getLaneID(name):
            x, y = vehicle.getPosition(name)
            vehicle.moveToXY(name, "", -1, x, y, vehicle.getAngle(name), NEAREST_LANE)
            self._unstepped = True
        vehicle.changeTarget(name, target)

    def _give_back_walker(self, name: str) -> None:
        person = self._sumo.person
        place, lane = person.getPosition(name), person.getLaneID(name)
        aside = float("inf")
        if lane:
            edge, index = lane.rsplit("_", 1)
            at = self._sumo.simulation.convert2D(edge, person.getLanePosition(name), int(index))
            aside = float(np.hypot(place[0] - at[0], place[1] - at[1])) - self._sumo.lane.getWidth(lane) / 2
        if aside > ASIDE:
            person.moveToXY(name, "", place[0], place[1], person.getAngle(name), NEAREST_LANE)
            self._unstepped = True

    def _forget(self, name: str) -> None:
        self._taken.pop(name, None)
        self._velocity.pop(name, None)
        self._left.pop(name, None)


def _exceptions(connection: Any) -> tuple[type[Exception], ...]:
    """Return the classes of what this connection raises; traci's connections do not name them."""
    known = tuple(getattr(connection, name, None) for name in ("TraCIException", "FatalTraCIError"))
    if all(known):
        return tuple(kind for kind in known if kind is not None)
    try:
        from traci.exceptions import FatalTraCIError, TraCIException
    except ImportError:
        raise MissingExtra("traci", "sumo") from None
    return TraCIException, FatalTraCIError
