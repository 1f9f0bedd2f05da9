"""A training that was packed runs by itself: without this package, and without what the other machine lacks."""

import os
import subprocess
import sys
from pathlib import Path

from traj_diffusion.datasets.cache import write_cache
from traj_diffusion.testing import straight_road

TOOL = Path(__file__).parents[2] / "tools" / "pack_training.py"
SETTINGS = ("steps=4", "batch=2", "noise_draws=1", "save_every=2", "warm_up=1")
# As on a machine that has torch, numpy, numba, safetensors and lightning-fabric only.
ALONE = """
import runpy, sys
MISSING = ("shapely", "matplotlib", "click")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in MISSING:
            raise ModuleNotFoundError(name)
sys.meta_path[:] = [Absent()] + [f for f in sys.meta_path if "editable" not in str(f).lower()]
sys.argv = [sys.argv[1], "--accelerator", "cpu", "--minutes", sys.argv[2]]
runpy.run_path(sys.argv[0], run_name="__main__")
import traj_diffusion, jaxtyping
print("code:", traj_diffusion.__file__, jaxtyping.__file__)
"""


def test_a_packed_folder_trains_stops_in_time_and_goes_on(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "packs"
    write_cache(cache, [straight_road(speeds=(4.0 + i, 6.0)) for i in range(5)])
    packing = [sys.executable, "-P", str(TOOL), str(cache), "--out", str(out), "--config", "tiny", *SETTINGS]
    said = subprocess.run(packing, capture_output=True, text=True, check=True).stdout
    assert "part-0" in said
    assert " 1 shards" in said
    part = out / "part-0"
    assert sum(file.stat().st_size for file in part.rglob("*") if file.is_file()) < 60e6

    def run(minutes: str) -> str:
        command = [sys.executable, "-P", "-c", ALONE, str(part / "run.py"), minutes]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ})
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    first = run("0")
    assert "step 2/4" in first
    assert "step 4/4" not in first
    assert str(part) in first.split("code:")[1]
    assert "step 4/4" in run("10")
    assert (part / "run" / "tiny.safetensors").is_file()
