"""Pack a training into folders that run elsewhere: on a machine without a network that has torch, numpy, numba,
safetensors and lightning-fabric, but not this package.

python -P tools/pack_training.py CACHE --out PACKS [--config small] [--from RUN] [--megabytes 60] [key=value ...]

Each folder PACKS/part-N holds the code, a share of the cache's shards and `run.py`. There:

    python part-0/run.py [--minutes 10] [--accelerator cuda]

trains for so long and leaves the state in part-0/run. Carry that folder `run` into the next part and run it there:
training goes on, on that part's scenes. At home, `traj-diffusion train --out RUN` goes on from it as well. `--from RUN`
packs the state of a training that was begun here.
"""

import argparse
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

from traj_diffusion.datasets.cache.store import INDEX, shard_paths
from traj_diffusion.errors import BadInput
from traj_diffusion.training.config import load_train_config
from traj_diffusion.training.state import FILE

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"traj_diffusion": "traj_diffusion", "datasets": "traj_diffusion/datasets"}
ROOMS |= {room: f"traj_diffusion/{room}" for room in ("sim_adapter", "configs")}
CARRIED = ("jaxtyping", "wadler_lindig", "yaml")  # pure Python that the other machine need not have
LEFT_OUT = shutil.ignore_patterns("__pycache__", "checkpoints", "bundled", "*.so", "*.html", "*.js", "*.css")
RUN = '''"""Train on this folder's scenes; the state is kept in `run` beside this file."""

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))

from traj_diffusion.datasets.cache import open_caches  # noqa: E402
from traj_diffusion.training import Machine, train  # noqa: E402
from traj_diffusion.training.config import load_train_config  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--minutes", type=float, default=10.0)
parser.add_argument("--accelerator", default="auto")
parser.add_argument("--precision", default="32-true")
asked = parser.parse_args()
told = json.loads((HERE / "training.json").read_text())
config = load_train_config(told["config"], told["settings"])


def show(step, means):
    if means:
        print(f"step {step}/{config.steps}", " ".join(f"{key} {value:.4f}" for key, value in means.items()), flush=True)


machine = Machine(asked.accelerator, precision=asked.precision)
path = train(
    config, open_caches([str(HERE / "cache")]), HERE / "run", told["config"], told["data"], show, machine,
    seconds=60 * asked.minutes,
)
print(f"checkpoint: {path}")
'''


def main() -> None:
    """Write the folders and say what is in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", default="small")
    parser.add_argument("--from", dest="run", type=Path)
    parser.add_argument("--megabytes", type=float, default=60)
    parser.add_argument("--data", default="not stated")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    asked = parser.parse_intermixed_args()
    load_train_config(asked.config, asked.settings)  # refused here rather than there
    for part in pack(asked.cache, asked.out, asked.megabytes, asked.run):
        told = {"config": asked.config, "settings": asked.settings, "data": asked.data}
        (part / "training.json").write_text(json.dumps(told, indent=1) + "\n")
        size = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        print(f"{part}: {size / 1e6:.1f} MB, {len(list((part / 'cache').glob('*.shard')))} shards")


def pack(cache: Path, out: Path, megabytes: float, run: Path | None) -> list[Path]:
    """Write code and shards, and return the folders. Raises BadInput where a single shard is too much."""
    index = json.loads((cache / INDEX).read_text(encoding="utf-8"))
    entries = {entry["name"]: entry for entry in index["shards"]}
    first = out / "part-0"
    _code(first)
    if run is not None:
        (first / "run").mkdir()
        shutil.copy2(run / FILE, first / "run" / FILE)
    # Every later part receives the state of the one before.
    state = 0 if run is None else (run / FILE).stat().st_size
    room = megabytes * 1e6 - state - sum(file.stat().st_size for file in (first / "lib").rglob("*") if file.is_file())
    shares: list[list[Path]] = [[]]
    filled = 0
    for path, size in shard_paths(cache):
        if size > room:
            raise BadInput(f"{path}: {size:,} bytes; beside the code there is room for {int(room):,}")
        if filled + size > room:
            shares.append([])
            filled = 0
        shares[-1].append(path)
        filled += size
    parts = [out / f"part-{number}" for number in range(len(shares))]
    for part, share in zip(parts, shares, strict=True):
        if part != first:
            _code(part)
        (part / "cache").mkdir()
        for path in share:
            shutil.copy2(path, part / "cache" / path.name)
        told = index | {"shards": [entries[path.name] for path in share]}
        (part / "cache" / INDEX).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return parts


def _code(part: Path) -> None:
    part.mkdir(parents=True)
    for source, target in ROOMS.items():
        shutil.copytree(ROOT / source, part / "lib" / target, ignore=LEFT_OUT, dirs_exist_ok=True)
    for name in CARRIED:
        found = find_spec(name)
        assert found is not None
        assert found.origin is not None
        shutil.copytree(Path(found.origin).parent, part / "lib" / name, ignore=LEFT_OUT)
    (part / "run.py").write_text(RUN)


if __name__ == "__main__":
    main()
