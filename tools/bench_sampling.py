"""How long sampling takes, as JSON: 8 joint futures of 32 agents over 8 s, from a Scene to trajectories.

Usage: python -P tools/bench_sampling.py [--policy small] [--agents 32] [--futures 8] [--repeats 7] [--threads 1 2]
Nothing else should run meanwhile. Also times its parts: the map (once per scene), and the closed loop of 8 s.
"""

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from traj_diffusion.datasets import read_scenes
from traj_diffusion.policies import load_policy
from traj_diffusion.scene import PlanRequest, Scene
from traj_diffusion.sim_adapter import rollout
from traj_diffusion.sim_adapter.worlds import Worlds


def scene_with(agents: int) -> Scene:
    """Return the bundled scene whose number of simulated agents is nearest to that."""
    return min(read_scenes("bundled"), key=lambda scene: abs(len(scene.sim_agents) - agents)).history_only()


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median wall time of some runs after one to warm up."""
    work()
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="small")
    parser.add_argument("--agents", type=int, default=32)
    parser.add_argument("--futures", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rollouts", type=int, default=6, help="of the closed loop that is timed too; 0 leaves it out")
    asked = parser.parse_args()

    scene = scene_with(asked.agents)
    rows = []
    for threads in asked.threads:
        torch.set_num_threads(threads)
        for steps in asked.steps:
            policy = load_policy(asked.policy, steps)
            worlds = Worlds.at_current_index(scene, 1, policy.history_steps)
            context = policy.encode(scene)
            request = PlanRequest(context, worlds.state, asked.futures, 0, 0, np.zeros(1, np.int32))
            row = {
                "threads": threads,
                "steps": steps,
                "encode_map_seconds": median_seconds(lambda: policy.encode(scene), asked.repeats),  # noqa: B023
                "plan_seconds": median_seconds(lambda: policy.plan(request), asked.repeats),  # noqa: B023
            }
            if asked.rollouts:
                run = lambda: rollout(scene, policy, rollouts=asked.rollouts)  # noqa: B023, E731
                row["closed_loop_8s_seconds"] = median_seconds(run, 1)
            rows.append(row)
    print(
        json.dumps(
            {
                "policy": asked.policy,
                "scene": scene.id,
                "agents": len(scene.sim_agents),
                "polylines": len(scene.map),
                "futures": asked.futures,
                "rollouts": asked.rollouts,
                "machine": platform.machine(),
                "torch": torch.__version__,
                "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "rows": rows,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
