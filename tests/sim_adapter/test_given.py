"""Given futures: kept exactly, sampled around, and refused where they make no sense."""

from dataclasses import replace

import numpy as np
import pytest

from traj_diffusion.errors import BadInput
from traj_diffusion.policies import ConstantVelocity, DiffusionPolicy, Stationary, load_policy
from traj_diffusion.scene import GivenFuture, Observation, PlanRequest, Scene
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.sim_adapter.given import along, joined, laid_over, nothing, on_grid
from traj_diffusion.sim_adapter.worlds import Worlds
from traj_diffusion.testing import crossing, straight_road


def request_of(policy: DiffusionPolicy, scene: Scene, futures: int, paths: tuple[GivenFuture, ...]) -> PlanRequest:
    known = scene.history_only()
    state = Worlds.at_current_index(known, 1, policy.history_steps).state
    given = on_grid(replace(Observation.from_scene(scene), given=paths), futures)
    return PlanRequest(policy.encode(known), state, futures, 0, 0, np.zeros(1, np.int32), given=given)


def braking(agent: int, start: float, speed: float, brake: float, now: float = 1.0) -> GivenFuture:
    """A car that drives east and brakes at that rate until it stands, told at each tenth of a second of 8 s."""
    time = np.arange(1, 81) * 0.1
    moving = np.minimum(time, speed / brake) if brake else time
    x = start + speed * moving - brake / 2 * moving**2
    return GivenFuture.from_arrays(agent, now + time, np.stack([x, 0 * x], -1), np.zeros(80))


def test_the_sampler_reproduces_what_is_given_and_the_others_fit_it(random_policy: DiffusionPolicy) -> None:
    scene = straight_road()
    path = braking(1, 0.0, 10.0, 2.0)
    free = random_policy.plan(request_of(random_policy, scene, 2, ()))
    plan = random_policy.plan(request_of(random_policy, scene, 2, (path,)))
    off = np.abs(plan.position[0, :, 0] - path.position).max()
    assert off < 0.35, f"actions that follow the given path lead {off:.2f} m beside it"
    assert np.abs(free.position[0, :, 0] - path.position).max() > 5
    assert not np.array_equal(free.position[0, :, 1], plan.position[0, :, 1])


def test_who_follows_a_car_that_is_going_to_brake_goes_less_far() -> None:
    policy = load_policy("small", 4)
    assert isinstance(policy, DiffusionPolicy)
    scene = straight_road(speeds=(10.0, 10.0), gap=14.0)
    went = []
    for brake in (0.0, 5.0):
        plan = policy.plan(request_of(policy, scene, 8, (braking(1, 0.0, 10.0, brake),)))
        went.append(plan.position[0, :, 1, 59, 0])
    assert went[1].mean() < went[0].mean() - 2.0, f"{went[0].round(1)} m behind one that goes on, {went[1].round(1)} m"


def test_a_given_future_depends_on_no_other_future_asked_for(random_policy: DiffusionPolicy) -> None:
    path = braking(1, 0.0, 10.0, 2.0)
    few, many = (random_policy.plan(request_of(random_policy, straight_road(), k, (path,))) for k in (1, 9))
    assert np.array_equal(few.position, many.position[:, :1])


@pytest.mark.parametrize("dt", [0.04, 0.1])
def test_a_driven_agent_is_put_exactly_on_its_given_path_and_goes_on_from_its_end(dt: float) -> None:
    def place(time: float) -> float:
        return 10 * time - time**2  # brakes at 2 m/s²

    time = 1.0 + np.array([-0.2, 0.3, 0.6, 0.9, 1.2, 1.5])
    since = time - 1.0
    path = GivenFuture.from_arrays(1, time, np.stack([place(since), 0 * since], -1), np.zeros(6))
    traffic = TrafficModel(ConstantVelocity(), dt=dt, futures=2)
    seen = Observation.from_scene(straight_road())
    traffic.reset(straight_road(), seen)
    for tick in range(1, round(2.0 / dt)):
        step = traffic.step(replace(seen, given=(path,) if seen.time < 2.5 - 1e-6 else ()))
        if step.time <= 2.5 + 1e-6:
            assert step.position[0, 0] == pytest.approx(place(tick * dt), abs=0.02)
            assert step.position[1, 0] == pytest.approx(-30 + 8 * tick * dt, abs=1e-4)
        if tick == 1:
            assert step.futures is not None
            assert step.futures.position[0, 1, 0, :15, 0] == pytest.approx(place(0.1 * np.arange(1, 16)), abs=0.02)
        assert np.abs(step.position[:, 0] - seen.position[:, 0]).max() < 11 * dt
        seen = replace(seen, time=step.time, position=step.position, heading=step.heading, velocity=step.velocity)


