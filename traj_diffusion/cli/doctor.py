"""The verb `doctor`."""

from pathlib import Path

import click

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    epilog="\b\nExamples:\n  traj-diffusion doctor\n  traj-diffusion doctor small --html doctor.html\n"
    "  traj-diffusion doctor --schedule linear_beta n=100 beta_end=0.02"
)
@click.argument("arguments", nargs=-1, metavar="[CHECKPOINT] [KEY=VALUE]...")
@click.option("--data", default="bundled", show_default=True, help="Scenes, or a cache, to try the model on.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this check; may be given again.")
@click.option(
    "--seconds",
    default=120.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Time for all checks; what is left over is skipped.",
)
@click.option("--steps", default=None, type=click.IntRange(min=1), help="Denoising steps.  [default: the model's]")
@click.option("--schedule", "schedule_name", default=None, help="A schedule to check, with its settings as KEY=VALUE.")
@click.option("--json", "as_json", type=_FILE, help="Also write the findings here.")
@click.option("--html", "as_html", type=_FILE, help="Also write a page with plots here.")
def doctor(
    arguments: tuple[str, ...],
    data: str,
    only: tuple[str, ...],
    seconds: float,
    steps: int | None,
    schedule_name: str | None,
    as_json: Path | None,
    as_html: Path | None,
) -> None:
    """Look for the silent bugs of diffusion models: in the schedule, and in CHECKPOINT (a bundled model or a file).

    Exit code 1 where a check fails.
    """
    from traj_diffusion.configs import override
    from traj_diffusion.diffusion import make_schedule
    from traj_diffusion.doctor import Finding, examine, plain_subject, subject_of_checkpoint
    from traj_diffusion.doctor.registry import CHECKS
    from traj_diffusion.doctor.report import closing, line, write_json
    from traj_diffusion.errors import BadConfig
    from traj_diffusion.model import ModelConfig
    from traj_diffusion.policies import DEFAULT_STEPS

    settings = [argument for argument in arguments if "=" in argument]
    checkpoints = [argument for argument in arguments if "=" not in argument]
    if len(checkpoints) > 1:
        raise click.UsageError(f"one checkpoint at a time, not {' and '.join(checkpoints)}")
    if settings and schedule_name is None:
        raise click.UsageError(f"{settings[0]!r} is a setting of a schedule; name it with --schedule")
    if checkpoints and schedule_name is not None:
        raise click.UsageError("a checkpoint brings its own schedule; give either CHECKPOINT or --schedule")
    if not seconds > 0:
        raise click.UsageError(f"--seconds is a number above 0, not {seconds}")
    if not checkpoints and (data != "bundled" or steps is not None):
        raise click.UsageError("--data and --steps are for a CHECKPOINT; name one")
    if checkpoints:
        subject = subject_of_checkpoint(checkpoints[0], data, steps or DEFAULT_STEPS)
    else:
        name = ModelConfig().schedule if schedule_name is None else schedule_name
        try:
            schedule = make_schedule(name, **override({}, settings))
        except ValueError as error:
            raise BadConfig(str(error)) from error
        subject = plain_subject(schedule, name=f"schedule {name}")
        only = only or tuple(check.name for check in CHECKS if not check.needs_model)

    def show(finding: Finding) -> None:
        click.echo(line(finding))

    report = examine(subject, only, seconds, show)
    click.echo(closing(report))
    if as_json is not None:
        write_json(as_json, report)
        click.echo(f"findings: {as_json}")
    if as_html is not None:
        from traj_diffusion.doctor.page import write_page

        write_page(as_html, report, subject)
        click.echo(f"page: {as_html}")
    if report.failed:
        raise click.exceptions.Exit(1)
