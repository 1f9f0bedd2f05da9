"""The traffic model's contract, its awkward moments included."""

import gc
import subprocess
import sys
import threading
import weakref
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from traj_diffusion.errors import BadInput, HostError
from traj_diffusion.policies import ConstantVelocity, DiffusionPolicy, Stationary
from traj_diffusion.scene import AgentKind, LaneType, MapKind, Observation, Plan, PlanRequest, Scene, Step
from traj_diffusion.sim_adapter import TrafficModel, rollout
from traj_diffusion.sim_adapter.history import world_state
from traj_diffusion.testing import crossing, make_map, straight_road
from traj_diffusion.testing.observations import begun, outcome

CAR = {"kind": AgentKind.VEHICLE, "size": (4.5, 2.0, 1.6)}


class Watched(ConstantVelocity):
    """Constant velocity that keeps what it was asked."""

    def __init__(self, history_steps: int = 11) -> None:
        super().__init__(history_steps=history_steps)
        object.__setattr__(self, "asked", [])

    def plan(self, request: PlanRequest) -> Plan:
        self.asked.append(request)  # type: ignore[attr-defined]
        return super().plan(request)


def cars(time: float, ids: list[int], x: list[float], speed: float = 10.0, driven: object = True) -> Observation:
    """Cars that drive east side by side, 5 m apart."""
    count = len(ids)
    return Observation.from_arrays(
        time,
        agent_id=ids,
        position=np.stack([np.array(x), 5.0 * np.arange(count)], -1) if count else np.zeros((0, 2)),
        heading=np.zeros(count),
        velocity=np.tile([speed, 0.0], (count, 1)),
        is_controlled=driven,
        **CAR,  # type: ignore[arg-type]
    )


def follow(seen: Observation, step: Step) -> Observation:
    """Return what a host that does as it is told shows next; the uncontrolled go on at their velocity."""
    position = seen.position.copy()
    position[:, :2] += seen.velocity * (step.time - seen.time)
    heading, velocity = seen.heading.copy(), seen.velocity.copy()
    driven = seen.is_controlled
    position[driven], heading[driven], velocity[driven] = step.position, step.heading, step.velocity
    return replace(seen, time=step.time, position=position, heading=heading, velocity=velocity)


def drive(traffic: TrafficModel, scene: Scene, steps: int, uncontrolled: tuple[int, ...] = ()) -> list[Step]:
    seen = Observation.from_scene(scene, uncontrolled=uncontrolled)
    traffic.reset(scene, seen)
    done = []
    for _ in range(steps):
        done.append(traffic.step(seen))
        seen = follow(seen, done[-1])
    return done


def same(one: Step, other: Step) -> bool:
    return np.array_equal(one.position, other.position) and np.array_equal(one.heading, other.heading)


def test_in_a_host_that_obeys_the_traffic_is_the_rollout_bit_for_bit(random_policy: DiffusionPolicy) -> None:
    closed = rollout(crossing(), random_policy, rollouts=1, futures=2, seed=5, seconds=1.2)
    steps = drive(TrafficModel(random_policy, futures=2, seed=5), crossing(), 12)
    assert np.array_equal(np.stack([step.position for step in steps], 1), closed.position[0])
    assert np.array_equal(np.stack([step.heading for step in steps], 1), closed.heading[0])
    assert [step.replanned for step in steps] == [True, False, False, False, False] * 2 + [True, False]
    assert steps[0].futures is not None
    assert steps[0].futures.position.shape == (1, 2, 3, 80, 3)


def test_the_same_calls_give_the_same_bits_and_more_futures_leave_them_so(random_policy: DiffusionPolicy) -> None:
    one, two, more = (drive(TrafficModel(random_policy, futures=k, seed=3), crossing(), 6)[-1] for k in (1, 1, 9))
    assert same(one, two)
    assert same(one, more)
    assert not same(one, drive(TrafficModel(random_policy, seed=4), crossing(), 6)[-1])


