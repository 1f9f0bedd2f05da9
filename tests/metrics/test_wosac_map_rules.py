"""The WOSAC rules of road edges and red lights, on maps whose answers are known on paper. Needs no recording."""

import math

import numpy as np
import pytest
import shapely

from traj_diffusion.metrics.wosac.lights import _is_current_lane, _slipped_distance, index_signals, red_lights_run
from traj_diffusion.metrics.wosac.road_edges import distance_to_road_edge, index_edges
from traj_diffusion.scene import EdgeType, LaneType, Lights, LightState, MapKind, Scene
from traj_diffusion.testing import make_map, make_scene

F32 = np.float32


def f32(*values: float) -> np.ndarray:
    return np.array(values, F32)


# Road edges


def edge_distance(lines: list[np.ndarray], points: np.ndarray, chunked: bool = True, bottom: float = 0.0) -> np.ndarray:
    """Signed distance of points (boxes without size) [P, 2] to the edges."""
    count = len(points)
    x, y = (np.ascontiguousarray(points[None, None, :, axis], F32) for axis in range(2))
    zero, one = np.zeros((1, 1, count), F32), np.ones((1, 1, count), F32)
    index = index_edges([np.pad(line, ((0, 0), (0, 3 - line.shape[1]))).astype(F32) for line in lines])
    first, box = index.first, index.box
    if not chunked:
        first, box = np.array([0, len(index.start)], np.int32), f32(-1e9, -1e9, 1e9, 1e9)[None]
    out = np.empty((1, count, 1), F32)
    edges = (index.start, index.along, index.before, index.after, first, box)
    valid = np.ones((1, 1, count), bool)
    distance_to_road_edge(
        x, y, zero + F32(bottom), one, zero, zero, zero, zero, valid, np.arange(count), 0, *edges, out
    )
    return out[0, :, 0]


EAST = np.array([[0.0, 0], [10, 0]])


def test_left_of_an_edge_is_road_and_right_of_it_is_not() -> None:
    assert edge_distance([EAST], np.array([[5.0, 2], [5, -3], [5, 0], [13, -4], [-3, 4]])) == pytest.approx(
        [-2, 3, 0, 5, -5]
    )


def test_at_a_corner_both_segments_vote() -> None:
    left_turn, right_turn = np.array([[0.0, 0], [10, 0], [10, 10]]), np.array([[0.0, 0], [10, 0], [10, -10]])
    # Outside of a left turn, beyond the corner: right of the first segment, right of the second.
    assert edge_distance([left_turn], np.array([[12.0, -1]]))[0] == pytest.approx(math.sqrt(5))
    # Beyond the tip of a hairpin the two disagree: a left turn takes the maximum, a right turn the minimum.
    sharp_left, sharp_right = np.array([[0.0, 0], [10, 0], [0, 2]]), np.array([[0.0, 0], [10, 0], [0, -2]])
    assert (edge_distance([sharp_left], np.array([[12.0, 0.5], [12.0, -0.5]])) > 0).all()
    assert (edge_distance([sharp_right], np.array([[12.0, 0.5], [12.0, -0.5]])) < 0).all()
    assert edge_distance([right_turn], np.array([[12.0, 1]]))[0] == pytest.approx(-math.sqrt(5))


def test_the_vertical_part_counts_three_times_in_choosing_and_not_at_all_in_the_distance() -> None:
    near_below = np.array([[0.0, 1, -2], [10, 1, -2]])  # 1 m aside, 2 m below: counts as sqrt(1 + 36) = 6.1 m
    level = np.array([[0.0, -5, 0], [10, -5, 0]])
    assert edge_distance([near_below, level], np.array([[5.0, 0]]))[0] == pytest.approx(-5)
    level_far = np.array([[0.0, -7, 0], [10, -7, 0]])
    assert edge_distance([near_below, level_far], np.array([[5.0, 0]]))[0] == pytest.approx(1)


def test_a_tie_goes_to_the_first_edge() -> None:
    above, below = np.array([[0.0, 2], [10, 2]]), np.array([[0.0, -2], [10, -2]])
    assert edge_distance([above, below], np.array([[5.0, 0]]))[0] == 2
    assert edge_distance([below, above], np.array([[5.0, 0]]))[0] == -2


