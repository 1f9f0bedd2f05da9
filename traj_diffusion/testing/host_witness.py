"""What a host owes the traffic that it asks, checked at every tick while the host runs: the other side of the contract.

```
traffic = WitnessedTraffic(ConstantVelocity(), dt=0.1)   # in place of TrafficModel(...)
...                                                      # run the host as ever
assert traffic.findings() == ()
```
"""

from typing import NamedTuple

import numpy as np

from traj_diffusion.geometry import wrap_angle
from traj_diffusion.scene import AgentKind, Observation, Step
from traj_diffusion.sim_adapter import TrafficModel

PLACE = 0.05  # m between where an agent was put and where it is shown
HEADING = 0.01  # rad, likewise
PACE = 0.1  # m/s, likewise
FAST = 3.0  # m/s; a vehicle faster than that faces where it goes
DRIFT = 0.35  # rad between heading and motion of one that turns
EXPLAINED = 10.0  # m/s², the hardest that anyone brakes or pushes off


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
    (units, frames). `facing`: it faces elsewhere than it goes (clockwise angles). `size`, `kind`: they change.
    `time`: a tick is not one dt. Everything that TrafficModel refuses is refused.
    """

    _said: tuple[str, ...] = ()
    _before: tuple[Observation, Step] | None = None

    def findings(self) -> tuple[str, ...]:
        """Return what was noted, in order."""
        return self._said

    def step(self, observation: Observation) -> Step:
        """Compare what is shown with what was asked for, then answer as ever."""
        step = super().step(observation)
        if self._before is not None:
            self._said += tuple(_compare(*self._before, observation, self.dt))
        self._before = observation, step
        return step


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


def _rows(seen: Observation) -> dict[int, _Row]:
    return {
        agent: _Row(
            seen.position[row, :2], float(seen.heading[row]), seen.velocity[row], int(seen.kind[row]), seen.size[row]
        )
        for row, agent in enumerate(seen.agent_id.tolist())
    }