@pytest.mark.parametrize("dt", [0.02, 0.03, 0.1, 0.25, 0.5])
def test_any_dt_of_the_host_gives_the_same_speed(dt: float) -> None:
    policy = Watched()
    traffic = TrafficModel(policy, dt=dt)
    steps = drive(traffic, straight_road(speeds=(10.0, 8.0)), round(3 / dt))
    assert steps[-1].time == pytest.approx(1.0 + 3.0)
    assert steps[-1].position[:, 0] == pytest.approx([30.0, -30 + 24.0], abs=1e-4)
    times = [request.tick for request in policy.asked]  # type: ignore[attr-defined]
    assert times == [0, 5, 10, 15, 20, 25]
    for request in policy.asked:  # type: ignore[attr-defined]
        assert request.state.valid.all()
        assert request.state.dt == 0.1
        assert np.diff(request.state.position[0, 0, :, 0]) == pytest.approx(1.0, abs=1e-4)


def test_history_on_the_grid_follows_the_bend_between_observations() -> None:
    def at(time: float) -> Observation:  # 10 m/s on a circle of 8 m
        angle = 1.25 * time
        return Observation.from_arrays(
            time,
            agent_id=[1],
            position=[[8 * np.cos(angle), 8 * np.sin(angle)]],
            heading=[angle + np.pi / 2],
            velocity=[[-10 * np.sin(angle), 10 * np.cos(angle)]],
            **CAR,  # type: ignore[arg-type]
        )

    state = world_state([at(t) for t in (0.0, 0.25, 0.5, 0.75, 1.0)], 11)
    assert state.valid.all()
    assert np.linalg.norm(state.position[0, 0, :, :2], axis=-1) == pytest.approx(8.0, abs=1e-4)
    assert state.heading[0, 0] == pytest.approx(1.25 * np.arange(0, 1.01, 0.1) + np.pi / 2, abs=1e-5)


def test_who_enters_late_has_no_history_and_is_driven_at_once() -> None:
    policy = Watched()
    traffic = TrafficModel(policy)
    traffic.reset(None, cars(0.0, [7], [0.0]))
    traffic.step(cars(0.0, [7], [0.0]))
    step = traffic.step(cars(0.1, [9, 7], [50.0, 1.0]))
    assert step.replanned
    assert step.agent_id.tolist() == [9, 7]
    assert step.position[:, 0] == pytest.approx([51.0, 2.0])
    valid = policy.asked[-1].state.valid[0]  # type: ignore[attr-defined]
    assert valid[0].tolist() == [False] * 10 + [True]
    assert valid[1].tolist() == [False] * 9 + [True, True]


def test_who_leaves_and_comes_back_has_a_hole_in_its_history() -> None:
    policy = Watched()
    traffic = TrafficModel(policy, replan_every=1)
    traffic.reset(None, cars(0.0, [1, 2], [0.0, 0.0]))
    for tick in range(8):
        there = [1] if tick in (3, 4) else [1, 2]
        step = traffic.step(cars(0.1 * tick, there, [1.0 * tick] * len(there)))
        assert step.agent_id.tolist() == there
    returned = policy.asked[-1].state.valid[0, 1]  # type: ignore[attr-defined]
    assert returned.tolist() == [False] * 3 + [True] * 3 + [False] * 2 + [True] * 3


def test_an_id_that_comes_back_as_another_kind_has_no_history() -> None:
    policy = Watched()
    traffic = TrafficModel(policy)
    traffic.reset(None, cars(0.0, [1, 2], [0.0, 0.0]))
    traffic.step(cars(0.0, [1, 2], [0.0, 0.0]))
    traffic.step(cars(0.1, [1], [1.0]))
    walker = replace(cars(0.2, [1, 2], [2.0, 2.0]), kind=np.array([1, 2], np.uint8))
    traffic.step(walker)
    assert policy.asked[-1].state.valid[0].sum(-1).tolist() == [3, 1]  # type: ignore[attr-defined]


def test_what_the_host_did_not_look_at_for_long_is_not_known() -> None:
    state = world_state([cars(0.0, [1], [0.0]), cars(0.7, [1], [7.0])], 11)
    assert np.flatnonzero(state.valid[0, 0]).tolist() == [3, 10]


def test_the_uncontrolled_are_context_and_a_handover_makes_no_jump(random_policy: DiffusionPolicy) -> None:
    traffic = TrafficModel(random_policy)
    scene = crossing()
    seen = Observation.from_scene(scene, uncontrolled=[2])
    traffic.reset(scene, seen)
    for _tick in range(4):
        step = traffic.step(seen)
        assert step.agent_id.tolist() == [1, 3]
        assert step.futures_id.tolist() == [1, 2, 3]
        seen = follow(seen, step)
    taken = replace(seen, is_controlled=np.ones(3, bool))
    step = traffic.step(taken)
    assert step.replanned
    moved = np.linalg.norm(step.position - taken.position, axis=-1)
    assert moved == pytest.approx(np.linalg.norm(taken.velocity, axis=-1) * 0.1, abs=0.05)