def test_a_zero_length_segment_says_nothing() -> None:
    assert edge_distance([np.array([[0.0, 0], [0, 0]])], np.array([[3.0, 4]]))[0] == 0


def test_only_a_closed_edge_as_long_as_the_longest_goes_round() -> None:
    # A counter-clockwise wedge whose tip is both its first and its last point. Just past the tip and below it, the
    # first segment alone would say left, that is road; with the last one, at a left turn, it says off the road.
    spike = np.array([[0.0, 0], [-10, 2], [-10, -2], [0, 0]])
    beyond = np.array([[1.0, -0.3]])
    alone = edge_distance([spike], beyond)[0]
    far = np.stack([np.linspace(1000, 1010, 6), np.zeros(6)], -1)
    beside_a_longer_one = edge_distance([spike, far], beyond)[0]
    index = index_edges([np.pad(spike, ((0, 0), (0, 1))).astype(F32)])
    assert (index.before.tolist(), index.after.tolist()) == ([2, 0, 1], [1, 2, 0])
    index = index_edges([np.pad(line, ((0, 0), (0, 1))).astype(F32) for line in (spike, far)])
    assert (index.before.tolist()[:3], index.after.tolist()[:3]) == ([-1, 0, 1], [1, 2, -1])
    assert alone == pytest.approx(math.hypot(1, 0.3))
    assert beside_a_longer_one == pytest.approx(-math.hypot(1, 0.3))


def test_corners_of_the_full_box_decide_at_its_bottom() -> None:
    scene_box = {"length": 4.0, "width": 2.0}
    one = np.ones((1, 1, 1), F32)
    index = index_edges([np.pad(EAST * 10 - [50, 0], ((0, 0), (0, 1))).astype(F32)])
    out = np.empty((1, 1, 1), F32)
    distance_to_road_edge(
        0 * one, 3 * one, one, one, 0 * one, scene_box["length"] * one, scene_box["width"] * one, 2 * one,
        np.ones((1, 1, 1), bool), np.array([0]), 0,
        index.start, index.along, index.before, index.after, index.first, index.box, out,
    )  # fmt: skip
    assert out[0, 0, 0] == pytest.approx(-2)


def test_leaving_out_far_segments_changes_no_bit(rng: np.random.Generator) -> None:
    for origin in (0.0, 8_000.0, 40_000.0):
        lines = []
        for _ in range(12):
            walk = np.cumsum(rng.normal(0, [2, 2, 0.3], (rng.integers(2, 60), 3)), 0) + rng.uniform(-40, 40, 3)
            walk[:, :2] += origin
            lines.append(walk)
        points = origin + rng.uniform(-60, 60, (300, 2))
        np.testing.assert_array_equal(
            edge_distance(lines, points, bottom=3.0), edge_distance(lines, points, chunked=False, bottom=3.0)
        )


def test_distances_to_edges_agree_with_shapely(rng: np.random.Generator) -> None:
    lines = [np.cumsum(rng.normal(0, 3, (30, 2)), 0) for _ in range(5)]
    points = rng.uniform(-30, 30, (200, 2))
    wanted = shapely.distance(shapely.MultiLineString(lines), shapely.points(points))
    assert np.abs(edge_distance(lines, points)) == pytest.approx(wanted, abs=1e-4)


# Red lights


def approach(
    stop: float,
    start: float,
    lanes: list[np.ndarray],
    state: LightState = LightState.STOP,
    lane_type: LaneType = LaneType.SURFACE_STREET,
    observed: np.ndarray | None = None,
) -> Scene:
    """A car goes east along y = 0 by 1 m a step, from x = start at step 0; the signal at (stop, 0) is for lane 0."""
    steps = 91
    lights = Lights(
        lane_id=np.array([100], np.int64),
        stop_point=np.tile(np.array([stop, 0.0, 0.0]), (1, steps, 1)),
        state=np.full((1, steps), state, np.uint8),
        observed=np.ones((1, steps), bool) if observed is None else observed,
    )
    features = make_map(
        [(MapKind.LANE, lane_type, line) for line in lanes] + [(MapKind.ROAD_EDGE, EdgeType.BOUNDARY, EAST)]
    )
    return make_scene(np.array([[start + 10, 0.0]]), np.array([[10.0, 0.0]]), features=features, lights=lights)


