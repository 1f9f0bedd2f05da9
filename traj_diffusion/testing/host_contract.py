"""What every traffic model owes the simulator that it is plugged into, as checks that anyone can run.

```
@pytest.mark.parametrize("check", HOST_CONTRACT, ids=lambda check: check.__name__)
def test_contract(check):
    check(lambda dt: TrafficModel(my_policy, seed=0, dt=dt))
```

A check makes traffic with `make(dt)`, plays a host whose right answers are known, and returns None or raises
AssertionError saying what was found. Anything with `reset` and `step` like TrafficModel's can be held to it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from traj_diffusion.errors import TrajDiffusionError
from traj_diffusion.geometry import rotate
from traj_diffusion.scene import AgentKind, Map, Observation, Scene, Step
from traj_diffusion.testing.scenes import crossing

TICK = 0.1  # s
HARDEST = 10.0  # m/s², more than any road user can accelerate or brake
FASTEST_TURN = 3.5  # rad/s


@runtime_checkable
class Traffic(Protocol):
    """What is held to the contract."""

    def reset(self, scene_or_map: Scene | Map | None, observation: Observation) -> None:
        """Begin an episode."""
        ...

    def step(self, observation: Observation) -> Step:
        """Return where the controlled agents are one host step later."""
        ...


Make = Callable[[float], Traffic]


def obey(seen: Observation, step: Step) -> Observation:
    """Return what a host shows next that places agents where it is told; the others go on at their velocity."""
    position, heading, velocity = seen.position.copy(), seen.heading.copy(), seen.velocity.copy()
    position[:, :2] += seen.velocity * (step.time - seen.time)
    row_of = {agent: row for row, agent in enumerate(seen.agent_id.tolist())}
    rows = [row_of[agent] for agent in step.agent_id.tolist()]
    position[rows], heading[rows], velocity[rows] = step.position, step.heading, step.velocity
    return replace(seen, time=step.time, position=position, heading=heading, velocity=velocity)


def play(traffic: Traffic, scene: Scene, steps: int, seen: Observation | None = None) -> list[Step]:
    """Return the steps of an obedient host from a scene's current index on."""
    seen = seen or Observation.from_scene(scene)
    traffic.reset(scene, seen)
    done = []
    for _ in range(steps):
        done.append(traffic.step(seen))
        seen = obey(seen, done[-1])
    return done


def frames_do_not_matter(make: Make) -> None:
    """A world that is turned by 90° and lies 40 km away has the same traffic, turned and moved.

    A left-handed host, or one with clockwise angles, breaks this; so do coordinates that were rounded to 32 bits.
    """
    scene, angle, shift = crossing(), np.pi / 2, np.array([4e4, -3e4])
    plain = play(make(TICK), scene, 6)[-1]
    turned = play(make(TICK), _turned(scene, angle, shift), 6)[-1]
    wanted = rotate(plain.position[:, :2], np.full(len(plain.position), angle)) + shift
    off = float(np.abs(turned.position[:, :2] - wanted).max())
    _that(off < 0.02, f"in a turned and moved world agents are up to {off:.3f} m elsewhere")
    spun = float(np.abs(turned.heading - plain.heading - angle).max())
    _that(spun < 0.02, f"in a turned world headings differ by {spun:.3f} rad beyond the turn")


def everyone_moves_where_it_faces(make: Make) -> None:
    """Headings run counter-clockwise from east: who faces north and drives on goes north."""
    seen = _convoy(0.0)
    traffic = make(TICK)
    traffic.reset(None, seen)
    step = traffic.step(seen)
    went = step.position[:, :2] - seen.position[:, :2]
    facing = np.stack([np.cos(seen.heading), np.sin(seen.heading)], -1)
    along = (went * facing).sum(-1)
    across = np.abs(went - along[:, None] * facing).max(-1)
    _that(bool((along > 0.8).all()), f"cars at 10 m/s went {along.round(3).tolist()} m ahead in 0.1 s; wanted about 1")
    _that(bool((across < 0.2).all()), f"cars went {across.round(3).tolist()} m aside in 0.1 s")


def positions_are_box_centres(make: Make) -> None:
    """The first step is as long as speed and acceleration allow, whatever the length: no jump to an axle or bumper."""
    for length in (3.5, 18.0):
        seen = replace(_convoy(0.0), size=np.tile(np.array([length, 2.5, 3.0], np.float32), (4, 1)))
        traffic = make(TICK)
        traffic.reset(None, seen)
        step = traffic.step(seen)
        gap = np.linalg.norm(step.position - seen.position, axis=-1)
        # The centre sways about the axle: at most half the length times the yaw rate.
        slack = HARDEST * TICK**2 + 0.05 * length
        off = float(np.abs(gap - 1.0).max())
        _that(off < slack, f"vehicles of {length} m at 10 m/s went {gap.round(3).tolist()} m in 0.1 s")


def handing_over_makes_no_jump(make: Make) -> None:
    """An agent that becomes controlled goes on from where the host shows it, at the speed that it had."""
    scene = crossing()
    seen = Observation.from_scene(scene, uncontrolled=[int(scene.agents.id[1])])
    traffic = make(TICK)
    traffic.reset(scene, seen)
    for _ in range(3):
        step = traffic.step(seen)
        _that(int(scene.agents.id[1]) not in step.agent_id.tolist(), "an agent that is not controlled was driven")
        seen = obey(seen, step)
    seen = replace(seen, is_controlled=np.ones(len(seen), bool))
    step = traffic.step(seen)
    _that(step.agent_id.tolist() == seen.agent_id.tolist(), f"driven are {step.agent_id}, not all {seen.agent_id}")
    _smooth(seen, step, TICK)


