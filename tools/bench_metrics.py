"""Time each family of metrics, and print JSON. CPU time bears a busy machine, wall time does not.

    python -P tools/bench_metrics.py SCENES [--rollouts 32] [--repeats 3]

Rollouts are the recording with noise of 1 m. Times are the least of several calls on one thread, after compilation.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import click

import traj_diffusion
from traj_diffusion.datasets import read_scenes
from traj_diffusion.evaluation.log_baselines import NOISE, log_rollouts
from traj_diffusion.metrics import displacement, diversity, match, multimodality, route_modes, wosac
from traj_diffusion.metrics.collisions import collisions
from traj_diffusion.metrics.feasibility import infeasibility
from traj_diffusion.metrics.offroad import offroad
from traj_diffusion.metrics.signals import red_lights
from traj_diffusion.metrics.wrong_way import wrong_way

FAMILIES: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        displacement,
        diversity,
        multimodality,
        route_modes,
        collisions,
        offroad,
        red_lights,
        wrong_way,
        infeasibility,
    )
}


def least_cpu(work: Callable[[], Any], repeats: int) -> float:
    """Return the least process CPU time [s] of several calls; the first one compiles and does not count."""
    times = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return round(min(times[1:]), 4)


@click.command(help=__doc__)
@click.argument("scenes")
@click.option("--rollouts", "runs", default=32, show_default=True)
@click.option("--repeats", default=3, show_default=True)
def main(scenes: str, runs: int, repeats: int) -> None:
    """Print one JSON object."""
    rows = []
    for scene in read_scenes(scenes):
        rollouts = log_rollouts(scene, runs, NOISE)
        matched = match(scene, rollouts, steps=rollouts.valid.shape[2])
        cpu = {
            "noise": least_cpu(lambda scene=scene: log_rollouts(scene, runs, NOISE), repeats),  # type: ignore[misc]
            "match": least_cpu(lambda scene=scene, made=rollouts: match(scene, made), repeats),  # type: ignore[misc]
            "wosac": least_cpu(lambda scene=scene, made=rollouts: wosac.score(scene, made), repeats),  # type: ignore[misc]
        }
        for name, metric in FAMILIES.items():
            cpu[name] = least_cpu(lambda metric=metric, matched=matched: metric(matched), repeats)  # type: ignore[misc]
        rows.append({"scene": scene.id, "sim_agents": len(scene.sim_agents), "cpu_s": cpu})
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    report = {"version": traj_diffusion.__version__, "machine": machine, "rollouts": runs, "scenes": rows}
    click.echo(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
