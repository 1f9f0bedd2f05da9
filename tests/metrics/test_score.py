"""Scores of scenes, their rows on disk, and what many of them add up to."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from traj_diffusion.errors import BadInput, BadRollouts
from traj_diffusion.metrics import SceneScore, Tally, score, summarise, table
from traj_diffusion.scene import Rollouts
from traj_diffusion.testing import crossing, straight_road

Replay = Callable[..., Rollouts]


def made(scene_id: str, value: float, count: int = 1) -> SceneScore:
    return SceneScore(scene_id, {"rate": Tally(value * count, count)}, {"other": "no map"})


@pytest.mark.parametrize("make", [crossing, straight_road])
def test_a_perfect_replay_scores_perfectly(replay: Replay, make: Callable[..., object]) -> None:
    scene = make()
    scored = score(scene, replay(scene, 3))
    for name in ("joint_min_ade@3/8s", "marginal_min_fde@3/3s", "joint_energy_score", "joint_apd"):
        assert scored[name] == pytest.approx(0, abs=1e-9)
    for name, value in scored.items():
        assert np.isfinite(value), name
        if not name.startswith("log/") and f"log/{name}" in scored:
            assert value == scored[f"log/{name}"]


def test_an_absent_metric_says_why_and_is_no_number(replay: Replay) -> None:
    scene = straight_road()
    scored = score(scene, replay(scene))
    assert "red_light_rate" not in scored
    with pytest.raises(KeyError, match="red_light_rate is absent in scene made: the scene has no lights"):
        scored["red_light_rate"]
    with pytest.raises(KeyError, match="no metric is called 'speeling'"):
        scored["speeling"]


def test_names_do_not_depend_on_the_scene(replay: Replay) -> None:
    names = []
    for scene in (crossing(), straight_road(), straight_road(speeds=(1.0,)), crossing().history_only()):
        future = replay(straight_road(speeds=(1.0,)) if len(scene.agents) == 1 else crossing())
        scored = score(scene, replay(scene) if scene.steps > 11 else future)
        names.append({*scored.tallies, *scored.absent})
    assert names[0] == names[1] == names[2] == names[3]


def test_rollouts_shorter_than_what_is_scored_are_refused(replay: Replay) -> None:
    scene = straight_road(steps=61)
    with pytest.raises(BadRollouts, match="50 steps per run; 80 or more"):
        score(scene, replay(scene))
    assert score(scene, replay(scene), seconds=5.0)["joint_min_ade@1/5s"] == 0


def test_a_row_survives_json(replay: Replay) -> None:
    scored = score(crossing(), replay(crossing(), 2))
    again = SceneScore.from_row(json.loads(json.dumps(scored.to_row())))
    assert again == scored
    for row in ({}, {"scene_id": "a", "tallies": {"x": [1]}, "absent": {}}, {"scene_id": "a", "tallies": 3}):
        with pytest.raises(BadInput, match="not a row of scores"):
            SceneScore.from_row(row)
    with pytest.raises(BadInput, match="x counts nothing"):
        SceneScore.from_row({"scene_id": "a", "tallies": {"x": [1.0, 0]}, "absent": {}})


def test_means_are_over_scenes_and_pools_over_agents() -> None:
    summary = summarise([made("a", 0.0, 1), made("b", 1.0, 3)], np.random.default_rng(0))
    assert summary["rate"].mean == 0.5
    assert summary["rate"].pooled == Tally(3.0, 4)
    assert (summary["rate"].low, summary["rate"].high) == (0, 1)
    assert summary.absent == {"other": {"no map": 2}}


def test_shards_and_order_do_not_change_a_summary(rng: np.random.Generator) -> None:
    scores = [made(f"{number:03}", float(value)) for number, value in enumerate(rng.random(30))]
    whole = summarise(scores, np.random.default_rng(1))
    assert summarise(scores[20:] + scores[:20][::-1], np.random.default_rng(1)) == whole
    first, second = (summarise(part, np.random.default_rng(1))["rate"].pooled for part in (scores[:7], scores[7:]))
    assert (first + second).value == pytest.approx(whole["rate"].pooled.value)


def test_the_interval_of_a_mean_is_that_of_the_normal_law_for_many_scenes(rng: np.random.Generator) -> None:
    values = rng.normal(size=400)
    one = summarise([made(str(i), float(v)) for i, v in enumerate(values)], rng, draws=4000)["rate"]
    half = 1.96 * values.std() / 20
    assert (one.mean - one.low, one.high - one.mean) == pytest.approx((half, half), rel=0.12)


def test_a_scene_given_twice_is_refused() -> None:
    with pytest.raises(BadInput, match="scene a is scored twice"):
        summarise([made("a", 0.0), made("a", 1.0)], np.random.default_rng(0))


def test_nothing_to_summarise_is_an_empty_summary() -> None:
    assert summarise([], np.random.default_rng(0)).means == {}


def test_the_table_shows_what_is_there_and_marks_what_is_not() -> None:
    good = summarise([made("a", 0.25), made("b", 0.25)], np.random.default_rng(0))
    text = table({"ours": good, "none": summarise([], np.random.default_rng(0))}, ["rate", "other"])
    assert text.splitlines() == [
        "metric  ours               none",
        "------  -----------------  ----",
        "rate    0.25 [0.25, 0.25]  -",
        "other   -                  -",
    ]
