"""Scores: all metrics of policies or of anybody's files over many scenes, and the frozen benchmark."""

import json
from pathlib import Path
from typing import Any

import click

from traj_diffusion.cli.bars import progress_bar

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_ROLLOUTS = click.Path(exists=True, path_type=Path)
_COUNT = click.IntRange(min=1)
_WORKERS = click.option(
    "--workers", default=None, type=_COUNT, help="Processes that share the scenes.  [default: cores]"
)
# Those of metrics.wosac and evaluation.benchmark, which take seconds to import; a test compares.
CONFIGS = ("sim_agents_2025", "scenario_gen_2025", "sim_agents_2024", "sim_agents_2024_leaderboard", "sim_agents_2023")
BENCHMARKS = ("bundled-1", "simulated-1")


def entry_of(policy: str | Path, out: Path, steps: int | None = None) -> Any:
    """Return what is to be scored: a folder of rollouts, a baseline that needs the recording, or a policy.

    A submission is unpacked to a folder below `out`.
    """
    from traj_diffusion.evaluation.evaluate import LOG_BASELINES, unpacked
    from traj_diffusion.policies import load_policy

    if isinstance(policy, Path):
        return policy if policy.is_dir() else unpacked(policy, out / policy.name.partition(".")[0])
    return policy if policy in LOG_BASELINES else load_policy(policy, steps)


@click.command(
    epilog="\b\nExamples:\n  traj-diffusion evaluate bundled --policy constant_velocity\n"
    "  traj-diffusion evaluate scenes/ --rollouts out/ --policy log_replay --report card.html"
)
@click.argument("scenes")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    help="Bundled model, checkpoint file, baseline, log_replay or log_noise; again for another column.",
)
@click.option(
    "--rollouts",
    "files",
    type=_ROLLOUTS,
    multiple=True,
    help="Folder of <scene id>.rollouts.npz, or a challenge submission; again for another column.",
)
@click.option(
    "--out",
    type=_FOLDER,
    default=Path("evaluation"),
    show_default=True,
    help="Rows are kept here; a second run goes on.",
)
@click.option(
    "--runs", default=32, type=_COUNT, show_default=True, help="Closed-loop runs R; the official score has 32."
)
@click.option("--steps", default=None, type=_COUNT, help="Denoising steps.  [default: the model's]")
@click.option("--replan-every", default=5, type=_COUNT, show_default=True, help="Ticks of 0.1 s between two plans.")
@click.option("--seed", default=0, type=click.IntRange(min=0), show_default=True)
@click.option("--config", type=click.Choice(CONFIGS), default=CONFIGS[0], show_default=True, help="Year of WOSAC.")
@click.option(
    "--engine",
    type=click.Choice(["own", "official"]),
    default="own",
    show_default=True,
    help="Who computes WOSAC: this package, or Waymo's, where it is installed.",
)
@click.option("--allow-missing", is_flag=True, help="Score the scenes that have rollouts, and name the others.")
@click.option("--all", "everything", is_flag=True, help="Show all metrics, not only the main ones.")
@click.option("--json", "as_json", type=_FILE, help="Also write the summary here.")
@click.option("--report", type=_FILE, help="Also write a report card as one HTML page, about the first column.")
@_WORKERS
def evaluate(
    scenes: str,
    policies: tuple[str, ...],
    files: tuple[Path, ...],
    out: Path,
    runs: int,
    steps: int | None,
    replan_every: int,
    seed: int,
    config: str,
    engine: str,
    allow_missing: bool,
    everything: bool,
    as_json: Path | None,
    report: Path | None,
    workers: int | None,
) -> None:
    """Score SCENES by the Sim Agents metrics (WOSAC) and all others: roll policies out, or read anybody's rollouts."""
    from traj_diffusion.evaluation import RunSettings, run_figures, run_table, scene_count
    from traj_diffusion.evaluation import evaluate as scored
    from traj_diffusion.evaluation.evaluate import entry_name
    from traj_diffusion.evaluation.official import official_python
    from traj_diffusion.evaluation.report import write_report
    from traj_diffusion.evaluation.tables import metric_summary
    from traj_diffusion.metrics import table
    from traj_diffusion.scene import atomic_path

    if not policies and not files:
        raise click.UsageError("give --policy NAME or --rollouts DIR")
    if engine == "official":
        official_python()
        workers = workers or 1  # a scene takes it up to 8 GB
    chosen: tuple[Path | str, ...] = (*files, *policies)
    entries = [entry_of(one, out, steps) for one in chosen]
    names = [entry_name(entry) for entry in entries]
    if len(set(names)) < len(names):
        raise click.UsageError(f"two columns are called alike: {', '.join(names)}")
    settings = RunSettings(rollouts=runs, replan_every=replan_every, seed=seed)
    columns = []
    for name, entry in zip(names, entries, strict=True):
        with progress_bar(scene_count(scenes), name) as bar:
            columns.append(
                scored(
                    scenes,
                    entry,
                    settings,
                    out / f"{name}.rows.jsonl",
                    config=config,
                    engine=engine,
                    workers=workers,
                    allow_missing=allow_missing,
                    progress=lambda scene, bar=bar: bar.update(1),  # type: ignore[misc]
                )
            )
    click.echo(run_table(columns), nl=False)
    if everything:
        click.echo("\n" + table({run.name: metric_summary(run) for run in columns}), nl=False)
    if as_json is not None:
        with atomic_path(as_json) as temporary:
            found = {run.name: run_figures(run) for run in columns}
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        click.echo(f"summary: {as_json}")
    if report is not None:
        click.echo(f"report: {write_report(columns, report)}")


