"""Realism: the Sim Agents score of a policy or of files, and the frozen benchmark."""

import json
from pathlib import Path
from typing import Any

import click

from traj_diffusion.cli.bars import progress_bar

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


def entry_of(policy: str | None, folder: Path | None) -> Any:
    """Return what is to be scored: a folder of rollouts, a baseline that needs the recording, or a policy."""
    from traj_diffusion.evaluation.log_baselines import LOG_NOISE, LOG_REPLAY
    from traj_diffusion.policies import load_policy

    if folder is not None:
        return folder
    return policy if policy in (LOG_REPLAY, LOG_NOISE) else load_policy(str(policy))


@click.command(
    epilog="\b\nExamples:\n  traj-diffusion realism bundled --policy idm --report report.html\n"
    "  traj-diffusion realism scenes/ --rollouts out/"
)
@click.argument("scenes")
@click.option("--policy", default=None, help="Bundled model, checkpoint file, baseline, log_replay or log_noise.")
@click.option("--rollouts", "folder", type=_FOLDER, default=None, help="Folder of <scene id>.rollouts.npz to score.")
@click.option("--out", type=_FOLDER, default=Path("evaluation"), show_default=True, help="Rows; a second run goes on.")
@click.option("--runs", default=32, type=click.IntRange(min=1), show_default=True, help="Runs R; official is 32.")
@click.option("--replan-every", default=5, type=click.IntRange(min=1), show_default=True)
@click.option("--seed", default=0, type=click.IntRange(min=0), show_default=True)
@click.option("--report", type=_FILE, help="Also write a report card as one HTML page.")
def realism(
    scenes: str,
    policy: str | None,
    folder: Path | None,
    out: Path,
    runs: int,
    replan_every: int,
    seed: int,
    report: Path | None,
) -> None:
    """Score SCENES by the 2025 Sim Agents metrics (WOSAC) beside all others; docs/wosac.md says what they are."""
    from traj_diffusion.evaluation import RunSettings, scene_count
    from traj_diffusion.evaluation.report import write_report
    from traj_diffusion.evaluation.tables import run_table
    from traj_diffusion.evaluation.wosac_rows import entry_name, evaluate_wosac

    if (policy is None) == (folder is None):
        raise click.UsageError("give either --policy NAME or --rollouts DIR")
    entry = entry_of(policy, folder)
    settings = RunSettings(rollouts=runs, replan_every=replan_every, seed=seed)
    with progress_bar(scene_count(scenes), "scenes") as bar:
        run = evaluate_wosac(
            scenes, entry, settings, out / f"{entry_name(entry)}.wosac.jsonl", lambda scene: bar.update(1)
        )
    click.echo(run_table([run]))
    if report is not None:
        click.echo(f"report: {write_report([run], report)}")


@click.command(
    epilog="\b\nExamples:\n  traj-diffusion benchmark --policy tiny\n"
    "  traj-diffusion benchmark --rollouts out/ --json b.json"
)
@click.option("--policy", default=None, help="Bundled model, checkpoint file, or baseline.")
@click.option("--rollouts", "folder", type=_FOLDER, default=None, help="Folder of <scene id>.rollouts.npz to score.")
@click.option("--out", type=_FOLDER, default=Path("benchmark"), show_default=True, help="Rows; a second run goes on.")
@click.option("--json", "as_json", type=_FILE, help="Also write all figures here.")
def benchmark(policy: str | None, folder: Path | None, out: Path, as_json: Path | None) -> None:
    """Score a policy, or anybody's rollouts, on the frozen scenes that come with the package, beside all baselines."""
    from traj_diffusion.evaluation.benchmark import benchmark as run
    from traj_diffusion.scene import atomic_path

    if policy is not None and folder is not None:
        raise click.UsageError("give --policy NAME or --rollouts DIR, not both")
    entry = None if policy is None and folder is None else entry_of(policy, folder)
    with progress_bar(None, "scenes") as bar:
        found = run(entry, out, lambda scene: bar.update(1))
    click.echo(found["table"])
    if as_json is not None:
        with atomic_path(as_json) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        click.echo(f"figures: {as_json}")
