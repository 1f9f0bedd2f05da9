"""The PettingZoo environment: PettingZoo's own checkers, and answers known on paper."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.errors import BadScene
from traj_diffusion.policies import ConstantVelocity, Stationary
from traj_diffusion.scene import Scene
from traj_diffusion.testing import crossing, make_scene, straight_road

pytest.importorskip("pettingzoo", reason="needs the extra [pettingzoo]")

from traj_diffusion.sim_adapter.hosts.pettingzoo import TrafficParallelEnv

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "pettingzoo_traffic.py"
COAST = np.zeros(2, np.float32)


def convoy() -> Scene:
    """A parked car, one that drives at it from 30 m away, and one far aside."""
    return make_scene(np.array([[30.0, 0.0], [0.0, 0.0], [0.0, 50.0]]), np.array([[0.0, 0.0], [10.0, 0.0], [5.0, 0.0]]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PettingZoo's own games, which its checkers import
def test_pettingzoos_own_checkers_are_content() -> None:
    from pettingzoo.test import parallel_api_test, parallel_seed_test

    def make() -> TrafficParallelEnv:
        return TrafficParallelEnv([straight_road(), convoy()], ConstantVelocity(), seconds=2.0)

    parallel_api_test(make(), num_cycles=60)
    parallel_seed_test(make, num_cycles=30)


def test_who_collides_is_done_and_taken_out_and_the_other_drives_on() -> None:
    env = TrafficParallelEnv([convoy()], Stationary(), learners=3, seconds=4.0)
    env.reset(seed=0)
    assert env.agents == ["agent_0", "agent_1", "agent_2"]
    for step in range(1, 41):
        seen, rewards, crashed, over, _ = env.step(dict.fromkeys(env.agents, COAST))
        if step < 26:
            assert not any(crashed.values())
        if step == 26:  # 30 m between the centres of two cars of 4.5 m: contact after 25.5 m, at 1 m a step
            assert crashed == {"agent_0": True, "agent_1": True, "agent_2": False}
            assert rewards == pytest.approx({"agent_0": -10.0, "agent_1": -9.0, "agent_2": 0.5}, abs=1e-3)
        if step == 27:
            assert env.agents == ["agent_2"]
            assert not seen["agent_2"]["agents"].any(), "those who crashed are gone"
    assert over == {"agent_2": True}
    assert env.agents == []


def test_a_scene_with_too_few_vehicles_is_refused() -> None:
    with pytest.raises(BadScene, match="3 learners need as many vehicles that are valid now; it has 2"):
        TrafficParallelEnv([straight_road()], ConstantVelocity(), learners=3)


def test_the_model_drives_among_learners(random_policy) -> None:  # type: ignore[no-untyped-def]
    env = TrafficParallelEnv([crossing()], random_policy, learners=1)
    env.reset(seed=1)
    for _ in range(3):
        env.step({"agent_0": COAST})
    env.close()


def test_the_example_runs_and_is_short(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLE)], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("reward agent_0") == 3
