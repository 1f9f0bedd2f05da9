"""Write the benchmark's table of docs/baselines.md from what `traj-diffusion benchmark --json` wrote.

traj-diffusion benchmark --name simulated-1 --json B.json
python -P tools/benchmark_page.py collect B.json docs/figures/benchmark.json
python -P tools/benchmark_page.py write docs/figures/benchmark.json docs/baselines.md
"""

import json
from pathlib import Path
from typing import Any

import click

from traj_diffusion.evaluation.pages import with_block
from traj_diffusion.evaluation.tables import WOSAC_FIELDS, main_rows

START = "<!-- benchmark: written by tools/benchmark_page.py from docs/figures/benchmark.json -->\n"
END = "<!-- end of benchmark -->\n"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(help=__doc__)
def main() -> None:
    """Two verbs."""


@main.command()
@click.argument("found", type=_FILE)
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def collect(found: Path, out: Path) -> None:
    """Keep of a benchmark's JSON what the table shows."""
    whole = json.loads(found.read_text(encoding="utf-8"))
    count = whole["protocol"]["rollouts"]
    means = [pattern.format(runs=count) for pattern in main_rows([count])]
    runs = {
        name: {
            "protocol": run["protocol"],
            "wosac": {field: run["wosac"][field] for field in WOSAC_FIELDS if field in run["wosac"]},
            "means": {mean: run["means"][mean] for mean in means if mean in run["means"]},
        }
        for name, run in whole["runs"].items()
    }
    kept = {key: whole[key] for key in ("benchmark", "protocol", "version", "entry")}
    out.write_text(json.dumps({**kept, "scenes": len(whole["scenes"]), "runs": runs}, indent=1) + "\n")


@main.command()
@click.argument("figures", type=_FILE)
@click.argument("target", type=_FILE)
def write(figures: Path, target: Path) -> None:
    """Write the table into the page."""
    target.write_text(page(target.read_text(encoding="utf-8"), json.loads(figures.read_text())), encoding="utf-8")


def page(text: str, figures: dict[str, Any]) -> str:
    """Return the page with its table in place."""
    return with_block(text, START, END, block(figures))


def block(figures: dict[str, Any]) -> str:
    """Return the table as Markdown, under a line per protocol."""
    runs = figures["runs"]
    by: dict[str, list[str]] = {}
    for name, run in runs.items():
        by.setdefault(run["protocol"], []).append(f"`{name}`")
    lines = [f"`{figures['benchmark']}`, traj-diffusion {figures['version']}. Means over scenes, 95 % intervals."]
    lines += [f"{', '.join(names)}: {protocol}." for protocol, names in by.items()]
    lines += ["", f"| {figures['scenes']} scenes | {' | '.join(runs)} |", "| --- |" + " ---: |" * len(runs)]
    count = figures["protocol"]["rollouts"]
    rows = [("wosac", field, title) for field, title in WOSAC_FIELDS.items()]
    rows += [("means", pattern.format(runs=count), title) for pattern, title in main_rows([count]).items()]
    for group, name, title in rows:
        cells = [_cell(run[group].get(name)) for run in runs.values()]
        if set(cells) != {"–"}:
            lines.append(f"| {title.strip()} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cell(mean: dict[str, Any] | None) -> str:
    return "–" if mean is None else f"{mean['mean']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]"


if __name__ == "__main__":
    main()
