"""What gets installed, and what must not be."""

import configparser
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAPPED = {
    "datasets": "traj_diffusion.datasets",
    "sim_adapter": "traj_diffusion.sim_adapter",
    "configs": "traj_diffusion.configs",
}


def test_setup_cfg_lists_every_package_on_disk() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(config["options"]["packages"].split())
    found = set()
    for folder in ("traj_diffusion", *MAPPED):
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join((MAPPED.get(parts[0], parts[0]), *parts[1:])))
    assert listed == found


def test_importing_the_package_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import traj_diffusion;"
        "heavy = [m for m in ('torch', 'matplotlib', 'libsumo', 'numba') if m in sys.modules]; assert not heavy, heavy;"
        "assert time.perf_counter() - start < 2"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd="/")


def test_the_public_face_resolves() -> None:
    import traj_diffusion as td

    for name in td.__all__:
        assert getattr(td, name) is not None
