"""Scenes: what is hidden from generation, what is checked, what survives a file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.errors import BadFile, BadScene
from traj_diffusion.scene import Scene, check_scene, load_scene, save_scene
from traj_diffusion.testing import crossing, straight_road


def test_history_only_cuts_everything_after_now() -> None:
    scene = crossing()
    late = replace(scene.agents, valid=scene.agents.valid.copy())
    late.valid[0, :11] = False  # the ego itself turns up only later
    past = replace(scene, agents=late).history_only()
    assert past.steps == past.current_index + 1 == past.lights.state.shape[1]
    assert past.agents.id.tolist() == [2, 3]
    assert past.ego is None
    check_scene(past)


def test_history_only_is_idempotent_and_keeps_the_ego() -> None:
    scene = straight_road()
    once, twice = scene.history_only(), scene.history_only().history_only()
    assert once.ego == twice.ego == 0
    assert np.array_equal(once.agents.position, twice.agents.position)


@pytest.mark.parametrize("make", [crossing, straight_road])
def test_a_scene_survives_its_file(make: Callable[[], Scene], tmp_path: Path) -> None:
    scene = make()
    path = save_scene(scene, tmp_path / "a.scene.npz")
    again = load_scene(path)
    assert np.array_equal(again.agents.position, scene.agents.position)
    assert np.array_equal(again.map.links.successors.index, scene.map.links.successors.index)
    assert np.array_equal(again.lights.state, scene.lights.state)
    assert (again.id, again.ego, again.current_index) == (scene.id, scene.ego, scene.current_index)


def test_a_truncated_file_is_one_clear_error(tmp_path: Path) -> None:
    path = save_scene(straight_road(), tmp_path / "a.scene.npz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadFile, match=r"a\.scene\.npz"):
        load_scene(path)


def test_a_value_that_is_not_finite_is_named() -> None:
    scene = straight_road()
    scene.agents.position[1, 4, 0] = np.nan
    with pytest.raises(BadScene, match="agent 2, step 4: position"):
        check_scene(scene)
