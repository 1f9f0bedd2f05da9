"""Make the scenes of the benchmark simulated-1 and print the JSON that it is frozen to.

python -P tools/freeze_benchmark.py FOLDER > traj_diffusion/evaluation/simulated_1.json

Only for a benchmark that has no figures yet: another digest is another benchmark, and gets another name.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from traj_diffusion.datasets.synthesis.write import write_numbered
from traj_diffusion.evaluation.simulated import NAME, SEED, SUMO, content_digest, scene_numbers
from traj_diffusion.scene import load_scene

MIX = 1


def main(folder: Path, workers: int) -> None:
    """Print one JSON object."""
    scenes = [load_scene(path) for path in write_numbered(folder, scene_numbers(), SEED, workers, mix=MIX)]
    found = {"name": NAME, "seed": SEED, "mix": MIX, "made_with": {SUMO: version(SUMO)}}
    print(json.dumps({**found, "scenes": {scene.id: content_digest(scene) for scene in scenes}}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), workers=1)
