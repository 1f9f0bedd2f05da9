"""The Intelligent Driver Model on the lanes of the map: rule-based traffic without learning."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from traj_diffusion.geometry import arc_length, wrap_angle
from traj_diffusion.policies.lanes import SPACING, LaneMap, Path, along_path, path_ahead
from traj_diffusion.policies.simple import PLAN_SECONDS, ConstantVelocity
from traj_diffusion.scene import AgentKind, LightState, Plan, PlanRequest, Scene, WorldState

RED = (LightState.ARROW_STOP, LightState.STOP)
LOOKAHEAD = 80.0
"""Metres within which somebody on the path is a leader."""
_REACT = 5  # steps: how often a leader is looked for
_STANDS = 0.3  # m/s
_PARKED_BESIDE = 1.2  # metres from the centre line at which somebody who stands is parked
_CAN_STOP = 6.0  # m/s^2; who needs more runs the light
_HARDEST = 8.0  # m/s^2
_MERGES = 15.0  # metres over which a vehicle comes onto its centre line, to a share of 1 / e
_FREE = 1e6  # metres to a leader that is not there


@dataclass(frozen=True)
class IdmFollower:
    """Each vehicle follows its lane and the straightest successors, keeps off its leader, and stops at red.

    Acceleration is a [1 - (v / v0)^4 - (s* / s)^2] with s* = s0 + v T + v dv / (2 sqrt(a b)) (Treiber, Hennecke &
    Helbing 2000), with the city traffic values of Treiber & Kesting 2013, table 11.2. v0 is the
    lane's limit where recorded, 54 km/h elsewhere, and less in bends (3 m/s^2 sideways). The leader is the next agent
    of any kind whose box reaches into the path. Who stands beside the centre line or on no lane stays; who drives on no
    lane brakes to a stop. All but vehicles keep their velocity. There is no noise: all futures are the same.
    """

    name: str = "idm"
    history_steps: int = 11
    headway: float = 1.0  # T, s
    gap: float = 2.0  # s0, m
    acceleration: float = 1.0  # a, m/s^2
    braking: float = 1.5  # b, m/s^2

    def encode(self, scene: Scene) -> LaneMap:
        """Return the lanes of the map."""
        return LaneMap.of(scene.map)

    def plan(self, request: PlanRequest) -> Plan:
        """Return K equal futures."""
        state = request.state
        plan = ConstantVelocity().plan(replace(request, futures=1))
        position, heading, velocity = plan.position[:, 0], plan.heading[:, 0], plan.velocity[:, 0]
        done: dict[bytes, int] = {}
        for world in range(state.worlds):
            parts = (state.position, state.heading, state.velocity, state.valid, state.light_state)
            same = done.setdefault(b"".join(part[world].tobytes() for part in parts), world)
            if same == world:
                self._drive(request.context, state, world, position[world], heading[world], velocity[world])
            position[world], heading[world], velocity[world] = position[same], heading[same], velocity[same]

        def each(values: np.ndarray) -> np.ndarray:
            return np.repeat(values[:, None], request.futures, axis=1)

        weight = np.zeros((state.worlds, request.futures), np.float32)
        return Plan(each(position), each(heading), each(velocity), weight, state.dt)

    def _drive(
        self,
        lanes: LaneMap,
        state: WorldState,
        world: int,
        position: np.ndarray,
        heading: np.ndarray,
        velocity: np.ndarray,
    ) -> None:
        """Write the future of all vehicles of one world over that of constant velocity."""
        present = state.valid[world, :, -1]
        cars = np.flatnonzero(present & (state.kind == AgentKind.VEHICLE))
        if not len(cars):
            return
        dt, steps = state.dt, position.shape[1]
        now, facing = state.position[world, :, -1], state.heading[world, :, -1].astype(np.float64)
        pace = state.velocity[world, :, -1].astype(np.float64)
        seen = state.valid[world, cars]
        still = ((np.linalg.norm(state.velocity[world, cars], axis=-1) < _STANDS) | ~seen).all(-1)
        speed = np.where(still, 0.0, np.linalg.norm(pace[cars], axis=-1))
        lane, done = lanes.nearest(now[cars], facing[cars])
        reach = LOOKAHEAD + PLAN_SECONDS * max(25.0, float(speed.max()))
        paths = [
            path_ahead(lanes, int(row), float(at), reach) if row >= 0 else _straight(now[car], facing[car], reach)
            for car, row, at in zip(cars, lane, done, strict=True)
        ]
        fleet = _Fleet.of(paths, now[cars], facing[cars], state.size[cars].astype(np.float64))
        parked = still & ((lane < 0) | (np.abs(fleet.side) > _PARKED_BESIDE))
        lost = (lane < 0) & ~parked
        line = _stop_distance(lanes, paths, state, world)
        can_stop = speed**2 / (2 * np.maximum(line, 0.1)) <= _CAN_STOP
        line = np.where(can_stop, line, _FREE)

        half = state.size[:, :2].astype(np.float64) / 2
        driven = np.zeros(len(cars))
        gap, leading = np.full(len(cars), _FREE), np.zeros(len(cars))
        place, course = now.copy(), facing.copy()
        for step in range(steps):
            if step % _REACT == 0:
                gap, leading = fleet.leaders(driven, cars, place, course, pace, half, present)
            wanted = along_path(fleet.speed, driven)[0][:, 0]
            to_line = line - driven - fleet.length / 2
            pull = np.minimum(
                self._pull(speed, wanted, gap, leading), self._pull(speed, wanted, to_line, np.zeros_like(speed))
            )
            pull = np.where(lost, np.minimum(pull, -self.braking), pull)
            faster = np.where(parked, 0.0, np.maximum(speed + np.clip(pull, -_HARDEST, None) * dt, 0.0))
            moved = (speed + faster) / 2 * dt
            driven, speed = driven + moved, faster
            gap = gap - moved + leading * dt
            position[cars, step], turned, pace[cars] = fleet.states(driven, speed)
            heading[cars, step], velocity[cars, step] = turned, pace[cars]
            place, course = position[:, step], heading[:, step].astype(np.float64)

    def _pull(self, speed: np.ndarray, wanted: np.ndarray, gap: np.ndarray, leading: np.ndarray) -> np.ndarray:
        """Return the acceleration of the model [m/s^2]; too fast without a leader it brakes no harder than b."""
        free = np.maximum(self.acceleration * (1 - (speed / np.maximum(wanted, 0.1)) ** 4), -self.braking)
        dynamic = speed * self.headway + speed * (speed - leading) / (2 * np.sqrt(self.acceleration * self.braking))
        keep = self.gap + np.maximum(dynamic, 0.0)
        pulled: np.ndarray = free - self.acceleration * (keep / np.maximum(gap, 0.1)) ** 2
        return pulled


@dataclass(frozen=True)
class _Fleet:
    """The paths of all vehicles V of one world, side by side, and how each came to lie beside its own."""

    points: Float64[np.ndarray, "V P 3"]
    heading: Float64[np.ndarray, "V P 1"]
    speed: Float64[np.ndarray, "V P 1"]
    start: Float64[np.ndarray, "V 3"]
    side: Float64[np.ndarray, " V"]  # metres to the left of the path
    slant: Float64[np.ndarray, " V"]  # heading less that of the path
    facing: Float64[np.ndarray, " V"]  # heading as recorded
    length: Float64[np.ndarray, " V"]
    width: Float64[np.ndarray, " V"]

    @classmethod
    def of(cls, paths: list[Path], now: np.ndarray, facing: np.ndarray, size: np.ndarray) -> "_Fleet":
        points, heading = np.stack([path.points for path in paths]), np.stack([path.heading for path in paths])
        offset, first = now[:, :2] - points[:, 0, :2], heading[:, 0]
        return cls(
            points=points,
            heading=heading[..., None],
            speed=np.stack([path.speed for path in paths])[..., None],
            start=now,
            side=offset[:, 1] * np.cos(first) - offset[:, 0] * np.sin(first),
            slant=wrap_angle(facing - first),
            facing=facing,
            length=size[:, 0],
            width=size[:, 1],
        )

    def states(
        self, driven: Float64[np.ndarray, " V"], speed: Float64[np.ndarray, " V"]
    ) -> tuple[Float64[np.ndarray, "V 3"], Float64[np.ndarray, " V"], Float64[np.ndarray, "V 2"]]:
        """Return position, heading and velocity after a distance; offset and slant die out over 15 m."""
        left = np.exp(-driven / _MERGES)
        place, course = along_path(self.points, driven)[0], along_path(self.heading, driven)[0][:, 0]
        position = place.copy()
        position[:, 2] += self.start[:, 2] - self.points[:, 0, 2]
        position[:, 0] -= left * self.side * np.sin(course)
        position[:, 1] += left * self.side * np.cos(course)
        heading = self.facing + course - self.heading[:, 0, 0] - self.slant * (1 - left)
        return position, heading, speed[:, None] * np.stack([np.cos(course), np.sin(course)], -1)

    def leaders(
        self,
        driven: Float64[np.ndarray, " V"],
        cars: Int64[np.ndarray, " V"],
        place: Float64[np.ndarray, "A 3"],
        course: Float64[np.ndarray, " A"],
        pace: Float64[np.ndarray, "A 2"],
        half: Float64[np.ndarray, "A 2"],
        present: Bool[np.ndarray, " A"],
    ) -> tuple[Float64[np.ndarray, " V"], Float64[np.ndarray, " V"]]:
        """Return the free distance [m] to the next agent on each path, and that agent's speed along it [m/s]."""
        first = np.minimum((driven / SPACING).astype(np.int64), self.points.shape[1] - 2)
        window = np.minimum(first[:, None] + np.arange(int(LOOKAHEAD / SPACING)), self.points.shape[1] - 1)
        each = np.arange(len(cars))
        ahead, angle = self.points[each[:, None], window], self.heading[each[:, None], window, 0]
        # A sum over an axis of two takes numpy several times as long as this.
        apart = (place[None, :, None, 0] - ahead[:, None, :, 0]) ** 2 + (
            place[None, :, None, 1] - ahead[:, None, :, 1]
        ) ** 2
        nearest = apart.argmin(-1)
        at, along = ahead[each[:, None], nearest], angle[each[:, None], nearest]
        offset = place[None] - at
        forward = offset[..., 0] * np.cos(along) + offset[..., 1] * np.sin(along)
        across = np.abs(offset[..., 1] * np.cos(along) - offset[..., 0] * np.sin(along))
        turn = course[None] - along
        deep = half[:, 0] * np.abs(np.cos(turn)) + half[:, 1] * np.abs(np.sin(turn))
        wide = half[:, 0] * np.abs(np.sin(turn)) + half[:, 1] * np.abs(np.cos(turn))
        distance = window[each[:, None], nearest] * SPACING + forward - driven[:, None]
        inside = present & (across < wide + self.width[:, None] / 2) & (np.abs(offset[..., 2]) < 3.0)
        inside &= (distance > 0.1) & (distance < LOOKAHEAD)
        inside[each, cars] = False
        free = np.where(inside, distance - deep - self.length[:, None] / 2, _FREE)
        leader = free.argmin(1)
        heading = along[each, leader]
        speed = pace[leader, 0] * np.cos(heading) + pace[leader, 1] * np.sin(heading)
        return free[each, leader], np.where(free[each, leader] < _FREE, speed, 0.0)


