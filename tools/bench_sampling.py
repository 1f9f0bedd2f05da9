"""How long sampling takes, and write the table of docs/model.md.

python -P tools/bench_sampling.py score [--policy small] > docs/results/speed.json
python -P tools/bench_sampling.py write docs/results/speed.json docs/model.md

Nothing else should run meanwhile. A bundled scene is filled up or cut to the number of agents that is asked for. Wall
times are medians; the curves are processor time, whose power tells how it grows.
"""

import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from traj_diffusion.datasets import read_scenes
from traj_diffusion.evaluation.pages import with_block
from traj_diffusion.model import Prepared
from traj_diffusion.policies import DiffusionPolicy, load_model
from traj_diffusion.policies.diffusion import BLOCK, single_threaded
from traj_diffusion.scene import PlanRequest, Scene
from traj_diffusion.sim_adapter import rollout
from traj_diffusion.sim_adapter.worlds import Worlds
from traj_diffusion.testing import crowded

START, END = "<!-- speed: written by tools/bench_sampling.py -->\n", "<!-- end of speed -->\n"
AGENTS, FUTURES = 32, 8
CURVE_AGENTS, CURVE_ROLLOUTS = (32, 64, 128, 256), (4, 8, 16, 32)
LOOP_AGENTS, LOOP_ROLLOUTS = 64, 32
FEWER_STEPS = 2  # that rollouts are timed with beside the default


@click.group(help=__doc__)
def main() -> None:
    """Two verbs."""


