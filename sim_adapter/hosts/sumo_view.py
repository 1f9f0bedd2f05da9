"""What a running SUMO shows, in our terms: who is there, which way they mean to go, and what the signals say.

SUMO counts differently, and this file and `hosts/sumo.py` are the places that know: a vehicle's position is the middle
of its front bumper (a pedestrian's is its centre), angles are degrees clockwise from north, names are text.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from traj_diffusion.datasets.synthesis.network import read_network
from traj_diffusion.datasets.synthesis.record import STATES
from traj_diffusion.datasets.synthesis.roadmap import build_map, drivable_area
from traj_diffusion.datasets.synthesis.routes import planned_rows
from traj_diffusion.scene import AgentKind, LightState

INVALID = -1e8  # SUMO's mark for "no position" is -2^30
PEDESTRIAN_HEIGHT = 1.7  # m; SUMO has none


class Body(NamedTuple):
    """One vehicle or pedestrian in our terms."""

    name: str
    walks: bool
    kind: AgentKind
    centre: tuple[float, float]
    heading: float
    speed: float
    size: tuple[float, float, float]


class SumoView:
    """A running SUMO and its network as they are seen from here. Keeps what does not change of those who are there."""

    def __init__(self, connection: Any, net_file: str | Path) -> None:
        self._sumo = connection
        self.network = read_network(Path(net_file))
        self.roads = build_map(self.network, drivable_area(self.network))
        programs = connection.trafficlight.getIDList()
        self.signals = [light for light in self.roads.signals if light.program in programs]
        self.light_lane = self.roads.features.id[[light.row for light in self.signals]]
        self.light_stop = np.array([(*light.stop_point, 0.0) for light in self.signals]).reshape(-1, 3)
        self._built: dict[str, tuple[AgentKind, tuple[float, float, float]]] = {}
        self._edges: dict[str, list[str]] = {}
        self._way: dict[str, tuple[int, int, list[int]]] = {}  # name -> lane's row, edges behind, rows ahead

    def bodies(self) -> list[Body]:
        """Return everyone who is on the network now; who rides in a vehicle or waits to depart is not."""
        found = [*self._vehicles(), *self._pedestrians()]
        there = {body.name for body in found}
        for name in self._built.keys() - there:
            del self._built[name]
            self._edges.pop(name, None)
            self._way.pop(name, None)
        return [body for body in found if body.centre[0] > INVALID]

    def light_states(self) -> list[LightState]:
        """Return what each of `signals` shows."""
        shown = {light.program: "" for light in self.signals}
        for program in shown:
            shown[program] = self._sumo.trafficlight.getRedYellowGreenState(program)
        return [STATES.get(shown[light.program][light.index], LightState.UNKNOWN) for light in self.signals]

    def target(self, name: str) -> str:
        """Return the edge where a vehicle means to end. Its way there is kept: SUMO may change it once it is moved."""
        self._edges[name] = list(self._sumo.vehicle.getRoute(name))
        return self._edges[name][-1]

    def way(self, name: str) -> list[int]:
        """Return the rows of the lanes ahead on the way of a vehicle whose target was asked for, the present one first.

        One that has left its way is given SUMO's own shortest one from where it is. Off the lanes it keeps the last.
        """
        lane = self._sumo.vehicle.getLaneID(name)
        row, at, rows = self._way.get(name, (-1, 0, []))
        if lane not in self.roads.rows:
            return rows
        fraction = self._sumo.vehicle.getLanePosition(name) / self.roads.lengths[lane]
        here = self.roads.row_at(lane, fraction)
        if here != row:
            at = self._position_on_way(name, lane, at)
            rows = planned_rows(np.array([here]), np.array([at]), self._edges[name], self.network, self.roads)
            self._way[name] = here, at, rows
        return rows

    def _position_on_way(self, name: str, lane: str, at: int) -> int:
        """Return which of a vehicle's edges it is on, or about to be on when inside a junction."""
        while self.network.lanes[lane].internal and self.network.after.get(lane):
            onto = self.network.after[lane][0]
            lane = onto.via or onto.target
        edges, edge = self._edges[name], self.network.lanes[lane].edge
        for start in (at, 0):
            if edge in edges[start:]:
                return edges.index(edge, start)
        found = self._sumo.simulation.findRoute(edge, edges[-1], self._sumo.vehicle.getTypeID(name)).edges
        self._edges[name] = list(found) or [edge]
        return 0

    def _vehicles(self) -> Iterator[Body]:
        vehicle = self._sumo.vehicle
        for name in vehicle.getIDList():
            kind, size = self._built.get(name) or self._build(name)
            heading = float(np.pi / 2 - np.deg2rad(vehicle.getAngle(name)))
            x, y = vehicle.getPosition(name)
            centre = x - size[0] / 2 * float(np.cos(heading)), y - size[0] / 2 * float(np.sin(heading))
            yield Body(name, False, kind, centre, heading, vehicle.getSpeed(name), size)

    def _build(self, name: str) -> tuple[AgentKind, tuple[float, float, float]]:
        vehicle = self._sumo.vehicle
        kind = AgentKind.CYCLIST if vehicle.getVehicleClass(name) == "bicycle" else AgentKind.VEHICLE
        self._built[name] = kind, (vehicle.getLength(name), vehicle.getWidth(name), vehicle.getHeight(name))
        return self._built[name]

    def _pedestrians(self) -> Iterator[Body]:
        person = self._sumo.person
        for name in person.getIDList():
            if person.getVehicle(name):
                continue  # rides in it
            heading = float(np.pi / 2 - np.deg2rad(person.getAngle(name)))
            size = person.getLength(name), person.getWidth(name), PEDESTRIAN_HEIGHT
            place, pace = person.getPosition(name), person.getSpeed(name)
            yield Body(name, True, AgentKind.PEDESTRIAN, tuple(place), heading, pace, size)


def agent_id(name: str, walks: bool = False) -> int:
    """Return the id of SUMO's vehicle or person of that name: the same in every run, so its noise is the same too."""
    digest = hashlib.blake2b(f"{'person' if walks else 'vehicle'} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
