"""The README is true: its code runs, its commands exist, its figures are those of the results, its links lead on.

A comment before each block of code tells how it is tested: `run` (in order, in one namespace), `names` (what it takes
from the package exists), `parse` (the command line takes it), `make` (targets exist), `none`.
"""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import traj_diffusion as td
from traj_diffusion.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:<!-- test: (\w+) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
HOW = {"run", "names", "parse", "make", "none"}


def blocks(*how: str) -> Iterator[str]:
    for found, _, code in BLOCK.findall(README):
        if found in how:
            yield code


def commands(code: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for line in code.splitlines() if line.strip()]


def test_every_block_says_how_it_is_tested() -> None:
    found = BLOCK.findall(README)
    assert {how for how, _, _ in found} == HOW
    assert README.count("```") == 2 * len(found)


def test_python_blocks_name_what_is_there() -> None:
    used = {
        node.attr
        for code in blocks("run", "names")
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "td"
    }
    assert len(used) >= 6
    assert {name for name in used if not hasattr(td, name)} == set()


def test_shell_blocks_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "variants").mkdir()  # an earlier line makes it
    lines = [line for code in blocks("parse") for line in commands(code)]
    assert len(lines) >= 5
    for program, verb, *arguments in lines:
        assert program == "traj-diffusion"
        assert isinstance(cli.commands[verb].make_context(verb, arguments), click.Context)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for code in blocks("make"):
        for program, target in commands(code):
            assert program == "make"
            assert f"\n{target}:" in makefile


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_python_blocks_run(tmp_path: Path) -> None:
    code = "\n".join(blocks("run"))
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "joint_min_ade@4/8s" in done.stdout
    assert len(list((tmp_path / "variants").glob("*.html"))) == len(list(td.read_scenes("bundled")))


def test_the_page_on_rollouts_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "rollouts.md").read_text(encoding="utf-8")
    code = "\n".join(code for _, language, code in BLOCK.findall(page) if language == "python")
    check = "assert again.agent_id.tolist() == rollouts.agent_id.tolist() and path.name == 'crossing.rollouts.npz'"
    done = subprocess.run([sys.executable, "-P", "-c", code + check], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_on_own_data_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
    code = "\n".join(code for _, language, code in BLOCK.findall(page) if language == "python")
    check = "assert scene.agents.id.tolist() == [0, 1, 2] and next(td.read_scenes(path)).id == 'crossing of mine'"
    done = subprocess.run([sys.executable, "-P", "-c", code + check], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_figures_are_those_of_the_results() -> None:
    command = [sys.executable, "-P", str(ROOT / "tools" / "update_readme.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (path.parent / target).exists(), target
