"""Scores of samples: cases known by hand, and what proper scores and ranks promise."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from traj_diffusion.metrics import Absent, Tally, match
from traj_diffusion.metrics.multimodality import (
    budget_curve,
    central_coverage,
    energy_score,
    last_step_ranks,
    multimodality,
    rank_histogram,
    volume,
)
from traj_diffusion.metrics.routes import left_routes, route_modes
from traj_diffusion.scene import Csr, LaneType, MapKind, Rollouts, Routes, Scene
from traj_diffusion.testing import crossing, make_map, make_scene, straight_road

Replay = Callable[..., Rollouts]


def sideways(*metres: list[float]) -> np.ndarray:
    return np.array(metres)[..., None, None] * np.array([0.0, 1.0, 0.0])


def value(figures: dict[str, Tally | Absent], name: str) -> float:
    figure = figures[name]
    assert isinstance(figure, Tally), figure
    return figure.value


def test_energy_score_of_two_rollouts_beside_the_log(replay: Replay) -> None:
    scene = straight_road()
    # Both agents 1 m left in one, 1 m right in the other: mean to the log 1, mean between all four pairs 1.
    figures = multimodality(match(scene, replay(scene, 2, sideways([1, 1], [-1, -1]))))
    assert value(figures, "joint_energy_score") == pytest.approx(1 - 1 / 2)
    assert value(figures, "marginal_energy_score") == pytest.approx(1 - 1 / 2)
    # Each agent has the same futures as before, jointly they are others: distances to the log stay, between them too.
    turned = multimodality(match(scene, replay(scene, 4, sideways([1, 1], [1, -1], [-1, 1], [-1, -1]))))
    assert value(turned, "marginal_energy_score") == pytest.approx(1 / 2)
    assert value(turned, "joint_energy_score") == pytest.approx(1 - (4 * 0 + 4 * 2 + 8 * math.sqrt(2)) / 16 / 2)


def test_one_rollout_scores_its_distance_to_the_log(replay: Replay) -> None:
    scene = straight_road()
    assert value(
        multimodality(match(scene, replay(scene, 1, sideways([3, 3])))), "joint_energy_score"
    ) == pytest.approx(3)


def test_the_energy_score_is_least_for_the_true_spread(rng: np.random.Generator) -> None:
    log, samples = rng.normal(size=2000), rng.normal(size=(2000, 64))
    mean = {
        spread: np.mean(
            [
                energy_score(np.abs(spread * x - y), np.abs(spread * (x[:, None] - x)))
                for x, y in zip(samples, log, strict=True)
            ]
        )
        for spread in (0.3, 1.0, 3.0)
    }
    assert mean[1.0] < mean[0.3]
    assert mean[1.0] < mean[3.0]


def test_volume_of_equal_and_of_distant_rollouts() -> None:
    assert volume(np.zeros((5, 5))) == pytest.approx(math.log(6))
    apart = np.full((5, 5), 1e6) * (1 - np.eye(5))
    assert volume(apart) == pytest.approx(5 * math.log(2))
    # Two futures at distance d: det [[2, k], [k, 2]] = 4 - k^2 with k = exp(-d^2 / (2 width^2)).
    two = np.array([[0, 3.0], [3.0, 0]])
    assert volume(two, width=2.0) == pytest.approx(math.log(4 - math.exp(-9 / 4)))


def test_ranks_are_flat_and_central_sets_hold_their_share_when_log_and_samples_are_alike(
    rng: np.random.Generator,
) -> None:
    draws = rng.normal(size=(20_000, 8))
    below, equal = (draws[:, 1:] < draws[:, :1]).sum(1).astype(float), np.zeros(20_000)
    histogram = rank_histogram(below, equal, 7)
    assert histogram.sum() == pytest.approx(20_000)
    assert np.abs(histogram / 20_000 - 1 / 8).max() < 4 * math.sqrt(1 / 8 * 7 / 8 / 20_000)
    for share in (0.5, 0.9):
        assert central_coverage(below, equal, 7, share).mean() == pytest.approx(share, abs=0.01)


def test_central_coverage_by_hand() -> None:
    # Nine samples: ten ranks, each a tenth wide. The central half is [.25, .75].
    below, equal = np.array([0.0, 2, 4, 9, 0]), np.array([0.0, 0, 0, 0, 9])
    assert central_coverage(below, equal, 9, 0.5).tolist() == pytest.approx([0, 0.5, 1, 0, 0.5])
    assert rank_histogram(np.array([1.0, 0]), np.array([0.0, 3]), 3).tolist() == [0.25, 1.25, 0.25, 0.25]


def test_coverage_looks_along_and_across_the_present_heading(replay: Replay) -> None:
    scene = crossing()  # heading east, north, north
    heading = np.array([[1.0, 0], [0, 1], [0, 1]])
    ahead = np.arange(1, 10)[:, None, None, None] * np.pad(heading, ((0, 0), (0, 1)))[None, :, None]
    matched = match(scene, replay(scene, 9, ahead))
    along, across, ends = last_step_ranks(matched, np.ones(3, bool))
    assert ends.all()
    assert along[0].tolist() == [0, 0, 0]  # every rollout is ahead of the log
    figures = multimodality(matched)
    assert value(figures, "coverage_90_along") == pytest.approx(0.5)  # the lowest tenth, of which .05 is inside
    assert value(figures, "coverage_50_along") == 0
    assert across[1].tolist() == [9, 9, 9]  # and none is beside it
    assert value(figures, "coverage_50_across") == pytest.approx(0.5)


def test_budget_curve_equals_the_mean_over_all_choices(rng: np.random.Generator) -> None:
    errors = rng.exponential(size=(3, 7))
    curve = budget_curve(errors, [1, 3, 7], rng)
    for (mean, low, high), k in zip(curve, (1, 3, 7), strict=True):
        every = [[min(row[list(pick)]) for pick in combinations(range(7), k)] for row in errors]
        assert mean == pytest.approx(np.mean(every))
        assert low <= mean <= high
    # Errors 1..R: the least of K is (R + 1) / (K + 1) on average.
    assert budget_curve(np.arange(1.0, 8)[None], [1, 3], rng)[:, 0].tolist() == pytest.approx([4, 2])
    with pytest.raises(ValueError, match=r"must lie in 1\.\.7"):
        budget_curve(errors, [8], rng)


def test_a_bootstrap_interval_holds_the_truth_about_as_often_as_it_says(rng: np.random.Generator) -> None:
    held = 0
    for _ in range(200):
        _, low, high = budget_curve(rng.normal(size=(40, 1)), [1], rng, draws=300, level=0.8)[0]
        held += low <= 0 <= high
    assert 0.68 < held / 200 < 0.88


def test_without_a_future_only_the_volume_is_there(replay: Replay) -> None:
    scene = straight_road()
    figures = multimodality(match(scene.history_only(), replay(scene, 2)))
    assert value(figures, "joint_volume") == pytest.approx(math.log(3))
    assert figures["joint_energy_score"] == Absent("the scene has no future to compare with")
    assert isinstance(multimodality(match(scene, replay(scene)))["joint_volume"], Absent)


def fork() -> Scene:
    """A lane that parts after 20 m into left, straight and right; a car begins at 10 m/s, its log goes straight."""
    ahead = np.linspace(0, 60, 61)
    stem = np.stack([np.linspace(-10, 20, 31), np.zeros(31)], -1)
    arms = [np.stack([20 + np.cos(a) * ahead, np.sin(a) * ahead], -1) for a in (0.8, 0.0, -0.8)]
    features = make_map(
        [(MapKind.LANE, LaneType.SURFACE_STREET, line) for line in (stem, *arms)], [[1, 2, 3], [], [], []]
    )
    return make_scene(np.zeros((1, 2)), np.array([[10.0, 0]]), features=features)


def towards(angle: float, speed: float = 10.0) -> np.ndarray:
    along = speed * 0.1 * np.arange(1, 81)
    beyond = np.maximum(along - 20, 0)[:, None] * np.array([np.cos(angle), np.sin(angle), 0])
    return (np.minimum(along, 20)[:, None] * np.array([1.0, 0, 0]) + beyond)[None]


def test_routes_that_rollouts_take_at_a_fork(replay: Replay) -> None:
    scene = fork()
    position = np.stack([towards(0.8), towards(0.8), towards(0.0), towards(0.0, speed=2.0)])
    figures = route_modes(match(scene, replay(scene, position=position, **_shape(4))))
    assert value(figures, "route_coverage") == pytest.approx(2 / 3)
    assert figures["route_log_recall"] == Tally(1.0, 1)
    assert figures["route_undecided_rate"] == Tally(1.0, 4)  # the slow one is not at the fork yet
    missed = route_modes(match(scene, replay(scene, position=position[:2], **_shape(2))))
    assert missed["route_log_recall"] == Tally(0.0, 1)


def test_who_ends_beside_his_route_has_left_it_and_who_ends_ahead_of_it_has_not(replay: Replay) -> None:
    scene = fork()
    route = Routes(Csr.from_lists([[0, 2]]), np.ones(1, np.uint8))
    scene = replace(scene, routes=route)
    position = np.stack([towards(0.0), towards(0.8), towards(0.0, speed=2.0), towards(0.0, speed=12.0)])
    assert left_routes(match(scene, replay(scene, position=position, **_shape(4))))["route_left_rate"] == Tally(1.0, 4)
    away = replace(scene, routes=Routes(Csr.from_lists([[0, 1]]), np.ones(1, np.uint8)))  # which the log leaves
    none = left_routes(match(away, replay(away, position=position, **_shape(4))))["route_left_rate"]
    assert none == Absent("no counted vehicle keeps to a route in the log")


def _shape(runs: int) -> dict[str, np.ndarray]:
    return {"heading": np.zeros((runs, 1, 80), np.float32), "valid": np.ones((runs, 1, 80), bool)}


def test_routes_need_links_and_a_choice(replay: Replay) -> None:
    scene = straight_road()
    assert route_modes(match(scene, replay(scene)))["route_coverage"] == Absent("the map has no lane links")
    one_way = replace(scene, map=crossing().map)
    figure = route_modes(match(one_way, replay(one_way)))["route_coverage"]
    assert figure == Absent("no counted vehicle has a choice of routes")
