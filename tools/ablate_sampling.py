"""Measure what denoising steps and guidance gain and cost, and write the table of docs/experiments.md.

python -P tools/ablate_sampling.py score SCENES.json --out WORK [--policy small] [--runs 8] > docs/results/sampling.json
python -P tools/ablate_sampling.py write docs/results/sampling.json docs/experiments.md

`score` goes on where it was killed: rows lie in WORK, one file per setting. Choose SCENES among those on which choices
are made, not among those that the headline is of.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from time import process_time
from typing import Any

import click

from traj_diffusion.evaluation import RunSettings, evaluate, run_figures
from traj_diffusion.policies import load_model
from traj_diffusion.policies.lean import Guidance

START, END = "<!-- sampling: written by tools/ablate_sampling.py -->\n", "<!-- end of sampling -->\n"
SETTINGS: dict[str, tuple[int, Guidance | None]] = {
    "1 step": (1, Guidance()),
    "2 steps": (2, Guidance()),
    "4 steps": (4, Guidance()),
    "8 steps": (8, Guidance()),
    "4 steps, no guidance": (4, None),
    "4 steps, guidance of 4 rounds": (4, replace(Guidance(), rounds=4)),
}
COLUMNS = {
    "wosac metametric": "meta-metric",
    "wosac collision_indication_likelihood": "collision",
    "wosac offroad_indication_likelihood": "off-road",
    "wosac simulated_collision_rate": "collision rate",
    "wosac simulated_offroad_rate": "off-road rate",
    "wosac min_average_displacement_error": "minADE, m",
    "means joint_apd": "diversity (APD), m",
}


@click.group(help=__doc__)
def main() -> None:
    """Two verbs."""


@main.command()
@click.argument("scenes", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--policy", default="small", show_default=True)
@click.option("--runs", type=int, default=8, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(SETTINGS)))
def score(scenes: Path, out: Path, policy: str, runs: int, only: tuple[str, ...]) -> None:
    """Print the figures of every setting as JSON. Processor time counts what this call has rolled out and scored."""
    settings, found = RunSettings(rollouts=runs, futures=1, replan_every=5, seed=0), {}
    ids: list[str] = []
    for name in only or SETTINGS:
        steps, guidance = SETTINGS[name]
        driver = load_model(policy, steps=steps, guidance=guidance)
        began, count = process_time(), 0

        def done(scene: str, name: str = name) -> None:
            nonlocal count
            count += 1
            click.echo(f"\r{name}: {count} scenes ", nl=False, err=True)

        run = evaluate(scenes, driver, settings, out / f"{name.replace(' ', '-')}.rows.jsonl", progress=done)
        ids = [row.scene_id for row in run.rows]
        figures = run_figures(run)
        kept = {key: _get(figures, key) for key in COLUMNS}
        found[name] = {
            "protocol": figures["protocol"],
            "seconds": (process_time() - began) / max(count, 1),
            "guidance": None if guidance is None else asdict(guidance),
            "figures": kept,
        }
        click.echo("", err=True)
    click.echo(json.dumps({"scenes": ids, "settings": found}, indent=1, allow_nan=False))


@main.command()
@click.argument("figures", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(exists=True, path_type=Path))
def write(figures: Path, target: Path) -> None:
    """Write the table into the page."""
    before, marker, rest = target.read_text(encoding="utf-8").partition(START)
    if not marker:
        sys.exit(f"{target}: no line {START.strip()!r}")
    text = block(json.loads(figures.read_text()))
    target.write_text(before + START + text + END + rest.partition(END)[2], encoding="utf-8")


def block(found: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    settings = found["settings"]
    protocols = sorted({one["protocol"] for one in settings.values()})
    lines = [
        f"{' / '.join(protocols)}. Means over scenes; s: processor seconds a scene, on a busy machine.",
        "",
    ]
    lines += [f"| | {' | '.join(COLUMNS.values())} | s |", "| --- |" + " ---: |" * (len(COLUMNS) + 1)]
    for name, one in settings.items():
        cells = [f"{one['figures'][key]:.3f}" if one["figures"][key] is not None else "–" for key in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} | {one['seconds']:.1f} |")
    return "\n".join([*lines, ""])


def _get(figures: dict[str, Any], key: str) -> float | None:
    group, name = key.split(" ", 1)
    mean = figures[group].get(name)
    return None if mean is None else float(mean["mean"])


if __name__ == "__main__":
    main()
