"""Conditioning: maps in pieces, histories in the agent's own frame, routes and lights as codes."""

import numpy as np
import pytest
import torch

from traj_diffusion.datasets.cache import CacheShape, pack
from traj_diffusion.datasets.conditioning import (
    ABSENT_ROUTE,
    OFF_ROUTE,
    ON_ROUTE,
    PIECE_LENGTH,
    condition,
    cut_map,
    light_poses,
    light_rows,
    map_tensors,
    route_codes,
)
from traj_diffusion.scene import Csr, Map, MapKind, Origin, Routes
from traj_diffusion.testing import crossing, make_map, straight_road


def test_a_long_lane_is_cut_into_equal_pieces_that_cover_it() -> None:
    along = np.linspace(0, 95, 191)
    features = make_map([(MapKind.LANE, 2, np.stack([along, 0 * along], -1))])
    pieces = cut_map(features, np.zeros(2))
    assert len(pieces) == 5
    assert pieces.length.tolist() == pytest.approx([19.0] * 5, abs=1e-4)
    assert pieces.pose[:, 0].tolist() == pytest.approx([9.5, 28.5, 47.5, 66.5, 85.5], abs=1e-4)
    ends = pieces.points[:, [0, -1], 0]
    assert ends[0].tolist() == pytest.approx([-9.5, 9.5], abs=1e-4)
    assert pieces.length.max() <= PIECE_LENGTH


def test_pieces_never_bridge_two_features() -> None:
    features = make_map(
        [
            (MapKind.LANE, 2, np.array([[0.0, 0], [10, 0]])),
            (MapKind.ROAD_EDGE, 1, np.array([[500.0, 500], [500, 510]])),
            (MapKind.STOP_SIGN, 0, np.array([[3.0, 4]])),
        ]
    )
    pieces = cut_map(features, np.zeros(2))
    assert pieces.row.tolist() == [0, 1, 2]
    assert pieces.pose[:, :2].tolist() == [[5, 0], [500, 505], [3, 4]]
    assert pieces.length.tolist() == pytest.approx([10, 10, 0], abs=1e-4)
    assert pieces.pose[1, 2] == pytest.approx(np.pi / 2)
    assert len(set(pieces.code.tolist())) == 3


def test_points_are_the_same_wherever_the_map_lies_and_faces() -> None:
    rng = np.random.default_rng(0)
    line = np.cumsum(rng.normal(size=(30, 2)), axis=0)
    turn = np.array([[np.cos(1.0), -np.sin(1.0)], [np.sin(1.0), np.cos(1.0)]])
    here = cut_map(make_map([(MapKind.LANE, 2, line)]), np.zeros(2))
    there = cut_map(make_map([(MapKind.LANE, 2, line @ turn.T + 4e4)]), np.full(2, 4e4))
    assert np.abs(here.points - there.points).max() < 1e-4


def test_no_map_is_one_piece_that_is_not_there() -> None:
    tensors = map_tensors(cut_map(Map.empty(), np.zeros(2)))
    assert tensors.valid.tolist() == [[False]]


def test_history_is_seen_from_the_agent_now() -> None:
    scene = straight_road(speeds=(10.0,))
    turned = torch.full((1, 1, 11), np.pi / 2)
    ones = torch.ones(1, 1, 11, dtype=torch.bool)
    ones[..., :3] = False
    track = torch.from_numpy(scene.agents.position[None, :, :11, :2].astype(np.float32))
    c = condition(
        position=track,
        heading=turned,
        velocity=torch.from_numpy(scene.agents.velocity[None, :, :11]),
        valid=ones,
        size=torch.ones(1, 1, 3),
        kind=torch.ones(1, 1, dtype=torch.long),
        light_pose=torch.zeros(1, 0, 3),
        light_state=torch.zeros(1, 0, dtype=torch.long),
        light_valid=torch.zeros(1, 0, dtype=torch.bool),
        route=torch.zeros(1, 1, 1, dtype=torch.long),
        light_route=torch.zeros(1, 1, 0, dtype=torch.long),
    )
    # Driving east while facing north: a second ago it was to the left, and it moves to the right.
    assert c.history[0, 0, 5, :2].tolist() == pytest.approx([0.0, 5.0], abs=1e-4)
    assert c.history[0, 0, 10, 4:6].tolist() == pytest.approx([0.0, -10.0], abs=1e-4)
    assert (c.history[0, 0, :3] == 0).all()
    assert c.history[0, 0, 3:, 6].tolist() == [1.0] * 8


def test_route_codes_tell_on_off_and_absent_apart() -> None:
    routes = Routes(Csr.from_lists([[0, 1], []]), np.array([Origin.RECORDED, Origin.ABSENT], np.uint8))
    codes = route_codes(routes, np.array([0, 1]), np.array([0, 1, 2]))
    assert codes.tolist() == [[ON_ROUTE, ON_ROUTE, OFF_ROUTE], [ABSENT_ROUTE] * 3]


def test_a_light_faces_the_way_its_lane_runs() -> None:
    scene = crossing()
    stop, _, _ = scene.lights.last_seen(10)
    poses = light_poses(scene.map, scene.lights.lane_id, stop, np.array([-8.0, 0.0]))
    assert poses[0].tolist() == pytest.approx([0.0, 0.0, 0.0])
    assert light_rows(scene.map, np.array([100, 999])).tolist() == [0, -1]


def test_a_light_that_was_never_seen_up_to_now_is_not_known() -> None:
    scene = crossing()
    scene.lights.observed[:, :20] = False
    assert scene.lights.last_seen(10)[2].tolist() == [False]
    scene.lights.observed[:, 4] = True
    scene.lights.state[:, 4] = 6
    _, state, ever = scene.lights.last_seen(10)
    assert (state.tolist(), ever.tolist()) == ([6], [True])


def test_packing_keeps_the_nearest_and_nobody_who_is_not_there_now() -> None:
    scene = straight_road(speeds=(10.0, 9.0, 8.0, 7.0))
    scene.agents.valid[1, 10] = False
    sample = pack(scene, CacheShape(agents=2, pieces=8, lights=1))
    assert sample["valid"][:, 10].tolist() == [True, True]
    assert sample["position"][:, 10, 0].tolist() == pytest.approx([0.0, -60.0])
    assert np.abs(sample["map_pose"][:, 0]).max() < 60
