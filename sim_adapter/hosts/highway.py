"""HighwayEnv: all other vehicles of an environment are driven by one TrafficModel.

```
path = "traj_diffusion.sim_adapter.hosts.highway.DrivenVehicle"
env = gymnasium.make("highway-v0", config={"other_vehicles_type": path})
```

HighwayEnv counts y to the right of x and angles clockwise: its right lane would be our left one. So its world is
mirrored on the x axis here, both ways. Positions are box centres.
"""

from typing import Any, ClassVar

import numpy as np

from traj_diffusion.datasets.readers.assemble import Features
from traj_diffusion.errors import HostError, MissingExtra
from traj_diffusion.policies import load_policy
from traj_diffusion.scene import AgentKind, EdgeType, LaneType, LineType, Map, MapKind, Observation, Origin, Policy
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

try:
    from highway_env.road.lane import LineType as Paint
    from highway_env.road.road import Road
    from highway_env.vehicle.behavior import IDMVehicle
    from highway_env.vehicle.objects import Obstacle
except ImportError:
    raise MissingExtra("highway-env", "highway") from None

HEIGHT = 1.6  # m; HighwayEnv has none
SPACING = 2.0  # m between the points of a lane
FAST = 22.0  # m/s; lanes above are a freeway's
MIRROR = np.array([1.0, -1.0])


class DrivenVehicle(IDMVehicle):
    """A vehicle that goes where the road's TrafficModel says. Crashed ones are HighwayEnv's.

    To set what drives, subclass it and name the subclass: `policy` is a Policy or the name of one.
    """

    policy: ClassVar[str | Policy] = "small"
    futures: ClassVar[int] = 1
    seed: ClassVar[int] = 0

    def act(self, action: dict[str, Any] | str | None = None) -> None:
        """Let the road's traffic see everyone, once per step and before anyone moves."""
        traffic_of(self.road, type(self)).look(self.road)

    def step(self, dt: float) -> None:
        """Go on to where the traffic says; after a crash, or while pushed, by HighwayEnv's own dynamics."""
        if self.crashed or self.impact is not None:
            super().step(dt)
            return
        place = traffic_of(self.road, type(self)).place(self, dt)
        if place is None:  # added to the road since everyone was looked at
            super().step(dt)
            return
        self.position, self.heading, self.speed = place
        self.on_state_update()
        self.target_lane_index = self.lane_index


class RoadTraffic:
    """The TrafficModel of one road, and what it saw before the vehicles of the road began to move."""

    def __init__(self, kind: type[DrivenVehicle]) -> None:
        self._policy = load_policy(kind.policy) if isinstance(kind.policy, str) else kind.policy
        self._futures, self._seed = kind.futures, kind.seed
        self.model: TrafficModel | None = None
        self._time = 0.0
        self._count = 0
        self._seen: Observation | None = None
        self._places: dict[int, tuple[np.ndarray, float, float]] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "RoadTraffic":
        """Return traffic that goes on by itself: planners copy whole environments."""
        other = object.__new__(RoadTraffic)
        other.__dict__.update(self.__dict__)
        other.model = None if self.model is None else self.model.fork()
        return other

    def look(self, road: Road) -> None:
        """Remember the road as it is, unless that was done since its vehicles last moved."""
        if self._seen is not None and self._places is None:
            return
        bodies = [*road.vehicles, *(body for body in road.objects if isinstance(body, Obstacle))]
        self._seen = Observation.from_arrays(
            self._time,
            agent_id=[self._id(body) for body in bodies],
            kind=[AgentKind.OTHER if isinstance(body, Obstacle) else AgentKind.VEHICLE for body in bodies],
            position=[body.position * MIRROR for body in bodies],
            heading=[-body.heading for body in bodies],
            velocity=[np.asarray(body.velocity) * MIRROR for body in bodies],
            size=[(body.LENGTH, body.WIDTH, HEIGHT) for body in bodies],
            is_controlled=[isinstance(body, DrivenVehicle) and not body.crashed for body in bodies],
        )
        self._places = None

    def place(self, vehicle: DrivenVehicle, dt: float) -> tuple[np.ndarray, float, float] | None:
        """Return a vehicle's centre, heading and speed `dt` after everyone was looked at; None if it was not there."""
        if self._seen is None:
            return None
        if self._places is None:
            self._places = self._step(vehicle.road, self._seen, dt)
            self._time += dt
        return self._places.get(self._id(vehicle))

    def _step(self, road: Road, seen: Observation, dt: float) -> dict[int, tuple[np.ndarray, float, float]]:
        if self.model is None:
            self.model = TrafficModel(self._policy, futures=self._futures, seed=self._seed, dt=dt)
            self.model.reset(road_map(road), seen)
        if abs(self.model.dt - dt) > 1e-9:
            raise HostError(f"HighwayEnv steps by {dt} s after steps of {self.model.dt} s; its step must not change")
        step = self.model.step(seen)
        speed = (step.velocity * np.stack([np.cos(step.heading), np.sin(step.heading)], -1)).sum(-1)
        places = step.position[:, :2] * MIRROR
        rows = zip(step.agent_id.tolist(), places, step.heading.tolist(), speed.tolist(), strict=True)
        return {agent: (place, -heading, pace) for agent, place, heading, pace in rows}

    def _id(self, body: Any) -> int:
        if not hasattr(body, "traffic_id"):
            self._count += 1
            body.traffic_id = self._count
        return int(body.traffic_id)


def traffic_of(road: Road, kind: type[DrivenVehicle]) -> RoadTraffic:
    """Return the traffic of a road; the first vehicle that asks says what drives it."""
    if not hasattr(road, "traffic"):
        road.traffic = RoadTraffic(kind)
    traffic: RoadTraffic = road.traffic
    return traffic


def road_map(road: Road) -> Map:
    """Return the lanes of a road, mirrored: centres, paint, and edges where the paint is continuous."""
    found = Features()
    for start, ends in road.network.graph.items():
        for end, lanes in ends.items():
            for number, lane in enumerate(lanes):
                along = np.linspace(0, lane.length, max(round(lane.length / SPACING), 1) + 1)
                limit = float(lane.speed_limit or np.nan)
                kind = LaneType.FREEWAY if limit > FAST else LaneType.SURFACE_STREET
                found.add(f"{start} {end} {number}", MapKind.LANE, kind, _line(lane, along, 0.0), limit)
                for onward, after in road.network.graph.get(end, {}).items():
                    for other, beside in enumerate(after):
                        if np.linalg.norm(beside.position(0, 0) - lane.position(lane.length, 0)) < 1.0:
                            found.link("successors", f"{end} {onward} {other}")
                for other, relation in ((number - 1, "left"), (number + 1, "right")):
                    if 0 <= other < len(lanes):
                        found.link(relation, f"{start} {end} {other}")
                for side, paint in zip((-0.5, 0.5), lane.line_types, strict=True):
                    if paint == Paint.NONE:
                        continue
                    line = _line(lane, along, side)
                    if paint == Paint.STRIPED:
                        found.add(None, MapKind.ROAD_LINE, LineType.BROKEN_SINGLE_WHITE, line)
                    else:
                        found.add(None, MapKind.ROAD_EDGE, EdgeType.BOUNDARY, line if side > 0 else line[::-1])
    return found.build({}, Origin.RECORDED)


def _line(lane: Any, along: np.ndarray, side: float) -> np.ndarray:
    """Return points of a lane, `side` widths to its right."""
    return np.array([lane.position(at, side * lane.width_at(at)) for at in along]) * MIRROR
