"""Files that unpack to far more than they weigh: each is refused by one typed error, and memory stays bounded."""

import gzip
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.datasets import read_file
from traj_diffusion.errors import BadFile
from traj_diffusion.scene import save_scene
from traj_diffusion.testing import straight_road
from traj_diffusion.testing.foreign import write_nuplan

HUGE = 3 * 2**30  # bytes, more than a reader may take
# What makes a reader take a file for its own, and what it is filled up with.
GZIP = {
    "gpudrive": (b'{"name": "a", "objects": [], "roads": [', b" "),
    "scenarionet": (b"\x80\x04\x95", b"\x00"),
    "opendrive": (b'<?xml version="1.0"?><OpenDRIVE><header/>', b" "),
    "sumo_net": (b'<?xml version="1.0"?><net version="1.0">', b" "),
    "sumo_fcd": (b'<?xml version="1.0"?><fcd-export>', b" "),
    "commonroad": (b'<?xml version="1.0"?><commonRoad commonRoadVersion="2020a">', b" "),
    "list": (b"[", b" "),
}
READ = """
import resource, sys
from traj_diffusion.datasets import list_sources, read_file
from traj_diffusion.errors import TrajDiffusionError
resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))
try:
    for entry in list_sources(sys.argv[1]):
        list(read_file(entry.file))
except TrajDiffusionError as error:
    print(type(error).__name__, error)
"""


def refused(path: Path) -> str:
    """Return what reading a file in a process of its own, with 2 GB of memory, ends in."""
    done = subprocess.run([sys.executable, "-P", "-c", READ, path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def gzip_bomb(path: Path, head: bytes, filler: bytes) -> Path:
    """Write a gzip file of a few MB that unpacks to HUGE bytes: one member of 64 MiB, over and over."""
    member = gzip.compress(filler * 2**26, 1)
    with path.open("wb") as file:
        file.write(gzip.compress(head))
        for _ in range(HUGE // 2**26):
            file.write(member)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", GZIP)
def test_a_gzip_bomb_is_one_error(name: str, tmp_path: Path) -> None:
    path = gzip_bomb(tmp_path / "bomb", *GZIP[name])
    assert path.stat().st_size < HUGE / 200
    end = refused(path)
    assert end.startswith(("BadFile", "BadRecord"))
    assert str(path) in end
    assert end.count("\n") == 1


@pytest.mark.slow
def test_a_database_bomb_is_one_error(tmp_path: Path) -> None:
    good = write_nuplan(tmp_path / "good", straight_road(steps=15)).read_bytes()
    path = gzip_bomb(tmp_path / "bomb", good, b"\x00")
    end = refused(path)
    assert end.startswith("BadFile")
    assert str(path) in end


@pytest.mark.parametrize(("claimed", "message"), [(HUGE, "at most 2,147,483,648"), (2**29, "at most 200 times")])
def test_a_zip_bomb_is_refused_by_what_it_claims(claimed: int, message: str, tmp_path: Path) -> None:
    path = save_scene(straight_road(steps=15), tmp_path / "bomb.scene.npz")
    header = {"descr": "|u1", "fortran_order": False, "shape": (claimed,)}
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("more.npy", "w", force_zip64=True) as entry,
    ):
        np.lib.format.write_array_header_1_0(entry, header)
        for _ in range(8):
            entry.write(bytes(2**26))
    assert path.stat().st_size < 2**29 / 200
    with pytest.raises(BadFile, match=message) as caught:
        list(read_file(path))
    assert str(path) in str(caught.value)
