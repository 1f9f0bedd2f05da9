"""The verb `train`, and the view of a training that goes on."""

import math
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click

_FOLDER = click.Path(file_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)
_BARS = "▁▂▃▄▅▆▇█"
VALIDATION_SCENES = 16


@click.command(
    epilog="\b\nExamples:\n  traj-diffusion train --config tiny --cache cache --out runs/tiny steps=2000 batch=8\n"
    "  traj-diffusion train --config small --cache cache --out runs/small --validate held-out/\n"
    "  traj-diffusion train --config small --cache mine --out runs/mine --from small steps=2000 learning_rate=0.0001\n"
    "  traj-diffusion train --config base --cache cache --out runs/base --accelerator cuda --precision bf16-mixed"
)
@click.option("--config", default="tiny", show_default=True, help="A setting in configs/train.")
@click.option(
    "--cache",
    "caches",
    multiple=True,
    required=True,
    metavar="FOLDER[=WEIGHT]",
    help="A folder that `prepare` made. Several are mixed by their weights.",
)
@click.option("--out", type=_FOLDER, required=True, help="Checkpoints and log; a second run goes on from there.")
@click.option(
    "--data", default="not stated", help="What the cache holds and under which licence; kept with the weights."
)
@click.option("--validate", metavar="SCENES", help=f"Score the model on up to {VALIDATION_SCENES} scenes as it learns.")
@click.option(
    "--from", "start", metavar="CHECKPOINT", help="Begin at these weights (bundled name or file): fine-tuning."
)
@click.option("--threads", default=None, type=_COUNT, help="Threads of torch.  [default: all cores]")
@click.option("--accelerator", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option("--devices", default="auto", show_default=True, help="GPUs (or processes, on CPUs) of each node.")
@click.option("--nodes", default=1, type=_COUNT, show_default=True)
@click.option(
    "--precision", type=click.Choice(["32-true", "bf16-mixed", "16-mixed"]), default="32-true", show_default=True
)
@click.option("--windows", type=_COUNT, metavar="STEPS", help="Also start from each so many steps of a long recording.")
@click.option(
    "--augment", multiple=True, metavar="KEY=VALUE", help="Change samples at random: docs/data.md has the keys."
)
@click.argument("settings", nargs=-1)
def train(
    config: str,
    caches: tuple[str, ...],
    out: Path,
    data: str,
    validate: str | None,
    start: str | None,
    threads: int | None,
    accelerator: str,
    devices: str,
    nodes: int,
    precision: str,
    windows: int | None,
    augment: tuple[str, ...],
    settings: tuple[str, ...],
) -> None:
    """Train a model on a cache. SETTINGS are key=value, such as steps=2000."""
    from functools import partial
    from itertools import islice

    import torch

    from traj_diffusion.datasets import read_scenes
    from traj_diffusion.datasets.cache import load_augment, open_caches
    from traj_diffusion.model import find_checkpoint
    from traj_diffusion.training import Machine, validation
    from traj_diffusion.training import train as run
    from traj_diffusion.training.config import load_train_config

    if threads is not None:
        torch.set_num_threads(threads)
    settled = load_train_config(config, settings)
    samples = open_caches(caches, window_stride=windows, augment=load_augment(augment))
    held_out = list(islice(read_scenes(validate), VALIDATION_SCENES)) if validate is not None else []
    view = View(settled.steps)
    path = run(
        settled,
        samples,
        out,
        config,
        data,
        view.show,
        Machine(accelerator, devices, nodes, precision),
        partial(validation, held_out) if held_out else None,
        None if start is None else find_checkpoint(start),
    )
    view.close()
    click.echo(f"checkpoint: {path}")


class View:
    """Shows a training on stderr: on a terminal three lines that stay in place, elsewhere a line per report."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._live = sys.stderr.isatty()
        self._first: int | None = None
        self._began = self._drawn = time.monotonic()
        self._losses: list[float] = []
        self._figures: dict[str, float] = {}

    def show(self, step: int, means: Mapping[str, float]) -> None:
        """Take notice of a step; `means` holds figures where there is something to report."""
        if self._first is None:
            self._first = step
        self._figures |= means
        if "loss" in means:
            self._losses.append(means["loss"])
        if means and not self._live:
            click.echo(f"step {step}/{self._steps}  {_figures(means)}", err=True)
        if self._live and (means or time.monotonic() - self._drawn > 0.5):
            self._draw(step)

    def close(self) -> None:
        """Leave the last picture standing."""
        if self._live and self._first is not None:
            click.echo("\n" * 2, err=True)

    def _draw(self, step: int) -> None:
        self._drawn = time.monotonic()
        width = shutil.get_terminal_size().columns - 1
        pace = (self._drawn - self._began) / max(1, step - (self._first or 0))
        left = time.strftime("%-Hh %Mm %Ss", time.gmtime(pace * (self._steps - step)))
        done = round(step / self._steps * 30)
        lines = (
            f"[{'#' * done}{'-' * (30 - done)}] step {step}/{self._steps}  {pace:.2f} s a step  {left} left",
            f"loss {sparkline(self._losses[-min(60, width - 6) :])}",
            _figures(self._figures),
        )
        click.echo("".join(f"\r\x1b[K{line[:width]}\n" for line in lines) + "\x1b[3A", nl=False, err=True)


def _figures(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in figures.items())


def sparkline(values: list[float]) -> str:
    """Return the values as a row of bars on a log scale, the lowest and the highest of them as the ends."""
    logs = [math.log(max(value, 1e-9)) for value in values]
    low, span = min(logs, default=0.0), (max(logs, default=0.0) - min(logs, default=0.0)) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in logs)
