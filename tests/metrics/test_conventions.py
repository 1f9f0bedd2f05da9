"""Displacement as benchmarks define it: where their definitions part, each on a case whose answer is known by hand."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from traj_diffusion.metrics import CONVENTIONS, Absent, Figures, Tally, displacement_as, match, score
from traj_diffusion.scene import Rollouts, Scene
from traj_diffusion.testing import straight_road

Replay = Callable[..., Rollouts]


def value(figures: Figures, name: str) -> float:
    figure = figures[name]
    assert isinstance(figure, Tally), figure
    return figure.value


def road(steps: int = 91, speeds: tuple[float, ...] = (12.0, 12.0)) -> Scene:
    """A road whose cars are all to be predicted; at 12 m/s WOMD's thresholds hold in full."""
    scene = straight_road(speeds=speeds, steps=steps)
    return replace(scene, agents=replace(scene.agents, to_predict=np.ones(len(speeds), bool)))


def aside(*runs: Callable[[np.ndarray], object], agents: int = 2) -> np.ndarray:
    """Offsets [K, A, 80, 3] in y: a function of time [s] for each of six samples, the last one repeated."""
    seconds = np.arange(1, 81) * 0.1
    offset = np.zeros((6, agents, 80, 3))
    for k in range(6):
        offset[k, ..., 1] = runs[min(k, len(runs) - 1)](seconds)
    return offset


def test_the_best_sample_is_by_its_end_at_argoverse_and_by_each_figure_at_womd(replay: Replay) -> None:
    # One sample 1 m off all the time, one 3 m off until the very end, where it is right.
    offset = aside(lambda t: 0 * t + 1, lambda t: np.where(t > 5.95, 0, 3), lambda t: 0 * t + 9)
    matched = match(road(), replay(road(), 6, offset))
    argoverse = displacement_as(matched, "argoverse_2")
    assert value(argoverse, "argoverse_2/min_fde/6s") == 0
    assert value(argoverse, "argoverse_2/min_ade/6s") == pytest.approx(3 * 59 / 60)  # of that same sample
    assert value(argoverse, "argoverse_2/miss_rate/6s") == 0
    womd = displacement_as(matched, "womd_motion")
    assert value(womd, "womd_motion/min_ade/5s") == pytest.approx(1)
    assert value(womd, "womd_motion/min_fde/5s") == pytest.approx(1)
    # At 8 s: 11 of the 16 steps at 2 Hz are 3 m off, the other five are right.
    assert value(womd, "womd_motion/min_ade/8s") == pytest.approx(1)
    assert value(womd, "womd_motion/min_fde/8s") == 0
    assert value(womd, "womd_motion/min_ade/3s/vehicle") == pytest.approx(1)
    assert isinstance(womd["womd_motion/min_ade/3s/cyclist"], Absent)


def test_nuscenes_looks_at_the_largest_distance_twice_a_second_and_at_five_samples(replay: Replay) -> None:
    # 5 m off from 2.45 to 2.55 s only: at a step of 2 Hz; from 2.55 to 2.75 s: between two of them.
    seen, unseen = (
        aside(lambda t, a=a, b=b: np.where((t > a) & (t < b), 5, 0)) for a, b in ((2.45, 2.55), (2.55, 2.75))
    )
    for offset, missed, ade in ((seen, 1, 5 / 12), (unseen, 0, 0)):
        figures = displacement_as(match(road(), replay(road(), 6, offset)), "nuscenes")
        assert value(figures, "nuscenes/miss_rate/6s") == missed
        assert value(figures, "nuscenes/min_fde/6s") == 0
        assert value(figures, "nuscenes/min_ade/6s") == pytest.approx(ade)
    # A sixth sample that is right does not help.
    late = aside(*[lambda t: 0 * t + 4] * 5, lambda t: 0 * t)
    assert value(displacement_as(match(road(), replay(road(), 6, late)), "nuscenes"), "nuscenes/min_ade/6s") == 4
    assert value(displacement_as(match(road(), replay(road(), 6, late)), "argoverse_1"), "argoverse_1/min_ade/3s") == 0


