"""How fast data flow, on one core: python tools/bench_data.py --womd FOLDER --cache CACHE

Writes docs/figures/data_speed.json and the table in docs/data.md; `--page` only writes the table. `reader`: a pass
reads every WOMD record of a folder: framing, checksums, decoding, lights, lane links, checks. `cache`: batches of 16
samples in a training's order, read from the shards, as arrays and further as the tensors that a network is conditioned
on, and those with the clean actions that it learns from; bytes on disk per scene; and the memory of the process while
100,000 samples go by. Speeds are scenes per second of processor time, which means more on a busy machine than the clock
does: the best of several warm passes, for other processes can only slow one down, and their median. Where protobuf is
installed, its parser and Python loops are timed too. `busy` is how many processes wanted a core on average.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from traj_diffusion.datasets.cache import Augment, Cache, Sample
from traj_diffusion.datasets.conditioning import HISTORY_STEPS, condition
from traj_diffusion.datasets.readers import womd
from traj_diffusion.datasets.sources import list_sources
from traj_diffusion.datasets.tfrecord import read_records
from traj_diffusion.evaluation.pages import with_block
from traj_diffusion.scene import atomic_path
from traj_diffusion.testing.womd_reference import reference_scene, scenario_class
from traj_diffusion.training.batch import make_batch
from traj_diffusion.training.config import TrainConfig
from traj_diffusion.training.train import trimmed

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "docs" / "figures" / "data_speed.json", ROOT / "docs" / "data.md"
BEGIN, END = "<!-- speed: made by tools/bench_data.py -->\n", "<!-- end of speed -->"
ROWS = {
    "womd": {
        "reader": "a WOMD record to a Scene, all of it checked",
        "framing_and_checksums_alone": "... framing and checksums alone",
        "protobuf_and_python_loops": "... by protobuf and Python loops",
    },
    "cache": {
        "batch_of_arrays": "cache to a batch of arrays",
        "batch_of_arrays_augmented": "... with every augmentation",
        "batch_of_conditioning_tensors": "cache to a batch of conditioning tensors",
        "training_batch_with_actions": "cache to a training batch, with the actions to learn",
    },
}
PASSES = 9
BATCH = 16
BATCHES = 20  # of one pass over a cache
EVERY = 10_000  # samples between two looks at the memory
EVERYTHING = Augment(rotate=True, history_noise=0.1, drop_agents=0.1, drop_pieces=0.1, parked=3.0, jitter=1.0)


def measure(one_pass: Callable[[], int]) -> dict[str, float]:
    """Return scenes per second of processor time, of the best pass and the median; the first one warms up."""
    one_pass()
    rates = []
    for _ in range(PASSES):
        start = time.process_time()
        scenes = one_pass()
        rates.append(scenes / (time.process_time() - start))
    return {"best": round(max(rates), 1), "median": round(statistics.median(rates), 1)}


def reading(folder: Path) -> dict[str, object]:
    """Return how fast the records of a folder become scenes."""
    files = [entry.file for entry in list_sources(folder)]
    sizes = [len(record) for file in files for record in read_records(file)]
    result: dict[str, object] = {
        "scenes": len(sizes),
        "mean_record_bytes": round(statistics.mean(sizes)),
        "reader": measure(lambda: sum(1 for file in files for _ in womd.read(file))),
        "framing_and_checksums_alone": measure(lambda: sum(1 for file in files for _ in read_records(file))),
    }
    if find_spec("google.protobuf"):
        scenario = scenario_class()

        def reference() -> int:
            return sum(1 for file in files for record in read_records(file) if reference_scene(record, scenario))

        result["protobuf_and_python_loops"] = measure(reference)
    return result


def conditioned(sample: Sample) -> object:
    """Return what a network is conditioned on, of one batch of samples."""
    t = {name: torch.from_numpy(array) for name, array in sample.items()}
    history = slice(0, HISTORY_STEPS)
    states = (t[name][:, :, history] for name in ("position", "heading", "velocity", "valid"))
    lights = (t["light_pose"], t["light_state"].long(), t["light_seen"])
    return condition(*states, t["size"], t["kind"].long(), *lights, t["route"].long(), t["light_route"].long())


def caching(folder: Path, samples: int) -> dict[str, object]:
    """Return how fast the samples of a cache become batches, how large they are, and what memory they take."""
    config = TrainConfig(batch=BATCH)
    generator = torch.Generator().manual_seed(0)

    def one_pass(augment: Augment | None, then: Callable[[Sample], object]) -> Callable[[], int]:
        cache = Cache(folder, augment=augment)

        def run() -> int:
            for step in range(BATCHES):
                then(trimmed(cache.batch(cache.rows(BATCH, 0, step), (0, step))))
            return BATCH * BATCHES

        return run

    cache = Cache(folder)
    return {
        "scenes": len(cache),
        "mean_agents": round(float(cache.agents.mean()), 1),
        "bytes_per_scene": round(sum(shard.stat().st_size for shard in folder.glob("*.shard")) / len(cache)),
        "batch_of_arrays": measure(one_pass(None, lambda sample: None)),
        "batch_of_arrays_augmented": measure(one_pass(EVERYTHING, lambda sample: None)),
        "batch_of_conditioning_tensors": measure(one_pass(None, conditioned)),
        "training_batch_with_actions": measure(one_pass(None, lambda s: make_batch(s, config, generator))),
        "memory": memory(cache, samples),
    }


def memory(cache: Cache, samples: int) -> dict[str, object]:
    """Return the anonymous memory [MB] of this process (Linux), after every 10,000 samples; mapped files are not it."""
    found = []
    for number in range(0, samples + 1, BATCH):
        if number % EVERY < BATCH:
            found.append(anonymous_mb())
        cache.batch(cache.rows(BATCH, 1, number // BATCH))
    found.append(anonymous_mb())
    return {
        "samples": samples,
        "mb_every_10000": found,
        "grown_mb": round(found[-1] - found[min(1, len(found) - 1)], 1),
    }


def anonymous_mb() -> float:
    """Return the anonymous resident memory of this process."""
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024, 1)


def table(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    womd, cache = found["womd"], found["cache"]
    lines = [
        f"One core, scenes per second of processor time, best of {PASSES} passes (median); meanwhile "
        f"{found['busy']:.0f} processes wanted the {found['cores']} cores. {womd['scenes']} WOMD records of "
        f"{womd['mean_record_bytes'] / 1000:,.0f} kB on average; a cache of {cache['scenes']:,} scenes.",
        "",
        "| | scenes/s |",
        "| --- | --- |",
    ]
    for room, names in ROWS.items():
        for name, title in names.items():
            if name in found[room]:
                speed = found[room][name]
                lines.append(f"| {title} | {speed['best']:,.0f} ({speed['median']:,.0f}) |")
    memory = cache["memory"]
    lines += [
        "",
        f"A scene of that cache ({cache['mean_agents']} agents on average) takes "
        f"{cache['bytes_per_scene'] / 1000:.1f} kB. From the second look on, while {memory['samples']:,} samples went "
        f"by, the process grew by {memory['grown_mb']} MB.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--womd", type=Path, help="folder of WOMD Scenario TFRecord files")
    parser.add_argument("--cache", type=Path, help="folder that `traj-diffusion prepare` made")
    parser.add_argument("--samples", type=int, default=100_000, help="samples for the memory (default 100000)")
    parser.add_argument("--page", action="store_true", help="only write the table")
    given = parser.parse_args()
    if not given.page:
        if given.womd is None or given.cache is None:
            parser.error("--womd and --cache say what to measure")
        torch.set_num_threads(1)
        found = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        found |= {"womd": reading(given.womd), "cache": caching(given.cache, given.samples)}
        found["busy"] = round(os.getloadavg()[2], 1)
        with atomic_path(RESULTS) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    made = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    PAGE.write_text(with_block(PAGE.read_text(encoding="utf-8"), BEGIN, END, f"\n{made}\n\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
