"""The installed SUMO: where its programs are, and how they are run."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from traj_diffusion.errors import HostError, MissingExtra


def require_libsumo() -> Any:
    """Return the module libsumo, with SUMO_HOME set for it. Raises MissingExtra."""
    os.environ["SUMO_HOME"] = str(sumo_home())
    try:
        with redirect_stdout(sys.stderr):  # it prints about versions of Arrow, which are nobody's output
            import libsumo
    except ImportError:
        raise MissingExtra("libsumo", "sumo") from None
    return libsumo


def sumo_home() -> Path:
    """Return the folder of the installed `eclipse-sumo`. Raises MissingExtra."""
    try:
        import sumo
    except ImportError:
        raise MissingExtra("eclipse-sumo", "sumo") from None
    return Path(sumo.SUMO_HOME)


def netconvert(arguments: Sequence[str]) -> None:
    """Run SUMO's netconvert. Raises HostError with its last line if it fails."""
    home = sumo_home()
    command = [str(home / "bin" / "netconvert"), "--no-warnings", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"SUMO_HOME": str(home)})
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise HostError(f"netconvert ended with {done.returncode}: {lines[0]}")
