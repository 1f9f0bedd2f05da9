"""The baselines do what their names say, on scenes whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest

from traj_diffusion.policies import BASELINES, ConstantTurnRate, ConstantVelocity, IdmFollower
from traj_diffusion.scene import (
    AgentKind,
    LaneType,
    LightState,
    MapKind,
    Plan,
    PlanRequest,
    Policy,
    Scene,
)
from traj_diffusion.sim_adapter import rollout
from traj_diffusion.sim_adapter.worlds import Worlds
from traj_diffusion.testing import crossing, make_scene, straight_road
from traj_diffusion.testing.scenes import make_map


def planned(policy: Policy, scene: Scene, worlds: int = 1, futures: int = 1) -> Plan:
    state = Worlds.at_current_index(scene.history_only(), worlds, policy.history_steps).state
    return policy.plan(PlanRequest(policy.encode(scene), state, futures, 0, 0, np.arange(worlds, dtype=np.int32)))


def on_a_circle(radius: float = 20.0, speed: float = 5.0) -> Scene:
    """Return a car that drives counter-clockwise around the origin, recorded without error."""
    scene = make_scene(np.array([[radius, 0.0]]), np.array([[0.0, speed]]))
    angle = speed / radius * (np.arange(scene.steps) - scene.current_index) * scene.dt
    agents = scene.agents
    position, velocity = agents.position.copy(), agents.velocity.copy()
    position[0, :, 0], position[0, :, 1] = radius * np.cos(angle), radius * np.sin(angle)
    velocity[0, :, 0], velocity[0, :, 1] = -speed * np.sin(angle), speed * np.cos(angle)
    heading = (angle[None] + np.pi / 2).astype(np.float32)
    return replace(scene, agents=replace(agents, position=position, velocity=velocity, heading=heading))


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_keeps_the_protocol(name: str) -> None:
    policy = BASELINES[name]()
    assert isinstance(policy, Policy)
    assert policy.name == name
    plan = planned(policy, crossing(), worlds=2, futures=3)
    assert plan.position.shape == (2, 3, 3, 80, 3)
    assert np.isfinite(plan.position).all()
    assert np.isfinite(plan.heading).all()
    assert np.isfinite(plan.velocity).all()


@pytest.mark.parametrize("name", BASELINES)
def test_a_map_without_lanes_and_an_agent_seen_only_now_are_no_trouble(name: str) -> None:
    scene = make_scene(np.array([[0.0, 0], [9, 0]]), np.array([[5.0, 0], [0, 0]]))
    valid = scene.agents.valid.copy()
    valid[:, : scene.current_index] = False
    result = rollout(replace(scene, agents=replace(scene.agents, valid=valid)), BASELINES[name](), rollouts=1)
    assert np.isfinite(result.position).all()


def test_constant_velocity_goes_on_by_the_last_step_whatever_the_recorded_velocity() -> None:
    scene = straight_road(speeds=(10.0,))
    other = replace(scene, agents=replace(scene.agents, velocity=scene.agents.velocity + 3))
    assert rollout(other, ConstantVelocity(), rollouts=1).position[0, 0, -1] == pytest.approx([80, 0, 0], abs=1e-6)


def test_constant_turn_rate_stays_on_its_circle_however_often_it_is_replanned() -> None:
    scene = on_a_circle()
    once = planned(ConstantTurnRate(), scene).position[0, 0, 0]
    assert once == pytest.approx(scene.agents.position[0, 11:], abs=1e-4)
    for replan_every in (1, 7):
        again = rollout(scene, ConstantTurnRate(), rollouts=1, replan_every=replan_every)
        assert again.position[0, 0] == pytest.approx(once, abs=1e-3)
        assert again.heading[0, 0] == pytest.approx(scene.agents.heading[0, 11:], abs=1e-4)


def test_a_standing_car_whose_heading_jitters_does_not_turn() -> None:
    scene = make_scene(np.array([[0.0, 0]]), np.array([[0.0, 0]]))
    heading = scene.agents.heading + np.linspace(0, 3, scene.steps, dtype=np.float32)
    plan = planned(ConstantTurnRate(), replace(scene, agents=replace(scene.agents, heading=heading)))
    assert np.ptp(plan.heading) == 0


def test_idm_reaches_the_gap_of_its_equilibrium_behind_a_slower_leader() -> None:
    # In equilibrium s = (s0 + v T) / sqrt(1 - (v / v0)^4) (Treiber et al. 2000).
    scene = straight_road(speeds=(6.0, 9.0), gap=20.0)
    kinds = np.array([AgentKind.OTHER, AgentKind.VEHICLE], np.uint8)  # nobody but vehicles follows the model
    scene = replace(scene, agents=replace(scene.agents, kind=kinds))
    result = rollout(scene, IdmFollower(), rollouts=1, seconds=60.0)
    gap = result.position[0, 0, -1, 0] - result.position[0, 1, -1, 0] - 4.5
    assert gap == pytest.approx((2 + 6 * 1.0) / np.sqrt(1 - (6 / 15) ** 4), rel=0.02)
    assert np.diff(result.position[0, :, :, 0]).min() > 0


def test_idm_alone_approaches_its_wanted_speed_and_not_more() -> None:
    scene = straight_road(speeds=(10.0,))
    limited = replace(scene.map, speed_limit=np.full(len(scene.map), 12.0, np.float32))
    result = rollout(replace(scene, map=limited), IdmFollower(), rollouts=1, seconds=20.0)
    speed = np.diff(result.position[0, 0, :, 0]) / 0.1
    assert 11.5 < speed[-1] <= 12.0
    assert (np.diff(speed) > -1e-6).all()


def test_idm_stops_at_red_before_the_line_and_goes_at_green() -> None:
    red = rollout(crossing(LightState.STOP), IdmFollower(), rollouts=1)
    green = rollout(crossing(LightState.GO), IdmFollower(), rollouts=1)
    front = red.position[0, 0, :, 0] + 4.5 / 2
    assert front.max() < -8.0
    assert front[-1] == pytest.approx(-10.0, abs=1.5)  # s0 = 2 m before the line
    assert green.position[0, 0, -1, 0] > 20.0
    assert red.position[0, 2, -1] == pytest.approx([-5.5, -6 + 8 * 1.3, 0], abs=1e-5)  # the pedestrian walks on


def test_idm_brakes_for_whoever_stands_in_its_lane_and_passes_whoever_is_parked_beside_it() -> None:
    for aside, passes in ((0.5, False), (2.4, True)):
        scene = straight_road(speeds=(0.0, 10.0), gap=40.0)
        position = scene.agents.position.copy()
        position[0, :, 1] = aside
        result = rollout(replace(scene, agents=replace(scene.agents, position=position)), IdmFollower(), rollouts=1)
        if passes:
            assert result.position[0, 0] == pytest.approx(scene.agents.position[0, 11:] + [0, aside, 0])
        else:
            assert result.position[0, 1, -1, 0] < result.position[0, 0, -1, 0] - 4.5
        assert (result.position[0, 1, -1, 0] > 20) == passes


def test_idm_keeps_to_a_bend_and_slows_down_for_it() -> None:
    angle = np.linspace(-np.pi / 2, 0, 60)
    bend = 15 * np.stack([np.cos(angle), np.sin(angle)], -1) + [0, 15]
    lines = [np.stack([np.linspace(-100, 0, 60), np.zeros(60)], -1), bend]
    lines.append(np.stack([np.full(60, 15.0), np.linspace(15, 200, 60)], -1))
    features = make_map([(MapKind.LANE, LaneType.SURFACE_STREET, line) for line in lines], [[1], [2], []])
    scene = make_scene(np.array([[-40.0, 0.8]]), np.array([[12.0, 0]]), features=features)
    result = rollout(scene, IdmFollower(), rollouts=1)
    xy = result.position[0, 0, :, :2]
    inside = np.linalg.norm(xy[(xy[:, 0] > 0) & (xy[:, 1] < 15)] - [0, 15], axis=-1)
    assert inside == pytest.approx(15.0, abs=0.3)
    speed = np.linalg.norm(np.diff(xy, axis=0), axis=-1) / 0.1
    assert speed.min() == pytest.approx(np.sqrt(3.0 * 15), rel=0.1)
    assert xy[-1, 1] > 15
    assert result.heading[0, 0, -1] == pytest.approx(np.pi / 2, abs=0.02)


@pytest.mark.parametrize("turn_first", [True, False])
def test_idm_goes_straight_at_a_fork_unless_it_turns_already(turn_first: bool) -> None:
    angle = np.linspace(-np.pi / 2, 0, 40)
    turn = 15 * np.stack([np.cos(angle), np.sin(angle)], -1) + [0, 15]
    straight = np.stack([np.linspace(0, 30, 40), np.zeros(40)], -1)
    branches = [turn, straight] if turn_first else [straight, turn]
    lines = [np.stack([np.linspace(-100, 0, 60), np.zeros(60)], -1), *branches]
    features = make_map([(MapKind.LANE, LaneType.SURFACE_STREET, line) for line in lines], [[1, 2], [], []])
    for start, end in (([-10.0, 0], straight[-1]), ([0.5, 0], straight[-1]), (turn[15], turn[-1])):
        heading = np.array([np.arctan2(*(turn[16] - turn[15])[::-1]) if start is turn[15] else 0.0])
        velocity = 6 * np.stack([np.cos(heading), np.sin(heading)], -1)
        scene = make_scene(np.array([start]), velocity, heading, features=features)
        path = rollout(scene, IdmFollower(), rollouts=1).position[0, 0, :, :2]
        assert np.linalg.norm(path - end, axis=-1).min() < 0.5  # it drives through the end of that branch


@pytest.mark.parametrize("replan_every", [1, 80])
@pytest.mark.parametrize(("aside", "slant"), [(0.8, 0.1), (2.0, -0.1)])
def test_idm_goes_straight_on_where_its_lane_ends(replan_every: int, aside: float, slant: float) -> None:
    # The lane turns to 45 degrees and ends; its last two points say where straight on is.
    angle = np.linspace(-np.pi / 2, -np.pi / 4, 30)
    bend = 60 * np.stack([np.cos(angle), np.sin(angle)], -1) + [0, 60]
    lines = [np.stack([np.linspace(-100, 0, 60), np.zeros(60)], -1), bend]
    features = make_map([(MapKind.LANE, LaneType.SURFACE_STREET, line) for line in lines], [[1], []])
    velocity = 12 * np.array([[np.cos(slant), np.sin(slant)]])
    scene = make_scene(np.array([[-20.0, aside]]), velocity, np.array([slant]), features=features)
    xy = rollout(scene, IdmFollower(), rollouts=1, replan_every=replan_every).position[0, 0, :, :2]
    along = (bend[-1] - bend[-2]) / np.linalg.norm(bend[-1] - bend[-2])
    offset = xy - bend[-1]
    beyond = offset @ along > 0
    assert beyond.sum() > 10
    assert np.abs(offset[beyond] @ [-along[1], along[0]]).max() < 0.3
    speed = np.linalg.norm(np.diff(xy, axis=0), axis=-1) / 0.1
    assert np.abs(np.diff(speed)).max() < 1.0  # m/s a tick: it neither leaps nor brakes at the end
    assert speed[-1] > 10


def test_idm_comes_onto_a_lane_that_begins_ahead_without_a_leap() -> None:
    lines = [np.stack([np.linspace(0, 200, 60), np.zeros(60)], -1)]
    features = make_map([(MapKind.LANE, LaneType.SURFACE_STREET, line) for line in lines], [[]])
    scene = make_scene(np.array([[-2.0, 0.5]]), np.array([[10.0, 0.0]]), features=features)
    for replan_every in (1, 80):
        x = rollout(scene, IdmFollower(), rollouts=1, replan_every=replan_every).position[0, 0, :, 0]
        assert np.diff([-2.0, *x]) == pytest.approx(1.1, abs=0.35)


def test_idm_takes_a_recorded_lane_rather_than_the_straight_beyond_another_one() -> None:
    # The first lane ends at a street that bends away; no link says that one follows the other.
    angle = np.linspace(-np.pi / 2, 0, 40)
    street = np.concatenate([[[-40.0, 1.0]], 40 * np.stack([np.cos(angle), np.sin(angle)], -1) + [0, 41]])
    lines = [np.stack([np.linspace(-100, -10, 60), np.zeros(60)], -1), street]
    features = make_map([(MapKind.LANE, LaneType.SURFACE_STREET, line) for line in lines], [[], []])
    scene = make_scene(np.array([[-5.0, 0.2]]), np.array([[8.0, 0.0]]), features=features)
    xy = rollout(scene, IdmFollower(), rollouts=1).position[0, 0, :, :2]
    assert xy[-1, 0] == pytest.approx(40, abs=0.5)
    assert xy[-1, 1] > 10


def test_idm_does_not_depend_on_the_worlds_beside_it() -> None:
    scene = crossing()
    three = rollout(scene, IdmFollower(), rollouts=3)
    assert (three.position == rollout(scene, IdmFollower(), rollouts=1).position).all()
