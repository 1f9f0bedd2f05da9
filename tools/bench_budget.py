"""Measure how steps keep a latency budget, and put the table into docs/adapter.md.

python -P tools/bench_budget.py [--policy small] [--agents 20] [--futures 8] [--ticks 100] [--budgets 400 200 100]
    [--replan-every 5] [--out docs/figures/budget.json]

An obedient host drives a bundled scene in real time, as far as it can; each budget has an episode of its own, the first
one has none. What else runs on the machine runs here too: the load is noted.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from traj_diffusion.datasets import read_scenes
from traj_diffusion.policies import DiffusionPolicy, load_model
from traj_diffusion.scene import Observation, Scene, atomic_path
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.testing.host_contract import obey

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure, write the JSON, and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="small")
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--futures", type=int, default=8)
    parser.add_argument("--ticks", type=int, default=100)
    parser.add_argument("--budgets", type=float, nargs="+", default=[400.0, 200.0, 100.0])
    parser.add_argument("--replan-every", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "budget.json")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    policy = load_model(asked.policy)
    scene = min(read_scenes("bundled"), key=lambda one: abs(len(one.sim_agents) - asked.agents))
    rows = [episode(scene, policy, budget, asked) for budget in (None, *asked.budgets)]
    result = {
        "policy": policy.name,
        "steps": policy.steps,
        "agents": len(scene.sim_agents),
        "futures": asked.futures,
        "ticks": asked.ticks,
        "threads": asked.threads,
        "load": round(os.getloadavg()[0], 1),
        "rows": rows,
    }
    with atomic_path(asked.out) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    subprocess.run([sys.executable, "-P", str(ROOT / "tools" / "adapter_page.py")], check=True)


def episode(scene: Scene, policy: DiffusionPolicy, budget: float | None, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the latencies of steps that planned or tried to, and what was left out."""
    traffic = TrafficModel(policy, futures=asked.futures, replan_every=asked.replan_every, budget_ms=budget)
    seen = Observation.from_scene(scene)
    traffic.reset(scene, seen)
    took, warnings, began = [], [], time.perf_counter()
    for tick in range(asked.ticks):
        time.sleep(max(began + tick * traffic.dt - time.perf_counter(), 0.0))
        step = traffic.step(seen)
        if step.replanned or step.warnings:
            took.append(step.latency_ms)
        warnings += step.warnings
        seen = obey(seen, step)
    p50, p95, p99 = (round(float(value), 1) for value in np.percentile(took, (50, 95, 99)))
    return {
        "budget_ms": budget,
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "longest": round(max(took), 1),
        "late": 0 if budget is None else sum(one > budget for one in took),
        "less": sum("planned with" in one for one in warnings),
        "none": sum("the last plan goes on" in one for one in warnings),
        "behind": sum("follows a plan of" in one for one in warnings),
    }


if __name__ == "__main__":
    main()
