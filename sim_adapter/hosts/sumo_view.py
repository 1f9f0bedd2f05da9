"""What a running SUMO shows, in our terms: who is there, which way they mean to go, and what the signals say.

SUMO counts differently, and this file and `hosts/sumo.py` are the places that know: a vehicle's position is the middle
of its front bumper (a pedestrian's is its centre), angles are degrees clockwise from north, names are text.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from traj_diffusion.datasets.readers.sumo_net import read_roads
from traj_diffusion.datasets.synthesis.record import STATES
from traj_diffusion.datasets.synthesis.routes import planned_rows
from traj_diffusion.datasets.synthesis.signals import arrows, show_arrows
from traj_diffusion.scene import AgentKind, LightState

INVALID = -1e8  # SUMO's mark for "no position" is -2^30
PEDESTRIAN_HEIGHT = 1.7  # m; SUMO has none


class Crowd(NamedTuple):
    """Everyone on the network at one moment in our terms, one row for each."""

    name: list[str]
    agent_id: list[int]
    kind: list[AgentKind]
    walks: Bool[np.ndarray, " A"]
    centre: Float64[np.ndarray, "A 2"]
    front: Float64[np.ndarray, "A 2"]  # SUMO's own position
    heading: Float64[np.ndarray, " A"]
    speed: Float64[np.ndarray, " A"]
    size: Float64[np.ndarray, "A 3"]
    lane: list[str]  # that a vehicle is on; "" beside all of them, and of pedestrians
    at: list[float]  # m along it


class _Fixed(NamedTuple):
    """What does not change of somebody."""

    agent_id: int
    kind: AgentKind
    size: tuple[float, float, float]


_Row = tuple[str, _Fixed, Sequence[float], float, float, str, float]


class SumoView:
    """A running SUMO and its network as they are seen from here. Keeps what does not change of those who are there."""

    def __init__(self, connection: Any, net_file: str | Path) -> None:
        self._sumo = connection
        root, self.network, self.roads = read_roads(Path(net_file), {})
        programs = connection.trafficlight.getIDList()
        self.signals = [light for light in self.roads.signals if light.program in programs]
        arrow = arrows(root, self.network, self.roads)
        self._arrow = arrow[[light.program in programs for light in self.roads.signals]]
        self._programs = list(dict.fromkeys(light.program for light in self.signals))
        self._program = np.array([self._programs.index(light.program) for light in self.signals], np.int64)
        self._link = np.array([light.index for light in self.signals], np.int64)
        self.light_lane = self.roads.features.id[[light.row for light in self.signals]]
        self.light_stop = np.array([(*light.stop_point, 0.0) for light in self.signals]).reshape(-1, 3)
        self._fixed: tuple[dict[str, _Fixed], dict[str, _Fixed]] = {}, {}  # vehicles; pedestrians
        self._edges: dict[str, list[str]] = {}
        self._way: dict[str, tuple[int, int, list[int]]] = {}  # name -> lane's row, edges behind, rows ahead

    def crowd(self) -> Crowd:
        """Return everyone who is on the network now; who rides in a vehicle or waits to depart is not."""
        vehicles, people = self._vehicles(), self._pedestrians()
        for walks, found in enumerate((vehicles, people)):
            fixed = self._fixed[walks]
            for name in fixed.keys() - {row[0] for row in found} if len(fixed) > len(found) else ():
                del fixed[name]
                if not walks:
                    self._edges.pop(name, None)
                    self._way.pop(name, None)
        rows = [row for row in (*vehicles, *people) if row[2][0] > INVALID]
        if not rows:
            none = np.zeros(0)
            return Crowd(
                [],
                [],
                [],
                none.astype(bool),
                none.reshape(0, 2),
                none.reshape(0, 2),
                none,
                none,
                none.reshape(0, 3),
                [],
                [],
            )
        names, fixed_ones, places, angles, speeds, lanes, at = zip(*rows, strict=True)
        ids, kinds, sizes = zip(*fixed_ones, strict=True)
        walks = np.array(kinds) == AgentKind.PEDESTRIAN
        size, heading = np.array(sizes), np.pi / 2 - np.deg2rad(angles)
        front = np.array(places)[:, :2]
        back = np.where(walks, 0.0, size[:, 0] / 2)[:, None]
        centre = front - back * np.stack([np.cos(heading), np.sin(heading)], -1)
        speed = np.array(speeds)
        return Crowd([*names], [*ids], [*kinds], walks, centre, front, heading, speed, size, [*lanes], [*at])

    def light_states(self) -> UInt8[np.ndarray, " S"]:
        """Return what each of `signals` shows, arrows as such."""
        texts = [self._sumo.trafficlight.getRedYellowGreenState(name).encode() for name in self._programs]
        begins = np.cumsum([0, *map(len, texts)])
        letters = np.frombuffer(b"".join(texts), np.uint8)[begins[self._program] + self._link]
        return np.where(self._arrow, _AS_ARROW[letters], _AS_LIGHT[letters])

    def target(self, name: str) -> str:
        """Return the edge where a vehicle means to end. Its way there is kept: SUMO may change it once it is moved."""
        self._edges[name] = list(self._sumo.vehicle.getRoute(name))
        return self._edges[name][-1]

    def way(self, name: str, lane: str, position: float) -> list[int]:
        """Return the rows of the lanes ahead on the way of a vehicle whose target was asked for, the present one first.

        It is [m] along that lane. One that has left its way is given SUMO's own shortest one from where it is. Off the
        lanes it keeps the last.
        """
        row, at, rows = self._way.get(name, (-1, 0, []))
        if lane not in self.roads.rows:
            return rows
        here = self.roads.row_at(lane, position / self.roads.lengths[lane])
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

    def _vehicles(self) -> list[_Row]:
        vehicle, fixed = self._sumo.vehicle, self._fixed[False]
        place, angle, speed = vehicle.getPosition, vehicle.getAngle, vehicle.getSpeed
        lane, at = vehicle.getLaneID, vehicle.getLanePosition
        return [
            (
                name,
                fixed.get(name) or self._new_vehicle(name),
                place(name),
                angle(name),
                speed(name),
                lane(name),
                at(name),
            )
            for name in vehicle.getIDList()
        ]

    def _pedestrians(self) -> list[_Row]:
        person, fixed = self._sumo.person, self._fixed[True]
        place, angle, speed = person.getPosition, person.getAngle, person.getSpeed
        return [
            (name, fixed.get(name) or self._new_pedestrian(name), place(name), angle(name), speed(name), "", 0.0)
            for name in person.getIDList()
            if not person.getVehicle(name)  # rides in it
        ]

    def _new_vehicle(self, name: str) -> _Fixed:
        vehicle = self._sumo.vehicle
        kind = AgentKind.CYCLIST if vehicle.getVehicleClass(name) == "bicycle" else AgentKind.VEHICLE
        size = vehicle.getLength(name), vehicle.getWidth(name), vehicle.getHeight(name)
        self._fixed[False][name] = found = _Fixed(agent_id(name), kind, size)
        return found

    def _new_pedestrian(self, name: str) -> _Fixed:
        person = self._sumo.person
        size = person.getLength(name), person.getWidth(name), PEDESTRIAN_HEIGHT
        self._fixed[True][name] = found = _Fixed(agent_id(name, walks=True), AgentKind.PEDESTRIAN, size)
        return found


_AS_LIGHT = np.array([STATES.get(chr(letter), LightState.UNKNOWN) for letter in range(256)], np.uint8)
_AS_ARROW = show_arrows(_AS_LIGHT[:, None], np.ones(256, bool))[:, 0]


def agent_id(name: str, walks: bool = False) -> int:
    """Return the id of SUMO's vehicle or person of that name: the same in every run, so its noise is the same too."""
    digest = hashlib.blake2b(f"{'person' if walks else 'vehicle'} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
