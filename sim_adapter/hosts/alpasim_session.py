"""One episode of AlpaSim: logged poses in, traffic out at whatever times are asked for.

AlpaSim counts as we do (box centres, active transforms, counter-clockwise yaw), in microseconds and quaternions.
"""

from typing import Any, NamedTuple

import numpy as np

from traj_diffusion.errors import BadInput
from traj_diffusion.geometry import wrap_angle
from traj_diffusion.scene import AgentKind, Map, Observation, Policy, Scene, Step
from traj_diffusion.sim_adapter.between import Motion, between
from traj_diffusion.sim_adapter.history import GRID
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

EGO = "EGO"
KINDS = {
    AgentKind.VEHICLE: "automobile vehicle car truck heavy_truck bus other_vehicle trailer train_or_tram_car",
    AgentKind.PEDESTRIAN: "pedestrian person stroller",
    AgentKind.CYCLIST: "cyclist rider bicycle motorcycle",
}
KIND_OF = {word: kind for kind, words in KINDS.items() for word in words.split()}
MAX_OBJECTS, MAX_POSES = 2000, 200_000
_LOOK = 0.1  # s over which a speed is measured


class Track(NamedTuple):
    """One object's known poses: seconds, centres, headings."""

    name: str
    kind: AgentKind
    size: tuple[float, float, float]
    static: bool
    time: np.ndarray
    place: np.ndarray
    heading: np.ndarray

    def covers(self, time: float) -> bool:
        """Whether the object is known to be there at that time; a static one always is, once it was seen."""
        return len(self.time) > 0 and bool(self.static or self.time[0] - 1e-6 <= time <= self.time[-1] + 1e-6)

    def at(self, time: float) -> tuple[np.ndarray, float, np.ndarray]:
        """Return centre [3], heading and velocity [2] at a time that it covers."""
        place = np.array([np.interp(time, self.time, self.place[:, axis]) for axis in range(3)])
        heading = float(np.interp(time, self.time, np.unwrap(self.heading)))
        if self.static or len(self.time) < 2:
            return place, heading, np.zeros(2)
        start, end = max(time - _LOOK, self.time[0]), min(max(time, self.time[0] + _LOOK), self.time[-1])
        gone = [
            np.interp(end, self.time, self.place[:, a]) - np.interp(start, self.time, self.place[:, a]) for a in (0, 1)
        ]
        return place, heading, np.array(gone) / max(end - start, 1e-3)

    def updated(self, trajectory: Any) -> "Track":
        """Return the track with poses added; those of a time that it knows replace the old ones."""
        time, place, heading = poses_of(trajectory)
        kept = ~np.isin(self.time, time)
        time = np.concatenate([self.time[kept], time])
        order = np.argsort(time, kind="stable")
        place = np.concatenate([self.place[kept], place])[order]
        return self._replace(
            time=time[order], place=place, heading=np.concatenate([self.heading[kept], heading])[order]
        )


