"""What a host owes the traffic that it asks, checked at every tick while the host runs: the other side of the contract.

```
traffic = WitnessedTraffic(ConstantVelocity(), dt=0.1)   # in place of TrafficModel(...)
...                                                      # run the host as ever
assert traffic.findings() == ()
```

or, with whether it does the same a second time, `host_findings(run, make)`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from traj_diffusion.geometry import wrap_angle
from traj_diffusion.scene import AgentKind, Map, MapKind, Observation, Scene, Step
from traj_diffusion.sim_adapter import TrafficModel

PLACE = 0.05  # m between where an agent was put and where it is shown
HEADING = 0.01  # rad, likewise
PACE = 0.1  # m/s, likewise
FAST = 3.0  # m/s; a vehicle faster than that faces where it goes
DRIFT = 0.35  # rad between heading and motion of one that turns
EXPLAINED = 10.0  # m/s², the hardest that anyone brakes or pushes off
ON_LANE = 2.0  # m from a lane's centre line within which a vehicle is on it
AT_LANE = 30.0  # m from a lane within which its light's stop point lies
ENOUGH = 20  # sights of vehicles from which on the map is judged


class _Row(NamedTuple):
    place: np.ndarray
    heading: float
    velocity: np.ndarray
    kind: int
    size: np.ndarray


class WitnessedTraffic(TrafficModel):
    """A TrafficModel that notes what its host does wrong, by the name of what is broken, once per agent and tick.

    `placed`, `heading`, `velocity`: a driven agent is not shown where and how it was put (another origin than the box
    centre, another handedness, a clock that is off). `motion`: a host's own agent does not move as its velocity says
    (units, frames). `facing`: it faces elsewhere than it goes (clockwise angles). `size`: size or kind change.
    `time`: a tick is not one dt. `spawn`: somebody enters inside of somebody. `gone`: somebody is missing for a tick.
    `map`: vehicles are on no lane, or most face against theirs (a map in other axes than its agents). `light`: it
    controls no lane of the map, or stops far from it. Everything that TrafficModel refuses is refused.
    """

    _said: tuple[str, ...] = ()
    _before: tuple[Observation, Step] | None = None
    _earlier: Observation | None = None
    _lanes: "_Lanes | None" = None
    sights: tuple[Observation, ...] = ()

    def findings(self) -> tuple[str, ...]:
        """Return what was noted, in order."""
        return self._said + (() if self._lanes is None else self._lanes.findings())

    def reset(self, scene_or_map: Scene | Map | None, observation: Observation) -> None:
        """Look at the map, too."""
        super().reset(scene_or_map, observation)
        map_ = scene_or_map.map if isinstance(scene_or_map, Scene) else scene_or_map
        self._lanes = None if map_ is None or not len(map_.rows(MapKind.LANE)) else _Lanes(map_)
        self._before = self._earlier = None

    def fork(self) -> "WitnessedTraffic":
        """Return a witness that goes on by itself."""
        other = super().fork()
        assert isinstance(other, WitnessedTraffic)
        other._lanes = None if self._lanes is None else self._lanes.copy()
        return other

    def step(self, observation: Observation) -> Step:
        """Compare what is shown with what was asked for, then answer as ever."""
        step = super().step(observation)
        if self._before is not None:
            self._said += tuple(_compare(*self._before, observation, self.dt))
            self._said += tuple(_entered(self._before[0], observation))
        if self._before is not None and self._earlier is not None:
            self._said += tuple(_flickered(self._earlier, self._before[0], observation))
        if self._lanes is not None:
            self._said += tuple(self._lanes.look(observation))
        self._earlier = None if self._before is None else self._before[0]
        self._before = observation, step
        self.sights += (observation,)
        return step


def host_findings(
    run: Callable[[WitnessedTraffic], WitnessedTraffic | None],
    make: Callable[[], WitnessedTraffic],
    within: float = 0.0,
) -> tuple[str, ...]:
    """Return what is wrong with a host that `run` lets run with the traffic that it is given; nothing, if all is well.

    `run` may return the fork that the host went on with. It is run twice: `repeat` tells where the second run shows
    something else than the first, by more than `within` [m, rad, m/s]; that is for hosts whose physics does not repeat
    to the bit.
    """
    made = make(), make()
    first, second = (run(one) or one for one in made)
    return first.findings() + tuple(_differences(first.sights, second.sights, within))


def _compare(seen: Observation, put: Step, now: Observation, dt: float) -> list[str]:
    said = []
    if abs(now.time - seen.time - dt) > 1e-5:
        said.append(f"time: {now.time - seen.time:.4f} s passed in a tick of {dt} s")
    wanted = {agent: row for row, agent in enumerate(put.agent_id.tolist())}
    past = _rows(seen)
    for agent, row in _rows(now).items():
        where = f"agent {agent} at {now.time:.2f} s"
        if agent in wanted:
            at = wanted[agent]
            gap = float(np.linalg.norm(row.place - put.position[at, :2]))
            turn = abs(float(wrap_angle(row.heading - float(put.heading[at]))))
            pace = float(np.linalg.norm(row.velocity - put.velocity[at]))
            for what, off, most in (("placed", gap, PLACE), ("heading", turn, HEADING), ("velocity", pace, PACE)):
                if off > most:
                    said.append(f"{what}: {where} is {off:.3f} from where it was put, at most {most} would fit")
        elif agent in past:
            old = past[agent]
            gone = row.place - old.place
            mean = (row.velocity + old.velocity) / 2 * dt
            off = float(np.linalg.norm(gone - mean))
            if off > EXPLAINED * dt**2 + PLACE:
                said.append(
                    f"motion: {where} went {gone.round(3).tolist()} m, its velocity says {mean.round(3).tolist()}"
                )
            speed = float(np.linalg.norm(gone)) / dt
            aside = abs(float(wrap_angle(np.arctan2(gone[1], gone[0]) - row.heading)))
            if row.kind == AgentKind.VEHICLE and speed > FAST and DRIFT < aside < np.pi - DRIFT:
                said.append(f"facing: {where} faces {aside:.2f} rad away from where it goes")
        if agent in past and (row.kind != past[agent].kind or not np.array_equal(row.size, past[agent].size)):
            said.append(f"size: {where} is of another size or kind than a tick before")
    return said


def _entered(seen: Observation, now: Observation) -> list[str]:
    """Return who has entered inside of somebody: nearer to its centre than their widths leave."""
    said = []
    for row in np.flatnonzero(~np.isin(now.agent_id, seen.agent_id)).tolist():
        away = np.linalg.norm(now.position[:, :2] - now.position[row, :2], axis=-1)
        inside = away < (now.size[:, 1] + now.size[row, 1]) / 2
        inside[row] = False
        said += [
            f"spawn: agent {now.agent_id[row]} enters at {now.time:.2f} s inside of agent {other}"
            for other in now.agent_id[inside].tolist()
        ]
    return said


def _flickered(earlier: Observation, seen: Observation, now: Observation) -> list[str]:
    """Return who was there, was not, and is there again where it would be had it driven on."""
    said, before, after = [], _rows(earlier), _rows(now)
    for agent in sorted(before.keys() & after.keys() - set(seen.agent_id.tolist())):
        old, new = before[agent], after[agent]
        off = float(np.linalg.norm(new.place - old.place - old.velocity * (now.time - earlier.time)))
        if off < 1.0:
            said.append(
                f"gone: agent {agent} was not listed at {seen.time:.2f} s, and is there again as if it had been"
            )
    return said


class _Lanes:
    """The lanes of a map, and how vehicles were seen on them."""

    def __init__(self, map_: Map) -> None:
        lines = [map_.polyline(int(row))[:, :2] for row in map_.rows(MapKind.LANE)]
        self._row_of = dict(zip(map_.id[map_.rows(MapKind.LANE)].tolist(), range(len(lines)), strict=True))
        self._lines = lines
        self._start = np.concatenate([line[:-1] for line in lines])
        self._along = np.concatenate([np.diff(line, axis=0) for line in lines])
        self._near = self._against = self._all = 0

    def copy(self) -> "_Lanes":
        other = object.__new__(_Lanes)
        other.__dict__.update(self.__dict__)
        return other

    def look(self, seen: Observation) -> list[str]:
        """Count vehicles on lanes, and return what is wrong with lights."""
        lengths = np.maximum((self._along**2).sum(-1), 1e-9)
        course = np.arctan2(self._along[:, 1], self._along[:, 0])
        for row in np.flatnonzero(seen.kind == AgentKind.VEHICLE).tolist():
            off = seen.position[row, :2] - self._start
            share = np.clip((off * self._along).sum(-1) / lengths, 0, 1)
            on = np.linalg.norm(off - share[:, None] * self._along, axis=-1) < ON_LANE
            self._all += 1
            self._near += bool(on.any())
            self._against += bool(on.any() and (np.cos(course[on] - seen.heading[row]) < 0).all())
        said = []
        for lane, stop in zip(seen.light_lane.tolist(), seen.light_stop, strict=True):
            if lane not in self._row_of:
                said.append(f"light: lane {lane} of a light at {seen.time:.2f} s is not on the map")
                continue
            away = float(np.linalg.norm(self._lines[self._row_of[lane]] - stop[:2], axis=-1).min())
            if away > AT_LANE:
                said.append(f"light: that of lane {lane} at {seen.time:.2f} s stops {away:.0f} m away from it")
        return said

    def findings(self) -> tuple[str, ...]:
        """Return what is wrong with the map as a whole."""
        if self._all >= ENOUGH and not self._near:
            return (f"map: none of {self._all} sights of vehicles is within {ON_LANE} m of a lane",)
        if self._near >= ENOUGH and self._against > self._near / 2:
            return (f"map: in {self._against} of {self._near} sights vehicles face against their lane",)
        return ()


def _differences(first: tuple[Observation, ...], second: tuple[Observation, ...], within: float) -> list[str]:
    if len(first) != len(second):
        return [f"repeat: the first run asked {len(first)} times, the second {len(second)} times"]
    for one, other in zip(first, second, strict=True):
        if not np.array_equal(one.agent_id, other.agent_id) or one.time != other.time:
            return [f"repeat: at {one.time:.2f} s other agents are there in the second run"]
        for name in ("position", "heading", "velocity"):
            off = np.abs(getattr(one, name).astype(np.float64) - getattr(other, name))
            if off.size and off.max() > within:
                agent = one.agent_id[int(off.reshape(len(one), -1).max(-1).argmax())]
                return [f"repeat: at {one.time:.2f} s agent {agent} has another {name} in the second run"]
    return []


def _rows(seen: Observation) -> dict[int, _Row]:
    return {
        agent: _Row(
            seen.position[row, :2], float(seen.heading[row]), seen.velocity[row], int(seen.kind[row]), seen.size[row]
        )
        for row, agent in enumerate(seen.agent_id.tolist())
    }
