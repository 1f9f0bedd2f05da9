"""From features to the score: what counts, what is refused, who lost the points, and means over scenes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from traj_diffusion.errors import BadConfig, BadRollouts, BadScene
from traj_diffusion.metrics import wosac
from traj_diffusion.scene import AgentKind, Lights, LightState, Map, MapKind, Rollouts, Scene
from traj_diffusion.testing import straight_road


def replay(scene: Scene, runs: int = 32, generation: bool = False, offset: float = 0.0) -> Rollouts:
    """The recording as rollouts, moved aside by `offset` metres after the current index."""
    rows, first = scene.sim_agents, 0 if generation else 11
    position = np.repeat(scene.agents.position[None, rows, first:], runs, 0)
    position[:, :, -80:, 1] += offset
    heading = np.repeat(scene.agents.heading[None, rows, first:], runs, 0)
    return Rollouts(
        scene_id=scene.id,
        first_step=first,
        dt=0.1,
        agent_id=scene.agents.id[rows],
        kind=scene.agents.kind[rows],
        position=position,
        heading=heading,
        valid=np.ones(heading.shape, bool),
        size=np.repeat(scene.agents.size[None, rows, 10], runs, 0),
    )


def with_agents(scene: Scene, **changes: np.ndarray) -> Scene:
    return replace(scene, agents=replace(scene.agents, **changes))


def gone_from(scene: Scene, row: int, steps: slice) -> Scene:
    valid = scene.agents.valid.copy()
    valid[row, steps] = False
    return with_agents(scene, valid=valid)


ROAD = straight_road((10.0, 8.0, 6.0))


@pytest.fixture(scope="module")
def perfect() -> wosac.WosacScore:
    return wosac.score(ROAD, replay(ROAD))


def test_log_replay_loses_points_only_by_smoothing_and_nan(perfect: wosac.WosacScore) -> None:
    # Nobody touches anybody, leaves the road or runs a light.
    for feature in ("collision_indication", "offroad_indication", "traffic_light_violation"):
        assert perfect.fields[f"{feature}_likelihood"] == pytest.approx(32.001 / 32.002, abs=1e-6)
    # 32 of 2560 speeds are NaN and count in the top bin; the other 79 steps share one bin.
    assert perfect.fields["linear_speed_likelihood"] == pytest.approx((2560 - 32 + 0.1) / (2560 + 1), abs=1e-6)
    assert perfect.fields["linear_acceleration_likelihood"] == pytest.approx((2560 - 64 + 0.1) / 2561.1, abs=1e-6)
    assert perfect.fields["average_displacement_error"] == perfect.future_ade == 0
    assert perfect.warnings == ()


def test_the_meta_metric_is_the_weighted_sum_and_buckets_are_weighted_means(perfect: wosac.WosacScore) -> None:
    weights = {term.feature: term.weight for term in wosac.CONFIGS["sim_agents_2025"].terms}
    total = sum(weight * perfect.fields[f"{name}_likelihood"] for name, weight in weights.items())
    assert perfect.metametric == pytest.approx(total, abs=1e-6)
    edge, offroad, light = (
        perfect.fields[f"{name}_likelihood"]
        for name in ("distance_to_road_edge", "offroad_indication", "traffic_light_violation")
    )
    assert perfect.buckets["map_based_metrics"] == pytest.approx((edge + 5 * offroad + light) / 7, abs=1e-6)
    assert perfect.buckets["realism_meta_metric"] == perfect.metametric


def test_the_official_displacement_is_diluted_by_eleven_steps_of_history() -> None:
    score = wosac.score(ROAD, replay(ROAD, offset=1.0))
    assert score.fields["average_displacement_error"] == pytest.approx(80 / 91, abs=1e-6)
    assert score.future_ade == pytest.approx(1.0, abs=1e-6)
    assert score.buckets["min_ade"] == score.fields["min_average_displacement_error"]


def test_min_ade_takes_the_best_joint_run_and_not_the_best_of_each_agent() -> None:
    rollouts = replay(ROAD, runs=32)
    rollouts.position[:, :, :, 1] += 4.0
    for run in range(3):  # run i has agent i right and the others 4 m off
        rollouts.position[run, run, :, 1] -= 4.0
    score = wosac.score(ROAD, rollouts)
    assert score.min_future_ade == pytest.approx(8 / 3, abs=1e-5)


def test_simulated_collisions_where_the_recording_is_not_valid_do_not_count() -> None:
    rollouts = replay(ROAD)
    rollouts.position[:, 0, 40:] = rollouts.position[:, 1, 40:]
    assert wosac.score(ROAD, rollouts).fields["simulated_collision_rate"] == pytest.approx(2 / 3)
    gone = gone_from(ROAD, 0, slice(45, None))
    assert wosac.score(gone, rollouts).fields["simulated_collision_rate"] == pytest.approx(1 / 3)
    # Agent 2 does collide, agent 1 not while it was observed: p(no) is 0.001, 32.001 and 32.001 of 32.002.
    likelihood = wosac.score(gone, rollouts).fields["collision_indication_likelihood"]
    assert likelihood == pytest.approx((0.001 * 32.001**2) ** (1 / 3) / 32.002, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "likelihood"),
    [(AgentKind.VEHICLE, (0.001 * 32.001**2) ** (1 / 3) / 32.002), (AgentKind.CYCLIST, 32.001 / 32.002)],
)
def test_a_red_light_run_by_a_cyclist_shows_in_the_rate_but_not_in_the_likelihood(
    kind: AgentKind, likelihood: float
) -> None:
    lights = Lights(
        lane_id=np.array([100], np.int64),
        stop_point=np.tile(np.array([40.5, 0, 0]), (1, 91, 1)),
        state=np.full((1, 91), LightState.STOP, np.uint8),
        observed=np.ones((1, 91), bool),
    )
    scene = replace(with_agents(ROAD, kind=np.array([kind, 1, 1], np.uint8)), lights=lights)
    assert wosac.score(scene, replay(scene)).fields["simulated_traffic_light_violation_rate"] == pytest.approx(1 / 3)
    waiting = replay(scene)
    waiting.position[..., 0] -= 100  # nobody gets to the line
    score = wosac.score(scene, waiting)
    assert score.fields["simulated_traffic_light_violation_rate"] == 0
    assert score.fields["traffic_light_violation_likelihood"] == pytest.approx(likelihood, rel=1e-5)


def test_boxes_keep_the_size_of_the_current_index_in_the_recording_too(perfect: wosac.WosacScore) -> None:
    size = ROAD.agents.size.copy()
    size[:, 11:] *= 3
    assert wosac.score(with_agents(ROAD, size=size), replay(ROAD)).fields == perfect.fields


def test_the_order_of_agents_in_the_rollouts_does_not_matter(perfect: wosac.WosacScore) -> None:
    r = replay(ROAD)
    turned = replace(
        r,
        agent_id=r.agent_id[::-1].copy(),
        kind=r.kind[::-1].copy(),
        position=r.position[:, ::-1].copy(),
        heading=r.heading[:, ::-1].copy(),
    )
    assert wosac.score(ROAD, turned).fields == perfect.fields


def test_ego_and_agents_to_predict_are_evaluated_by_ascending_id() -> None:
    scene = with_agents(ROAD, id=np.array([30, 20, 10], np.int64), to_predict=np.array([False, False, True]))
    assert wosac.score(scene, replay(scene)).agent_id.tolist() == [10, 30]


def test_time_to_collision_counts_for_vehicles_only() -> None:
    kind = np.array([AgentKind.VEHICLE, AgentKind.PEDESTRIAN, AgentKind.CYCLIST], np.uint8)
    scene = with_agents(ROAD, kind=kind)
    counted = ~np.isnan(wosac.score(scene, replay(scene)).log_likelihood["time_to_collision"])
    assert counted.any(1).tolist() == [True, False, False]
    then = wosac.score(scene, replay(scene), "sim_agents_2024_leaderboard")
    assert not np.isnan(then.log_likelihood["time_to_collision"]).any()


def test_without_an_entry_that_counts_a_likelihood_is_absent_with_a_reason() -> None:
    scene = with_agents(ROAD, kind=np.full(3, AgentKind.PEDESTRIAN, np.uint8))
    score = wosac.score(scene, replay(scene))
    assert np.isnan(score.fields["time_to_collision_likelihood"])
    assert np.isnan(score.metametric)
    assert any("time_to_collision" in warning for warning in score.warnings)
    assert np.isnan(score.lost_points("time_to_collision")).all()
    assert all(loss.feature != "time_to_collision" for loss in score.worst(1000))


def test_nobody_seen_in_the_future_leaves_no_future_ade() -> None:
    scene = ROAD
    for row in range(3):
        scene = gone_from(scene, row, slice(11, None))
    score = wosac.score(scene, replay(ROAD))
    assert np.isnan(score.future_ade)
    assert any("future ADE" in warning for warning in score.warnings)


def test_lost_points_add_up_to_what_the_meta_metric_lacks() -> None:
    score = wosac.score(ROAD, replay(ROAD, offset=5.0))
    lost = sum(score.lost_points(feature).sum() for feature in score.log_likelihood)
    assert lost == pytest.approx(1 - score.metametric, abs=1e-6)


def test_the_worst_loss_names_the_agent_and_the_step() -> None:
    rollouts = replay(ROAD)
    rollouts.position[:, 1, :, 1] += 6.0  # agent 2 leaves the road in every run
    score = wosac.score(ROAD, rollouts)
    worst = score.worst(1)[0]
    assert (worst.feature, worst.agent_id, worst.step) == ("offroad_indication", 2, None)
    assert score.simulated_events["offroad_indication"][:, 0].tolist() == [0, 1, 0]
    assert not score.logged_events["offroad_indication"].any()
    timed = next(loss for loss in score.worst(500) if loss.feature == "distance_to_road_edge")
    assert timed.agent_id == 2
    assert 11 <= timed.step <= 90


def test_scenario_generation_evaluates_everyone_at_all_steps() -> None:
    scene = with_agents(ROAD, to_predict=np.zeros(3, bool))
    score = wosac.score(scene, replay(scene, generation=True), "scenario_gen_2025")
    assert score.agent_id.tolist() == [1, 2, 3]
    assert score.step.tolist() == list(range(91))
    assert score.fields["average_displacement_error"] == 0
    assert np.isnan(score.future_ade)
    # Pooled: 3 agents x 32 runs x 91 steps, with 2 NaN speeds each in the top bin; speeds 10, 8, 6 fall into bins
    # 4, 3, 2, where float32 positions keep them.
    each = (32 * 89 + 0.1) / (3 * 32 * 91 + 1)
    assert score.fields["linear_speed_likelihood"] == pytest.approx(each, rel=1e-3)


def test_older_years_differ_by_weights_and_ranges(perfect: wosac.WosacScore) -> None:
    features = wosac.extract(ROAD, replay(ROAD))
    year = {y: wosac.score_features(features, f"sim_agents_{y}") for y in (2023, 2024, 2025)}
    assert year[2025].fields == perfect.fields
    assert year[2024].fields["linear_speed_likelihood"] == perfect.fields["linear_speed_likelihood"]
    assert year[2024].metametric != year[2025].metametric
    with pytest.raises(ValueError, match="generation=True"):
        wosac.score_features(features, "scenario_gen_2025")


def test_another_number_of_rollouts_is_scored_with_a_warning() -> None:
    score = wosac.score(ROAD, replay(ROAD, runs=5))
    assert score.rollouts == 5
    assert "32" in score.warnings[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: replace(r, agent_id=np.array([1, 2, 9], np.int64)), r"\[3\] are missing and \[9\] are foreign"),
        (lambda r: replace(r, agent_id=np.array([1, 2, 2], np.int64)), "repeat"),
        (
            lambda r: replace(r, position=r.position[:, :, :79], heading=r.heading[..., :79], valid=r.valid[..., :79]),
            "80",
        ),
        (lambda r: replace(r, first_step=10), "from 11 on"),
        (lambda r: replace(r, scene_id="other"), "scene other"),
        (lambda r: replace(r, dt=0.2), "0.2 s"),
        (lambda r: replace(r, position=np.full_like(r.position, np.nan)), "not finite"),
        (lambda r: replace(r, heading=np.full_like(r.heading, np.inf)), "not finite"),
        (lambda r: replace(r, valid=np.zeros_like(r.valid)), "not there at step 11"),
        (lambda r: replace(r, position=r.position + 1e9), "beyond"),
        (lambda r: replace(r, position=r.position[:0], heading=r.heading[:0], valid=r.valid[:0], size=None), "no run"),
    ],
)
def test_rollouts_that_do_not_fit_are_refused(change: Callable[[Rollouts], Rollouts], message: str) -> None:
    with pytest.raises(BadRollouts, match=message):
        wosac.score(ROAD, change(replay(ROAD)))


def test_scenario_generation_wants_sizes() -> None:
    with pytest.raises(BadRollouts, match="no sizes"):
        wosac.score(ROAD, replace(replay(ROAD, generation=True), size=None), "scenario_gen_2025")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, map=Map.empty()), "no road edge"),
        (lambda s: replace(s, map=replace(s.map, kind=np.full(3, MapKind.LANE, np.uint8))), "no road edge"),
        (lambda s: replace(s, ego=None), "no ego"),
        (lambda s: replace(s, current_index=0), "current index 0"),
        (lambda s: replace(s, dt=0.5), "0.5 s"),
        (lambda s: gone_from(s, 2, slice(10, 11)), r"\[3\] are to be evaluated"),
        (lambda s: s.history_only(), "11 steps"),
    ],
)
def test_scenes_that_cannot_be_scored_are_refused(change: Callable[[Scene], Scene], message: str) -> None:
    with pytest.raises(BadScene, match=message):
        wosac.score(change(ROAD), replay(ROAD))


def test_an_unknown_configuration_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadConfig, match="scenario_gen_2025"):
        wosac.score(ROAD, replay(ROAD), "sim_agents_2026")


# Means over scenes


def scored(perfect: wosac.WosacScore, values: list[float]) -> list[wosac.WosacScore]:
    return [
        replace(perfect, scene_id=f"s{i}", fields={**perfect.fields, "metametric": value})
        for i, value in enumerate(values)
    ]


def test_the_mean_over_scenes_lies_in_its_interval(perfect: wosac.WosacScore, rng: np.random.Generator) -> None:
    values = rng.normal(0.7, 0.1, 400)
    summary = wosac.aggregate(scored(perfect, values.tolist()))
    estimate = summary.fields["metametric"]
    assert estimate.mean == pytest.approx(values.mean())
    # The central limit theorem: ± 1.96 s / sqrt(400).
    half = 1.96 * values.std() / 20
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=2e-3)
    assert summary == wosac.aggregate(scored(perfect, values.tolist()))
    assert (summary.scenes, estimate.scenes) == (400, 400)


def test_a_scene_without_the_number_is_left_out_and_counted(perfect: wosac.WosacScore) -> None:
    estimate = wosac.aggregate(scored(perfect, [0.5, float("nan"), 0.7])).fields["metametric"]
    assert estimate.mean == pytest.approx(0.6)
    assert estimate.scenes == 2


def test_mixed_configurations_and_repeated_scenes_are_refused(perfect: wosac.WosacScore) -> None:
    with pytest.raises(ValueError, match="one configuration"):
        wosac.aggregate([perfect, replace(perfect, config="sim_agents_2024")])
    with pytest.raises(ValueError, match="more than once"):
        wosac.aggregate([perfect, perfect])
    with pytest.raises(ValueError, match="one or more"):
        wosac.aggregate([])
