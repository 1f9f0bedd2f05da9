"""The command line: parse, call one function, print."""

from traj_diffusion.cli.main import main

__all__ = ["main"]
