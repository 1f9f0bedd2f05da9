"""The notebook runs from top to bottom, as it is stored, and holds what it promises."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "diffusion_basics_colab.ipynb"
SECTIONS = (
    "1. Why many futures, and why their mean is a crash",
    "2. Adding noise",
    "3. What the network is asked",
    "4. From the noise back to the data",
    "5. The core: forty lines",
    "6. Many futures of one scene",
    "7. Seven silent bugs, and a doctor who names them",
    "8. The same core on a robot arm",
    "9. Four exercises",
    "10. Ten questions",
    "11. All of it in sixty seconds",
)


@pytest.fixture(scope="module")
def stored() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code(notebook: Any, tag: str | None = None) -> list[Any]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return cells if tag is None else [cell for cell in cells if tag in cell.metadata.get("tags", [])]


def section(notebook: Any, title: str) -> str:
    """The Markdown of one section."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.split(r"^## ", text.split(f"## {title}\n")[1], flags=re.MULTILINE)[0]


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.mark.timeout(1500)  # about 80 s of one core, which other jobs may share
def test_every_cell_runs_without_error_or_warning(tmp_path: Path) -> None:
    ran = tmp_path / "ran.ipynb"
    command = [sys.executable, "-P", str(ROOT / "tools" / "run_notebook.py"), "--check", str(ran)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    notebook = nbformat.read(ran, as_version=4)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert not [out for cell in code(notebook) for out in cell.outputs if out.get("name") == "stderr"]
    # The bugs of section 7 are found by the checks that are meant to find them, and the healthy model by none.
    verdicts = [line.split()[0] for cell in code(notebook, "healthy") for line in printed(cell).splitlines()]
    assert verdicts == ["ok"] * 14
    assert printed(code(notebook, "bugs")[0]).count("named by ") == 7
    assert all(printed(cell).startswith("right:") for cell in code(notebook, "answer"))


def test_sections_stand_in_their_order(stored: Any) -> None:
    text = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == SECTIONS


def test_the_core_is_one_cell_of_at_most_45_lines_that_knows_neither_cars_nor_the_package(stored: Any) -> None:
    (core,) = code(stored, "core")
    assert len(core.source.splitlines()) <= 45
    assert {"Denoiser", "noised", "train", "sample"} == set(
        re.findall(r"^(?:class|def) (\w+)", core.source, re.MULTILINE)
    )
    names = set(re.findall(r"[A-Za-z_]\w*", core.source))
    assert not names & {"d", "td", "np", "plt", "scene", "recorded", "speed", "route", "car", "WAYPOINTS"}


def test_the_robot_uses_the_core_as_it_is(stored: Any) -> None:
    (robot,) = code(stored, "robot")
    assert re.search(r"^arm = Denoiser\(", robot.source, re.MULTILINE)
    assert re.search(r"= train\(arm, ", robot.source)
    elsewhere = [cell for cell in code(stored) if "core" not in cell.metadata.get("tags", [])]
    again = [
        cell.id for cell in elsewhere if re.search(r"^(class Denoiser|def (noised|train|sample)\()", cell.source, re.M)
    ]
    assert again == []


def test_four_exercises_each_with_a_folded_answer_that_is_checked(stored: Any) -> None:
    exercises, answers = code(stored, "exercise"), code(stored, "answer")
    assert len(exercises) == len(answers) == 4
    for number, (exercise, answer) in enumerate(zip(exercises, answers, strict=True), 1):
        assert f"**Exercise {number}.**" in section(stored, "9. Four exercises")
        assert f"def check_{number}(" in exercise.source
        assert "assert" in exercise.source
        assert "...  # yours" in exercise.source
        assert re.search(rf"^check_{number}\(", answer.source, re.MULTILINE)
        assert answer.metadata["jupyter"]["source_hidden"]
        assert answer.metadata["cellView"] == "form"
        assert printed(answer).startswith("right:")


def test_ten_questions_have_answers(stored: Any) -> None:
    text = section(stored, "10. Ten questions")
    found = re.findall(r"^\*\*(\d+)\. [^*]+\?\*\* \S.{40,}$", text, re.MULTILINE)
    assert [int(number) for number in found] == list(range(1, 11))


def test_the_summary_can_be_said_in_a_minute(stored: Any) -> None:
    text = section(stored, "11. All of it in sixty seconds")
    summary = " ".join(line.lstrip("> ") for line in text.splitlines() if line.startswith(">"))
    assert 100 < len(summary.split()) <= 150


def test_installing_takes_the_checkout_and_leaves_torch_alone(stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], str]] = []

    def pip(command: list[str], check: bool) -> None:
        asked.append((command, Path(command[command.index("--constraint") + 1]).read_text()))

    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.chdir(NOTEBOOK.parent)
    exec(code(stored)[0].source, {})
    assert asked == []  # the package is there
    monkeypatch.setitem(sys.modules, "traj_diffusion", None)
    exec(code(stored)[0].source, {})
    ((command, held),) = asked
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-1] == str(ROOT)
    assert not {"--upgrade", "--force-reinstall", "torch"} & set(command)
    assert f"torch=={version('torch')}\n" in held


def test_installing_without_a_checkout_says_what_is_missing(
    stored: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "traj_diffusion", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImportError, match="put a checkout"):
        exec(code(stored)[0].source, {})


def test_what_is_stored_holds_pictures_and_no_place_of_a_machine(stored: Any) -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) <= 1_500_000
    pictures = [out for cell in code(stored) for out in cell.outputs if "image/png" in out.get("data", {})]
    assert len(pictures) >= 10
    shown = "".join(printed(cell) for cell in code(stored)) + "".join(cell.source for cell in stored.cells)
    assert not re.search(r"/(home|root|work|Users|tmp)/|[A-Z]:\\", shown)
