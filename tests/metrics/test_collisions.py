"""Box overlap against shapely, and rates of hand-made scenes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from traj_diffusion.geometry import box_corners, rotate
from traj_diffusion.metrics import Absent, AgentSet, Tally, match
from traj_diffusion.metrics.collisions import collisions, overlaps
from traj_diffusion.scene import Rollouts
from traj_diffusion.testing import straight_road

Replay = Callable[..., Rollouts]
coordinate = st.floats(-4, 4)
boxes = st.tuples(coordinate, coordinate, st.floats(-10, 10), st.floats(0.1, 6), st.floats(0.1, 3))


def pair_overlaps(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    both = np.array([one, other])
    centre, heading, size = both[None, :, None, :2], both[None, :, None, 2], both[None, :, 3:]
    return bool(overlaps(centre, heading, size, np.ones((1, 2, 1), bool))[1][0, 0, 1])


@settings(max_examples=300, deadline=None)
@given(boxes, boxes)
def test_overlap_agrees_with_shapely(one: tuple[float, ...], other: tuple[float, ...]) -> None:
    both = np.array([one, other])
    first, second = map(shapely.Polygon, box_corners(both[:, :2], both[:, 2], both[:, 3], both[:, 4]))
    # Between barely touching and barely apart the last bits decide; shapely must be sure for this to be a test.
    if first.buffer(-1e-4).intersects(second.buffer(-1e-4)):
        assert pair_overlaps(one, other)
    elif not first.intersects(second):
        assert not pair_overlaps(one, other)


@settings(max_examples=100, deadline=None)
@given(boxes, boxes, st.floats(-3, 3), st.floats(-20, 20))
def test_overlap_is_the_same_in_a_moved_world(
    one: tuple[float, ...], other: tuple[float, ...], turn: float, shift: float
) -> None:
    both = np.array([one, other])
    moved = np.concatenate([rotate(both[:, :2], np.full(2, turn)) + shift, both[:, 2:3] + turn, both[:, 3:]], -1)
    grown = both + np.array([0, 0, 0, 1e-4, 1e-4])
    if pair_overlaps(one, other) == pair_overlaps(*map(tuple, grown.tolist())):  # not on the verge
        assert pair_overlaps(*map(tuple, moved.tolist())) == pair_overlaps(one, other)


@pytest.mark.parametrize(("gap", "hit"), [(0.0, False), (-0.001, True), (0.001, False)])
def test_boxes_that_only_touch_do_not_collide(gap: float, hit: bool) -> None:
    assert pair_overlaps((0, 0, 0, 4, 2), (4 + gap, 0, 0, 4, 2)) == hit


def test_a_crossed_pair_without_a_corner_inside_the_other_collides() -> None:
    assert pair_overlaps((0, 0, 0, 6, 1), (0, 0, np.pi / 2, 6, 1))


def test_the_follower_that_catches_up_collides(replay: Replay) -> None:
    # 30 m behind and 5 m/s faster, 4.5 m long: boxes meet after 5.1 s, so not within 5 s but within 8 s.
    scene = straight_road(speeds=(10.0, 15.0))
    late, early = match(scene, replay(scene)), match(scene, replay(scene), steps=50)
    assert collisions(late)["collision_rate"] == Tally(2.0, 2)
    assert collisions(late)["collision_pair_rate"] == Tally(1.0, 1)
    assert collisions(early)["collision_rate"] == Tally(0.0, 2)


def test_pairs_that_overlap_now_are_counted_apart(replay: Replay) -> None:
    scene = straight_road(speeds=(10.0, 10.0, 10.0), gap=4.0)  # a chain: each pair of neighbours overlaps
    found = collisions(match(scene, replay(scene, 2)))
    assert found["collision_rate"] == Tally(6.0, 6)
    assert found["new_collision_rate"] == Tally(0.0, 6)
    assert found["initial_overlap_rate"] == Tally(3.0, 3)
    assert found["collision_pair_rate"] == Tally(4.0, 6)


def test_an_agent_that_is_not_there_hits_nobody(replay: Replay) -> None:
    scene = straight_road(speeds=(10.0, 15.0))
    rollouts = replay(scene, 2)
    rollouts.valid[0, 1, 40:] = False
    assert collisions(match(scene, rollouts))["collision_rate"] == Tally(2.0, 4)
    rollouts.valid[:, 1] = False
    found = collisions(match(scene, rollouts))
    assert found["collision_rate"] == Tally(0.0, 2)
    assert found["collision_pair_rate"] == Absent("no two agents are ever there together")


def test_everyone_can_be_hit_but_only_the_chosen_are_counted(replay: Replay) -> None:
    scene = straight_road(speeds=(10.0, 15.0))
    scene.agents.to_predict[:] = False  # leaves the ego, which is hit from behind
    assert collisions(match(scene, replay(scene)))["collision_rate"] == Tally(1.0, 1)
    everyone = collisions(match(scene, replay(scene)), agents=AgentSet.SIMULATED)
    assert everyone["collision_rate"] == Tally(2.0, 2)


def test_far_from_zero_nothing_changes(replay: Replay) -> None:
    scene = straight_road(speeds=(10.0, 10.0), gap=4.5 + 1e-3)
    far = replace(scene, agents=replace(scene.agents, position=scene.agents.position + 4.0e4))
    assert collisions(match(far, replay(far)))["collision_rate"] == Tally(0.0, 2)


def test_one_agent_alone(replay: Replay) -> None:
    scene = straight_road(speeds=(10.0,))
    assert collisions(match(scene, replay(scene)))["collision_rate"] == Tally(0.0, 1)
