"""docs/adapter.md shows what was measured."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_holds_the_figures_of_the_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "tools" / "adapter_page.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_setting_in_bold_is_the_cheapest_of_those_near_the_best() -> None:
    found = json.loads((ROOT / "docs" / "figures" / "streaming.json").read_text(encoding="utf-8"))
    nearest = min(row["min_ade"] for row in found["summary"])
    safest = min(row["collision_rate"] for row in found["summary"])
    good = [
        row
        for row in found["summary"]
        if row["min_ade"] <= 1.03 * nearest and row["collision_rate"] <= safest + found["collides"]
    ]
    cheapest = min(good, key=lambda row: row["cpu_ms"])
    assert [row for row in found["summary"] if row["chosen"]] == [cheapest]
