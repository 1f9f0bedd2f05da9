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


def test_a_figure_that_a_setting_has_not_is_a_dash_and_one_that_none_has_no_column(tool: Any) -> None:
    figures = dict.fromkeys(tool.COLUMNS)
    one = {"protocol": "as ever", "seconds": 2.0, "guidance": None, "figures": figures | {"means joint_apd": 1.5}}
    other = one | {"seconds": None, "figures": figures | {"wosac metametric": 0.7}}
    text = tool.block({"settings": {"4 steps": one, "8 steps": other}}).splitlines()
    assert text[-4] == "| | meta-metric | diversity (APD), m | s |"
    assert text[-2:] == ["| 4 steps | – | 1.500 | 2.0 |", "| 8 steps | 0.700 | – | – |"]


def test_settings_are_the_steps_and_rates_that_are_asked_for(tool: Any) -> None:
    assert [name for name in tool.SETTINGS if "," not in name] == [
        "1 step",
        "2 steps",
        "4 steps",
        "8 steps",
        "16 steps",
    ]
    fast = [one for one in tool.SETTINGS.values() if one.replan_every == 1]
    assert [one.steps for one in fast] == [tool.DEFAULT_STEPS]