class Session:
    """Traffic up to whatever time was asked for last, in ticks of 0.1 s from a history before the handover on.

    Until the handover, and until an object has been seen for the policy's history, it follows the log; then it is
    driven to the end of the session. The ego and static objects are never driven.
    """

    def __init__(self, request: Any, scene: Scene | None, policy: Policy, futures: int) -> None:
        logged = request.logged_object_trajectories
        if len(logged) > MAX_OBJECTS or sum(len(one.trajectory.poses) for one in logged) > MAX_POSES:
            raise BadInput(f"{len(logged)} objects; at most {MAX_OBJECTS} with {MAX_POSES} poses are taken")
        self._tracks = {one.object_id: track_of(one) for one in logged}
        if len(self._tracks) < len(logged) or not any(len(track.time) for track in self._tracks.values()):
            raise BadInput("logged objects need ids of their own, and at least one of them a pose")
        if request.handover_time_us <= 0:
            raise BadInput("handover_time_us must be positive")
        self._ids = {name: number for number, name in enumerate(self._tracks, 1)}
        self._handover = request.handover_time_us / 1e6
        self._history = (policy.history_steps - 1) * GRID
        self._map: Map | None = None if scene is None else scene.map
        self.traffic = TrafficModel(policy, futures=futures, seed=int(request.random_seed) % 2**62, dt=GRID)
        self._driven: dict[str, tuple[Motion, Motion]] = {}  # name -> its states at the last tick and at the next one
        ego = self._tracks.get(EGO)
        first = ego.time[0] if ego is not None and len(ego.time) else self._handover
        self._time = float(min(max(self._handover - self._history, first), self._handover))  # of the next tick
        self._began = False
        self._step: Step | None = None

    def merge(self, updates: Any) -> None:
        """Take over poses of objects that are not driven."""
        merged = dict(self._tracks)
        for update in updates:
            if update.object_id not in merged:
                raise BadInput(f"object {update.object_id!r} was not in the session's request")
            if update.object_id not in self._driven:
                merged[update.object_id] = merged[update.object_id].updated(update.trajectory)
        self._tracks = merged

    def ticks_until(self, time: float) -> int:
        """Return how many ticks are due before a time can be answered. Raises BadInput where it lies too far back."""
        if time < self._time - GRID - 1e-6 and self._step is not None:
            raise BadInput(f"{time:.3f} s was asked for after {self._time:.3f} s; time must not run backwards")
        return max(int(np.ceil((time - self._time) / GRID - 1e-6)), 0)

    def observe(self) -> Observation:
        """Return everyone at the next tick. Raises BadInput where the ego's pose is not known."""
        now, rows = self._time, []
        for name, track in self._tracks.items():
            if name in self._driven:
                motion = self._driven[name][1]
                rows.append((name, motion.position[0], float(motion.heading[0]), motion.velocity[0], True))
            elif track.covers(now):
                seen = now >= max(self._handover, track.time[0] + self._history) - 1e-6
                rows.append((name, *track.at(now), bool(seen) and not track.static and name != EGO))
            elif name == EGO:
                raise BadInput(f"the ego's pose at {now:.3f} s is missing; updates must reach the time asked for")
        names = [row[0] for row in rows]
        return Observation.from_arrays(
            now,
            agent_id=[self._ids[name] for name in names],
            kind=[self._tracks[name].kind for name in names],
            position=[row[1] for row in rows],
            heading=[row[2] for row in rows],
            velocity=[row[3] for row in rows],
            size=[self._tracks[name].size for name in names],
            is_controlled=[row[4] for row in rows],
        )

    def tick(self, seen: Observation) -> None:
        """Ask the model what comes next; if it fails, nothing has happened."""
        if not self._began:
            self.traffic.reset(self._map, seen)
            self._began = True
        step = self.traffic.step(seen)
        row_of = {agent: row for row, agent in enumerate(seen.agent_id.tolist())}
        names = {number: name for name, number in self._ids.items()}
        for row, agent in enumerate(step.agent_id.tolist()):
            at = [row_of[agent]]
            before = Motion(seen.position[at], seen.heading[at], seen.velocity[at])
            after = Motion(step.position[[row]], step.heading[[row]], step.velocity[[row]])
            self._driven[names[agent]] = before, after
        self._step, self._time = step, step.time

    def poses(self, time: float) -> dict[str, list[tuple[float, np.ndarray, float]]]:
        """Return each object's poses (seconds, centre, heading) at a time, and where driven at later ones planned."""
        found: dict[str, list[tuple[float, np.ndarray, float]]] = {}
        for name, track in self._tracks.items():
            if name == EGO:
                continue
            if name in self._driven:
                share = float(np.clip((time - (self._time - GRID)) / GRID, 0.0, 1.0))
                motion = between(*self._driven[name], GRID, share)
                found[name] = [(time, motion.position[0], float(motion.heading[0])), *self._planned(name, time)]
            elif track.covers(time):
                place, heading, _ = track.at(time)
                found[name] = [(time, place, heading)]
        return found

    def _planned(self, name: str, time: float) -> list[tuple[float, np.ndarray, float]]:
        step = self._step
        if step is None or step.futures is None or self._ids[name] not in step.futures_id:
            return []
        row = int(np.flatnonzero(step.futures_id == self._ids[name])[0])
        place, heading = (part[0, step.chosen, row] for part in (step.futures.position, step.futures.heading))
        times = step.futures_time + step.futures.dt * np.arange(1, len(heading) + 1)
        later = times > time + 1e-6
        return list(zip(times[later].tolist(), place[later], heading[later].tolist(), strict=True))


def track_of(logged: Any) -> Track:
    """Return what was logged of an object."""
    box = logged.aabb
    kind = KIND_OF.get(logged.label_class.strip().lower(), AgentKind.OTHER)
    if logged.object_id == EGO:
        kind = AgentKind.VEHICLE
    size = (box.size_x, box.size_y, box.size_z)
    return Track(logged.object_id, kind, size, logged.is_static, *poses_of(logged.trajectory))


def poses_of(trajectory: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return seconds, centres [n, 3] and yaws of poses, in order of time."""
    poses = trajectory.poses
    time = np.array([pose.timestamp_us for pose in poses], np.float64) / 1e6
    place = np.array([(p.pose.vec.x, p.pose.vec.y, p.pose.vec.z) for p in poses], np.float64).reshape(-1, 3)
    quat = np.array([(p.pose.quat.w, p.pose.quat.x, p.pose.quat.y, p.pose.quat.z) for p in poses], np.float64)
    w, x, y, z = quat.reshape(-1, 4).T
    heading = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    if not (np.isfinite(place).all() and np.isfinite(heading).all()):
        raise BadInput("a pose is not finite")
    order = np.argsort(time, kind="stable")
    if (np.diff(time[order]) <= 0).any():
        raise BadInput("two poses of one object have the same time")
    return time[order], place[order], wrap_angle(heading[order])
