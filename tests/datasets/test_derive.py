"""What is derived: lane links that recordings confirm, edges known on paper, swapped boxes put right."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.datasets import derive, read_scenes
from traj_diffusion.datasets.derive import outlines, upright, with_edges, with_links
from traj_diffusion.scene import EdgeType, Links, Map, MapKind, Origin
from traj_diffusion.testing import crossing, make_map

LANE = (MapKind.LANE, 2)


def line(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, float)


def test_a_lane_follows_where_it_starts_at_the_end_of_another_in_its_direction() -> None:
    features = with_links(
        make_map(
            [
                (*LANE, line((0, 0), (10, 0))),
                (*LANE, line((10.2, 0.1), (20, 2))),  # goes on
                (*LANE, line((10, 0), (10, 10))),  # crosses
                (*LANE, line((11, 0), (20, 0))),  # starts a metre further on
                (*LANE, line((20, 0), (10, 0))),  # comes the other way
                (MapKind.ROAD_LINE, 1, line((10, 0), (20, 0))),
                (*LANE, line((10, 0))),  # is no line
            ]
        )
    )
    assert features.links.origin == Origin.DERIVED
    assert [features.links.successors[row].tolist() for row in range(7)] == [[1], [], [], [], [], [], []]
    assert [features.links.predecessors[row].tolist() for row in range(7)] == [[], [0], [], [], [], [], []]


def test_recorded_links_are_left_alone_and_where_nothing_follows_links_stay_absent() -> None:
    recorded = crossing().map
    assert with_links(recorded) is recorded
    alone = make_map([(*LANE, line((0, 0), (10, 0)))])
    assert with_links(alone).links.origin == Origin.ABSENT


def test_more_lanes_than_can_be_compared_and_points_that_are_no_places_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = make_map([(*LANE, line((0, 0), (10, 0))), (*LANE, line((10, 0), (20, 0)))])
    broken = replace(features, points=features.points * np.nan)
    assert with_links(broken) is broken
    assert with_edges(broken) is broken
    monkeypatch.setattr(derive, "MAX_LANES", 1)
    assert with_links(features) is features


@pytest.mark.data
def test_derived_links_are_those_that_womd_recorded(shared: Path) -> None:
    kept, recorded, found = 0, 0, 0
    for scene in read_scenes(shared / "data" / "womd"):
        bare = with_links(replace(scene.map, links=Links.none(len(scene.map))))
        one, other = (
            {(row, int(lane)) for row in range(len(features)) for lane in features.links.successors[row]}
            for features in (scene.map, bare)
        )
        kept, recorded, found = kept + len(one & other), recorded + len(one), found + len(other)
    assert recorded > 7000
    assert kept / recorded > 0.99
    assert kept / found > 0.95


def test_the_outline_of_areas_that_overlap_is_one_with_the_ground_to_its_left() -> None:
    left, right = line((0, 0), (0, 8), (25, 8), (25, 0)), line((20, 0), (20, 8), (40, 8), (40, 0))
    (ring,) = outlines([left, right, line((0, 0), (1, 1))], np.array([[0.0, 0, 5], [40, 0, 7]]))
    x, y = ring[:, :2].T
    assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2 == pytest.approx(40 * 8)  # positive: counter-clockwise
    assert set(ring[:, 2].tolist()) == {5.0, 7.0}


def edges(features: Map) -> list[np.ndarray]:
    return [features.polyline(int(row))[:, :2] for row in features.rows(MapKind.ROAD_EDGE)]


def test_the_edges_of_a_straight_road_are_its_two_sides_and_its_ends_stay_open() -> None:
    road = with_links(make_map([(*LANE, line((0, 0), (50, 0))), (*LANE, line((50, 0), (100, 0)))]))
    features = with_edges(road)
    assert features.edge_origin == Origin.DERIVED
    assert features.links.origin == Origin.DERIVED
    assert len(features.links.successors) == len(features) == 4
    assert features.subtype[2:].tolist() == [EdgeType.BOUNDARY] * 2
    assert features.id.tolist() == [100, 101, 102, 103]
    assert np.isnan(features.speed_limit).all()
    for edge in edges(features):
        side = 1 if edge[0, 1] > 0 else -1
        assert edge[:, 1] == pytest.approx(1.75 * side)
        assert np.diff(edge[:, 0])[0] * side < 0  # the ground lies to the left
        assert abs(edge[0, 0] - edge[-1, 0]) == pytest.approx(100 - 2 * 0.7, abs=0.01)


def test_outlines_of_lanes_that_are_known_take_the_place_of_the_usual_width() -> None:
    road = make_map([(*LANE, line((0, 0), (50, 0)))])
    wide = line((0, -3), (50, -3), (50, 3), (0, 3))
    found = np.concatenate(edges(with_edges(road, [wide], [0])))
    assert np.abs(found[:, 1]).max() == pytest.approx(3)
    assert np.abs(found[:, 1]).min() > 2


def test_recorded_edges_are_left_alone_and_nothing_comes_of_nothing() -> None:
    recorded = make_map([(MapKind.ROAD_EDGE, 1, line((0, 0), (50, 0))), (*LANE, line((0, 3), (50, 3)))])
    assert with_edges(recorded) is recorded
    empty = Map.empty()
    assert with_edges(empty) is empty


def test_vehicles_that_are_wider_than_long_at_every_valid_step_are_turned() -> None:
    size = np.ones((4, 3, 3), np.float32) * [[[4, 2, 1]], [[2, 4, 1]], [[2, 4, 1]], [[2, 2.2, 1]]]
    size = size.astype(np.float32)
    valid = np.ones((4, 3), bool)
    size[1, 2], valid[1, 2] = 0, False
    assert upright(size, valid, np.array([True, True, False, True])) == 1
    assert size[:, 0, :2] == pytest.approx(np.array([[4, 2], [4, 2], [2, 4], [2, 2.2]]))
