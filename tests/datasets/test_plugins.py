"""Readers of others are found where their package is installed; a broken one is named, and stops nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "others"
version = "1"
[project.entry-points."traj_diffusion.readers"]
good = "others_reader"
absent = "others_absent"
empty = "json"
rude = "others_rude"
"""
GOOD = """
import numpy as np
from traj_diffusion.errors import BadFile
from traj_diffusion.scene import Scene

NAME, PATTERNS = "Others' format", ("*.others",)

def sniff(head, path):
    return head.startswith(b"OTHERS")

def read(path):
    text = path.read_text().split()
    if "crash" in text:
        raise RuntimeError("so there")
    if "typed" in text:
        raise BadFile(f"{path}: it says typed")
    yield Scene.from_arrays(np.zeros((2, 91, 2)), dt=0.1, scene_id=text[1])
    if "odd" in text:
        from dataclasses import replace
        yield replace(Scene.from_arrays(np.zeros((1, 9, 2)), dt=0.1, scene_id="odd"), ego=7)
"""
RUDE = """
NAME, PATTERNS = "Rude format", ("*.rude",)

def sniff(head, path):
    raise ZeroDivisionError("no manners")

def read(path):
    yield 7
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has put a package with readers, good and bad."""
    source, target = tmp_path_factory.mktemp("others"), tmp_path_factory.mktemp("target")
    (source / "pyproject.toml").write_text(
        PYPROJECT + '[tool.setuptools]\npy-modules = ["others_reader", "others_rude"]\n'
    )
    (source / "others_reader.py").write_text(GOOD)
    (source / "others_rude.py").write_text(RUDE)
    command = [sys.executable, "-P", "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", str(target), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def inspect(installed: Path, file: Path, text: str) -> subprocess.CompletedProcess[str]:
    file.write_text(text)
    code = f"import sys; sys.path.append({str(installed)!r}); from traj_diffusion.cli import main; main()"
    return subprocess.run([sys.executable, "-P", "-c", code, "inspect", str(file)], capture_output=True, text=True)


def test_a_package_is_found_and_its_broken_readers_are_named_and_left_out(installed: Path, tmp_path: Path) -> None:
    done = inspect(installed, tmp_path / "a.others", "OTHERS mine")
    assert done.returncode == 0, done.stderr
    assert "mine" in done.stdout
    assert "2 vehicle" in done.stdout
    said = done.stderr
    assert "the reader 'absent' of the package 'others': cannot be loaded (ModuleNotFoundError" in said
    assert "the reader 'empty' of the package 'others': cannot be loaded (AttributeError: it has no NAME" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OTHERS crash", "a.others: the reader 'good' of the package 'others' failed (RuntimeError: so there)"),
        ("OTHERS typed", "a.others: it says typed"),
        ("OTHERS x odd", "a.others, record 1: scene odd: ego row 7 of 1 agents"),
        ("nobody's", "the reader 'rude' of the package 'others': sniff failed (ZeroDivisionError: no manners)"),
        ("nobody's", "known are traj-diffusion scene"),
        ("nobody's", "Others' format"),
    ],
)
def test_what_a_reader_of_others_does_wrong_is_one_line(
    installed: Path, tmp_path: Path, text: str, message: str
) -> None:
    done = inspect(installed, tmp_path / "a.others", text)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
