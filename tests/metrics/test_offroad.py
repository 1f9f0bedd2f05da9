"""Signed distance to road edges against shapely, and off-road rates of hand-made scenes."""

from collections.abc import Callable

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from traj_diffusion.metrics import Absent, Tally, match
from traj_diffusion.metrics.offroad import offroad
from traj_diffusion.metrics.segments import Segments, candidates, signed_distance
from traj_diffusion.scene import Map, MapKind, Rollouts
from traj_diffusion.testing import crossing, make_map, make_scene, straight_road

Replay = Callable[..., Rollouts]


def edges(*lines: np.ndarray) -> Segments:
    features = make_map([(MapKind.ROAD_EDGE, 1, np.asarray(line, float)) for line in lines])
    return Segments.of(features, features.rows(MapKind.ROAD_EDGE), np.zeros(3))


def distance(points: np.ndarray, segments: Segments) -> np.ndarray:
    padded = np.pad(np.asarray(points, float), ((0, 0), (0, 3 - np.shape(points)[1])))
    return signed_distance(padded, np.ones(len(padded), bool), segments)


def star(rng: np.random.Generator, corners: int) -> np.ndarray:
    """A closed polygon, counter-clockwise, that turns left and right; its inside lies to the left."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radius = rng.uniform(5, 40, corners)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    return np.concatenate([ring, ring[:1]])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 60))
def test_inside_a_closed_edge_is_negative_and_the_distance_is_shapelys(seed: int, corners: int) -> None:
    rng = np.random.default_rng(seed)
    ring = star(rng, corners)
    points = rng.uniform(-60, 60, (300, 2))
    polygon = shapely.Polygon(ring)
    away = shapely.distance(polygon.exterior, shapely.points(points))
    inside = shapely.contains(polygon, shapely.points(points))
    for line, sign in ((ring, 1), (ring[::-1], -1)):
        found = distance(points, edges(line))
        assert np.allclose(found, sign * np.where(inside, -away, away), atol=1e-9)


def test_among_many_edges_the_grid_finds_the_nearest(rng: np.random.Generator) -> None:
    lines = [rng.uniform(-150, 150, 2) + np.cumsum(rng.normal(size=(30, 2)), 0) for _ in range(40)]
    points = np.concatenate([rng.uniform(-160, 160, (2000, 2)), rng.uniform(-5000, 5000, (50, 2))])
    away = shapely.distance(
        shapely.multilinestrings([shapely.linestrings(one) for one in lines]), shapely.points(points)
    )
    assert np.allclose(np.abs(distance(points, edges(*lines))), away, atol=1e-9)


def test_within_a_radius_no_segment_is_missed(rng: np.random.Generator) -> None:
    segments = edges(*[rng.uniform(-50, 50, 2) + np.cumsum(rng.normal(size=(20, 2)), 0) for _ in range(20)])
    points = np.pad(rng.uniform(-50, 50, (500, 2)), ((0, 0), (0, 1)))
    near = candidates(points, np.ones(500, bool), segments, 3.0)
    pieces = shapely.linestrings(np.stack([segments.start[:, :2], segments.end[:, :2]], 1))
    for at, point in enumerate(points):
        wanted = np.flatnonzero(shapely.distance(pieces, shapely.Point(point[:2])) <= 3.0)
        row = near.index[near.start[near.cell[at]] : near.start[near.cell[at] + 1]]
        assert set(wanted) <= set(row.tolist())


def test_left_of_a_straight_edge_is_the_road() -> None:
    line = edges(np.array([[0, 0], [10, 0]]))
    assert distance(np.array([[5, 2], [5, -3], [5, 0]]), line).tolist() == [-2, 3, 0]


def test_the_edge_of_the_bridge_is_not_taken_for_the_one_below() -> None:
    below, above = np.array([[0, 0, 0], [10, 0, 0.0]]), np.array([[10, 0.5, 6], [0, 0.5, 6.0]])
    found = distance(np.array([[5, 2, 0], [5, 2, 6.0]]), edges(below, above))
    assert found.tolist() == [-2, pytest.approx(1.5)]


def test_the_wheels_choose_the_level_not_the_roof(replay: Replay) -> None:
    # A car on the road at z = 0, its box centre at half its height; levels 3 m above and below end beside it.
    ends = [np.array([[-50.0, y, z], [200, y, z]]) for y, z in ((-4, 0), (3, 3), (3, -3))]
    scene = make_scene(
        np.zeros((1, 2)), np.array([[10.0, 0]]), features=make_map([(MapKind.ROAD_EDGE, 1, line) for line in ends])
    )
    scene.agents.position[..., 2] = 2.5
    scene.agents.size[..., 2] = 5.0
    assert offroad(match(scene, replay(scene)))["offroad_rate"] == Tally(0.0, 1)


def test_points_of_no_length_change_nothing() -> None:
    ring = np.array([[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]], float)
    doubled = np.repeat(ring, 2, axis=0)
    points = np.random.default_rng(0).uniform(-5, 15, (200, 2))
    assert np.array_equal(distance(points, edges(ring)), distance(points, edges(doubled)))


def test_a_car_that_drifts_over_the_edge_is_off_the_road(replay: Replay) -> None:
    scene = straight_road()  # edges at y = -4 and y = 4, cars 2 m wide: 3 m to the side is the most
    for shift, off in ((2.9, 0.0), (3.1, 1.0), (-3.1, 1.0)):
        drift = np.zeros((2, 2, 80, 3))
        drift[0, 1, 40:, 1] = shift
        found = offroad(match(scene, replay(scene, 2, drift)))
        assert found["offroad_rate"] == found["new_offroad_rate"] == Tally(off, 4)
    assert found["initial_offroad_rate"] == Tally(0.0, 2)


def test_who_begins_off_the_road_is_counted_apart(replay: Replay) -> None:
    road = straight_road()
    parked = make_scene(np.array([[0.0, 0], [10, 8]]), np.array([[5.0, 0], [0, 0]]), features=road.map)
    found = offroad(match(parked, replay(parked, 3)))
    assert found["offroad_rate"] == Tally(3.0, 6)
    assert found["new_offroad_rate"] == Tally(0.0, 3)
    assert found["initial_offroad_rate"] == Tally(1.0, 2)


def test_without_edges_the_rate_is_absent_and_says_why(replay: Replay) -> None:
    scene = crossing()
    assert offroad(match(scene, replay(scene)))["offroad_rate"] == Absent("the map has no road edge")
    bare = make_scene(np.zeros((1, 2)), np.ones((1, 2)), features=Map.empty())
    assert offroad(match(bare, replay(bare)))["new_offroad_rate"] == Absent("the scene has no map")


def test_far_from_zero_and_turned_the_rates_stay(replay: Replay, rng: np.random.Generator) -> None:
    along = np.linspace(-100.0, 200.0, 151)
    lines = [np.stack([along, np.full(151, -4.0)], -1), np.stack([along, np.full(151, 4.0)], -1)[::-1]]
    position, velocity = np.array([[0.0, 0], [30, 2.5]]), np.array([[10.0, 0], [9, 0.05]])
    drift = rng.normal(0, 0.05, (8, 2, 80, 2)).cumsum(2)
    rates = []
    for turn, shift in ((0.0, 0.0), (1.1, 0.0), (-2.5, 3.0e4)):
        spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])  # row vectors
        features = make_map([(MapKind.ROAD_EDGE, 1, line @ spin + shift) for line in lines])
        scene = make_scene(position @ spin + shift, velocity @ spin, features=features)
        moved = np.concatenate([drift @ spin, np.zeros((8, 2, 80, 1))], -1)
        rates.append(offroad(match(scene, replay(scene, 8, moved)))["offroad_rate"])
    assert isinstance(rates[0], Tally)
    assert 0 < rates[0].value < 1
    assert rates[0] == rates[1] == rates[2]
