"""Shared fixtures. Helpers to import live in `traj_diffusion.testing`, so that users have them too."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # two torch threads stall each other on a busy core otherwise
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parents[1]
# With the repository root on sys.path `import datasets` would find our folder instead of Hugging Face's package.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of its own for each test."""
    return np.random.default_rng(20)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings, which lies beside the checkout and is never part of it."""
    folder = ROOT.parent / "shared"
    if not (folder / "data" / "womd").is_dir():
        pytest.skip("no real recordings at ../shared/data")
    return folder
