"""The Gymnasium environment: Gymnasium's own checker, and answers known on paper."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.errors import BadScene
from traj_diffusion.policies import ConstantVelocity, Stationary
from traj_diffusion.testing import crossing, make_scene, straight_road

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra [gym]")
EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "gym_traffic.py"
COAST = np.zeros(2, np.float32)


def make(scenes, policy, **options):  # type: ignore[no-untyped-def]
    import traj_diffusion.sim_adapter.hosts.gym  # noqa: F401  # registers it

    return gymnasium.make("TrajDiffusion-v0", scenes=scenes, policy=policy, **options)


@pytest.mark.filterwarnings("ignore:.*render")
def test_gymnasiums_own_checker_is_content() -> None:
    from gymnasium.utils.env_checker import check_env

    check_env(make([crossing(), straight_road()], ConstantVelocity()).unwrapped, skip_render_check=True)


def test_an_ego_that_coasts_earns_what_it_drives_and_sees_the_other_ahead() -> None:
    env = make([straight_road(speeds=(10.0, 10.0), gap=-30.0)], ConstantVelocity(), seconds=3.0)
    observation, _ = env.reset(seed=0)
    assert observation["agents"][0].tolist() == pytest.approx([30, 0, 1, 0, 10, 0, 4.5, 2, 1])
    assert not observation["agents"][1:].any()
    assert observation["lanes"][0].tolist() == pytest.approx([0, 0, 1, 0, 1], abs=1e-6)
    rewards = []
    over = False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(COAST)
        rewards.append(reward)
        over = terminated or truncated
    assert (terminated, truncated, len(rewards)) == (False, True, 30)
    assert sum(rewards) == pytest.approx(30.0, abs=1e-3)
    assert observation["agents"][0, 0] == pytest.approx(30.0, abs=1e-3)


def test_running_into_a_parked_car_ends_the_episode_when_the_boxes_meet() -> None:
    scene = make_scene(np.array([[0.0, 0.0], [30.0, 0.0]]), np.array([[10.0, 0.0], [0.0, 0.0]]))
    env = make([scene], Stationary())
    env.reset(seed=0)
    steps, terminated = 0, False
    while not terminated:
        _, reward, terminated, truncated, _ = env.step(COAST)
        steps += 1
        assert not truncated
    # 30 m between the centres of two cars of 4.5 m: contact after 25.5 m, at 1 m a step.
    assert steps == 26
    assert reward == pytest.approx(1.0 - 10.0, abs=1e-3)


def test_the_same_seed_and_actions_give_the_same_episode() -> None:
    ends = []
    for _ in range(2):
        env = make([crossing(), straight_road()], ConstantVelocity())
        env.reset(seed=3)
        env.action_space.seed(5)
        for _ in range(10):
            observation = env.step(env.action_space.sample())[0]
        ends.append(observation["agents"])
    assert np.array_equal(*ends)


def test_vectorised_it_runs_too() -> None:
    import traj_diffusion.sim_adapter.hosts.gym  # noqa: F401

    envs = gymnasium.make_vec("TrajDiffusion-v0", num_envs=2, scenes=[crossing()], policy=ConstantVelocity())
    observation, _ = envs.reset(seed=0)
    assert observation["agents"].shape == (2, 16, 9)
    assert envs.step(np.zeros((2, 2), np.float32))[1].shape == (2,)
    envs.close()


@pytest.mark.slow
def test_a_random_ego_goes_through_three_thousand_steps_of_bundled_scenes() -> None:
    env = make("bundled", ConstantVelocity(), seconds=10.0)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    ends = {"crashed": 0, "truncated": 0}
    for _ in range(3000):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert np.isfinite(reward)
        if terminated or truncated:
            ends["crashed" if terminated else "truncated"] += 1
            observation, _ = env.reset()
    env.close()
    assert sum(ends.values()) >= 30
    assert ends["truncated"] > 0


def test_a_scene_without_an_ego_is_refused() -> None:
    scene = straight_road()
    scene.agents.valid[0, 10] = False
    with pytest.raises(BadScene, match="no ego that is valid now"):
        make([scene], ConstantVelocity())


def test_the_example_runs_and_is_short(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLE)], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("reward") == 3


def test_the_published_ppo_run_has_learnt() -> None:
    root = EXAMPLE.parents[2]
    assert len((EXAMPLE.parent / "ppo_ego.py").read_text(encoding="utf-8").splitlines()) <= 40
    found = json.loads((root / "docs" / "figures" / "ppo_ego.json").read_text(encoding="utf-8"))
    rewards = np.array(found["rewards"])
    fifths = [part.mean() for part in np.array_split(rewards, 5)]
    assert found["fifths"] == pytest.approx(fifths, abs=0.01)
    assert len(rewards) == found["episodes"]
    apart = np.hypot(
        *(part.std() / np.sqrt(len(part)) for part in (rewards[: len(rewards) // 5], rewards[-(len(rewards) // 5) :]))
    )
    assert fifths[-1] - fifths[0] > 3 * apart, "more than chance"


@pytest.mark.filterwarnings("ignore")  # of stable-baselines3's own
def test_the_ppo_example_runs(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3", reason="needs stable-baselines3, which no extra brings")
    arguments = ["constant_velocity", "512", "out.json"]
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLE.parent / "ppo_ego.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["episodes"] > 8
