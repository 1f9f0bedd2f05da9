"""Train `tiny` to say the noise (eps), the data (x0) and the velocity (v), and score each on held-out scenes.

python -P tools/ablate_parameterisation.py score --cache CACHE --scenes HELDOUT --steps 2000 --out WORK > J.json
python -P tools/ablate_parameterisation.py write docs/results/parameterisation.json docs/experiments.md

Same seed, same batches in the same order, same number of steps; the model alone drives, without guidance. All three are
sampled from t = .98 on instead of 1: where alpha is 0, eps says nothing about x0. Each is trained on the error of what
it says, and all on where that leads. Trainings and scores go on where they were killed.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import torch

from traj_diffusion import __version__
from traj_diffusion.datasets.cache import open_caches
from traj_diffusion.diffusion.schedules import CosineVP
from traj_diffusion.evaluation import RunSettings, evaluate, run_figures
from traj_diffusion.evaluation.pages import with_block
from traj_diffusion.evaluation.tables import MAIN, WOSAC_FIELDS
from traj_diffusion.policies import load_model
from traj_diffusion.training import Machine, train
from traj_diffusion.training.config import load_train_config

START = "<!-- parameterisation: written by tools/ablate_parameterisation.py -->\n"
END = "<!-- end of parameterisation -->\n"
CONFIG = "tiny"
NAMES = ("eps", "x0", "v")
SHOWN = {
    "means": (
        "joint_min_ade@{runs}/8s",
        "marginal_min_ade@{runs}/8s",
        "joint_apd",
        "new_collision_rate",
        "new_offroad_rate",
        "red_light_rate",
        "infeasible_rate",
    ),
    "wosac": ("metametric",),
}


class NearlyNoise(CosineVP):
    """The cosine schedule up to where a thirtieth of the signal is left."""

    @property
    def t_max(self) -> float:
        """Where sampling starts."""
        return 0.98


@click.group(help=__doc__)
def main() -> None:
    """Two verbs."""


@main.command()
@click.option("--cache", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--scenes", type=click.Path(exists=True, path_type=Path), required=True, help="Held-out scenes.")
@click.option("--steps", type=click.IntRange(min=1), required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--runs", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="For scoring.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="For training.")
@click.option("--only", multiple=True, default=NAMES, show_default=True, type=click.Choice(NAMES))
def score(
    cache: Path, scenes: Path, steps: int, out: Path, runs: int, workers: int, threads: int, only: tuple[str, ...]
) -> None:
    """Print the figures of each as JSON."""
    torch.set_num_threads(threads)
    settings = RunSettings(rollouts=runs, futures=1, replan_every=5, seed=0)
    base = load_train_config(CONFIG, [f"steps={steps}"])
    if base.model.schedule != "cosine":
        sys.exit(f"{CONFIG} has the schedule {base.model.schedule}; this tool samples by the cosine")
    found: dict[str, Any] = {}
    ids: list[str] = []
    for name in only:
        config = replace(base, model=replace(base.model, parameterisation=name))

        def show(step: int, means: Mapping[str, float], name: str = name) -> None:
            if means:
                click.echo(f"{name}, step {step}/{steps}: loss {means.get('loss', float('nan')):.4f}", err=True)

        title = f"{CONFIG}-{name}"
        path = train(config, open_caches([str(cache)]), out / name, title, str(cache.name), show, Machine("cpu"))
        driver = load_model(path, guidance=None)
        driver._schedule = NearlyNoise()

        def done(scene: str, title: str = title) -> None:
            click.echo(f"\r\x1b[K{title}: {scene} ", nl=False, err=True)

        run = evaluate(scenes, driver, settings, out / f"{title}-{steps}.rows.jsonl", workers=workers, progress=done)
        click.echo("", err=True)
        ids, figures = [row.scene_id for row in run.rows], run_figures(run)
        kept = {
            f"{group} {pattern}": figures[group].get(pattern.format(runs=runs))
            for group, patterns in SHOWN.items()
            for pattern in patterns
        }
        found[name] = {"protocol": figures["protocol"], "figures": kept}
    made = {"version": __version__, "steps": steps, "batch": base.batch, "seed": base.seed, "threads": threads}
    result = {"config": CONFIG, "training": made, "settings": asdict(settings), "scenes": ids, "runs": found}
    click.echo(json.dumps(result, indent=1, allow_nan=False))


@main.command()
@click.argument("figures", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(exists=True, path_type=Path))
def write(figures: Path, target: Path) -> None:
    """Write the table into the page."""
    text = block(json.loads(figures.read_text(encoding="utf-8")))
    target.write_text(with_block(target.read_text(encoding="utf-8"), START, END, text), encoding="utf-8")


def block(found: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    made, runs = found["training"], found["runs"]
    protocols = sorted({one["protocol"] for one in runs.values()})
    lines = [
        f"`{found['config']}`, {made['steps']} steps of {made['batch']} scenes, seed {made['seed']}; sampled "
        f"from t = {NearlyNoise().t_max:g} on, without guidance. "
        f"{' / '.join(protocols)}. Means over scenes, 95 % intervals.",
        "",
        f"| the network says | {' | '.join(runs)} |",
        "| --- |" + " ---: |" * len(runs),
    ]
    count = found["settings"]["rollouts"]
    titles = {f"means {pattern}": MAIN[pattern].format(runs=count).strip() for pattern in SHOWN["means"]}
    titles |= {f"wosac {field}": WOSAC_FIELDS[field].strip() for field in SHOWN["wosac"]}
    for key, title in titles.items():
        lines.append(f"| {title} | {' | '.join(_cell(one['figures'][key]) for one in runs.values())} |")
    return "\n".join([*lines, ""])


def _cell(mean: dict[str, float] | None) -> str:
    return "–" if mean is None else f"{mean['mean']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]"


if __name__ == "__main__":
    main()
