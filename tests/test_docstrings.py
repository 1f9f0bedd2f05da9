"""The examples in docstrings are run. Modules are imported by name, the rooms beside the package included."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Folder on disk -> import path. `walk_packages` does not see those beside the package in an editable install.
ROOMS = {
    "traj_diffusion": "traj_diffusion",
    "datasets": "traj_diffusion.datasets",
    "sim_adapter": "traj_diffusion.sim_adapter",
    "configs": "traj_diffusion.configs",
}


def module_name(path: Path) -> str:
    folder, *parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([ROOMS[folder], *(part for part in parts if part != "__init__")])


MODULES = {
    module_name(path): path.read_text(encoding="utf-8").count(">>> ")
    for folder in ROOMS
    for path in sorted((ROOT / folder).rglob("*.py"))
}


@pytest.mark.parametrize("name", [name for name, lines in MODULES.items() if lines])
def test_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
    # The finder skips what a decorator (numba's, say) has wrapped: each line on disk must have been seen.
    assert found.attempted == MODULES[name]


def test_rooms_beside_the_package_are_looked_at() -> None:
    assert MODULES["traj_diffusion.configs"] > 0
    assert {"traj_diffusion.datasets.sources", "traj_diffusion.sim_adapter.closed_loop"} <= set(MODULES)
