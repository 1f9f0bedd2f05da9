"""A golden that the installed official package makes anew is read by the parity tool, and agrees."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from traj_diffusion.errors import BadConfig
from traj_diffusion.evaluation.log_baselines import log_rollouts
from traj_diffusion.evaluation.official import official_python
from traj_diffusion.testing import straight_road


def tool(name: str) -> Any:
    """A file of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).resolve().parents[2] / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_kind_says_its_challenge(tmp_path: Path) -> None:
    scene = straight_road()
    with pytest.raises(click.UsageError, match="end in 'scenariogen'"):
        tool("official_wosac").golden(scene, log_rollouts(scene, 32), "sim_agents_2025", "minescenariogen", tmp_path)


@pytest.mark.slow
def test_a_golden_made_here_agrees(tmp_path: Path) -> None:
    try:
        official_python()
    except BadConfig as error:
        pytest.skip(str(error))
    scene = replace(straight_road((10.0, 8.0, 6.0)), id="road")
    rollouts = log_rollouts(scene, 32, noise=1.0)
    name = tool("official_wosac").golden(scene, rollouts, "sim_agents_2025", "mine", tmp_path)
    found = tool("wosac_parity").parity(tmp_path, name, scene)
    assert (found["golden"], found["same_agents"], found["fields_compared"]) == ("road__mine", True, 48)
    assert found["largest_field_difference"] <= 1e-5
    assert found["kinematic_samples_apart"] == found["flags_apart"] == 0