@click.command(
    epilog="\b\nExamples:\n  traj-diffusion benchmark --policy small\n"
    "  traj-diffusion benchmark --name simulated-1 --rollouts out/ --json b.json"
)
@click.option("--name", type=click.Choice(BENCHMARKS), default=BENCHMARKS[0], show_default=True)
@click.option("--policy", default=None, help="Bundled model, checkpoint file, or baseline.")
@click.option("--rollouts", "folder", type=_FOLDER, default=None, help="Folder of <scene id>.rollouts.npz to score.")
@click.option("--out", type=_FOLDER, default=Path("benchmark"), show_default=True, help="Rows; a second run goes on.")
@click.option(
    "--scenes",
    type=_FOLDER,
    default=None,
    help="Where the scenes of simulated-1 are, or are made (needs the extra [sumo]).  [default: in ~/.cache]",
)
@click.option("--json", "as_json", type=_FILE, help="Also write all figures here.")
@click.option("--report", type=_FILE, help="Also write a report card as one HTML page.")
@_WORKERS
def benchmark(
    name: str,
    policy: str | None,
    folder: Path | None,
    out: Path,
    scenes: Path | None,
    as_json: Path | None,
    report: Path | None,
    workers: int | None,
) -> None:
    """Score a policy, or anybody's rollouts, on frozen simulated scenes, beside all baselines.

    bundled-1 are six scenes that come with the package; simulated-1 are 48, which are made once, in minutes.
    """
    from traj_diffusion.evaluation.benchmark import benchmark as run
    from traj_diffusion.evaluation.benchmark import frozen_scenes
    from traj_diffusion.evaluation.report import report_card
    from traj_diffusion.scene import atomic_path

    if policy is not None and folder is not None:
        raise click.UsageError("give --policy NAME or --rollouts DIR, not both")
    chosen = folder if folder is not None else policy
    entry = None if chosen is None else entry_of(chosen, out)
    if name != BENCHMARKS[0]:
        with progress_bar(None, f"making {name}") as bar:
            frozen_scenes(name, scenes, workers, lambda done, _: bar.update(done - bar.pos))
    with progress_bar(None, "scenes") as bar:
        found = run(entry, out, lambda scene: bar.update(1), workers, name, scenes)
    click.echo(found["table"], nl=False)
    if as_json is not None:
        with atomic_path(as_json) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        click.echo(f"figures: {as_json}")
    if report is not None:
        click.echo(f"report: {report_card([Path(file) for file in found['rows'].values()], report)}")