def test_a_world_of_argoverse_counts_the_share_that_is_missed_and_womd_any_of_them(replay: Replay) -> None:
    # Every world has one of the two cars 5 m off (a miss of all) and the other one right; no world has both right.
    offset = np.zeros((6, 2, 80, 3))
    offset[np.arange(6), np.arange(6) % 2, :, 1] = 5
    matched = match(road(), replay(road(), 6, offset))
    worlds, pair = displacement_as(matched, "argoverse_2_worlds"), displacement_as(matched, "womd_interaction")
    assert value(worlds, "argoverse_2_worlds/min_fde/6s") == 2.5
    assert value(worlds, "argoverse_2_worlds/miss_rate/6s") == 0.5
    assert value(pair, "womd_interaction/miss_rate/8s") == 1
    assert value(pair, "womd_interaction/min_ade/8s") == 2.5
    assert value(displacement_as(matched, "womd_motion"), "womd_motion/miss_rate/8s") == 0


def test_the_best_world_is_one_world_for_all_figures(replay: Replay) -> None:
    # World 0: both cars 1 m off all along. World 1: right at 6 s, 4 m off before.
    offset = aside(lambda t: 0 * t + 1, lambda t: np.where(t > 5.95, 0, 4), lambda t: 0 * t + 9)
    figures = displacement_as(match(road(), replay(road(), 6, offset)), "argoverse_2_worlds")
    assert value(figures, "argoverse_2_worlds/min_ade/6s") == pytest.approx(4 * 59 / 60)
    assert value(figures, "argoverse_2_worlds/min_fde/6s") == 0


def test_brier_takes_the_weight_among_the_samples_that_count(replay: Replay) -> None:
    weights = np.array([1, 1, 1, 1, 1, 3, 100], np.float32)
    offset = np.concatenate([aside(*[lambda t: 0 * t + 4] * 5, lambda t: 0 * t + 1), np.zeros((1, 2, 80, 3))])
    figures = displacement_as(match(road(), replay(road(), 7, offset, weights=weights)), "argoverse_2")
    assert value(figures, "argoverse_2/brier_min_fde/6s") == pytest.approx(1 + (1 - 3 / 8) ** 2)
    none = displacement_as(match(road(), replay(road(), 6)), "argoverse_2")["argoverse_2/brier_min_fde/6s"]
    assert none == Absent("the rollouts have no weights")


def test_the_ego_is_not_counted_unless_it_is_to_be_predicted(replay: Replay) -> None:
    scene = road()
    assert scene.ego == 0
    scene.agents.to_predict[:] = [False, True]
    offset = aside(lambda t: 0 * t)
    offset[:, 0, :, 1] = 50
    assert value(displacement_as(match(scene, replay(scene, 6, offset)), "argoverse_2"), "argoverse_2/min_fde/6s") == 0


@pytest.mark.parametrize(
    ("steps", "runs", "reason"),
    [(91, 5, "5 rollouts; this benchmark scores 6 samples"), (61, 6, "the rollouts end after 5 s")],
)
def test_what_a_benchmark_cannot_score_is_absent_and_says_why(
    replay: Replay, steps: int, runs: int, reason: str
) -> None:
    scene = road(steps)
    figures = displacement_as(match(scene, replay(scene, runs)), "argoverse_2")
    assert set(figures.values()) == {Absent(reason)}


def test_nobody_to_predict_and_no_future_are_absence(replay: Replay) -> None:
    scene = road()
    future = replay(scene, 6)
    for changed in (replace(scene, agents=replace(scene.agents, to_predict=np.zeros(2, bool))), scene.history_only()):
        for benchmark in CONVENTIONS:
            assert all(isinstance(one, Absent) for one in displacement_as(match(changed, future), benchmark).values())
    with pytest.raises(ValueError, match="known: argoverse_1, argoverse_2"):
        displacement_as(match(scene, future), "argoverse_3")


def test_every_benchmark_is_among_the_scores_and_a_replay_is_perfect(replay: Replay) -> None:
    found = score(road(), replay(road(), 6))
    for benchmark, convention in CONVENTIONS.items():
        for name in ("min_ade", "min_fde", "miss_rate"):
            assert found[f"{benchmark}/{name}/{max(convention.horizons):g}s"] == 0
