"""Means over scenes add up over processes, hold what `score` says, and never count what a scene lacks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from traj_diffusion.metrics import score, wosac
from traj_diffusion.metrics.accumulate import SceneMeans
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.sim_adapter import rollout
from traj_diffusion.testing import crossing, straight_road

NAMES = ("joint_min_ade@2/8s", "collision_rate", "red_light_rate", "wosac/metametric")
PROCESS = """
import json, sys
import torch.distributed as dist
from traj_diffusion.metrics.accumulate import SceneMeans
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.sim_adapter import rollout
from traj_diffusion.testing import crossing, straight_road

rank, meeting, names = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
means = SceneMeans(names)
for scene in [straight_road((10.0, 4.0)), crossing(), straight_road((5.0, 9.0, 8.0))][rank::2]:
    means.update(scene, rollout(scene, ConstantVelocity(), rollouts=2))
print(json.dumps({name: float(value) for name, value in means.compute().items()}))
dist.destroy_process_group()
"""


def test_two_processes_find_the_means_of_one(tmp_path: Path) -> None:
    words = [sys.executable, "-P", "-W", "ignore", "-c", PROCESS]
    more = [str(tmp_path / "meeting"), json.dumps(NAMES)]
    started = [subprocess.Popen([*words, str(rank), *more], stdout=subprocess.PIPE, text=True) for rank in range(2)]
    found = [json.loads(process.communicate(timeout=250)[0]) for process in started]
    assert found[0] == found[1]
    scenes = [straight_road((10.0, 4.0)), crossing(), straight_road((5.0, 9.0, 8.0))]
    each = [(scene, rollout(scene, ConstantVelocity(), rollouts=2)) for scene in scenes]
    alone = SceneMeans(NAMES)
    for scene, rollouts in each:
        alone.update(scene, rollouts)
    assert found[0] == pytest.approx({name: float(value) for name, value in alone.compute().items()}, rel=1e-12)
    ade = [score(scene, rollouts)[NAMES[0]] for scene, rollouts in each]
    assert found[0][NAMES[0]] == pytest.approx(sum(ade) / 3)
    # Only the crossing has lights, and only the roads have road edges, so that they alone are counted.
    assert found[0]["red_light_rate"] == score(*each[1])["red_light_rate"]
    realism = [wosac.score(*each[at]).metametric for at in (0, 2)]
    assert found[0]["wosac/metametric"] == pytest.approx(sum(realism) / 2)


def test_memory_does_not_grow_with_scenes_and_what_none_has_is_left_out() -> None:
    means = SceneMeans(["collision_rate", "red_light_rate"])
    scene = straight_road()
    rollouts = rollout(scene, ConstantVelocity(), rollouts=1)
    means.update(scene, rollouts)
    size = sum(state.numel() for state in means.metric_state.values())
    means.update(scene, rollouts)
    assert sum(state.numel() for state in means.metric_state.values()) == size == 4
    assert list(means.compute()) == ["collision_rate"]


def test_an_unknown_name_is_refused() -> None:
    scene = straight_road()
    for name in ("colision_rate", "wosac/metametrik"):
        with pytest.raises(ValueError, match=name.removeprefix("wosac/")):
            SceneMeans([name]).update(scene, rollout(scene, ConstantVelocity(), rollouts=1))