def _straight(now: np.ndarray, facing: float, reach: float) -> Path:
    """Return the path of somebody on no lane."""
    at = np.arange(0.0, reach + SPACING, SPACING)
    along = np.array([np.cos(facing), np.sin(facing), 0.0])
    ones = np.ones(len(at))
    return Path(now + at[:, None] * along, facing * ones, 15.0 * ones, (), np.zeros(0))


def _stop_distance(lanes: LaneMap, paths: list[Path], state: WorldState, world: int) -> Float64[np.ndarray, " V"]:
    """Return how far ahead of each vehicle's centre the next red light on its path stops it [m]."""
    line = np.full(len(paths), _FREE)
    red = state.light_observed[world] & np.isin(state.light_state[world], RED)
    row_of = {int(lanes.features.id[row]): int(row) for row in lanes.lanes}
    for signal in np.flatnonzero(red):
        row = row_of.get(int(state.light_lane[signal]))
        if row is None:
            continue
        points = lanes.features.polyline(row)
        stop = arc_length(points)[np.linalg.norm((points - state.light_stop[signal])[:, :2], axis=-1).argmin()]
        for car, path in enumerate(paths):
            at = [begin + stop for one, begin in zip(path.lanes, path.lane_begin, strict=True) if one == row]
            line[car] = min([line[car], *(distance for distance in at if distance > 0)])
    return line