def any_dt_works(make: Make) -> None:
    """With a host's step of 0.02 to 0.5 s nobody jumps, stands still, or spins, and times are right."""
    for dt in (0.02, 0.05, 0.25, 0.5):
        traffic, seen = make(dt), Observation.from_scene(crossing())
        traffic.reset(crossing(), seen)
        for _ in range(round(1.0 / dt)):
            step = traffic.step(seen)
            _that(abs(step.time - seen.time - dt) < 1e-6, f"at dt={dt} a step of {step.time - seen.time} s came back")
            _smooth(seen, step, dt)
            seen = obey(seen, step)


def agents_come_and_go(make: Make) -> None:
    """Exactly those that are listed and controlled are driven, in that order; whoever enters is driven at once."""
    traffic, everyone = make(TICK), _convoy(0.0)
    traffic.reset(None, _only(everyone, [0, 1]))
    for tick, rows in enumerate(([0, 1], [1], [3, 1], [], [2, 0, 1, 3], [0, 2])):
        seen = _only(_convoy(tick * TICK), rows)
        step = traffic.step(seen)
        _that(
            step.agent_id.tolist() == seen.agent_id.tolist(), f"tick {tick}: {step.agent_id} driven of {seen.agent_id}"
        )
        if rows:
            _smooth(seen, step, TICK)


def bad_observations_are_refused_whole(make: Make) -> None:
    """NaN, a doubled id and time that stands still raise a typed error; then the corrected tick goes on as if never."""
    spoilt, unharmed = make(TICK), make(TICK)
    first, good = _convoy(0.0), _convoy(TICK)
    for traffic in (spoilt, unharmed):
        traffic.reset(None, first)
        traffic.step(first)
    bad = {
        "NaN in a position": replace(good, position=good.position * np.where(np.arange(4) == 2, np.nan, 1.0)[:, None]),
        "an infinite velocity": replace(good, velocity=good.velocity + np.float32(np.inf)),
        "an id listed twice": replace(good, agent_id=np.array([1, 2, 3, 2])),
        "time that stands still": replace(good, time=first.time),
        "an agent that jumps 500 m": replace(good, position=good.position + np.array([500.0, 0, 0])),
    }
    for what, observation in bad.items():
        try:
            spoilt.step(observation)
        except TrajDiffusionError:
            continue
        raise AssertionError(f"{what} was accepted")
    _same(spoilt.step(good), unharmed.step(good), "after refused observations")


def the_same_calls_give_the_same_bits(make: Make) -> None:
    """Two runs of the same calls are equal bit for bit."""
    for one, other in zip(play(make(TICK), crossing(), 8), play(make(TICK), crossing(), 8), strict=True):
        _same(one, other, "the same calls")


HOST_CONTRACT: tuple[Callable[[Make], None], ...] = (
    frames_do_not_matter,
    everyone_moves_where_it_faces,
    positions_are_box_centres,
    handing_over_makes_no_jump,
    any_dt_works,
    agents_come_and_go,
    bad_observations_are_refused_whole,
    the_same_calls_give_the_same_bits,
)


def _convoy(time: float) -> Observation:
    """Four cars at 10 m/s that face east, north, west and south, out of each other's way."""
    facing = np.array([0.0, 0.5, 1.0, -0.5]) * np.pi
    ahead = np.stack([np.cos(facing), np.sin(facing)], -1)
    return Observation.from_arrays(
        time,
        agent_id=[1, 2, 3, 4],
        kind=AgentKind.VEHICLE,
        position=ahead * (50 + 10 * time),
        heading=facing,
        velocity=10 * ahead,
        size=(4.5, 2.0, 1.6),
    )


def _only(seen: Observation, rows: list[int]) -> Observation:
    names = ("agent_id", "kind", "position", "heading", "velocity", "size", "is_controlled")
    return replace(seen, **{name: getattr(seen, name)[rows] for name in names})


def _turned(scene: Scene, angle: float, shift: np.ndarray) -> Scene:
    def place(points: np.ndarray) -> np.ndarray:
        flat = rotate(points[..., :2], np.full(points.shape[:-1], angle)) + shift
        return np.concatenate([flat, points[..., 2:]], -1)

    agents = scene.agents
    turned = replace(
        agents,
        position=place(agents.position),
        heading=(agents.heading + angle).astype(np.float32),
        velocity=rotate(agents.velocity, np.full(agents.valid.shape, angle)).astype(np.float32),
    )
    lights = replace(scene.lights, stop_point=place(scene.lights.stop_point))
    return replace(scene, agents=turned, map=replace(scene.map, points=place(scene.map.points)), lights=lights)


def _smooth(seen: Observation, step: Step, dt: float) -> None:
    """Raise unless the driven agents went as far as their speed and any driver's acceleration explain."""
    row_of = {agent: row for row, agent in enumerate(seen.agent_id.tolist())}
    rows = [row_of[agent] for agent in step.agent_id.tolist()]
    straight = seen.position[rows, :2] + seen.velocity[rows] * dt
    off = np.linalg.norm(step.position[:, :2] - straight, axis=-1)
    slack = HARDEST * dt**2 + 0.1
    _that(
        bool((off < slack).all()), f"in {dt} s agents went {off.round(3).tolist()} m beside what their speed explains"
    )
    turned = np.abs((step.heading - seen.heading[rows] + np.pi) % (2 * np.pi) - np.pi)
    _that(bool((turned < FASTEST_TURN * dt + 0.01).all()), f"in {dt} s agents turned by {turned.round(3).tolist()} rad")


def _same(found: Step, wanted: Step, what: str) -> None:
    for name in ("agent_id", "position", "heading", "velocity"):
        same = np.array_equal(getattr(found, name), getattr(wanted, name))
        _that(same, f"{what}: {name} differs, it must be the same bit for bit")


def _that(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
