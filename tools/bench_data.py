"""How fast raw WOMD records become scenes, on one core: python tools/bench_data.py FOLDER

Prints JSON. A pass reads every record of the folder's files: framing, checksums, decoding, lights, lane links, checks.
The figure is the median of five warm passes, by the clock and by the processor time that this process had; the second
means more on a busy machine. Where protobuf is installed, its parser and Python loops are timed in the same run.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from traj_diffusion.datasets.readers import womd
from traj_diffusion.datasets.sources import list_sources
from traj_diffusion.datasets.tfrecord import read_records
from traj_diffusion.testing.womd_reference import reference_scene, scenario_class

PASSES = 5


def measure(one_pass: Callable[[], int]) -> dict[str, float]:
    """Return scenes per second of the median pass; the first pass warms up and does not count."""
    one_pass()
    clock, processor = [], []
    for _ in range(PASSES):
        wall, cpu = time.perf_counter(), time.process_time()
        scenes = one_pass()
        clock.append(scenes / (time.perf_counter() - wall))
        processor.append(scenes / (time.process_time() - cpu))
    return {
        "scenes_per_s": round(statistics.median(clock), 1),
        "scenes_per_cpu_s": round(statistics.median(processor), 1),
    }


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of WOMD Scenario TFRecord files")
    files = [entry.file for entry in list_sources(parser.parse_args().folder)]
    sizes = [len(record) for file in files for record in read_records(file)]
    result = {
        "scenes": len(sizes),
        "mean_record_bytes": round(statistics.mean(sizes)),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "reader": measure(lambda: sum(1 for file in files for _ in womd.read(file))),
        "framing_and_checksums_alone": measure(lambda: sum(1 for file in files for _ in read_records(file))),
    }
    if find_spec("google.protobuf"):
        scenario = scenario_class()

        def reference() -> int:
            return sum(1 for file in files for record in read_records(file) if reference_scene(record, scenario))

        result["protobuf_and_python_loops"] = measure(reference)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