def red_light_steps(scene: Scene) -> list[int]:
    signals = index_signals(scene)
    if signals is None:
        return []
    x, y = (np.ascontiguousarray(scene.agents.position[None, :, :, axis].swapaxes(1, 2), F32) for axis in range(2))
    out = np.zeros((1, 1, 91), bool)
    red_lights_run(
        x, y, np.ones(x.shape, bool), np.array([0]), 0,
        signals.start, signals.along, signals.first, signals.lane, signals.line, signals.stop, signals.red, out,
    )  # fmt: skip
    return np.flatnonzero(out[0, 0]).tolist()


STREET = np.stack([np.arange(-100.0, 101.0), np.zeros(201)], -1)


@pytest.mark.parametrize("state", list(LightState))
def test_a_red_light_is_run_at_the_step_that_crosses_its_line(state: LightState) -> None:
    steps = red_light_steps(approach(-20.0, -40.5, [STREET], state))
    assert steps == ([21] if state in (LightState.STOP, LightState.ARROW_STOP) else [])


def test_where_a_signal_is_not_seen_its_stop_point_is_the_origin() -> None:
    # At step 21 the car is past the line, but still before the origin; so it is step 22 that crosses.
    unseen = np.ones((1, 91), bool)
    unseen[0, 21] = False
    assert red_light_steps(approach(-20.0, -40.5, [STREET], observed=unseen)) == [22]


def test_an_unseen_signal_or_another_kind_of_lane_stops_nobody() -> None:
    unseen = np.ones((1, 91), bool)
    unseen[0, 21:] = False
    assert red_light_steps(approach(-20.0, -40.5, [STREET], observed=unseen)) == []
    assert red_light_steps(approach(-20.0, -40.5, [STREET], lane_type=LaneType.FREEWAY)) == []


def test_a_lane_segment_counts_as_further_the_further_one_is_along_it() -> None:
    one = np.array([[-100.0, 0], [100, 0]])
    beside, far = np.array([[-20.0, 5], [-10, 5]]), np.array([[-20.0, 500], [-10, 500]])
    # 80 m along its lane the car is at 160 m by the slipped distance; the other lane starts 5 m away.
    assert red_light_steps(approach(-20.0, -40.5, [one, far])) == [21]
    assert red_light_steps(approach(-20.0, -40.5, [one, beside])) == []


def test_a_lane_shorter_than_the_longest_goes_on_to_the_origin() -> None:
    short = np.array([[-100.0, 0], [-50, 0]])
    longer = np.array([[-100.0, 60], [0, 60], [100, 60]])
    # At x = -29.5 the phantom is at 41 m (20.5 along it, twice), the longer lane's middle point at 66.9 m, and the
    # lane's own end, were it the last segment, at 45.5 + 25 = 70.5 m.
    assert red_light_steps(approach(-30.0, -40.5, [short, longer])) == [11]
    same_length = np.array([[-100.0, 0], [-75, 0], [-50, 0]])
    assert red_light_steps(approach(-30.0, -40.5, [same_length, longer])) == []


def test_the_search_for_the_current_lane_agrees_with_trying_every_segment(rng: np.random.Generator) -> None:
    count, lanes = 400, 20
    for origin in (0.0, 20_000.0):
        start = np.round(origin + rng.uniform(-50, 50, (count, 2))).astype(F32)  # rounded, so that there are ties
        along = np.round(rng.normal(0, 4, (count, 2))).astype(F32)
        first = np.arange(0, count + 1, count // lanes).astype(np.int32)
        for px, py in np.round(origin + rng.uniform(-60, 60, (200, 2))).astype(F32):
            every = [_slipped_distance(px, py, start, along, i) for i in range(count)]
            current = int(np.argmin(every)) // (count // lanes)
            assert [_is_current_lane(px, py, start, along, first, lane) for lane in range(lanes)] == [
                lane == current for lane in range(lanes)
            ]
