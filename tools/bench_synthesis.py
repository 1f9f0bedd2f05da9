"""What simulated scenes hold and how fast they are made: python tools/bench_synthesis.py [--scenes 240] [--seed 4000]

Two processes write scenes into a temporary folder. Written are docs/figures/synthesis.json and the table in
docs/synthesis.md; `--page` only writes the table. The rate by the clock is that of the machine as busy as it was; the
one by processor time, of SUMO and Python together, is what two cores give that do nothing else.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from traj_diffusion.datasets.synthesis import coverage, write_scenes
from traj_diffusion.evaluation.pages import with_block
from traj_diffusion.scene import atomic_path, load_scene

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "docs" / "figures" / "synthesis.json", ROOT / "docs" / "synthesis.md"
BEGIN, END = "<!-- coverage: made by tools/bench_synthesis.py -->\n", "<!-- end of coverage -->"
WORKERS = 2


def run(scenes: int, seed: int) -> dict[str, Any]:
    """Write scenes and return how long it took and what is in them."""
    with tempfile.TemporaryDirectory() as folder:
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        paths = write_scenes(Path(folder), scenes, seed, workers=WORKERS)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found = [load_scene(path) for path in paths]
        return {
            "seed": seed,
            "wall_s": round(wall, 1),
            "processor_s": round(processor, 1),
            "scenes_per_s": round(scenes / wall, 2),
            "scenes_per_s_of_two_cores": round(WORKERS * scenes / processor, 2),
            "busy": round(os.getloadavg()[0], 1),
            "bytes_per_scene": round(sum(path.stat().st_size for path in paths) / scenes),
            "tracks_per_scene": round(sum(len(scene.agents) for scene in found) / scenes, 1),
            "coverage": coverage(found),
        }


def table(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    holds = found["coverage"]
    agents, turns, wrong = holds["agents_per_scene"], holds["turns"], holds["out_of_order"]
    borders, vehicles = holds["speed_histogram"]["borders"], holds["speed_histogram"]["vehicles"]
    speeds = ", ".join(
        f"{low:g}-{high:g}: {count / max(sum(vehicles), 1):.1%}"
        for low, high, count in zip(borders[:-1], borders[1:], vehicles, strict=True)
    )
    kinds = ", ".join(f"{count:,} {kind}s" for kind, count in holds["kinds"].items() if count)
    rows = {
        "scenes": f"{holds['scenes']} of seed {found['seed']}, {found['bytes_per_scene'] / 1000:.0f} kB each",
        "speed": f"{found['scenes_per_s_of_two_cores']} scenes/s on two cores by processor time; "
        f"{found['scenes_per_s']} by the clock while {found['busy']:.0f} processes wanted the cores",
        "tracks in a scene": f"{found['tracks_per_scene']} on average",
        "agents at the current step": f"{agents['mean']:.1f} on average, {agents['5']:.0f} to {agents['95']:.0f} in "
        f"nine scenes of ten: {kinds}",
        "tracks that come later": f"{holds['late']:,}",
        "vehicles that move less than 2 m": f"{holds['stationary']:,} of {holds['vehicles']:,}, most of them parked",
        "turns by over 30 degrees": f"{turns['left']:,} left, {turns['right']:,} right; {turns['straight']:,} go on",
        "stops, starts": f"{holds['stopping']:,} come to a stop, {holds['starting']:,} start",
        "merges, yields": f"{holds['merges']:,} merge, {holds['yields']:,} give way and drive on",
        "scenes with lights, with arrows for left turns": f"{holds['signalled']:,}, {holds['arrows']:,}",
        "speeds of vehicles now [m/s]": speeds,
        "out of order": f"{wrong['overlapping']} overlaps at the current step, {wrong['jumps']} jumps, "
        f"{wrong['off_road']} off the road",
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in rows.items())])


def main() -> None:
    """Measure and write as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=240)
    parser.add_argument("--seed", type=int, default=4000)
    parser.add_argument("--page", action="store_true", help="only write the table")
    given = parser.parse_args()
    if not given.page:
        with atomic_path(RESULTS) as temporary:
            temporary.write_text(json.dumps(run(given.scenes, given.seed), indent=1) + "\n", encoding="utf-8")
    made = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    PAGE.write_text(with_block(PAGE.read_text(encoding="utf-8"), BEGIN, END, f"\n{made}\n\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
