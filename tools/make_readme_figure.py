"""Make the picture at the top of the README: the bundled model on a bundled scene.

python tools/make_readme_figure.py [--policy small] [--scene ID] [--out docs/figures/rollout.png]
"""

import argparse
from pathlib import Path

import traj_diffusion as td

ROOT = Path(__file__).resolve().parents[1]
SCENE = "sumo-9000-9-0"


def main() -> None:
    """Roll the scene out once and draw the futures first sampled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="small")
    parser.add_argument("--scene", default=SCENE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "rollout.png")
    options = parser.parse_args()
    scene = next(scene for scene in td.read_scenes("bundled") if scene.id == options.scene)
    rollouts = td.rollout(scene, td.load_policy(options.policy), rollouts=1, futures=8, seed=options.seed)
    print(td.save_picture(options.out, scene, rollouts, size=(1600, 900)))


if __name__ == "__main__":
    main()
