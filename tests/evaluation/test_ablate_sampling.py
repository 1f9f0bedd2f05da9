"""tools/ablate_sampling.py: the table of the page is that of the JSON."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("ablate_sampling", ROOT / "tools" / "ablate_sampling.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_what_was_measured(tool: Any) -> None:
    found = json.loads((ROOT / "docs" / "results" / "sampling.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert tool.START + tool.block(found) + tool.END in page


def test_a_figure_that_no_scene_has_is_a_dash(tool: Any) -> None:
    figures = dict.fromkeys(tool.COLUMNS) | {"means joint_apd": 1.5}
    one = {"protocol": "as ever", "seconds": 2.0, "guidance": None, "figures": figures}
    row = tool.block({"settings": {"4 steps": one}}).splitlines()[-1]
    assert row == "| 4 steps | – | – | – | – | – | – | 1.500 | 2.0 |"
