"""Show traffic 10,000 mutated observations: each works, or is refused in one line and has changed nothing.

python -P tools/fuzz_observations.py [--count 10000] [--seed 0] [--out docs/figures/fuzz_observations.json]

The result goes into docs/adapter.md. Exits 1 on any other end.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import atomic_path
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.testing import crossing
from traj_diffusion.testing.observations import begun, outcome

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run the fuzzer as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "fuzz_observations.json")
    asked = parser.parse_args()
    scene, ends, failures = crossing(), Counter({"worked": 0, "refused": 0}), []
    base = TrafficModel(ConstantVelocity(), futures=2, commit="consistent")
    good = begun(base, scene)
    for number in range(asked.count):
        try:
            ends[outcome(scene, base, good, np.random.default_rng([asked.seed, number]))] += 1
        except Exception as error:
            failures.append(f"number {number}: {type(error).__name__}: {error}")
    result = {"seed": asked.seed, "count": asked.count, "ends": dict(ends), "failures": failures}
    with atomic_path(asked.out) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    subprocess.run([sys.executable, "-P", str(ROOT / "tools" / "adapter_page.py")], check=True)
    print(json.dumps(result, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
