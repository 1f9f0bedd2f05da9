"""Throw broken files at a reader: python tools/fuzz_readers.py --count 10000 --seed 0 womd

Every file must end in valid scenes or in one typed error, within 5 s and 2 GB. Prints JSON; exits 1 on any other end.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from traj_diffusion.testing.fuzzing import READERS, fuzz_once

WARM_UP = 100  # files in which compiled readers still compile


def main() -> int:
    """Run the fuzzer as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reader", choices=sorted(READERS))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ends: Counter[str] = Counter()
    failures, slowest = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        resource.setrlimit(resource.RLIMIT_DATA, (2 * 2**30, 2 * 2**30))
        for number in range(options.count):
            start = time.perf_counter()
            try:
                ends[fuzz_once(options.reader, options.seed, number, Path(folder))] += 1
            except Exception as error:
                failures.append(f"number {number}: {type(error).__name__}: {error}")
            if number >= WARM_UP:
                slowest = max(slowest, time.perf_counter() - start)
    if slowest > 5:
        failures.append(f"the slowest file took {slowest:.1f} s")
    print(json.dumps({"reader": options.reader, "ends": ends, "slowest_s": slowest, "failures": failures}, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
