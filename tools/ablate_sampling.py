"""Measure what denoising steps, guidance and replanning gain and cost, and write the table of docs/experiments.md.

python -P tools/dev_table.py pick dev_scenes.json --part "third 0" --part "third 1" --first 15 > thirty.json
python -P tools/ablate_sampling.py score thirty.json --out WORK [--policy small] [--runs 8] [--workers 2] > J.json
python -P tools/ablate_sampling.py write docs/results/sampling.json docs/experiments.md

`score` goes on where it was killed: rows lie in WORK, one file per setting. Choose SCENES among those on which choices
are made, not among those that the headline is of.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from time import process_time
from typing import Any

import click

from traj_diffusion.evaluation import RunSettings, evaluate, run_figures
from traj_diffusion.evaluation.pages import with_block
from traj_diffusion.policies import DEFAULT_STEPS, load_model
from traj_diffusion.policies.diffusion import DEFAULT_GUIDANCE, DEFAULT_WARM
from traj_diffusion.policies.surroundings import Guidance
from traj_diffusion.sim_adapter.closed_loop import REPLAN_EVERY

START, END = "<!-- sampling: written by tools/ablate_sampling.py -->\n", "<!-- end of sampling -->\n"


@dataclass(frozen=True)
class Setting:
    """How a model is sampled."""

    steps: int = DEFAULT_STEPS
    guidance: Guidance | None = DEFAULT_GUIDANCE
    replan_every: int = REPLAN_EVERY
    warm: float | None = DEFAULT_WARM


SETTINGS = {
    **{f"{steps} step{'s' if steps > 1 else ''}": Setting(steps) for steps in (1, 2, 4, 8, 16)},
    f"{DEFAULT_STEPS} steps, no guidance": Setting(guidance=None),
    f"{DEFAULT_STEPS} steps, 10 Hz": Setting(replan_every=1),
    **{f"{steps} step{'s' if steps > 1 else ''}, all from noise": Setting(steps, warm=None) for steps in (2, 4, 8)},
}
COLUMNS = {
    "wosac metametric": "meta-metric",
    "means metametric_2024": "of 2024",
    "wosac collision_indication_likelihood": "collision",
    "wosac offroad_indication_likelihood": "off-road",
    "wosac simulated_collision_rate": "collision rate",
    "wosac simulated_offroad_rate": "off-road rate",
    "wosac min_average_displacement_error": "minADE, m",
    "means joint_apd": "diversity (APD), m",
    "means new_collision_rate": "new collisions",
}


@click.group(help=__doc__)
def main() -> None:
    """Two verbs."""


@main.command()
@click.argument("scenes", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--policy", default="small", show_default=True)
@click.option("--runs", type=int, default=8, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(SETTINGS)))
def score(scenes: Path, out: Path, policy: str, runs: int, workers: int, only: tuple[str, ...]) -> None:
    """Print the figures of every setting as JSON. Processor time is there where one call did all of a setting."""
    found: dict[str, Any] = {}
    ids: list[str] = []
    for name in only or SETTINGS:
        one = SETTINGS[name]
        settings = RunSettings(rollouts=runs, futures=1, replan_every=one.replan_every, seed=0)
        driver = load_model(policy, steps=one.steps, warm=one.warm, guidance=one.guidance)
        rows = out / f"{name.replace(' ', '-').replace(',', '')}.rows.jsonl"
        anew, began, count = not rows.is_file(), _processor_seconds(), 0

        def done(scene: str, name: str = name) -> None:
            nonlocal count
            count += 1
            click.echo(f"\r{name}: {count} scenes ", nl=False, err=True)

        run = evaluate(scenes, driver, settings, rows, workers=workers, progress=done)
        ids = [row.scene_id for row in run.rows]
        figures = run_figures(run)
        kept = {key: _get(figures, key) for key in COLUMNS}
        found[name] = {
            "protocol": figures["protocol"],
            "seconds": (_processor_seconds() - began) / max(count, 1) if anew else None,
            "guidance": None if one.guidance is None else asdict(one.guidance),
            "figures": kept,
        }
        click.echo("", err=True)
    click.echo(json.dumps({"scenes": ids, "settings": found}, indent=1, allow_nan=False))


def _processor_seconds() -> float:
    """Return the processor time of this process and of all its workers that have ended."""
    return process_time() + sum(getrusage(RUSAGE_CHILDREN)[:2])


@main.command()
@click.argument("figures", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(exists=True, path_type=Path))
def write(figures: Path, target: Path) -> None:
    """Write the table into the page."""
    text = block(json.loads(figures.read_text(encoding="utf-8")))
    target.write_text(with_block(target.read_text(encoding="utf-8"), START, END, text), encoding="utf-8")


def block(found: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    settings = found["settings"]
    protocols = sorted({one["protocol"] for one in settings.values()})
    lines = [
        f"{' / '.join(protocols)}. Means over scenes; s: processor seconds a scene, on a busy machine.",
        "",
    ]
    shown = {
        key: title
        for key, title in COLUMNS.items()
        if any(one["figures"].get(key) is not None for one in settings.values())
    }
    lines += [f"| | {' | '.join(shown.values())} | s |", "| --- |" + " ---: |" * (len(shown) + 1)]
    for name, one in sorted(settings.items(), key=lambda item: list(SETTINGS).index(item[0])):
        values = [(one["figures"].get(key), 3) for key in shown] + [(one["seconds"], 1)]
        cells = ["–" if value is None else f"{value:.{digits}f}" for value, digits in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _get(figures: dict[str, Any], key: str) -> float | None:
    group, name = key.split(" ", 1)
    mean = figures[group].get(name)
    return None if mean is None else float(mean["mean"])


if __name__ == "__main__":
    main()
