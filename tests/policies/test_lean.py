"""Guidance: what it finds wrong is known by hand, and it leads out of it."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from traj_diffusion.policies.lean import fault, lean
from traj_diffusion.policies.road import REACH, RoadField, road_field
from traj_diffusion.policies.surroundings import Guidance, Surroundings, is_red
from traj_diffusion.scene import AgentKind, LightState, Map, MapKind
from traj_diffusion.testing import straight_road

SCALE = torch.tensor([1.2, 0.12, 0.3])


def surroundings(
    places: list[tuple[float, float, float]],
    speeds: list[float],
    field: RoadField | None = None,
    free: list[bool] | None = None,
    light: tuple[float, float, float] | None = None,
) -> Surroundings:
    """Return cars of 4 x 2 m at these poses, with these forward speeds."""
    pose = torch.tensor([places], dtype=torch.float32)
    cars = pose.shape[1]
    return Surroundings.of(
        pose=pose,
        speed=torch.tensor([[[speed, 0.0] for speed in speeds]]),
        size=torch.tensor([4.0, 2.0, 1.5]).expand(1, cars, 3),
        kind=torch.full((1, cars), int(AgentKind.VEHICLE)),
        valid=torch.ones(1, cars, dtype=torch.bool),
        scale=SCALE.expand(1, cars, 1, 3),
        free=torch.tensor([free or [True] * cars]),
        light=torch.tensor([[light or (0, 0, 0)]], dtype=torch.float32),
        red=torch.tensor([[light is not None]]),
        field=field,
    )


def wall(y: float) -> RoadField:
    """Return the field of one straight road edge at that y, with the ground for vehicles to the south of it."""
    rows = torch.arange(-40, 41.0)[:, None].expand(-1, 201)
    return RoadField((rows - y).contiguous(), (-20.0, -40.0), 1.0)


def still(cars: int) -> Tensor:
    return torch.zeros(1, cars, 16, 3)


def test_who_keeps_apart_and_on_the_road_is_left_alone() -> None:
    around = surroundings([(0, 0, 0), (30, 0, 0)], [5.0, 5.0], wall(20.0))
    plan = 0.1 * torch.randn(1, 2, 16, 3, generator=torch.Generator().manual_seed(0))
    own, moves = fault(plan, around, Guidance())
    assert not own.any()
    assert moves.all()
    assert torch.equal(lean(plan, around, Guidance()), plan)


def test_a_car_brakes_behind_one_that_stands() -> None:
    around = surroundings([(0, 0, 0), (20, 0, 0)], [8.0, 0.0])
    guidance = Guidance(rounds=8)
    before, moves = fault(still(2), around, guidance)
    assert before[0, 0] > 1
    assert moves.tolist() == [[True, False]]
    after = lean(still(2), around, guidance)
    assert fault(after, around, guidance)[0].max() < 0.05 * before.max()
    assert not after[0, 1].any()  # who stands is not pushed away
    assert after[0, 0, :, 0].min() < 0


def test_two_who_creep_towards_each_other_stop_in_time() -> None:
    around = surroundings([(0, 0, 0), (5.0, 0, np.pi)], [0.25, 0.25])
    guidance = Guidance(rounds=8)
    before, moves = fault(still(2), around, guidance)  # a metre between them, of which they use up one and a half
    assert moves.all()
    assert before.min() > 1
    after = lean(still(2), around, guidance)
    assert fault(after, around, guidance)[0].max() < 0.05 * before.max()


def test_a_car_stops_at_its_red_light_and_at_no_other() -> None:
    guidance = Guidance(rounds=8)
    around = surroundings([(0, 0, 0)], [8.0], light=(15.0, 0.5, 0.1))
    assert around.stops.all()
    before = fault(still(1), around, guidance)[0]
    after = lean(still(1), around, guidance)
    assert fault(after, around, guidance)[0] < 0.05 * before
    assert after[0, 0, :, 0].min() < 0
    for light in ((15.0, 3.5, 0.0), (15.0, 0.0, 1.5), (1.0, 0.0, 0.0), (4.0, 0.0, 0.0)):  # beside, across, passed, near
        assert not surroundings([(0, 0, 0)], [8.0], light=light).stops.any()
    states = torch.tensor([[LightState.STOP, LightState.GO, LightState.ARROW_STOP, LightState.UNKNOWN]])
    assert is_red(states).tolist() == [[True, False, True, False]]


def test_whose_plan_is_given_is_not_changed_and_others_make_way() -> None:
    around = surroundings([(0, 0, 0), (20, 0, 3.1416)], [5.0, 5.0], free=[True, False])
    guidance = Guidance(rounds=8)
    before = fault(still(2), around, guidance)[0]
    after = lean(still(2), around, guidance)
    assert not after[0, 1].any()
    assert fault(after, around, guidance)[0][0, 0] < 0.5 * before[0, 0]


def test_a_car_turns_away_from_the_kerb_that_it_heads_for() -> None:
    around = surroundings([(0, 0, 0.2)], [8.0], wall(3.0))
    assert around.bound.all()
    guidance = Guidance(rounds=8)
    before = fault(still(1), around, guidance)[0]
    after = lean(still(1), around, guidance)
    assert fault(after, around, guidance)[0] < 0.05 * before
    assert after[0, 0, :, 1].sum() < 0  # to the right


def test_who_is_off_the_road_already_may_stay_there() -> None:
    around = surroundings([(0, 5.0, 0.0)], [5.0], wall(3.0))
    assert not around.bound.any()
    assert not fault(still(1), around, Guidance())[0].any()


@pytest.mark.parametrize(
    ("place", "gap"),
    [
        ((6.0, 0.0, 0.0), 2.0),  # bumper to bumper
        ((0.0, -2.5, 3.1416), 0.5),  # side to side
        ((3.5, 0.0, 1.5708), 0.5),  # its side before a bumper
        ((4.1, 1.8, 0.0), 0.1),  # corner to corner, where rows of discs would be half a metre apart
        ((5.1 * 0.8, 5.1 * 0.6, 0.0), 1.06),  # across a corner: along the side that they are farther apart by
    ],
)
def test_boxes_are_as_far_apart_as_along_their_sides(place: tuple[float, float, float], gap: float) -> None:
    around = surroundings([(0, 0, 0), place], [0.0, 0.0])
    assert around.pair.any()
    assert not fault(still(2), around, Guidance(gap=gap - 0.01))[0].any()
    torch.testing.assert_close(
        fault(still(2), around, Guidance(gap=gap + 0.01, knots=1, every=5))[0],
        torch.full((1, 2), 0.01),
        atol=2e-4,
        rtol=0,
    )


def test_corners_that_reach_into_each_other_are_a_touch() -> None:
    assert not surroundings([(0, 0, 0), (3.9, 1.9, 0)], [0.0, 0.0]).pair.any()


def test_those_that_touch_now_are_not_held_apart() -> None:
    around = surroundings([(0, 0, 0), (3, 0, 0), (30, 0, 0)], [0.0, 0.0, 0.0])
    assert not around.pair[0, 0, around.near[0, 0] == 1].any()


def test_rows_do_not_depend_on_each_other() -> None:
    one = surroundings([(0, 0, 0.2), (20, 0, 0)], [8.0, 0.0], wall(3.0))
    two = surroundings([(0, 0, -0.2), (9, 0, 0)], [9.0, 1.0], wall(3.0))
    fields = ("pose", "speed", "size", "kind", "valid", "scale", "near", "pair", "bound", "free", "light", "stops")
    both = Surroundings(
        **{name: torch.cat([getattr(one, name), getattr(two, name)]) for name in fields}, field=one.field
    )
    alone = lean(still(2), one, Guidance())
    together = lean(still(2).expand(2, -1, -1, -1).contiguous(), both, Guidance())
    torch.testing.assert_close(together[:1], alone, rtol=1e-5, atol=1e-5)


def test_the_field_is_the_signed_distance_to_the_nearest_edge() -> None:
    scene = straight_road()
    edges = scene.map
    field = road_field(edges, np.zeros(2), scene.agents.position[:, scene.current_index])
    assert field is not None
    generator = np.random.default_rng(0)
    low, high = edges.points[:, :2].min(0), edges.points[:, :2].max(0)
    points = generator.uniform(low, high, (200, 2))
    found = field(torch.from_numpy(points)).numpy()
    known = np.array([_signed(edges, point) for point in points])
    near = np.abs(known) < REACH - 1
    assert near.sum() > 50
    np.testing.assert_allclose(found[near], known[near], atol=0.26)  # half a cell, at the ridge between two edges


def test_a_map_without_edges_has_no_field() -> None:
    assert road_field(Map.empty(), np.zeros(2), np.zeros((0, 3))) is None


def test_outside_of_the_grid_nothing_is_beyond_the_kerb() -> None:
    assert wall(3.0)(torch.tensor([[1e5, 1e5]])).item() == pytest.approx(-REACH)


def _signed(edges: Map, point: np.ndarray) -> float:
    """Return the distance to the nearest edge segment, negative to its left."""
    best, sign = np.inf, 1.0
    for row in edges.rows(MapKind.ROAD_EDGE):
        line = edges.polyline(int(row))[:, :2]
        for start, end in itertools.pairwise(line):
            along = end - start
            share = np.clip((point - start) @ along / (along @ along), 0, 1)
            gap = point - start - share * along
            distance = float(np.linalg.norm(gap))
            if distance < best:
                best, sign = distance, -1.0 if along[0] * gap[1] - along[1] * gap[0] >= 0 else 1.0
    return sign * best
