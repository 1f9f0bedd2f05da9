"""Is the package that runs the one that was installed, and does it hide somebody else's?"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import traj_diffusion
from traj_diffusion.doctor.case import Case
from traj_diffusion.doctor.findings import Finding, judged

ROOMS = ("datasets", "sim_adapter", "configs", "diffusion", "model")


def shadowing(case: Case) -> Finding:
    """Return whether rooms come from one place, and whether `import datasets` would find our folder."""
    return judge_places(places(), top_level)


def places() -> dict[str, Path]:
    """Return the folder that each room was imported from."""
    names = ["traj_diffusion", *(f"traj_diffusion.{room}" for room in ROOMS)]
    return {name: Path(str(import_module(name).__file__)).resolve().parent for name in names}


def top_level(name: str) -> Path | None:
    """Return the folder that `import <name>` would take, None where there is no such package."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    locations = list(spec.submodule_search_locations or []) if spec is not None else []
    return Path(locations[0]).resolve() if locations else None


def judge_places(rooms: dict[str, Path], find: Callable[[str], Path | None]) -> Finding:
    """Return the verdict on where rooms are and what top-level names of theirs would find."""
    hidden = [name for name in ROOMS[:3] if find(name) == rooms[f"traj_diffusion.{name}"]]
    home = rooms["traj_diffusion"]
    # A checkout keeps some rooms beside the package, an installation inside it.
    foreign = [name for name, place in rooms.items() if not place.is_relative_to(home.parent)]
    figure = 2 * len(foreign) + len(hidden)
    if foreign:
        text = f"{', '.join(foreign)} come from {rooms[foreign[0]]}, the package from {home}"
    elif hidden:
        text = f"`import {hidden[0]}` finds {rooms[f'traj_diffusion.{hidden[0]}']}, which belongs to this package"
    else:
        text = f"version {traj_diffusion.__version__}, all of it from {home.parent}"
    return judged(
        "install.shadowing",
        float(figure),
        0.0,
        1.0,
        text,
        "remove one of two installations" if foreign else "do not put the checkout's root on sys.path (python -P)",
    )