@main.command()
@click.option("--policy", "name", default="small", show_default=True)
@click.option("--repeats", type=int, default=9, show_default=True)
@click.option("--threads", type=int, multiple=True, default=(1, 2), show_default=True)
def score(name: str, repeats: int, threads: tuple[int, ...]) -> None:
    """Print the figures as JSON."""
    policy = load_model(name)
    busiest = max(read_scenes("bundled"), key=lambda scene: len(scene.sim_agents)).history_only()
    scene = crowded(busiest, AGENTS)
    pieces = policy.encode(scene).tensors.valid.shape[1]
    plans: dict[str, Any] = {}
    loops: dict[int, dict[str, float]] = {policy.steps: {}, FEWER_STEPS: {}}
    for count in threads:
        torch.set_num_threads(count)
        plans[str(count)] = plan_seconds(policy, scene, repeats)
        for steps, loop in loops.items():
            driver = load_model(name, steps=steps)
            many = partial(rollout, crowded(busiest, LOOP_AGENTS), driver, rollouts=LOOP_ROLLOUTS)
            loop[str(count)] = median_seconds(many, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.set_num_threads(1)
    by_agents = {n: plan_cpu(policy, crowded(busiest, n), 1, repeats) for n in CURVE_AGENTS}
    by_rollouts = {n: plan_cpu(policy, scene, n, repeats) for n in CURVE_ROLLOUTS}
    found = {
        "policy": name,
        "steps": policy.steps,
        "machine": {"processor": processor(), "cores": os.cpu_count(), "torch": torch.__version__},
        "scene": {"id": scene.id, "agents": AGENTS, "polylines": len(scene.map), "pieces": pieces},
        "plan_s": plans,
        "closed_loop_s": loops,
        "peak_memory_mb": round(peak / 1024),
        "cpu_s_by_agents": by_agents,
        "cpu_s_by_rollouts": by_rollouts,
        "power": {"agents": power(by_agents), "rollouts": power(by_rollouts)},
    }
    click.echo(json.dumps(found, indent=1))


@main.command()
@click.argument("figures", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(exists=True, path_type=Path))
def write(figures: Path, target: Path) -> None:
    """Write the table into the page."""
    text = block(json.loads(figures.read_text(encoding="utf-8")))
    target.write_text(with_block(target.read_text(encoding="utf-8"), START, END, text), encoding="utf-8")


def plan_seconds(policy: DiffusionPolicy, scene: Scene, repeats: int) -> dict[str, float]:
    """Return wall seconds of a plan of FUTURES joint futures, from a Scene to trajectories, and of its parts."""
    worlds = Worlds.at_current_index(scene, 1, policy.history_steps)

    def request() -> PlanRequest:
        return PlanRequest(policy.encode(scene), worlds.state, FUTURES, 0, 0, np.zeros(1, np.int32))

    known = request()
    parts = {
        "from scene to trajectories": lambda: policy.plan(request()),
        "a plan, the map known": lambda: policy.plan(known),
        "the map": lambda: policy.encode(scene),
        "a denoising step": step_of(policy, known),
    }
    return {part: median_seconds(work, repeats) for part, work in parts.items()}


def step_of(policy: DiffusionPolicy, request: PlanRequest) -> Callable[[], object]:
    """Return what takes one denoising step of all FUTURES, the scene encoded, shared out as `plan` shares it out."""
    c = policy.condition(request)
    model = policy.model
    with torch.no_grad():
        encoded = model.encode(c, request.context.tensors, request.context.tokens)
    scenes = Prepared.stack([encoded] * BLOCK)
    x_t = torch.randn(BLOCK, c.valid.shape[1], 1, model.config.knots, 3)
    level = torch.full((BLOCK, c.valid.shape[1], 1), 0.5)

    @torch.no_grad()
    def one(_: int) -> object:
        return model(x_t, level, scenes)

    def step() -> object:
        with single_threaded() as threads, ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, range(FUTURES // BLOCK)))

    return step


def plan_cpu(policy: DiffusionPolicy, scene: Scene, rollouts: int, repeats: int) -> float:
    """Return processor seconds of one plan of one future for so many worlds."""
    worlds = Worlds.at_current_index(scene, rollouts, policy.history_steps)
    request = PlanRequest(policy.encode(scene), worlds.state, 1, 0, 0, np.arange(rollouts, dtype=np.int32))
    policy.plan(request)
    spent = []
    for _ in range(max(repeats // 3, 1)):
        began = time.process_time()
        policy.plan(request)
        spent.append(time.process_time() - began)
    return min(spent)


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median wall time of some runs; where there are several, after one to warm up."""
    if repeats > 1:
        work()
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def power(points: dict[int, float]) -> float:
    """Return by which power the cost grows, by least squares on logarithms."""
    return round(float(np.polyfit(*np.log(np.array(list(points.items()))).T, 1)[0]), 2)


def processor() -> str:
    """Return what the system calls the processor."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = info.read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def block(found: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    machine, scene = found["machine"], found["scene"]
    threads = list(found["plan_s"])
    lines = [
        f"`{found['policy']}`, {found['steps']} denoising steps, guidance on; {machine['processor']}, "
        f"{machine['cores']} cores, torch {machine['torch']}, float32. "
        f"{scene['agents']} agents, a map of {scene['polylines']} polylines in "
        f"{scene['pieces']} pieces. Peak memory {found['peak_memory_mb']} MB.",
        "",
        f"| seconds | {' | '.join(f'{n} thread' + ('s' if n != '1' else '') for n in threads)} |",
        "| --- |" + " ---: |" * len(threads),
    ]
    for part in found["plan_s"][threads[0]]:
        title = f"{part}, of {FUTURES} joint futures over 8 s" if part != "the map" else part
        cells = [f"{found['plan_s'][count][part]:.3f}" for count in threads]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    for steps, loop in found["closed_loop_s"].items():
        cells = [f"{loop[count]:.1f}" for count in threads]
        what = f"{LOOP_ROLLOUTS} closed-loop rollouts of {LOOP_AGENTS} agents over 8 s, replanned at 2 Hz"
        lines.append(f"| {what}, {steps} steps | {' | '.join(cells)} |")
    for key, what in (("agents", "agents, one world"), ("rollouts", f"worlds of {AGENTS} agents")):
        points = found[f"cpu_s_by_{key}"]
        cells = [f"{seconds:.3f}" for seconds in points.values()] + [str(found["power"][key])]
        lines += [
            "",
            f"| {what} | {' | '.join(points)} | power |",
            "| --- |" + " ---: |" * (len(points) + 1),
            f"| processor seconds of a plan | {' | '.join(cells)} |",
        ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
