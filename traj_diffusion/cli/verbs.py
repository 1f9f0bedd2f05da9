"""The verbs: each parses, calls one function of a lower room, and prints. What is heavy is imported inside."""

from pathlib import Path
from typing import Any

import click

from traj_diffusion.cli.bars import progress_bar
from traj_diffusion.cli.doctor import doctor
from traj_diffusion.cli.export import export
from traj_diffusion.cli.scores import benchmark, evaluate
from traj_diffusion.cli.serve import serve
from traj_diffusion.cli.train import train

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)
_SEED = click.IntRange(min=0)
_WORKERS = click.option(
    "--workers", default=None, type=_COUNT, help="Processes that share the scenes.  [default: cores]"
)


@click.command(
    epilog="\b\nExamples:\n  traj-diffusion rollout bundled --futures 8 --out out\n"
    "  traj-diffusion rollout scenario.tfrecord --policy constant_velocity --out out"
)
@click.argument("scenes")
@click.option("--out", type=_FOLDER, required=True, help="Folder for rollouts, pictures and players.")
@click.option("--policy", default="small", show_default=True, help="Bundled model, checkpoint file, or baseline.")
@click.option(
    "--futures", default=8, type=_COUNT, show_default=True, help="Joint futures K sampled at every replanning."
)
@click.option("--rollouts", default=6, type=_COUNT, show_default=True, help="Closed-loop runs R of each scene.")
@click.option("--replan-every", default=5, type=_COUNT, show_default=True, help="Ticks of 0.1 s between two plans.")
@click.option("--steps", default=None, type=_COUNT, help="Denoising steps.  [default: the model's]")
@click.option("--ego", type=click.Choice(["model", "log"]), default="model", show_default=True)
@click.option("--lights", type=click.Choice(["hold", "log"]), default="hold", show_default=True)
@click.option("--seed", default=0, type=_SEED, show_default=True)
@click.option("--no-pictures", is_flag=True, help="Write rollouts only.")
@_WORKERS
def rollout(
    scenes: str, out: Path, policy: str, steps: int | None, no_pictures: bool, workers: int | None, **settings: Any
) -> None:
    """Roll SCENES out in closed loop: one file of rollouts, a PNG and an HTML player for each scene, and scores.

    SCENES is a file of any known format, a folder, a JSON list of {file, id}, or the word `bundled`.
    """
    from traj_diffusion.evaluation import RunSettings, scene_count
    from traj_diffusion.evaluation.gallery import roll_out_to
    from traj_diffusion.policies import load_policy

    driver = load_policy(policy, steps)
    with progress_bar(scene_count(scenes), "scenes") as bar:
        made = roll_out_to(
            scenes, driver, RunSettings(**settings), out, not no_pictures, lambda name: bar.update(1), workers
        )
    click.echo(made.table)
    for what, path in made.paths.items():
        click.echo(f"{what}: {path}")


@click.command(epilog="\b\nExample:\n  traj-diffusion inspect scenario.tfrecord --picture scene.png")
@click.argument("scenes")
@click.option("--id", "scene_id", default=None, help="Only the scene of this id.")
@click.option("--picture", type=_FILE, help="Write a PNG of the first scene.")
def inspect(scenes: str, scene_id: str | None, picture: Path | None) -> None:
    """Show what is inside SCENES, as a table and a picture."""
    from traj_diffusion.datasets import read_scenes
    from traj_diffusion.datasets.summary import summarise
    from traj_diffusion.errors import BadFile
    from traj_diffusion.viz import save_picture

    shown = 0
    for scene in read_scenes(scenes):
        if scene_id is not None and scene.id != scene_id:
            continue
        rows = summarise(scene)
        width = max(len(name) for name, _ in rows)
        click.echo("\n".join(f"{name.ljust(width)}  {value}" for name, value in rows) + "\n")
        if picture is not None and not shown:
            click.echo(f"picture: {save_picture(picture, scene)}\n")
        shown += 1
    if not shown:
        raise BadFile(f"{scenes}: holds no scene" + (f" {scene_id!r}" if scene_id else ""))


@click.command(epilog="\b\nExample:\n  traj-diffusion synthesize --scenes 100 --seed 1 --out scenes")
@click.option("--scenes", default=100, type=_COUNT, show_default=True, help="How many.")
@click.option("--seed", default=1, type=_SEED, show_default=True)
@click.option("--out", type=_FOLDER, required=True, help="Folder for the scenes; those that are there are kept.")
@click.option("--workers", default=2, type=_COUNT, show_default=True)
@click.option("--map", "net_file", type=_FILE, help="A SUMO network or OpenDRIVE map of your own.")
@click.option("--mix", type=_COUNT, help="An earlier mix of towns, to make scenes of it again; else the latest.")
def synthesize(scenes: int, seed: int, out: Path, workers: int, net_file: Path | None, mix: int | None) -> None:
    """Simulate scenes with SUMO on random towns: `<id>.scene.npz` files. Needs the extra [sumo]."""
    from traj_diffusion.datasets.synthesis import write_scenes
    from traj_diffusion.datasets.synthesis.mixes import LATEST, MIXES

    if mix is not None and mix not in MIXES:
        raise click.BadParameter(f"{mix}; known are {', '.join(map(str, MIXES))}", param_hint="--mix")
    with progress_bar(scenes, "scenes") as bar:
        write_scenes(
            out,
            scenes,
            seed,
            workers,
            net_file=net_file,
            progress=lambda done, total: bar.update(done - bar.pos),
            mix=mix or LATEST,
        )
    click.echo(f"{scenes} scenes: {out}")


@click.command(epilog="\b\nExample:\n  traj-diffusion prepare scenes/ more.tfrecord --out cache --workers 8")
@click.argument("sources", nargs=-1, required=True)
@click.option("--out", type=_FOLDER, required=True, help="A new folder for the cache; a second run goes on there.")
@_WORKERS
@click.option("--ray", metavar="ADDRESS", help="Let the machines of this Ray cluster do it. Needs the extra [ray].")
def prepare(sources: tuple[str, ...], out: Path, workers: int | None, ray: str | None) -> None:
    """Pack SOURCES into one cache for training, and account for every file."""
    import os

    from traj_diffusion.datasets.cache import prepare_cache

    def show(done: int, total: int) -> None:
        bar.length = total
        bar.update(done - bar.pos)

    with progress_bar(0, "files") as bar:
        report = prepare_cache(sources, out, workers or os.cpu_count() or 1, ray, show)
    click.echo(report.text())
    click.echo(f"report: {out / 'report.json'}")
    if report.broken:
        raise SystemExit(1)


VERBS = (rollout, evaluate, benchmark, inspect, synthesize, prepare, train, doctor, serve, export)