def test_a_fork_goes_its_own_way_and_leaves_the_other_as_it_was(random_policy: DiffusionPolicy) -> None:
    scene = crossing()
    seen = Observation.from_scene(scene, uncontrolled=[2])
    traffic = TrafficModel(random_policy, replan_every=1)
    traffic.reset(scene, seen)
    seen = follow(seen, traffic.step(seen))
    fork, twin = traffic.fork(), traffic.fork()
    assert same(fork.step(seen), twin.step(seen))
    nearer = seen.position.copy()
    nearer[1, 1] += 3.0
    changed = twin.fork()
    later = follow(seen, traffic.step(seen))
    assert not same(changed.step(replace(later, position=nearer)), traffic.step(later))
    assert same(fork.step(later), twin.step(later))


def test_an_agent_that_the_host_shows_elsewhere_is_planned_anew_with_a_warning() -> None:
    traffic = TrafficModel(Stationary())
    traffic.reset(None, cars(0.0, [4], [0.0]))
    traffic.step(cars(0.0, [4], [0.0]))
    step = traffic.step(cars(0.1, [4], [2.0]))
    assert step.replanned
    assert step.warnings == ("agent 4 is 2.0 m from where it was put for 0.10 s; planned anew",)
    assert step.position[0, 0] == pytest.approx(2.0)


