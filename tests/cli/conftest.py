"""The command in a process of its own, as a user runs it, and small scenes for it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from traj_diffusion.scene import save_scene
from traj_diffusion.testing import crossing

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A function that runs `traj-diffusion ARGUMENTS` in an empty folder."""
    folder = tmp_path / "cwd"
    folder.mkdir()

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        code = "from traj_diffusion.cli import main; main()"
        command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    return run


@pytest.fixture
def scene_file(tmp_path: Path) -> Path:
    """A scene of three agents."""
    return save_scene(crossing(), tmp_path / "scenes" / "crossing.scene.npz")
