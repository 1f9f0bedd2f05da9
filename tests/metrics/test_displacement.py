"""Displacement errors whose answers are known on paper."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from traj_diffusion.errors import BadRollouts
from traj_diffusion.metrics import Absent, AgentSet, Figures, Tally, displacement, diversity, match
from traj_diffusion.metrics.displacement import womd_speed_scale
from traj_diffusion.metrics.soft import soft_minimum
from traj_diffusion.scene import Rollouts
from traj_diffusion.testing import crossing, straight_road

Replay = Callable[..., Rollouts]


def value(figures: Figures, name: str) -> float:
    figure = figures[name]
    assert isinstance(figure, Tally), figure
    return figure.value


def sideways(*metres: list[float]) -> np.ndarray:
    """Offsets [R, A, 1, 3] in y, one list of agents per run."""
    return np.array(metres)[..., None, None] * np.array([0.0, 1.0, 0.0])


def test_joint_takes_one_rollout_for_all_and_marginal_one_for_each(replay: Replay) -> None:
    scene = straight_road()
    figures = displacement(match(scene, replay(scene, 2, sideways([0, 4], [3, 0]))))
    for name in ("ade", "fde"):
        assert value(figures, f"joint_min_{name}@2/8s") == pytest.approx(1.5)  # (3 + 0) / 2 beats (0 + 4) / 2
        assert value(figures, f"marginal_min_{name}@2/8s") == pytest.approx(0)
    assert value(figures, "mean_ade@2/3s") == pytest.approx((0 + 4 + 3 + 0) / 4)
    assert value(figures, "joint_miss_rate_argoverse@2/5s") == 0.5
    assert value(figures, "marginal_miss_rate_argoverse@2/5s") == 0


def test_fewer_samples_means_the_first_ones(replay: Replay) -> None:
    scene = straight_road()
    matched = match(scene, replay(scene, 2, sideways([5, 5], [0, 0])))
    assert value(displacement(matched, samples=1), "joint_min_ade@1/8s") == pytest.approx(5)
    assert value(displacement(matched), "joint_min_ade@2/8s") == pytest.approx(0)
    with pytest.raises(BadRollouts, match="2 rollouts; 3 samples"):
        displacement(matched, samples=3)


def test_only_steps_that_the_log_holds_count(replay: Replay) -> None:
    scene = straight_road()
    rollouts = replay(scene, 1, sideways([1, 1]))
    scene.agents.valid[1, 31:] = False  # the second car is gone after 2 s
    scene.agents.position[1, 31:] = 0
    figures = displacement(match(scene, rollouts))
    assert value(figures, "joint_min_ade@1/8s") == pytest.approx(1)
    end = figures["marginal_min_fde@1/8s"]
    assert isinstance(end, Tally)
    assert (end.total, end.count) == (pytest.approx(1), 1)  # the second car has no end to miss
    scene.agents.valid[:, 11:] = False
    assert isinstance(displacement(match(scene, rollouts))["joint_min_ade@1/8s"], Absent)


def test_an_agent_that_left_is_measured_from_where_it_was_last_seen(replay: Replay) -> None:
    scene = straight_road(speeds=(10.0,))
    rollouts = replay(scene)
    rollouts.valid[0, 0, 40:] = False
    assert value(displacement(match(scene, rollouts)), "joint_min_fde@1/8s") == pytest.approx(40)


@pytest.mark.parametrize(("along", "across", "missed"), [(5.9, 2.9, 0), (6.1, 0, 1), (0, 3.1, 1)])
def test_womd_misses_by_direction_at_eight_seconds(replay: Replay, along: float, across: float, missed: int) -> None:
    scene = straight_road(speeds=(12.0,))  # fast enough for the thresholds in full: 6 m along, 3 m across
    figures = displacement(match(scene, replay(scene, 1, np.array([along, across, 0.0]))))
    assert value(figures, "joint_miss_rate_womd@1/8s") == missed
    assert value(figures, "joint_miss_rate_womd@1/any") == 1  # 3 s allow 2 m along and 1 m across


@pytest.mark.parametrize(("along", "across", "missed"), [(2.9, 1.4, 0), (3.1, 0, 1), (0, 1.6, 1)])
def test_womd_halves_its_thresholds_for_the_slow(replay: Replay, along: float, across: float, missed: int) -> None:
    scene = straight_road(speeds=(1.0,))
    figures = displacement(match(scene, replay(scene, 1, np.array([along, across, 0.0]))))
    assert value(figures, "joint_miss_rate_womd@1/8s") == missed


def test_womd_scales_its_thresholds_by_the_present_speed() -> None:
    assert womd_speed_scale(np.array([0.0, 1.4, 6.2, 11.0, 30.0])).tolist() == pytest.approx([0.5, 0.5, 0.75, 1, 1])


def test_brier_adds_the_doubt_in_the_best_rollout(replay: Replay) -> None:
    scene = straight_road()
    rollouts = replay(scene, 2, sideways([1, 1], [2, 2]), weights=np.array([1.0, 3.0], np.float32))
    figures = displacement(match(scene, rollouts))
    assert value(figures, "joint_brier_min_fde@2/8s") == pytest.approx(1 + 0.75**2)
    assert value(figures, "marginal_brier_min_fde@2/8s") == pytest.approx(1 + 0.75**2)
    assert isinstance(displacement(match(scene, replay(scene)))["joint_brier_min_fde@1/8s"], Absent)


def test_soft_minima_lie_between_the_least_and_the_mean(replay: Replay) -> None:
    same = np.full((3, 2), 4.0)
    assert soft_minimum(same, np.full(3, 1 / 3)).tolist() == pytest.approx([4, 4])
    apart = np.array([[0.0], [2.0]])
    half = np.full(2, 0.5)
    assert soft_minimum(apart, half)[0] == pytest.approx(-math.log((1 + math.exp(-2)) / 2))
    assert soft_minimum(apart, half, softness=1e-3)[0] == pytest.approx(0, abs=1e-3)
    assert soft_minimum(apart, half, softness=1e6)[0] == pytest.approx(1, abs=1e-3)
    # One right sample among 32 that are far off costs log 32; with all the weight on it nothing.
    spray = np.array([0.0, *[1e3] * 31])[:, None]
    assert soft_minimum(spray, np.full(32, 1 / 32))[0] == pytest.approx(math.log(32))
    assert soft_minimum(spray, np.array([1.0, *[0.0] * 31]))[0] == 0
    assert soft_minimum(spray, np.array([0.0, *[1 / 31] * 31]))[0] == pytest.approx(1e3)


def test_soft_figures_weigh_all_samples(replay: Replay) -> None:
    scene = straight_road()
    rollouts = replay(scene, 2, sideways([0, 4], [3, 0]), weights=np.array([3.0, 1.0], np.float32))
    figures = displacement(match(scene, rollouts))
    # Jointly 2 m off with weight 3/4, 1.5 m with 1/4; alone 0 or 3 m, and 4 or 0 m.
    joint = -math.log(0.75 * math.exp(-2) + 0.25 * math.exp(-1.5))
    alone = (-math.log(0.75 + 0.25 * math.exp(-3)) - math.log(0.75 * math.exp(-4) + 0.25)) / 2
    for name in ("ade", "fde"):
        assert value(figures, f"joint_soft_min_{name}@2/8s") == pytest.approx(joint)
        assert value(figures, f"marginal_soft_min_{name}@2/8s") == pytest.approx(alone)
    # The first car is missed by the second sample, the second car by the first.
    assert value(figures, "soft_miss_rate_argoverse@2/8s") == pytest.approx((0.25 + 0.75) / 2)
    assert value(figures, "soft_miss_rate_womd@2/8s") == pytest.approx(1 / 2)
    late = replace(rollouts, weights=np.array([0.0, 1.0], np.float32))
    reason = Absent("all weight is on rollouts beyond the first K")
    first = displacement(match(scene, late), samples=1)
    for name in ("joint_soft_min_ade", "soft_miss_rate_womd", "marginal_brier_min_fde"):
        assert first[f"{name}@1/8s"] == reason


def test_kinds_and_agent_sets_are_kept_apart(replay: Replay) -> None:
    scene = crossing()
    scene.agents.to_predict[:] = [True, False, True]
    matched = match(scene, replay(scene, 1, sideways([1, 2, 6])))
    assert value(displacement(matched), "joint_min_ade@1/8s") == pytest.approx(3.5)
    everyone = displacement(matched, agents=AgentSet.SIMULATED)
    assert value(everyone, "joint_min_ade@1/8s") == pytest.approx(3)
    assert value(everyone, "joint_min_ade@1/8s/vehicle") == pytest.approx(1.5)
    assert value(everyone, "joint_min_ade@1/8s/pedestrian") == pytest.approx(6)
    assert everyone["joint_min_ade@1/8s/cyclist"] == Absent("no cyclist among the counted agents")


def test_a_horizon_beyond_the_rollouts_is_absent(replay: Replay) -> None:
    scene = straight_road()
    figures = displacement(match(scene, replay(scene), steps=50))
    assert figures["joint_min_ade@1/8s"] == Absent("the rollouts end after 5 s")
    assert value(figures, "joint_min_ade@1/5s") == 0


def test_pairwise_and_self_distance_of_three_rollouts_on_a_line(replay: Replay) -> None:
    scene = straight_road()
    # Jointly 0, 2 and 5 m apart from the start; for each agent alone the same.
    figures = diversity(match(scene, replay(scene, 3, sideways([0, 0], [2, 2], [5, 5]))))
    for which in ("joint", "marginal"):
        assert value(figures, f"{which}_apd") == pytest.approx((2 + 5 + 3) / 3)
        assert value(figures, f"{which}_asd") == pytest.approx((2 + 2 + 3) / 3)
        assert value(figures, f"{which}_fpd") == pytest.approx((2 + 5 + 3) / 3)
        assert value(figures, f"{which}_fsd") == pytest.approx((2 + 2 + 3) / 3)


def test_joint_self_distance_sees_that_no_two_rollouts_agree_on_everybody(replay: Replay) -> None:
    scene = straight_road()
    # Each agent repeats itself, the pairs never do.
    figures = diversity(match(scene, replay(scene, 4, sideways([0, 0], [0, 4], [4, 0], [4, 4]))))
    assert value(figures, "marginal_asd") == 0
    assert value(figures, "joint_asd") == pytest.approx(2)


def test_one_rollout_has_no_diversity_rather_than_none(replay: Replay) -> None:
    scene = straight_road()
    assert isinstance(diversity(match(scene, replay(scene)))["joint_apd"], Absent)
    same = diversity(match(scene, replay(scene, 2)))
    assert same["joint_apd"] == Tally(0.0, 1)


def test_the_order_of_rollouts_does_not_matter(replay: Replay, rng: np.random.Generator) -> None:
    scene = crossing()
    rollouts = replay(scene, 5, rng.normal(size=(5, 3, 80, 3)))
    turned = replace(rollouts, position=rollouts.position[::-1].copy())
    for metric in (displacement, diversity):
        one, other = metric(match(scene, rollouts)), metric(match(scene, turned))
        for name, figure in one.items():
            assert isinstance(figure, Absent) or value(other, name) == pytest.approx(figure.value), name
