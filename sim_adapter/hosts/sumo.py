"""SUMO: chosen vehicles, bicycles and pedestrians of a running simulation are driven by a TrafficModel."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from traj_diffusion.datasets.synthesis.tools import require_libsumo
from traj_diffusion.errors import HostError, MissingExtra
from traj_diffusion.scene import Csr, Observation, Origin, Routes, Step
from traj_diffusion.sim_adapter.episode import JUMP_FACTOR, JUMP_METRES
from traj_diffusion.sim_adapter.hosts.sumo_view import Crowd, SumoView
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

NEAREST_LANE, FREE_PLACEMENT = 0, 2  # moveToXY's keepRoute: on the network, or anywhere
SEARCHED = (
    25.0  # m around it in which SUMO looks for a lane to put somebody on; its own 100 m take it three times longer
)
OFF_LANES = 0.0  # m in which it looks for one for a pedestrian: on a lane SUMO 1.28 takes the next step of its own way
# from wherever somebody was put, and crashes where there is none
BY_ITSELF = {"speed": 31, "lane_change": 1621}  # SUMO's own defaults for setSpeedMode and setLaneChangeMode
AT_END = 1.0  # m before the end of its last lane at which a vehicle has arrived
AT_GOAL = 3.0  # m from the end of its walk at which a pedestrian has arrived
OUTSIDE = 30.0  # m beyond the network's bounds
FOOTWAYS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 14.0, 20.0, 30.0)  # m around somebody in which a footway is looked for
AROUND = np.linspace(0, 2 * np.pi, 8, endpoint=False)
ARRIVED = 2  # vehicle.remove's reason
WALKING = 2  # a stage's type


class _Taken(NamedTuple):
    """Somebody who is driven: the edge where a vehicle's route ends, or the point where a walk does."""

    walks: bool
    target: str = ""
    goal: tuple[float, float] = (np.inf, np.inf)


class _Walk(NamedTuple):
    """A pedestrian who is given back: where he begins anew, his way to where he was going, and what comes after."""

    kind: str
    edge: str
    at: float
    way: tuple[str, ...]
    arrival: float
    later: tuple[Any, ...]  # stages


