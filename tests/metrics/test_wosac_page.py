"""The figures of docs/wosac.md are those of its JSON, and the JSON's are good enough to be shown."""

import importlib.util
import json
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_shows_what_was_measured() -> None:
    spec = importlib.util.spec_from_file_location("wosac_page", ROOT / "tools" / "wosac_page.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    figures = json.loads((ROOT / "docs" / "figures" / "wosac.json").read_text())
    text = (ROOT / "docs" / "wosac.md").read_text(encoding="utf-8")
    assert tool.page(text, figures) == text
    assert max(report["largest_field_difference"] for report in figures["parity"]) <= 1e-5
    official = tool.side_by_side(figures)
    assert all(report["largest_difference"]["absolute"] <= 1e-5 for report in official)
    assert statistics.median(report["times_less_cpu"] for report in official) >= 200
    rows = [row for bench in figures["bench"] for row in bench["scenes"]]
    assert statistics.median(row["trajtok"]["times_less_cpu"] for row in rows if "trajtok" in row) >= 20
    generation = [bench for bench in figures["bench"] if bench["config"] == "scenario_gen_2025"]
    assert any(row["sim_agents"] >= 50 for bench in generation for row in bench["scenes"])
    assert max(bench["peak_mib"] for bench in figures["bench"]) < 2000
    for bench in figures["bench"]:
        for curve in bench.get("curves", []):
            assert curve["rollouts"]["power"] <= 1.1
