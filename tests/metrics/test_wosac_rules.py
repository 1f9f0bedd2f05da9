"""The WOSAC rules of histograms, motion and other agents, on cases known on paper. Needs no recording."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import shapely
import shapely.affinity

from traj_diffusion.metrics.wosac import CONFIGS, Term
from traj_diffusion.metrics.wosac.boxes import core_distance, corners, nearest_object
from traj_diffusion.metrics.wosac.estimators import log_likelihood, neighbours_valid
from traj_diffusion.metrics.wosac.kinematics import (
    angular_motion,
    central_difference,
    linear_acceleration,
    linear_speed,
)
from traj_diffusion.metrics.wosac.ttc import time_to_collision

F32 = np.float32


def f32(*values: float) -> np.ndarray:
    return np.array(values, F32)


# Histograms


@pytest.mark.parametrize(
    ("feature", "edges"),
    [
        ("linear_speed", [0, 2.5, 5, 7.5, 10, 12.5, 15, 17.5, 20, 22.5, 25]),
        (
            "linear_acceleration",
            "-12 -9.81818199 -7.63636351 -5.45454502 -3.27272701 -1.090909 1.09090996 3.27272797 5.45454597 7.63636398 "
            "9.81818199 12",
        ),
        (
            "angular_speed",
            "-0.628000021 -0.513818204 -0.399636388 -0.285454541 -0.171272725 -0.0570908785 0.0570909381 0.171272755 "
            "0.285454571 0.399636388 0.513818264 0.628000021",
        ),
        (
            "angular_acceleration",
            "-3.1400001 -2.56909108 -1.99818194 -1.4272728 -0.856363773 -0.28545475 0.285454512 0.856363535 1.42727256 "
            "1.99818158 2.5690906 3.1400001",
        ),
        ("distance_to_nearest_object", [-5, -0.5, 4, 8.5, 13, 17.5, 22, 26.5, 31, 35.5, 40]),
        ("distance_to_road_edge", [-20, -14, -8, -2, 4, 10, 16, 22, 28, 34, 40]),
        ("time_to_collision", [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]),
        ("collision_indication", [-0.5, 0.5, 1.5]),
    ],
)
def test_bin_edges_are_the_official_float32_numbers(feature: str, edges: list | str) -> None:
    term = next(term for term in CONFIGS["sim_agents_2025"].terms if term.feature == feature)
    wanted = np.array([float(edge) for edge in (edges.split() if isinstance(edges, str) else edges)], F32)
    np.testing.assert_array_equal(term.edges, wanted)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("sim_agents_2025", 1),
        ("scenario_gen_2025", 1),
        ("sim_agents_2024", 1),
        ("sim_agents_2024_leaderboard", 1),
        ("sim_agents_2023", 0.99),
    ],
)
def test_weights_add_up(name: str, total: float) -> None:
    assert sum(term.weight for term in CONFIGS[name].terms) == pytest.approx(total)
    assert CONFIGS[name].name == name
    assert len(CONFIGS[name].terms) == 10


TERM = Term("linear_speed", 0.0, 2.0, 2, 0.5, 1.0)


def likelihood(logged: float, simulated: list[float], term: Term = TERM) -> float:
    return float(np.exp(log_likelihood(term, f32(logged)[None], f32(*simulated)[:, None, None])[0, 0]))


def test_likelihood_is_smoothed_probability_mass() -> None:
    assert likelihood(0.2, [0.1, 0.3, 1.5]) == pytest.approx(2.5 / 4)
    assert likelihood(1.2, [0.1, 0.3, 1.5]) == pytest.approx(1.5 / 4)


def test_a_value_on_an_edge_belongs_to_the_upper_bin_and_the_last_edge_to_the_last_bin() -> None:
    assert likelihood(1.0, [1.5]) == likelihood(2.0, [1.5]) == pytest.approx(1.5 / 2)
    assert likelihood(np.nextafter(F32(1), F32(0)), [1.5]) == pytest.approx(0.5 / 2)


def test_values_beyond_the_range_count_at_its_ends_and_nan_in_the_last_bin() -> None:
    assert likelihood(-9.0, [-3.0]) == likelihood(9.0, [5.0]) == pytest.approx(1.5 / 2)
    assert likelihood(1.5, [np.nan]) == pytest.approx(1.5 / 2)
    assert likelihood(np.nan, [1.5]) == pytest.approx(1.5 / 2)


def test_agents_have_histograms_of_their_own_unless_pooled() -> None:
    logged, simulated = f32(0.5, 0.5)[:, None], np.array([[[0.5], [1.5]]], F32)
    own = np.exp(log_likelihood(TERM, logged, simulated))[:, 0]
    assert own == pytest.approx([1.5 / 2, 0.5 / 2])
    pooled = np.exp(log_likelihood(replace(TERM, pooled=True), logged, simulated))[:, 0]
    assert pooled == pytest.approx([1.5 / 3, 1.5 / 3])


def test_a_speed_counts_where_both_neighbours_are_valid() -> None:
    valid = np.array([[True, True, False, True, True, True]])
    assert neighbours_valid(valid).tolist() == [[False, False, True, False, True, False]]
    assert not neighbours_valid(neighbours_valid(np.ones((1, 4), bool))).any()


# Kinematics


def test_speed_and_acceleration_of_uniform_acceleration_and_nan_at_the_ends() -> None:
    time = np.arange(9, dtype=F32) * F32(0.1)
    speed = linear_speed(time * time, np.zeros(9, F32), np.zeros(9, F32))
    assert speed[1:-1] == pytest.approx(2 * time[1:-1], abs=1e-6)
    assert np.isnan(speed[[0, -1]]).all()
    acceleration = linear_acceleration(speed)
    assert acceleration[2:-2] == pytest.approx(2.0, abs=1e-5)
    assert np.isnan(acceleration[[0, 1, -2, -1]]).all()


def test_speed_counts_the_climb() -> None:
    t = np.arange(5).astype(F32)
    assert linear_speed(3 * t, 0 * t, 4 * t)[2] == pytest.approx(50)
    assert linear_speed(3 * t, 0 * t)[2] == pytest.approx(30)


def test_what_is_wrapped_is_the_heading_difference_over_two_steps() -> None:
    heading = f32(3.0, 3.1, 3.2 - 2 * math.pi, 3.3 - 2 * math.pi, 3.4 - 2 * math.pi)
    rate, acceleration = angular_motion(heading)
    assert rate[1:4] == pytest.approx(1.0, abs=1e-4)
    assert acceleration[2] == pytest.approx(0.0, abs=1e-3)
    # 2 rad a step are 4 rad over two: wrapped to 4 - 2 pi, so half of that a step.
    assert angular_motion(f32(0, 2, 4))[0][1] == pytest.approx((4 - 2 * math.pi) / 2 / 0.1, abs=1e-4)


def test_central_difference_skips_the_middle() -> None:
    assert central_difference(f32(1, 100, 5))[1] == 2


# Boxes


def pair_distance(a: tuple, b: tuple) -> float:
    """Signed distance between two boxes (x, y, heading, length, width), rounded corners included."""
    return float(nearest([a, b])[0])


def nearest(boxes: list[tuple], valid: list[bool] | None = None) -> np.ndarray:
    columns = [np.array(column, F32)[None, None] for column in zip(*boxes, strict=True)]
    x, y, heading, length, width = columns
    count = len(boxes)
    here = np.ones((1, 1, count), bool) if valid is None else np.array(valid)[None, None]
    out = np.empty((1, count, 1), F32)
    nearest_object(x, y, np.cos(heading), np.sin(heading), length, width, here, np.arange(count), 0, out)
    return out[0, :, 0]


CAR = (4.5, 2.0)


def test_cars_bumper_to_bumper_are_as_far_apart_as_their_bumpers() -> None:
    assert pair_distance((0, 0, 0, *CAR), (10, 0, 0, *CAR)) == pytest.approx(5.5, abs=1e-5)
    assert pair_distance((0, 0, 0, *CAR), (0, 3, math.pi, *CAR)) == pytest.approx(1.0, abs=1e-5)
    assert pair_distance((0, 0, 0, *CAR), (0, 1.5, 0, *CAR)) == pytest.approx(-0.5, abs=1e-5)
    assert pair_distance((0, 0, 0, *CAR), (0, 5, math.pi / 2, *CAR)) == pytest.approx(5 - 1 - 2.25, abs=1e-5)


def test_corners_are_round() -> None:
    # Corner to corner, a square's core of 0.3 sides lies 0.35 sides inside, so it gains (sqrt 2 - 1) 0.7 sides.
    apart = pair_distance((0, 0, 0, 2, 2), (3, 3, 0, 2, 2))
    assert apart == pytest.approx(math.sqrt(2) * (3 - 0.6) - 2 * 0.7, abs=1e-5)


def test_touching_is_no_collision() -> None:
    assert not pair_distance((0, 0, 0, 4, 2), (4, 0, 0, 4, 2)) < 0


def core_polygon(box: tuple) -> tuple[shapely.Polygon, float]:
    x, y, heading, length, width = box
    radius = 0.35 * min(length, width)
    half_length, half_width = length / 2 - radius, width / 2 - radius
    flat = shapely.box(-half_length, -half_width, half_length, half_width)
    turned = shapely.affinity.rotate(flat, heading, origin=(0, 0), use_radians=True)
    return shapely.affinity.translate(turned, x, y), radius


def penetration(a: shapely.Polygon, b: shapely.Polygon) -> float:
    """Depth of the overlap of two convex polygons, by projection on the normals of all sides."""
    depth = math.inf
    for polygon in (a, b):
        ring = np.array(polygon.exterior.coords)
        for start, end in pairwise(ring):
            normal = np.array([end[1] - start[1], start[0] - end[0]]) / np.linalg.norm(end - start)
            pa, pb = (np.array(p.exterior.coords) @ normal for p in (a, b))
            depth = min(depth, pa.max() - pb.min(), pb.max() - pa.min())
    return depth


def test_box_distances_agree_with_shapely(rng: np.random.Generator) -> None:
    apart = 0
    for _ in range(400):
        a, b = ((*rng.uniform(-2, 2, 2), rng.uniform(-7, 7), *rng.uniform(0.5, 6, 2)) for _ in range(2))
        (core_a, radius_a), (core_b, radius_b) = core_polygon(a), core_polygon(b)
        wanted = core_a.distance(core_b)
        apart += wanted > 0
        if wanted == 0:
            wanted = -penetration(core_a, core_b)
        assert pair_distance(a, b) == pytest.approx(wanted - radius_a - radius_b, abs=2e-5)
    assert 100 < apart < 300


def test_right_angles_and_equal_headings_are_no_special_case(rng: np.random.Generator) -> None:
    for quarter in range(-6, 7):
        for tilt in (0.0, 1e-7, -1e-7):
            a, b = (0.0, 0.0, 0.3, 4.0, 2.0), (5.0, 3.0, 0.3 + quarter * math.pi / 2 + tilt, 4.0, 2.0)
            (core_a, radius_a), (core_b, radius_b) = core_polygon(a), core_polygon(b)
            assert pair_distance(a, b) == pytest.approx(core_a.distance(core_b) - radius_a - radius_b, abs=2e-5)


def test_leaving_out_the_far_ones_changes_no_bit_of_the_nearest(rng: np.random.Generator) -> None:
    for origin in (0.0, 13_000.0, 40_000.0):
        boxes = [
            (*(origin + rng.uniform(-30, 30, 2)), rng.uniform(-7, 7), rng.uniform(0.5, 15), rng.uniform(0.5, 3))
            for _ in range(40)
        ]
        found = nearest(boxes)
        for n, box in enumerate(boxes):
            each = [F32(pair_distance(box, other)) for m, other in enumerate(boxes) if m != n]
            assert found[n] == min(each)


def test_nobody_there_is_ten_thousand_million_metres_away() -> None:
    assert nearest([(0, 0, 0, *CAR)]) == [F32(1e10)]
    assert nearest([(0, 0, 0, *CAR), (1, 0, 0, *CAR), (20, 0, 0, *CAR)], [True, False, True]) == pytest.approx(
        [15.5, 1e10, 15.5]
    )


def test_a_box_without_size_is_a_point() -> None:
    assert pair_distance((0, 0, 0, 0, 0), (10, 0, 0, *CAR)) == pytest.approx(10 - 2.25, abs=1e-5)


# Time to collision


def follow(
    gap: float = 10.0,
    speeds: tuple[float, float] = (15.0, 10.0),
    turn: float = 0.0,
    aside: float = 0.0,
    ego_heading: float = 0.0,
) -> float:
    """TTC of a car that follows another, bumper to bumper `gap` apart."""
    forward, left = np.array([np.cos(ego_heading), np.sin(ego_heading)]), None
    left = np.array([-forward[1], forward[0]])
    centre = np.stack([np.zeros(2), forward * (gap + 4.5) + left * aside]).astype(F32)[None, None]
    heading = f32(ego_heading, ego_heading + turn)[None, None]
    out = np.empty((1, 1, 1), F32)
    size = np.full((1, 1, 2), 4.5, F32), np.full((1, 1, 2), 2.0, F32)
    speed, valid = f32(*speeds)[None, None], np.ones((1, 1, 2), bool)
    x, y = np.ascontiguousarray(centre[..., 0]), np.ascontiguousarray(centre[..., 1])
    time_to_collision(x, y, heading, np.cos(heading), np.sin(heading), speed, *size, valid, np.array([0]), 0, out)
    return float(out[0, 0, 0])


def test_time_to_collision_is_gap_over_closing_speed() -> None:
    assert follow() == pytest.approx(2.0, abs=1e-5)
    assert follow(ego_heading=2.2) == pytest.approx(2.0, abs=1e-5)


def test_time_to_collision_is_five_seconds_at_most() -> None:
    assert follow(gap=60) == follow(speeds=(10, 10)) == follow(speeds=(5, 10)) == 5
    assert follow(speeds=(np.nan, 10)) == follow(speeds=(15, np.nan)) == 5


def test_behind_or_overlapping_is_not_followed() -> None:
    assert follow(gap=-1) == follow(gap=-30) == 5


def test_headings_are_compared_unwrapped() -> None:
    assert follow(turn=2 * math.pi) == 5
    assert follow(turn=math.radians(76), aside=0) == 5
    assert follow(turn=math.radians(74), gap=20, speeds=(25, 1)) < 5


def test_a_small_lateral_overlap_counts_only_for_nearly_the_same_heading() -> None:
    assert follow(aside=1.8, turn=math.radians(1)) < 5
    assert follow(aside=2.1) == 5
    # At 20 degrees the other's half extent across is 2.25 sin + cos: an overlap of 0.3 m needs this offset.
    across = 1 + 2.25 * math.sin(math.radians(20)) + math.cos(math.radians(20))
    assert follow(aside=across - 0.3, turn=math.radians(20)) == 5
    assert follow(aside=across - 0.7, turn=math.radians(20)) < 5


def test_core_distance_and_corners_speak_of_the_same_box() -> None:
    a, b = np.empty((4, 2), F32), np.empty((4, 2), F32)
    corners(F32(0), F32(0), F32(1), F32(0), F32(2), F32(1), a)
    corners(F32(10), F32(0), F32(0), F32(1), F32(2), F32(1), b)
    assert a.tolist() == [[2, -1], [2, 1], [-2, 1], [-2, -1]]
    assert core_distance(a, F32(1), F32(0), b, F32(0), F32(1)) == pytest.approx(7)
