"""The `traj-diffusion` command. Heavy imports happen inside the verbs, so that `--help` is instant."""

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from traj_diffusion import __version__
from traj_diffusion.cli.verbs import VERBS
from traj_diffusion.errors import TrajDiffusionError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="traj-diffusion")
def cli() -> None:
    """Realistic, varied traffic for any driving simulator.

    Exit codes: 0 done; 1 the work ran and its verdict is no; 2 bad input or usage.
    """


for verb in VERBS:
    cli.add_command(verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an error that a user can act on becomes one line on stderr and exit code 2."""
    try:
        sys.exit(cli.main(args=arguments, prog_name="traj-diffusion", standalone_mode=False))
    except TrajDiffusionError as error:
        _end(str(error), 2)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "traj-diffusion")
        _end(f"{error.format_message()} See {command} --help.", 2)
    except OSError as error:
        if error.filename is None:
            raise
        _end(f"{error.filename}: {error.strerror}", 2)
    except (click.Abort, KeyboardInterrupt):
        _end("stopped", 130)


def _end(message: str, code: int) -> NoReturn:
    """Print one line on stderr and leave."""
    click.echo("traj-diffusion: " + " ".join(message.split()), err=True)
    sys.exit(code)