FAULTS = {
    "NaN": (lambda o: replace(o, position=o.position * np.nan), BadInput, r"tick 2, 0.2 s: agent 5: position is \[nan"),
    "infinite": (lambda o: replace(o, velocity=o.velocity + np.float32(np.inf)), BadInput, "agent 5: velocity is"),
    "twice": (lambda o: replace(o, agent_id=np.array([6, 6])), BadInput, "tick 2.*agent id 6 is listed more than once"),
    "kind": (lambda o: replace(o, kind=np.array([9, 1], np.uint8)), BadInput, "agent 5: kind is 9; known kinds"),
    "size": (lambda o: replace(o, size=-o.size), BadInput, "agent 5: size is"),
    "back": (lambda o: replace(o, time=0.05), HostError, "tick 2, 0.05 s: time does not grow"),
    "again": (lambda o: replace(o, time=0.1), HostError, "time does not grow, the tick before was at 0.1 s"),
    "never": (lambda o: replace(o, time=float("nan")), BadInput, "tick 2, nan s: its time is nan"),
    "jump": (lambda o: replace(o, position=o.position + 40), HostError, "tick 2.*agent 5 has jumped 57.3 m in 0.100 s"),
    "other": (lambda o: replace(o, kind=np.array([1, 2], np.uint8)), HostError, "agent 6 has become kind 2, it was 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_naming_agent_and_tick_and_then_nothing_has_happened(fault: str) -> None:
    spoil, error, message = FAULTS[fault]
    traffic, unharmed = (TrafficModel(ConstantVelocity(), replan_every=2) for _ in range(2))
    for one in (traffic, unharmed):
        one.reset(None, cars(0.0, [5, 6], [0.0, 0.0]))
        one.step(cars(0.0, [5, 6], [0.0, 0.0]))
        one.step(cars(0.1, [5, 6], [1.0, 1.0]))
    good = cars(0.2, [5, 6], [2.0, 2.0])
    with pytest.raises(error, match=message):
        traffic.step(spoil(good))
    assert same(traffic.step(good), unharmed.step(good))
    assert traffic.latency().steps == 3


def test_a_policy_that_fails_leaves_the_tick_undone() -> None:
    class Broken(ConstantVelocity):
        def plan(self, request: PlanRequest) -> Plan:
            plan = super().plan(request)
            plan.position[0, 0, 1] = np.nan if request.tick else 0.0
            return plan

    traffic = TrafficModel(Broken(), replan_every=1)
    traffic.reset(None, cars(0.0, [5, 6], [0.0, 0.0]))
    traffic.step(cars(0.0, [5, 6], [0.0, 0.0], driven=[True, False]))
    for _ in range(2):
        with pytest.raises(BadInput, match=r"tick 1, 0\.1 s: policy constant_velocity planned a future for agent 6"):
            traffic.step(cars(0.1, [5, 6], [1.0, 1.0]))


def test_an_episode_holds_no_more_later_than_at_first() -> None:
    traffic = TrafficModel(ConstantVelocity(history_steps=11), dt=0.5)
    traffic.reset(None, cars(0.0, [1], [0.0]))
    held = []
    for tick in range(60):
        traffic.step(cars(0.5 * tick, [1], [5.0 * tick]))
        held.append(len(traffic._episode.seen))  # type: ignore[union-attr]
    assert max(held[:10]) == max(held) == 3


TEN_MINUTES = """
import gc, tracemalloc
import torch
from traj_diffusion.model import ModelConfig, TrafficDiffusion
from traj_diffusion.policies import DiffusionPolicy
from traj_diffusion.scene import AgentKind, Observation
from traj_diffusion.sim_adapter import TrafficModel

torch.manual_seed(0)
model = TrafficDiffusion(ModelConfig(width=32, n_heads=4, encoder_layers=1, denoiser_layers=1)).eval()
traffic = TrafficModel(DiffusionPolicy(model, "warm", steps=1, warm=0.5), dt=0.5)

def cars(time, ids, xs):
    return Observation.from_arrays(
        time, agent_id=ids, kind=[AgentKind.VEHICLE] * len(ids), position=[[x, 5.0 * row] for row, x in enumerate(xs)],
        heading=[0.0] * len(ids), velocity=[[10.0, 0.0]] * len(ids), size=[[4.5, 2.0, 1.6]] * len(ids),
        is_controlled=[True] * len(ids),
    )

traffic.reset(None, cars(0.0, [0], [0.0]))
tracemalloc.start()
for tick in range(1200):
    ids = [tick // 40, 1000 + tick // 7]  # each drives in the same place and leaves it to the next
    traffic.step(cars(0.5 * tick, ids, [5.0 * (tick % 40), 5.0 * (tick % 7)]))
    if tick % 100 == 99:
        gc.collect()
        print(tracemalloc.get_traced_memory()[0])
"""


def test_ten_minutes_in_which_agents_come_and_go_take_no_more_memory() -> None:
    # In a process of its own, where no call is checked for its shapes: those checks remember what they have seen.
    done = subprocess.run([sys.executable, "-P", "-c", TEN_MINUTES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    held = [int(line) for line in done.stdout.split()]
    assert len(held) == 12
    assert max(held[6:]) < max(held[:6]) + 200_000, f"bytes held at every 50 s: {held}"


def test_nobody_one_and_three_hundred() -> None:
    traffic = TrafficModel(ConstantVelocity(), futures=2)
    traffic.reset(None, cars(0.0, [], []))
    step = traffic.step(cars(0.0, [], []))
    assert step.futures is None
    assert step.position.shape == (0, 3)
    assert traffic.step(cars(0.1, [1], [0.0], driven=False)).agent_id.tolist() == []
    many = list(range(300))
    step = traffic.step(cars(0.2, many, [0.2 * 5] * 300))
    assert step.position.shape == (300, 3)
    assert step.futures is not None
    assert step.futures.position.shape == (1, 2, 300, 80, 3)


def test_one_agent_without_map_or_lights_under_the_diffusion_policy(random_policy: DiffusionPolicy) -> None:
    with TrafficModel(random_policy) as traffic:
        traffic.reset(None, cars(0.0, [1], [0.0]))
        assert np.isfinite(traffic.step(cars(0.0, [1], [0.0])).position).all()
    with pytest.raises(HostError, match="closed"):
        traffic.step(cars(0.1, [1], [1.0]))
    traffic.close()


def test_metadata_latency_and_wrong_use() -> None:
    traffic = TrafficModel(Watched(), futures=3, dt=0.2, commit="consistent")
    assert traffic.metadata["history"] == pytest.approx(1.0)
    assert (traffic.metadata["policy"], traffic.metadata["commit"]) == ("constant_velocity", "consistent")
    with pytest.raises(HostError, match="step before reset"):
        traffic.step(cars(0.0, [1], [0.0]))
    traffic.reset(None, cars(0.0, [1], [0.0]))
    with pytest.raises(HostError, match="no step has been taken"):
        traffic.latency()
    steps = [traffic.step(cars(0.2 * tick, [1], [2.0 * tick])) for tick in range(5)]
    took = sorted(step.latency_ms for step in steps)
    assert took[0] > 0
    assert took[0] <= traffic.latency().p50 <= traffic.latency().p99 <= took[-1]
    for wrong, message in (
        ({"dt": 0.7}, "dt must be 0.001 to 0.5 s, not 0.7"),
        ({"futures": 0}, "futures must be a whole number of at least 1, not 0"),
        ({"commit": "best"}, "unknown commit rule 'best'"),
    ):
        with pytest.raises(ValueError, match=message):
            TrafficModel(ConstantVelocity(), **wrong)  # type: ignore[arg-type]


def test_arrays_that_are_no_observation_are_named() -> None:
    good = {"agent_id": [1], "position": [[0, 0]], "heading": [0], "velocity": [[0, 0]], **CAR}
    assert Observation.from_arrays(0, **good).position.tolist() == [[0, 0, 0]]  # type: ignore[arg-type]
    for field, value, message in (
        ("position", [[0, 0, 0], [1, 1, 1]], r"position does not fit \[1 3\]"),
        ("agent_id", [1.5], "agent_id does not fit"),
        ("agent_id", ["car"], "agent_id does not fit"),
        ("heading", None, "heading does not fit"),
        ("velocity", [[1e30, 0]], "agent 1: velocity"),
    ):
        with pytest.raises(BadInput, match=message):
            Observation.from_arrays(0, **{**good, field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("controlled", [True, False])
def test_mutated_observations_work_or_are_refused_and_leave_no_trace(controlled: bool) -> None:
    scene = crossing()
    base = TrafficModel(
        ConstantVelocity(),
        futures=2,
        commit="consistent",
        controllers={"stands": Stationary()} if controlled else {},
        assign={2: "stands"} if controlled else {},
    )
    good = begun(base, scene)
    ends = Counter(outcome(scene, base, good, np.random.default_rng([7, number])) for number in range(150))
    assert min(ends["worked"], ends["refused"]) > 25
    assert sum(ends.values()) == 150
    assert base.step(good).warnings == ()


def test_a_map_that_cannot_be_is_refused_and_the_episode_before_goes_on() -> None:
    scene = crossing()
    seen = Observation.from_scene(scene)
    traffic = TrafficModel(ConstantVelocity())
    traffic.reset(scene, seen)
    seen = follow(seen, traffic.step(seen))
    strange, nowhere = scene.map.kind.copy(), scene.map.points.copy()
    strange[1], nowhere[3, 0] = 99, np.nan
    for wrong, message in (
        (replace(scene.map, kind=strange), r"map kinds \[.*99.*\]; known: "),
        (replace(scene.map, points=nowhere), "a map point is not finite"),
    ):
        with pytest.raises(BadInput, match=message):
            traffic.reset(wrong, seen)
    assert traffic.step(seen).time == pytest.approx(1.2)


def test_nothing_is_left_after_close(random_policy: DiffusionPolicy) -> None:
    scene = crossing()
    features = replace(scene.map, points=scene.map.points.copy())
    traffic = TrafficModel(random_policy, futures=9)
    seen = Observation.from_scene(scene)
    traffic.reset(replace(scene, map=features), seen)
    step = traffic.step(seen)
    fork = traffic.fork()
    held = weakref.ref(features), weakref.ref(step)
    threads = threading.active_count()
    traffic.close()
    assert fork.step(follow(seen, step)).time == pytest.approx(1.2), "a fork lives on by itself"
    fork.close()
    del features, step, scene
    gc.collect()
    assert [one() for one in held] == [None, None]
    assert threading.active_count() <= threads


def test_a_map_larger_than_what_the_model_sees_is_seen_around_each_agent(random_policy: DiffusionPolicy) -> None:
    along = np.linspace(-6000.0, 6000.0, 2401)
    flat = np.zeros_like(along)
    road = make_map([(MapKind.LANE, LaneType.SURFACE_STREET, np.stack([along, flat], -1))])
    ends = []
    for start in (0.0, 4000.0):
        traffic = TrafficModel(random_policy, seed=2)
        seen = cars(0.0, [1, 2], [start, start + 20.0])
        traffic.reset(road, seen)
        for _ in range(12):
            seen = follow(seen, traffic.step(seen))
        ends.append(seen.position - [start, 0, 0])
    assert np.abs(ends[1] - ends[0]).max() < 0.02