def test_a_log_can_be_given_and_the_traffic_of_others_knows_it() -> None:
    scene = crossing()
    scene.agents.valid[0, 40:] = False
    path = GivenFuture.from_scene(scene, 1)
    assert path.time[[0, -1]] == pytest.approx([1.1, 3.9])
    seen = replace(Observation.from_scene(scene, uncontrolled=[1]), given=(path,))
    traffic = TrafficModel(Stationary())
    traffic.reset(scene, seen)
    step = traffic.step(seen)
    assert step.agent_id.tolist() == [2, 3]
    assert step.futures is not None
    assert np.abs(step.futures.position[0, 0, 0, :29] - scene.agents.position[0, 11:40]).max() < 1e-6


def test_between_its_moments_a_path_bends_and_ends_are_met() -> None:
    angle = 1.25 * np.array([0.4, 0.8])  # 10 m/s on a circle of 8 m
    seen = Observation.from_arrays(
        0.0, agent_id=[7], kind=1, position=[[8.0, 0.0]], heading=[np.pi / 2], velocity=[[0.0, 10.0]], size=(4, 2, 2)
    )
    points = 8 * np.stack([np.cos(angle), np.sin(angle)], -1)
    path = GivenFuture.from_arrays(7, [0.4, 0.8], points, angle + np.pi / 2)
    motion = along(path, seen, np.array([0.2, 0.4, 0.8]))
    assert np.linalg.norm(motion.position[0, :2]) == pytest.approx(8.0, abs=0.25)
    assert motion.position[1:, :2] == pytest.approx(points)


def test_what_comes_after_the_given_part_goes_on_from_there() -> None:
    state = Worlds.at_current_index(straight_road(), 1, 2).state
    plan = ConstantVelocity().plan(PlanRequest(None, state, 1, 0, 0, np.zeros(1, np.int32)))
    given = nothing(1, 2, 3)
    given.position[0, 0, 1] = [[0, 1, 0], [0, 2, 0], [0, 3, 0]]
    given.heading[0, 0, 1] = np.pi / 2
    given.valid[0, 0, 1] = True
    laid = laid_over(plan, given, "test")
    assert laid.position[0, 0, 1, :5, 1] == pytest.approx([1, 2, 3, 3.8, 4.6])
    assert laid.position[0, 0, 1, :, 0] == pytest.approx(0, abs=1e-4)
    assert laid.velocity[0, 0, 1, -1] == pytest.approx([0, 8], abs=1e-5)
    assert np.array_equal(laid.position[0, 0, 0], plan.position[0, 0, 0])
    both = joined(given, plan, [0, 1])
    assert both.valid[0, 0].sum(-1).tolist() == [80, 3]


BAD = {
    "stranger": (braking(9, 0, 10, 0), "agent 9 is of somebody who is not in the observation"),
    "past": (braking(1, 0, 10, 0, now=-20.0), r"must have finite, growing moments that reach beyond 1\.0 s"),
    "leap": (braking(1, 400, 10, 0), r"agent 1 leaps 401\.0 m in 0\.100 s"),
    "nan": (braking(1, np.nan, 10, 0), "agent 1 has a pose that is not finite"),
    "order": (replace(braking(1, 0, 10, 0), time=np.linspace(3, 2, 80)), "growing moments"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_given_future_that_cannot_be_is_refused_in_one_line(name: str) -> None:
    path, message = BAD[name]
    seen = Observation.from_scene(straight_road())
    traffic = TrafficModel(ConstantVelocity())
    traffic.reset(None, seen)
    with pytest.raises(BadInput, match=f"^tick 0, 1.0 s: .*{message}"):
        traffic.step(replace(seen, given=(path,)))
    with pytest.raises(BadInput, match="agent 1 is listed more than once"):
        traffic.step(replace(seen, given=(braking(1, 0, 10, 0),) * 2))
    with pytest.raises(BadInput, match=r"given future of agent 1: heading does not fit \[2\]"):
        GivenFuture.from_arrays(1, [1.0, 2.0], [[0, 0], [1, 1]], [0.0])
    assert traffic.step(seen).time == pytest.approx(1.1)
