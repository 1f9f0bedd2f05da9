"""Each block of a page that a tool writes is that of the JSON beside it, and empty where there is none."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


def tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def of_sets(module: Any) -> str:
    return str(module.block(read("zero_shot.json"), ["Argoverse 2", "nuScenes", "CommonRoad"]))


def of_tuning(module: Any) -> str:
    return str(module.block(module.merged([read("small_dev.json"), read("tuned.json")]), ["third 2"]))


@pytest.mark.parametrize(
    ("page", "block", "written_by", "result", "made"),
    [
        ("experiments.md", "conditioning", "ablate_conditioning", "conditioning.json", None),
        ("experiments.md", "parameterisation", "ablate_parameterisation", "parameterisation.json", None),
        ("experiments.md", "fine-tuning", "dev_table", "tuned.json", of_tuning),
        ("model.md", "speed", "bench_sampling", "speed.json", None),
        ("model.md", "zero-shot", "dev_table", "zero_shot.json", of_sets),
    ],
)
def test_a_block_is_that_of_its_json(
    page: str, block: str, written_by: str, result: str, made: Callable[[Any], str] | None
) -> None:
    module = tool(written_by)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    start, end = f"<!-- {block}: written by tools/{written_by}.py -->\n", f"<!-- end of {block} -->\n"
    assert start in text
    shown = text.partition(start)[2].partition(end)[0]
    if (RESULTS / result).is_file():
        assert shown == (module.block(read(result)) if made is None else made(module))
    else:
        assert shown == ""
