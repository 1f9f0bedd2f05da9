"""`import traj_diffusion as td` is all that a user needs."""

import subprocess
import sys

import numpy as np
import pytest

import traj_diffusion as td
from traj_diffusion.testing import crossing, straight_road


@pytest.mark.parametrize("name", td.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(td, name) is not None
    assert name in dir(td)


def test_an_unknown_name_tells_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'rollouts'; it has .*rollout"):
        _ = td.rollouts


def test_star_gives_what_is_listed() -> None:
    found: dict[str, object] = {}
    exec("from traj_diffusion import *", found)
    assert set(td.__all__) <= set(found)


def test_importing_is_quick_and_pulls_in_no_heavy_package() -> None:
    code = (
        "import sys, time; start = time.process_time(); import traj_diffusion\n"
        "assert time.process_time() - start < 2\n"
        "heavy = {'torch', 'numpy', 'numba', 'matplotlib', 'shapely', 'libsumo'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd="/")


def test_using_the_face_pulls_in_no_extra_and_no_matplotlib() -> None:
    code = (
        "import sys, traj_diffusion as td\n"
        "for name in td.__all__: getattr(td, name)\n"
        "extras = {'matplotlib', 'libsumo', 'sumolib', 'lightning_fabric', 'tensorboard', 'google.protobuf'}\n"
        "assert not extras & set(sys.modules), extras & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd="/")


def test_a_score_prints_as_a_table_with_the_recording_beside_it() -> None:
    scene = crossing()
    score = td.evaluate(scene, td.rollout(scene, td.ConstantVelocity(), rollouts=2))
    head, rule, *lines = str(score).splitlines()
    assert head.split() == ["scene", "crossing", "rollouts", "recording"]
    assert set(rule) == {"-", " "}
    rows = {line.split()[0]: line.split()[1:] for line in lines[:-1]}
    # The car that drives on at its speed meets nobody but the walker, in the recording as in the rollouts.
    assert rows["collision_rate"] == ["0.6667", "0.6667"]
    assert float(rows["joint_min_ade@2/8s"][0]) == pytest.approx(0, abs=1e-5)
    assert "joint_min_ade@2/3s" not in rows


def test_the_uses_of_the_readme_hold_together() -> None:
    scene = straight_road()
    rollouts = td.rollout(scene, td.load_policy("constant_velocity"), rollouts=3, seed=7)
    assert isinstance(rollouts, td.Rollouts)
    assert rollouts.position.shape == (3, 2, 80, 3)
    assert np.isfinite(rollouts.position).all()
    with pytest.raises(td.TrajDiffusionError, match="no agent"):
        td.rollout(straight_road(speeds=()), td.ConstantVelocity())
