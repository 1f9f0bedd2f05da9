"""All metrics at once: symmetries of the world, awkward rollouts, the recording itself, and speed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traj_diffusion.datasets import read_scenes
from traj_diffusion.geometry import rotate
from traj_diffusion.metrics import AgentSet, SceneScore, score, summarise
from traj_diffusion.scene import Map, MapKind, Rollouts, Scene
from traj_diffusion.testing import crossing, make_map, straight_road

Replay = Callable[..., Rollouts]


def busy(rng: np.random.Generator, replay: Replay, runs: int = 6) -> tuple[Scene, Rollouts]:
    """A crossing with road edges, and rollouts that wander about its log."""
    scene = crossing()
    ring = 60 * np.stack([np.cos(np.linspace(0, 2 * np.pi, 50)), np.sin(np.linspace(0, 2 * np.pi, 50))], -1)
    edge = make_map([(MapKind.ROAD_EDGE, 1, ring)])
    features = replace(
        scene.map,
        points=np.concatenate([scene.map.points, edge.points]),
        start=np.concatenate([scene.map.start, scene.map.start[-1:] + len(ring)]),
        kind=np.append(scene.map.kind, edge.kind),
        subtype=np.append(scene.map.subtype, edge.subtype),
        id=np.append(scene.map.id, np.int64(999)),
        speed_limit=np.append(scene.map.speed_limit, edge.speed_limit),
    )
    drift = rng.normal(0, 0.15, (runs, 3, 80, 3)).cumsum(2) * [1, 1, 0]
    rollouts = replay(scene, runs, drift, weights=rng.random(runs).astype(np.float32))
    return replace(scene, map=features), rollouts


def moved(scene: Scene, rollouts: Rollouts, turn: float, shift: float) -> tuple[Scene, Rollouts]:
    """The same world, turned about its zero and shifted."""

    def move(points: np.ndarray) -> np.ndarray:
        xy = rotate(points[..., :2], np.full(points.shape[:-1], turn)) + shift
        return np.concatenate([xy, points[..., 2:] + shift / 100], -1)

    agents = replace(
        scene.agents,
        position=move(scene.agents.position),
        heading=(scene.agents.heading + turn).astype(np.float32),
        velocity=rotate(scene.agents.velocity, np.full(scene.agents.valid.shape, turn)).astype(np.float32),
    )
    features: Map = replace(scene.map, points=move(scene.map.points))
    lights = replace(scene.lights, stop_point=move(scene.lights.stop_point))
    heading = (rollouts.heading + turn).astype(np.float32)
    return (
        replace(scene, agents=agents, map=features, lights=lights),
        replace(rollouts, position=move(rollouts.position), heading=heading),
    )


def same(one: SceneScore, other: SceneScore, but: str = "none") -> None:
    assert dict(one.absent) == dict(other.absent)
    for name, value in one.items():
        assert name.startswith(but) or other[name] == pytest.approx(value, abs=1e-5), name


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(-10, 10), st.floats(-3e4, 3e4))
def test_the_world_may_be_turned_and_shifted(replay: Replay, turn: float, shift: float) -> None:
    scene, rollouts = busy(np.random.default_rng(3), replay)
    here, there = score(scene, rollouts), score(*moved(scene, rollouts, turn, shift))
    assert 0 < here["offroad_rate"] < 1
    assert 0 < here["collision_rate"] < 1
    same(here, there)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(6)), st.permutations(range(3)))
def test_rollouts_and_their_agents_may_come_in_any_order(replay: Replay, runs: list[int], agents: list[int]) -> None:
    scene, rollouts = busy(np.random.default_rng(3), replay)
    shuffled = replace(
        rollouts,
        agent_id=rollouts.agent_id[agents],
        kind=rollouts.kind[agents],
        position=rollouts.position[runs][:, agents],
        heading=rollouts.heading[runs][:, agents],
        valid=rollouts.valid[runs][:, agents],
        weights=None if rollouts.weights is None else rollouts.weights[runs],
    )
    same(score(scene, rollouts), score(scene, shuffled), but="nuscenes/")  # scores the first five of the six


def test_marginal_minima_never_exceed_joint_ones(replay: Replay, rng: np.random.Generator) -> None:
    values = score(*busy(rng, replay))
    joint = [name for name in values if name.startswith(("joint_min", "joint_miss"))]
    assert joint
    for name in joint:
        assert values[name.replace("joint", "marginal", 1)] <= values[name] + 1e-12, name


def test_more_samples_are_never_worse(replay: Replay, rng: np.random.Generator) -> None:
    scene, rollouts = busy(rng, replay)
    errors = [score(scene, rollouts, samples=k)[f"joint_min_ade@{k}/8s"] for k in range(1, 7)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > errors[-1]


def test_agents_that_come_and_go_make_no_figure_bad(replay: Replay, rng: np.random.Generator) -> None:
    scene, rollouts = busy(rng, replay)
    rollouts.valid[rng.random(rollouts.valid.shape) < 0.3] = False
    rollouts.valid[0, 1] = False
    rollouts.position[~rollouts.valid] = np.nan
    rollouts.heading[~rollouts.valid] = np.nan
    scene.agents.valid[:, 11:] &= rng.random((3, 80)) < 0.5
    scored = score(scene, rollouts)
    assert all(np.isfinite(value) for value in scored.values())
    for name, one in scored.tallies.items():
        assert "rate" not in name or 0 <= one.value <= 1, name


def test_one_agent_in_one_rollout(replay: Replay) -> None:
    scene = straight_road(speeds=(10.0,))
    scored = score(scene, replay(scene))
    assert scored["collision_rate"] == scored["joint_energy_score"] == 0
    assert scored.absent["collision_pair_rate"] == "no two agents are ever there together"
    assert scored.absent["joint_apd"] == "one rollout has no other to differ from"


def test_nobody_to_simulate_is_absence_everywhere(replay: Replay) -> None:
    scene = straight_road()
    scene.agents.valid[:] = False
    scored = score(scene, replay(scene))
    assert not scored.tallies
    assert scored.absent


def recordings(shared: Path, count: int) -> Iterator[Scene]:
    for at, scene in enumerate(read_scenes(shared / "data" / "dev_scenes.json")):
        if at == count:
            return
        yield scene


@pytest.mark.data
def test_recordings_seldom_break_the_rules_themselves(shared: Path, replay: Replay, rng: np.random.Generator) -> None:
    scores = [score(scene, replay(scene), agents=AgentSet.SIMULATED) for scene in recordings(shared, 8)]
    summary = summarise(scores, rng)
    assert summary["log/collision_rate/vehicle"].mean < 0.05
    assert summary["log/new_collision_rate/vehicle"].mean < 0.02
    assert summary["log/new_offroad_rate/vehicle"].mean < 0.05
    assert summary["log/wrong_way_rate"].mean < 0.01
    assert summary["log/red_light_rate"].mean < 0.05
    assert summary["log/infeasible_rate/vehicle"].mean < 0.03
    assert summary["joint_min_ade@1/8s"].mean < 1e-9