class _Move(NamedTuple):
    """Where somebody is put, as SUMO counts: front bumper or a pedestrian's centre, degrees."""

    name: str
    walks: bool
    x: float
    y: float
    angle: float


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
    `--lateral-resolution`. Pedestrians can be driven under `--pedestrian.model striping` alone, SUMO's default, and are
    taken over where they walk and are not crossing a road. Closing gives everyone back and closes the traffic model,
    but not SUMO.
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
        self._driven: dict[int, tuple[str, bool, float]] = {}  # name, whether it walks, and half its length
        self._seen: Crowd | None = None
        self._velocity: dict[str, tuple[float, float]] = {}
        self._elsewhere: list[str] = []
        self._began = False
        self._walking_on: dict[str, _Walk] = {}  # pedestrians who were given back since SUMO's last step
        self._joining: dict[str, str] = {}  # targets of vehicles that were put back onto a lane since then
        self._departing: set[str] = set()  # pedestrians whom SUMO has not shown again yet
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
            crowd = self.view.crowd()
            self._leave(crowd)
            observation = self._observed(crowd)
            if not self._began:
                self.traffic.reset(self.view.roads.features, observation)
                self._began = True
            step = self.traffic.step(observation)
            warnings = (*step.warnings, *self._elsewhere, *self._place(step), *self._advance())
        except self._error as error:
            raise HostError(f"SUMO refused or stopped: {error}") from error
        return replace(step, warnings=warnings)

    def observe(self) -> Observation:
        """Return everyone in the simulation in our terms. Takes over those that are wanted and new."""
        return self._observed(self.view.crowd())

    def _observed(self, crowd: Crowd) -> Observation:
        walks = crowd.walks.tolist()
        for name, on_foot in zip(crowd.name, walks, strict=True):
            untouched = name not in self._taken and name not in self._given_back
            if untouched and self._wanted(name) and (not on_foot or self._walks_beside_roads(name)):
                self._take(name, on_foot)
        taken = [self._taken.get(name) for name in crowd.name]
        driven = [one is not None and one.walks == on_foot for one, on_foot in zip(taken, walks, strict=True)]
        velocity = crowd.speed[:, None] * np.stack([np.cos(crowd.heading), np.sin(crowd.heading)], -1)
        for row, name in enumerate(crowd.name):
            if driven[row] and name in self._velocity:
                velocity[row] = self._velocity[name]
        jumped = _jumped(self._seen, crowd, velocity, self.traffic.dt)
        self._seen = crowd
        elsewhere = sorted((crowd.agent_id[row], crowd.name[row]) for row in np.flatnonzero(jumped).tolist())
        self._elsewhere = [f"SUMO has put {name!r} elsewhere" for _, name in elsewhere]
        shown = np.flatnonzero(~jumped)
        rows = shown.tolist()
        half = np.where(crowd.walks, 0.0, crowd.size[:, 0] / 2).tolist()  # from its centre to what SUMO calls its place
        self._driven = {crowd.agent_id[row]: (crowd.name[row], walks[row], half[row]) for row in rows if driven[row]}
        ways = [
            self.view.way(crowd.name[row], crowd.lane[row], crowd.at[row])
            if driven[row] and not crowd.walks[row]
            else []
            for row in rows
        ]
        place = crowd.centre[shown]
        # As `from_arrays` would have it, but for its checks: the traffic model makes them.
        return Observation(
            time=float(self._sumo.simulation.getTime()),
            agent_id=np.array(crowd.agent_id, np.int64)[shown],
            kind=np.array(crowd.kind, np.uint8)[shown],
            position=np.hstack([place, np.zeros((len(place), 1))]),
            heading=crowd.heading[shown].astype(np.float32),
            velocity=velocity[shown].astype(np.float32),
            size=crowd.size[shown].astype(np.float32),
            is_controlled=np.array(driven, bool)[shown],
            light_lane=self.view.light_lane,
            light_stop=self.view.light_stop,
            light_state=self.view.light_states(),
            routes=Routes(
                Csr.from_lists(ways), np.array([Origin.RECORDED if way else Origin.ABSENT for way in ways], np.uint8)
            ),
        )

    def release(self, name: str) -> None:
        """Give a vehicle or pedestrian back to SUMO, for good: its own driver, its own way to where its route ended.

        A vehicle beside the network is put on its nearest lane, since SUMO would take it out. A pedestrian leaves the
        simulation in its next step and begins anew, on the nearest footway and with the rest of his stages: SUMO 1.28
        crashes when it is to walk somebody on whom it has put beside his way.
        """
        if name not in self._taken:
            raise ValueError(f"{name!r} is not driven, so it cannot be released; driven: {sorted(self._taken)[:10]}")
        taken = self._taken[name]
        try:
            if name in (self._sumo.person if taken.walks else self._sumo.vehicle).getIDList():
                if taken.walks:
                    self._give_back_walker(name)
                else:
                    self._give_back_vehicle(name, taken.target)
        except self._error as error:
            raise HostError(f"SUMO finds no way on for {name!r}: {error}") from error
        self._forget(name)
        self._given_back.add(name)

    def close(self) -> None:
        """Give everyone back that is still there and close the traffic model. SUMO goes on.

        Where somebody had to be put back onto the network, SUMO takes one step more: pedestrians are out of it for that
        long, and a libsumo that is closed before it has moved a vehicle so crashes (segmentation fault) in the next
        simulation of the process.
        """
        failures: tuple[type[Exception], ...] = (HostError, *self._error)
        for name in sorted(self._taken):
            try:
                self.release(name)
            except failures:  # SUMO may have ended, or a vehicle stands where no way leads on
                self._forget(name)
        if self._unstepped:
            with suppress(*failures):
                self._advance()
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

    def _take(self, name: str, walks: bool) -> None:
        if walks:
            model = self._sumo.simulation.getOption("pedestrian.model")
            if model != "striping":
                why = "SUMO takes no notice of where they are put" if model == "nonInteracting" else "it is untried"
                raise HostError(
                    f"pedestrians such as {name!r} cannot be driven under SUMO's --pedestrian.model {model}: {why}; "
                    "start SUMO with striping, its default, or drive vehicles only"
                )
            stage = self._sumo.person.getStage(name, 0)
            goal = self._sumo.simulation.convert2D(stage.edges[-1], stage.arrivalPos) if stage.edges else (np.inf,) * 2
            self._taken[name] = _Taken(True, goal=(float(goal[0]), float(goal[1])))
            return
        self._taken[name] = _Taken(False, self.view.target(name))
        self._sumo.vehicle.setSpeedMode(name, 0)
        self._sumo.vehicle.setLaneChangeMode(name, 0)

    def _walks_beside_roads(self, name: str) -> bool:
        """Return whether somebody walks, outside junctions. Taken over within one, SUMO's cars would wait for ever."""
        person = self._sumo.person
        return bool(person.getStage(name).type == WALKING) and not person.getRoadID(name).startswith(":")

    def _advance(self) -> list[str]:
        """Have SUMO take its step, and finish what was begun by giving somebody back. Returns warnings.

        Pedestrians are taken out in that step and added after it. A vehicle that joins a lane gets its way after it,
        when it is there: with a way that does not begin on that lane SUMO 1.28 crashes.
        """
        person, walking_on, joining = self._sumo.person, self._walking_on, self._joining
        self._walking_on, self._joining = {}, {}
        for name in walking_on:
            for later in reversed(range(person.getRemainingStages(name))):
                person.removeStage(name, later)
        self._sumo.simulationStep()
        self._unstepped = False
        for name, walk in walking_on.items():
            person.add(name, walk.edge, walk.at, typeID=walk.kind)
            person.appendWalkingStage(name, walk.way, walk.arrival)
            for stage in walk.later:
                person.appendStage(name, stage)
            self._departing.add(name)
        there = set(self._sumo.vehicle.getIDList()) if joining else set()
        warnings = []
        for name in sorted(joining.keys() & there):
            try:
                self._sumo.vehicle.changeTarget(name, joining[name])
            except self._error as error:
                warnings.append(f"SUMO finds no way on for {name!r}: {error}")
        return warnings

    def _place(self, step: Step) -> list[str]:
        heading = step.heading.astype(np.float64)
        angles = (np.rad2deg(np.pi / 2 - heading) % 360).tolist()
        ahead = np.stack([np.cos(heading), np.sin(heading)], -1).tolist()
        moves = []
        for agent, place, angle, (cos, sin) in zip(
            step.agent_id.tolist(), step.position.tolist(), angles, ahead, strict=True
        ):
            name, walks, half = self._driven[agent]
            moves.append(_Move(name, walks, place[0] + half * cos, place[1] + half * sin, angle))
        refused = self._move(moves)
        for name in refused:
            self._velocity.pop(name, None)
        # SUMO caps the speed that it reports by the limit of lane and vehicle; the model's own is exact.
        told = zip(moves, step.velocity.tolist(), strict=True)
        self._velocity.update((move.name, (vx, vy)) for move, (vx, vy) in told if move.name not in refused)
        now = step.time - self.traffic.dt
        return [f"SUMO refused to move {name!r} at {now:.2f} s: {error}" for name, error in refused.items()]

    def _move(self, moves: list[_Move]) -> dict[str, Exception]:
        """Have SUMO put everyone at its place, and return whom it refused to move."""
        vehicle, person = self._sumo.vehicle, self._sumo.person
        refused: dict[str, Exception] = {}
        for name, walks, x, y, angle in moves:
            try:
                if walks:
                    person.moveToXY(name, "", x, y, angle, FREE_PLACEMENT, OFF_LANES)
                else:
                    vehicle.moveToXY(name, "", -1, x, y, angle, FREE_PLACEMENT, SEARCHED)
            except self._error as error:
                refused[name] = error
        return refused

    def _leave(self, crowd: Crowd) -> None:
        """Forget who is gone, and take those out of the simulation whose way ends here."""
        vehicle, person = self._sumo.vehicle, self._sumo.person
        there = {False: set(vehicle.getIDList()), True: set(person.getIDList())}
        self._departing -= there[True]
        self._given_back &= there[False] | there[True] | self._departing
        rows = {
            (name, walks): row for row, (name, walks) in enumerate(zip(crowd.name, crowd.walks.tolist(), strict=True))
        }
        outside: list[bool] = np.any((crowd.front < self._low) | (crowd.front > self._high), axis=1).tolist()
        for name, taken in sorted(self._taken.items()):
            row = rows.get((name, taken.walks))
            if name not in there[taken.walks]:
                self._forget(name)
            elif row is None:
                continue  # on its way in or out of the network: SUMO knows no place for it
            elif taken.walks and (outside[row] or np.hypot(*(crowd.front[row] - taken.goal)) <= AT_GOAL):
                person.removeStage(name, 0)
                self._forget(name)
                self._given_back.add(name)
            elif not taken.walks and (outside[row] or self._has_arrived(crowd, row, taken.target)):
                vehicle.remove(name, ARRIVED)
                self._forget(name)
                self._given_back.add(name)  # SUMO takes it out at its next step

    def _has_arrived(self, crowd: Crowd, row: int, target: str) -> bool:
        name, lane = crowd.name[row], self.view.network.lanes.get(crowd.lane[row])
        if lane is not None and (lane.edge == target or lane.edge in self._last_edges):
            self._left[name] = lane.length - crowd.at[row]
            return self._left[name] <= AT_END
        # Beyond the end of the edge, or beside it?
        return bool(self._left.pop(name, np.inf) <= AT_END + 2 * crowd.speed[row] * self.traffic.dt)

    def _give_back_vehicle(self, name: str, target: str) -> None:
        vehicle = self._sumo.vehicle
        vehicle.setSpeedMode(name, BY_ITSELF["speed"])
        vehicle.setLaneChangeMode(name, BY_ITSELF["lane_change"])
        vehicle.setSpeed(name, -1)
        if not vehicle.getLaneID(name):
            x, y = vehicle.getPosition(name)
            vehicle.moveToXY(name, "", -1, x, y, vehicle.getAngle(name), NEAREST_LANE)
            self._unstepped = True
            self._joining[name] = target
        else:
            vehicle.changeTarget(name, target)

    def _give_back_walker(self, name: str) -> None:
        person, simulation = self._sumo.person, self._sumo.simulation
        stage, *later = (person.getStage(name, index) for index in range(person.getRemainingStages(name)))
        edge, at = self._footway(*person.getPosition(name)[:2])
        found = simulation.findIntermodalRoute(edge, stage.edges[-1], departPos=at, arrivalPos=stage.arrivalPos)
        if not found:
            raise HostError(f"SUMO finds no way for {name!r} from {edge!r} to {stage.edges[-1]!r}")
        kind, _, _ = person.getTypeID(name).partition("@")  # a type of his own goes when he goes
        way = tuple(found[0].edges)
        self._walking_on[name] = _Walk(kind, edge, at, way, stage.arrivalPos, tuple(later))
        self._unstepped = True

    def _footway(self, x: float, y: float) -> tuple[str, float]:
        """Return the nearest edge that is no part of a junction, and how far along it [m] a place is."""
        places = ((x + r * np.cos(turn), y + r * np.sin(turn)) for r in FOOTWAYS for turn in (AROUND if r else (0.0,)))
        for place in places:
            edge, at, _ = self._sumo.simulation.convertRoad(*place, False, "pedestrian")
            if not edge.startswith(":"):
                return edge, at
        raise HostError(f"SUMO has no footway near ({x:.1f}, {y:.1f})")

    def _forget(self, name: str) -> None:
        self._taken.pop(name, None)
        self._velocity.pop(name, None)
        self._left.pop(name, None)


def _jumped(
    before: Crowd | None, now: Crowd, velocity: Float64[np.ndarray, "A 2"], dt: float
) -> Bool[np.ndarray, " A"]:
    """Return which of them are where no driving leads: what TrafficModel takes for a jump."""
    if before is None or not before.name:
        return np.zeros(len(now.name), bool)
    row_of = {agent: row for row, agent in enumerate(before.agent_id)}
    rows = np.array([row_of.get(agent, -1) for agent in now.agent_id], np.int64)
    went = np.hypot(*(now.centre - before.centre[rows]).T)
    pace = np.maximum(np.hypot(*velocity.T), before.speed[rows])
    return (rows >= 0) & (went > JUMP_METRES + JUMP_FACTOR * pace * dt)


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
