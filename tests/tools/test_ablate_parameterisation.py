"""tools/ablate_parameterisation.py trains the three alike, and goes on with what is there."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from traj_diffusion.datasets.cache import write_cache
from traj_diffusion.model import load_checkpoint
from traj_diffusion.scene import save_scene
from traj_diffusion.testing import straight_road

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_file_location(
        "ablate_parameterisation", ROOT / "tools" / "ablate_parameterisation.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_each_is_trained_scored_and_shown(tool: Any, tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", [straight_road(scene_id=f"road{number}") for number in range(8)])
    save_scene(straight_road(scene_id="held-out"), tmp_path / "held" / "held-out.scene.npz")
    words = [
        "score",
        "--cache",
        tmp_path / "cache",
        "--scenes",
        tmp_path / "held",
        "--steps",
        1,
        "--out",
        tmp_path / "o",
    ]
    words += ["--runs", 2]
    found = CliRunner().invoke(tool.main, [str(word) for word in words], catch_exceptions=False)
    figures = json.loads(found.stdout)
    assert list(figures["runs"]) == ["eps", "x0", "v"]
    for name in figures["runs"]:
        model, header = load_checkpoint(tmp_path / "o" / name / f"tiny-{name}.safetensors")
        assert model.config.parameterisation == name
        assert header["provenance"]["steps"] == 1
    again = CliRunner().invoke(tool.main, [str(word) for word in words], catch_exceptions=False)
    assert json.loads(again.stdout) == figures
    text = tool.block(figures)
    assert "| the network says | eps | x0 | v |" in text
    assert "joint minADE@2 8 s, m" in text
