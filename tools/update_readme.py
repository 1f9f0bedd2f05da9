"""Put the figures of docs/results into the README, between its markers.

traj-diffusion evaluate SCENES --runs 6 --policy small --json docs/results/small.json
traj-diffusion evaluate SCENES --runs 6 --policy constant_velocity --json docs/results/constant_velocity.json
python tools/update_readme.py [--check]
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from traj_diffusion.evaluation.headline import headings
from traj_diffusion.evaluation.pages import with_block

ROOT = Path(__file__).resolve().parents[1]
POLICIES = ("small", "constant_velocity")
BEGIN, END = "<!-- results: made by tools/update_readme.py -->\n", "<!-- end of results -->"


def main() -> None:
    """Rewrite the README, or with --check end with 1 where it is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = with_block(old, BEGIN, END, block(read_results(ROOT / "docs" / "results")))
    if options.check and new != old:
        sys.exit("README.md: its results are not those of docs/results; run tools/update_readme.py")
    if not options.check:
        readme.write_text(new, encoding="utf-8")


def read_results(folder: Path) -> dict[str, Any]:
    """Return the summaries that are there, by policy."""
    found: dict[str, Any] = {}
    for path in (folder / f"{policy}.json" for policy in POLICIES):
        if path.is_file():
            found |= json.loads(path.read_text(encoding="utf-8"))
    return found


def block(results: dict[str, Any]) -> str:
    """Return a line on what was run, and a table with one column per summary."""
    if not results:
        return "\nNo results are published yet.\n\n"
    counts = {one["scenes"] for one in results.values()}
    settings = [one["settings"] for one in results.values()]
    if len(counts) > 1 or any(one != settings[0] for one in settings):
        sys.exit("docs/results: the files are of different scenes or settings; they cannot stand in one table")
    how = settings[0]
    told = (
        f"On {counts.pop()} simulated scenes whose streets and drivers no training has seen: means over scenes with "
        f"95 % bootstrap intervals; {how['rollouts']} closed-loop runs of 8 s per scene, a new plan every "
        f"{how['replan_every']} ticks of 0.1 s."
    )
    names: dict[str, str] = {}
    for one in results.values():
        names |= headings(one["means"])
    rows = [["", *results], ["---", *["---"] * len(results)]]
    for name, heading in names.items():
        rows.append([heading, *(cell(one["means"].get(name)) for one in results.values())])
    return f"\n{told}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"


def cell(mean: dict[str, float] | None) -> str:
    """Return a mean with its interval."""
    return "-" if mean is None else f"{mean['mean']:.3g} [{mean['low']:.3g}, {mean['high']:.3g}]"


if __name__ == "__main__":
    main()
