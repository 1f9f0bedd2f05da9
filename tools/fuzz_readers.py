"""Throw broken files at readers: python tools/fuzz_readers.py --count 10000 --seed 0 [READER ...]

Every file must end in valid scenes or in one typed error, within 5 s of processor time and 2 GB. Results are kept in
docs/figures/fuzz.json after every few hundred files, so that a run which was stopped goes on where it was, and stand
in a table of docs/data.md. A reader whose room has changed since starts over. Exits 1 on any other end; `--page` only
writes the table.
"""

import argparse
import hashlib
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from traj_diffusion.evaluation.pages import with_block
from traj_diffusion.scene import atomic_path
from traj_diffusion.testing.fuzzing import READERS, fuzz_once

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "docs" / "figures" / "fuzz.json", ROOT / "docs" / "data.md"
BEGIN, END = "<!-- fuzzing: made by tools/fuzz_readers.py -->\n", "<!-- end of fuzzing -->"
WARM_UP = 100  # files in which compiled readers still compile
EVERY = 250
SLOW = 5.0  # s
PARTS = {
    "womd": ("womd*", "../tfrecord", "../wire"),
    "womd_example": ("womd*", "../tf*", "../wire"),
    "scenarionet": ("scenarionet", "unpickle"),
    "av2": ("av2", "av2_map", "arrow"),
    "av2_sensor": ("av2_sensor", "av2_map", "arrow"),
    "py123d": ("py123d", "arrow", "msgpack"),
    "nuplan": ("nuplan", "database"),
    "smarts": ("smarts", "database"),
    "opendrive": ("opendrive*", "xml_tree", "ground"),
    "sumo_net": ("sumo_net", "xml_tree", "../synthesis/network", "../synthesis/roadmap"),
    "sumo_fcd": ("sumo*", "steps", "xml_tree", "../synthesis/network", "../synthesis/roadmap"),
    "commonroad": ("commonroad*", "steps", "xml_tree", "ground"),
    "archive": ("archive", "../../traj_diffusion/scene/archive", "../../traj_diffusion/scene/files"),
}


def main() -> int:
    """Run the fuzzer as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)}; all by default")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", action="store_true", help="only write the table")
    options = parser.parse_args()
    if unknown := set(options.readers) - set(READERS):
        parser.error(f"unknown readers {sorted(unknown)}; known are {', '.join(READERS)}")
    if not options.page:
        resource.setrlimit(resource.RLIMIT_DATA, (2 * 2**30, 2 * 2**30))
        for reader in options.readers or READERS:
            print(json.dumps({reader: run(reader, options.seed, options.count)}), flush=True)
    results = load()
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    return 1 if any(result["failures"] for result in results.values()) else 0


def run(reader: str, seed: int, count: int) -> dict[str, Any]:
    """Read broken files up to that number, from where the last run with this seed and this code stopped."""
    result = load().get(reader, {})
    code = digest(reader)
    if (result.get("seed"), result.get("code")) != (seed, code):
        result = {"seed": seed, "code": code, "files": 0, "ends": {}, "slowest_cpu_s": 0.0, "failures": []}
    ends: Counter[str] = Counter(result["ends"])
    first = result["files"]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, count):
            start = time.process_time()
            try:
                ends[fuzz_once(reader, seed, number, Path(folder))] += 1
            except Exception as error:
                result["failures"].append(f"number {number}: {type(error).__name__}: {error}")
            took = time.process_time() - start
            if number >= first + WARM_UP:
                result["slowest_cpu_s"] = max(result["slowest_cpu_s"], round(took, 3))
                if took > SLOW:
                    result["failures"].append(f"number {number}: it took {took:.1f} s")
            if (number + 1) % EVERY == 0 or number + 1 == count:
                result |= {"files": number + 1, "ends": dict(sorted(ends.items()))}
                save(reader, result)
    return result


def digest(reader: str) -> str:
    """Return a digest of the code that a reader's files pass through."""
    folder = ROOT / "datasets" / "readers"
    names = (*PARTS.get(reader, (reader,)), "assemble", "unpack", "../derive", "../../traj_diffusion/scene/invariants")
    files = sorted({path.resolve() for name in names for path in folder.glob(f"{name}.py")})
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def load() -> dict[str, Any]:
    """Return the results that are there, by reader."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def save(reader: str, result: dict[str, Any]) -> None:
    """Put a reader's result in its place, whole or not at all."""
    with atomic_path(RESULTS) as temporary:
        temporary.write_text(json.dumps(load() | {reader: result}, indent=1) + "\n", encoding="utf-8")


def with_table(page: str, results: dict[str, Any]) -> str:
    """Return the page with the table of these results between its markers."""
    # What was read by code that has changed since is said so, until somebody runs it again.
    rows = ["| reader | files | seed | scenes | typed errors | slowest [CPU s] | anything else |", f"|{' --- |' * 7}"]
    for reader in (name for name in READERS if name in results):
        one = results[reader]
        scenes = one["ends"].get("scene", 0)
        errors = sum(one["ends"].values()) - scenes
        files = f"{one['files']:,}" if one["code"] == digest(reader) else f"{one['files']:,}, by earlier code"
        cells = (f"`{reader}`", files, one["seed"], f"{scenes:,}", f"{errors:,}")
        cells = (*cells, f"{one['slowest_cpu_s']:.2f}", len(one["failures"]))
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return with_block(page, BEGIN, END, "\n" + "\n".join(rows) + "\n\n")


if __name__ == "__main__":
    sys.exit(main())
