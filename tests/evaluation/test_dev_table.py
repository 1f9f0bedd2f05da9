"""tools/dev_table.py scores each baseline once, tells the parts of the set apart, and writes the page."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from traj_diffusion.scene import save_scene
from traj_diffusion.testing import crossing, straight_road

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> Any:
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location("dev_table", ROOT / "tools" / "dev_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(tool: Any, *words: object) -> str:
    result = CliRunner().invoke(tool.main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_baselines_are_scored_once_and_tables_follow_from_the_figures(tool: Any, tmp_path: Path) -> None:
    for scene in (straight_road(), crossing()):
        save_scene(scene, tmp_path / f"{scene.id}.scene.npz")
    listed = [
        {"file": "made.scene.npz", "id": "made", "light_steps": 0, "third": 0},
        {"file": "crossing.scene.npz", "id": "crossing", "light_steps": 91, "third": 1},
    ]
    (tmp_path / "list.json").write_text(json.dumps(listed))
    words = (
        "score",
        tmp_path / "list.json",
        "--out",
        tmp_path / "work",
        "--policy",
        "mine=idm",
        "--policy",
        "log_replay",
    )
    found = json.loads(run(tool, *words))
    kept = (tmp_path / "work" / "mine.rows.jsonl").read_bytes()
    assert json.loads(run(tool, *words)) == found
    assert (tmp_path / "work" / "mine.rows.jsonl").read_bytes() == kept
    assert list(found["parts"]) == ["all scenes", "with lights", "without lights", "third 0", "third 1"]
    assert found["parts"]["with lights"] == found["parts"]["third 1"]
    whole, lit, dark = (found["parts"][part]["mine"] for part in ("all scenes", "with lights", "without lights"))
    mean = (lit["means"]["joint_apd"]["mean"] + dark["means"]["joint_apd"]["mean"]) / 2
    assert whole["means"]["joint_apd"]["mean"] == pytest.approx(mean)
    assert whole["wosac"]["metametric"]["scenes"] == 1  # the crossing has no road edges
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    figures.write_text(json.dumps(found))
    start, end = tool.marks()
    page.write_text(f"before\n{start}old\n{end}after\n")
    run(tool, "write", figures, page, "--whole", "third 0", "--whole", "all scenes")
    text = page.read_text()
    assert text == f"before\n{start}{tool.block(found, ['third 0', 'all scenes'])}{end}after\n"
    assert "| third 0: 1 scenes | mine | log_replay |" in text
    assert "| all scenes: 2 scenes | mine | log_replay |" in text
    assert f"{whole['wosac']['metametric']['mean']:.3f}" in text
    assert "R = 32 rollouts, K = 1, replanned at 2 Hz" in text
    assert "| joint minADE@6 3 s, m |" in text
    assert "| joint minADE@32 5 s, m |" in text
    row = next(line for line in text.splitlines() if line.startswith("| realism meta-metric of 2024"))
    assert row.count("(1)") == 0  # of the one scene in its part, all have it
    assert text.count("| realism meta-metric of 2024") == 2


def test_a_list_of_what_can_be_scored_says_what_cannot(tool: Any, tmp_path: Path) -> None:
    whole = straight_road()
    short = replace(whole.history_only(), id="short")
    for scene in (whole, short):
        save_scene(scene, tmp_path / f"{scene.id}.scene.npz")
    (tmp_path / "broken.scene.npz").write_bytes((tmp_path / f"{whole.id}.scene.npz").read_bytes()[:-200])
    result = CliRunner().invoke(tool.main, ["list", f"made up={tmp_path}"], catch_exceptions=False)
    assert "short: 0 s of future; 3 s are the least" in result.stderr
    assert "broken.scene.npz" in result.stderr
    (entry,) = json.loads(result.stdout)
    assert (entry["id"], entry["set"], entry["future"]) == (whole.id, "made up", 8.0)
    assert list(tool.parts([entry])) == ["all scenes", "without lights", "made up"]


def test_columns_of_two_files_stand_in_one_table_of_the_part_that_is_asked_for(tool: Any) -> None:
    mean = {"mean": 0.5, "low": 0.4, "high": 0.6, "scenes": 1}
    figures = {"protocol": "as ever", "scenes": 2, "wosac": {"metametric": mean}, "means": {}}
    one, other = (
        {
            "scenes": "list.json",
            "settings": {"version": "1"},
            "parts": {"all scenes": {name: figures}, "third 2": {name: figures | {"scenes": 1}}},
        }
        for name in ("mine", "yours")
    )
    text = tool.block(tool.merged([one, other]), ["third 2"])
    assert "| third 2: 1 scenes | mine | yours |" in text
    assert "| all scenes (2) | 0.500 [0.400, 0.600] (1) | 0.500 [0.400, 0.600] (1) |" in text
    assert "minADE" not in text  # which none of them has
    with pytest.raises(SystemExit, match="no part 'third 9'; known: all scenes, third 2"):
        tool.block(one, ["third 9"])
    with pytest.raises(SystemExit, match="cannot stand in one table"):
        tool.merged([one, other | {"scenes": "others.json"}])
    fewer = other | {"parts": {"third 2": other["parts"]["third 2"]}}
    assert list(tool.merged([one, fewer])["parts"]) == ["third 2"]


@pytest.mark.parametrize(
    ("page", "files", "wholes"),
    [
        ("baselines.md", ["figures/baselines.json"], ["all scenes"]),
        ("model.md", ["results/small_dev.json", "figures/baselines.json"], ["third 2", "all scenes"]),
    ],
)
def test_pages_hold_what_was_measured(tool: Any, page: str, files: list[str], wholes: list[str]) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = tool.merged([json.loads((ROOT / "docs" / name).read_text(encoding="utf-8")) for name in files])
    start, end = tool.marks()
    assert f"{start}{tool.block(found, wholes)}{end}" in text
