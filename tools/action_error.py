"""How well actions describe recorded motion, as JSON: encode each agent's future as actions, decode, and compare.

Usage: python -P tools/action_error.py SCENES [SCENES ...]
The error is what no model in this action space can get below.
"""

import argparse
import json
from dataclasses import replace

import numpy as np

from traj_diffusion.datasets import read_scenes
from traj_diffusion.datasets.cache import CacheShape, pack
from traj_diffusion.kinematics import decode
from traj_diffusion.scene import AgentKind
from traj_diffusion.training import TrainConfig
from traj_diffusion.training.batch import STANDING, make_batch


def main() -> None:
    """Print mean and tail of the error by kind, of agents that move."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="+")
    found: dict[str, list[np.ndarray]] = {}
    config, shape = replace(TrainConfig(), drop_history=0.0), CacheShape(agents=300, pieces=1, lights=1)
    count = 0
    for source in parser.parse_args().scenes:
        for scene in read_scenes(source):
            if scene.current_index != 10 or scene.steps < 91:
                continue
            count += 1
            batch = make_batch({name: array[None] for name, array in pack(scene, shape).items()}, config, None)
            c = batch.conditioning
            motion = decode(batch.action, c.speed, c.kind, c.size[..., 0])
            error = (motion.position - batch.position).norm(dim=-1)
            moves = (batch.position.norm(dim=-1) * batch.valid).amax(-1) > STANDING
            for kind in AgentKind:
                chosen = batch.valid & ((c.kind == kind) & moves)[..., None]
                found.setdefault(kind.name.lower(), []).append(error[chosen].numpy())
    errors = {kind: np.concatenate(parts) for kind, parts in found.items()}
    rows = {
        kind: {
            "steps": len(error),
            "mean_m": round(float(error.mean()), 4),
            "p95_m": round(float(np.quantile(error, 0.95)), 4),
            "p99_m": round(float(np.quantile(error, 0.99)), 4),
        }
        for kind, error in errors.items()
        if len(error)
    }
    print(json.dumps({"scenes": count, "error": rows}, indent=1))


if __name__ == "__main__":
    main()
