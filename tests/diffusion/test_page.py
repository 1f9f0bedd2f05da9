"""The page on diffusion and the examples in docstrings run, and the table comes from the figure's data."""

import doctest
import importlib
import importlib.util
import json
import pkgutil
from pathlib import Path

import numpy as np
import torch

from traj_diffusion import diffusion

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "diffusion.md"


def test_the_examples_of_the_page_run() -> None:
    torch.manual_seed(0)
    code = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["points"].shape == (1000, 2)
    assert names["wanted"].shape == names["x0"].shape
    share = torch.bincount(names["data"].nearest(names["points"]), minlength=8) / 1000
    assert (share - names["data"].weight).abs().max() < 0.06


def test_the_table_of_the_page_is_the_tools() -> None:
    spec = importlib.util.spec_from_file_location("figure_samplers", ROOT / "tools" / "figure_samplers.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    data = json.loads((ROOT / "docs" / "figures" / "samplers.json").read_text(encoding="utf-8"))
    assert tool.table(data) in PAGE.read_text(encoding="utf-8")


def test_the_examples_in_docstrings_are_true() -> None:
    names = {**vars(diffusion), "torch": torch, "np": np}
    ran = 0
    for info in pkgutil.iter_modules(diffusion.__path__):
        module = importlib.import_module(f"traj_diffusion.diffusion.{info.name}")
        result = doctest.testmod(module, extraglobs=names)
        assert result.failed == 0, info.name
        ran += result.attempted
    assert ran >= 8


def test_every_public_name_exists_once() -> None:
    assert len(set(diffusion.__all__)) == len(diffusion.__all__)
    for name in diffusion.__all__:
        assert getattr(diffusion, name) is not None
