"""The figures of docs/wosac.md are those of its JSON, and the JSON's are good enough to be shown."""

import importlib.util
import json
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
    assert all(report["largest_difference"]["absolute"] <= 1e-5 for report in figures["official"])
