"""Make the bundled scenes again, bit for bit: python -P tools/make_bundled_scenes.py [FOLDER]

Seed 9000 is held out: nothing is trained on its networks.
"""

import sys
from pathlib import Path

from traj_diffusion.datasets.synthesis import SCENES_PER_NETWORK, synthesize
from traj_diffusion.scene import save_scene

SEED, MIX = 9000, 1
SCENES = ((3, 3), (4, 1), (8, 2), (9, 0), (12, 1), (13, 5))  # network, window


def main(folder: Path) -> None:
    """Write each scene as `<id>.scene.npz`."""
    for network, window in SCENES:
        (scene,) = synthesize(SEED, network * SCENES_PER_NETWORK + window, 1, mix=MIX)
        path = save_scene(scene, folder / f"{scene.id}.scene.npz")
        print(f"{path}: {len(scene.sim_agents)} agents, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "datasets" / "bundled")
