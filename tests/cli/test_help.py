"""Help is instant, and shows how each verb is used."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from traj_diffusion.cli.main import cli

VERBS = sorted(cli.commands)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_explains_itself_with_an_example(verb: str) -> None:
    found = CliRunner().invoke(cli, [verb, "--help"])
    assert found.exit_code == 0
    assert f"  traj-diffusion {verb} " in found.output.partition("Example")[2]
    undocumented = [
        o for o in cli.commands[verb].params if isinstance(o, click.Option) and not (o.help or o.show_default)
    ]
    assert undocumented == []


def test_the_examples_are_of_options_that_exist() -> None:
    for verb in VERBS:
        command = cli.commands[verb]
        known = {name for option in command.params for name in option.opts}
        for line in (command.epilog or "").splitlines():
            used = {word for word in line.split() if word.startswith("--")}
            assert used <= known, f"{verb}: {used - known}"


def test_help_imports_nothing_heavy_and_takes_less_than_a_second() -> None:
    code = (
        "import sys, time; start = time.process_time()\n"
        "from traj_diffusion.cli import main\n"
        "try: main(['rollout', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = [m for m in ('torch', 'numpy', 'numba', 'matplotlib', 'shapely') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
        "assert time.process_time() - start < 1\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_version_is_told() -> None:
    from traj_diffusion import __version__

    assert __version__ in CliRunner().invoke(cli, ["--version"]).output
