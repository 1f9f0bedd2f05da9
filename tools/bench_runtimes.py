"""Measure torch, onnxruntime and OpenVINO against each other, and put the table into docs/adapter.md.

python -P tools/bench_runtimes.py [MODEL] [--exported FOLDER] [--agents 20] [--futures 8] [--repeats 20]
    [--out docs/figures/runtimes.json]

Needs the extras `onnx` and `openvino`; a runtime that is not installed is left out. One denoising step and one whole
plan on a bundled scene, in one thread and in two. Runtimes take turns, so that what else runs on the machine slows all
of them alike; its load is noted. The least of the repeats is reported, as CPU time and as time on the clock.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from traj_diffusion.datasets import read_scenes
from traj_diffusion.policies import DiffusionPolicy, load_model
from traj_diffusion.policies.export import export_model
from traj_diffusion.policies.runtime import RUNTIMES, RuntimeModel
from traj_diffusion.scene import Observation, PlanRequest, Scene, atomic_path
from traj_diffusion.sim_adapter.history import world_state

ROOT = Path(__file__).resolve().parents[1]
THREADS = (1, 2)


def main() -> None:
    """Measure, write the JSON, and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--exported", type=Path, help="what `traj-diffusion export` wrote; exported here otherwise")
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--futures", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "runtimes.json")
    asked = parser.parse_args()
    policy = load_model(asked.model) if asked.model else load_model()
    scene = min(read_scenes("bundled"), key=lambda one: abs(len(one.sim_agents) - asked.agents))
    with tempfile.TemporaryDirectory() as folder:
        exported = asked.exported or export_model(policy.model, policy.name, Path(folder))
        rows = [row for threads in THREADS for row in measure(policy, exported, scene, threads, asked)]
    result = {
        "policy": policy.name,
        "steps": policy.steps,
        "agents": len(scene.sim_agents),
        "futures": asked.futures,
        "repeats": asked.repeats,
        "load": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "rows": rows,
    }
    with atomic_path(asked.out) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    subprocess.run([sys.executable, "-P", str(ROOT / "tools" / "adapter_page.py")], check=True)


def measure(
    policy: DiffusionPolicy, exported: Path, scene: Scene, threads: int, asked: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return a row for each runtime: the least time of a step and of a plan, and how far its steps are from torch's."""
    torch.set_num_threads(threads)
    policies = {"torch": policy}
    for name, package in RUNTIMES.items():
        if find_spec(package) is not None:
            model: Any = RuntimeModel(exported, name, threads)
            policies[name] = DiffusionPolicy(model, name, policy.steps)
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    predictions = {}
    for name, one in policies.items():
        request = request_of(scene, one, asked.futures)
        c = one.condition(request)
        prepared = one.model.encode(c, request.context.tensors, request.context.tokens)
        noise = one._noise(request)[0].transpose(0, 1)[None]
        level = torch.full(noise.shape[:3], 0.5)
        calls[name, "step"] = lambda one=one, x=noise, t=level, scene=prepared: one.model(x, t, scene)
        calls[name, "plan"] = lambda one=one, request=request: one.plan(request)
        predictions[name] = calls[name, "step"]()
    cpu: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    wall: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(asked.repeats):
        for key, call in calls.items():
            began, spent = time.perf_counter(), time.process_time()
            call()
            wall[key].append(1e3 * (time.perf_counter() - began))
            cpu[key].append(1e3 * (time.process_time() - spent))
    return [
        {
            "runtime": name,
            "threads": threads,
            **{f"{what}_cpu_ms": round(min(cpu[name, what]), 2) for what in ("step", "plan")},
            **{f"{what}_ms": round(min(wall[name, what]), 2) for what in ("step", "plan")},
            "off": float((predictions[name] - predictions["torch"]).abs().max()),
        }
        for name in policies
    ]


def request_of(scene: Scene, policy: DiffusionPolicy, futures: int) -> PlanRequest:
    """Return what a policy is asked at a scene's current index."""
    seen = tuple(Observation.from_scene(scene, index) for index in range(scene.current_index + 1))
    state = world_state(seen, policy.history_steps)
    return PlanRequest(policy.encode(scene.history_only()), state, futures, 0, 0, np.zeros(1, np.int32))


if __name__ == "__main__":
    with torch.no_grad():
        main()
