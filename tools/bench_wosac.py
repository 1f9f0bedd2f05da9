"""Time the WOSAC score, and print JSON.

    python -P tools/bench_wosac.py SCENES [--config NAME] [--agents 256] [--curve] [--goldens DIR] [--official]
        [--trajtok CHECKOUT --trajtok-python PYTHON]

Rollouts are the recording, vanished agents held, plus noise; times are the best of several calls on one thread after
compilation. `--agents` repeats a scene's agents a few metres aside until there are that many; `--curve` shows how time
grows with rollouts and with agents. `--official` times the official package on the same input, where
tools/official_wosac.py made its environment, and `--trajtok` the torch port in a checkout of Thinklab-SJTU/TrajTok, run
by a Python that has its needs (tools/trajtok_worker.py names them). Both run right after our own times are taken, on
the same cores. `--goldens` only cites the official times that the goldens' files hold, which were taken on another
machine with other rollouts.
"""

import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

import traj_diffusion
from traj_diffusion.datasets import read_scenes
from traj_diffusion.datasets.submissions import encode_rollouts
from traj_diffusion.datasets.womd_writer import scenario_bytes
from traj_diffusion.errors import HostError
from traj_diffusion.metrics import wosac
from traj_diffusion.metrics.wosac.configs import ROLLOUTS
from traj_diffusion.scene import Rollouts, Scene
from traj_diffusion.testing import crowded

CURVE_ROLLOUTS = (8, 16, 32, 64, 128)
CURVE_AGENTS = (1, 2, 4, 8)
"""Times as many agents as the scene simulates."""


def noisy_replay(scene: Scene, runs: int, generation: bool, seed: int = 0) -> Rollouts:
    """Return the recording with noise that grows over time."""
    rng = np.random.default_rng(seed)
    rows, agents, first = scene.sim_agents, scene.agents, 0 if generation else scene.current_index + 1
    last_seen = np.maximum.accumulate(np.where(agents.valid[rows], np.arange(scene.steps), -1), axis=1)
    last_seen = np.where(last_seen < 0, agents.valid[rows].argmax(1)[:, None], last_seen)[:, first:]
    position = np.take_along_axis(agents.position[rows], last_seen[..., None], 1)
    heading = np.take_along_axis(agents.heading[rows], last_seen, 1)
    shape = (runs, *heading.shape)
    return Rollouts(
        scene_id=scene.id,
        first_step=first,
        dt=scene.dt,
        agent_id=agents.id[rows],
        kind=agents.kind[rows],
        position=position + np.cumsum(rng.normal(0, 0.03, (*shape, 3)) * [1, 1, 0], 2),
        heading=(heading + np.cumsum(rng.normal(0, 0.003, shape), 2)).astype(np.float32),
        valid=np.ones(shape, bool),
        size=np.repeat(agents.size[rows, scene.current_index][None], runs, 0),
    )


def seconds_of(scene: Scene, rollouts: Rollouts, config: str, threads: int, repeats: int) -> dict[str, float]:
    """Return the least wall time and the least CPU time [s] of several calls."""
    walls, cpus = [], []
    for _ in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        wosac.score(scene, rollouts, config, threads)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"wall_s": round(min(walls[1:]), 4), "cpu_s": round(min(cpus[1:]), 4)}


def curve(scene: Scene, config: str, repeats: int) -> dict[str, Any]:
    """Return CPU seconds over the number of rollouts and of agents, and the power of each by least squares."""
    generation = wosac.CONFIGS[config].generation

    def points(cases: list[tuple[int, Scene, int]]) -> dict[str, Any]:
        found = []
        for value, one, runs in cases:
            seconds = seconds_of(one, noisy_replay(one, runs, generation), config, 1, repeats)["cpu_s"]
            found.append((value, seconds))
        power = np.polyfit(*np.log(np.array(found)).T, 1)[0]
        return {"cpu_s": dict(found), "power": round(float(power), 2)}

    counts = [times * len(scene.sim_agents) for times in CURVE_AGENTS]
    return {
        "scene": scene.id,
        "rollouts": points([(runs, scene, runs) for runs in CURVE_ROLLOUTS]),
        "agents": points([(count, crowded(scene, count), ROLLOUTS) for count in counts]),
    }


def trajtok_report(
    python: Path, checkout: Path, scene: Scene, rollouts: Rollouts, threads: int, repeats: int
) -> dict[str, Any]:
    """Return what TrajTok's port says of 32 rollouts, its time [s] and memory [MiB]. Raises HostError."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "scenario", Path(folder) / "rollouts"
        for file, content in zip(files, (scenario_bytes(scene), encode_rollouts(rollouts)), strict=True):
            file.write_bytes(content)
        worker = Path(__file__).with_name("trajtok_worker.py")
        command = [python, worker, checkout, *files, threads, repeats]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"TrajTok's port failed on scene {scene.id}: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def beside_trajtok(ours: wosac.WosacScore, cpu_s: float, theirs: dict[str, Any]) -> dict[str, Any]:
    """Return the port's times, how many times less CPU ours takes, and the largest difference of any field."""
    apart = {name: abs(value - ours.fields[name]) for name, value in theirs.pop("fields").items()}
    field = max(apart, key=lambda name: apart[name])
    found = {"times_less_cpu": round(theirs["cpu_s"] / cpu_s), "fields_compared": len(apart)}
    return {**theirs, **found, "largest_difference": {"field": field, "absolute": apart[field]}}


def recorded_elsewhere(folder: Path, scene: Scene, generation: bool) -> dict[str, float]:
    """Return the official package's wall times [s] that the goldens of a scene hold, by golden."""
    found = {}
    for file in sorted(folder.glob(f"{scene.id}__*.json")):
        entry = json.loads(file.read_text())
        if file.stem.endswith("scenariogen") == generation:
            seconds = entry.get("seconds_unmodified_near_idle_2_cores", entry["seconds"])
            found[file.stem] = seconds["features_wall"]
    return found


def official_tool() -> Any:
    """Return tools/official_wosac.py as a module."""
    spec = importlib.util.spec_from_file_location("official_wosac", Path(__file__).with_name("official_wosac.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@click.command(help=__doc__)
@click.argument("scenes")
@click.option("--config", type=click.Choice(list(wosac.CONFIGS)), default="sim_agents_2025")
@click.option("--rollouts", "runs", default=32)
@click.option("--agents", default=0, help="Repeat agents until there are this many.")
@click.option("--threads", default=1)
@click.option("--repeats", default=3)
@click.option("--goldens", type=click.Path(exists=True, path_type=Path))
@click.option("--official", is_flag=True, help="Time the official package too.")
@click.option("--curve", "with_curve", is_flag=True, help="Time the first scene with more rollouts and agents.")
@click.option(
    "--trajtok", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Time this checkout too."
)
@click.option("--trajtok-python", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(
    scenes: str,
    config: str,
    runs: int,
    agents: int,
    threads: int,
    repeats: int,
    goldens: Path | None,
    official: bool,
    with_curve: bool,
    trajtok: Path | None,
    trajtok_python: Path | None,
) -> None:
    """Print one JSON object."""
    if (trajtok is None) != (trajtok_python is None):
        raise click.UsageError("--trajtok and --trajtok-python go together")
    if trajtok is not None and (config != "sim_agents_2025" or runs != ROLLOUTS):
        raise click.UsageError(f"TrajTok's port is asked for sim_agents_2025 with {ROLLOUTS} rollouts only")
    generation = wosac.CONFIGS[config].generation
    rows: list[dict[str, Any]] = []
    curves = []
    for recorded in read_scenes(scenes):
        scene = crowded(recorded, agents) if agents else recorded
        rollouts = noisy_replay(scene, runs, generation)
        scored = wosac.score(scene, rollouts, config)
        row: dict[str, Any] = {
            "scene": scene.id,
            "sim_agents": len(scene.sim_agents),
            "evaluated": len(scored.agent_id),
            **seconds_of(scene, rollouts, config, threads, repeats),
        }
        if goldens and not agents:
            row["official_wall_s_recorded_elsewhere"] = recorded_elsewhere(goldens, scene, generation)
        if official:
            report = official_tool().compare(scene, rollouts, config)
            kept = ("wall_s", "cpu_s", "times_less_cpu", "largest_difference", "official_peak_mib")
            row["official"] = {name: report[name] for name in kept}
        if trajtok and trajtok_python:
            theirs = trajtok_report(trajtok_python, trajtok, scene, rollouts, threads, repeats=1)
            row["trajtok"] = beside_trajtok(scored, row["cpu_s"], theirs)
        if with_curve and not rows:
            curves.append(curve(scene, config, repeats))
        rows.append(row)
    report = {
        "version": traj_diffusion.__version__,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "config": config,
        "rollouts": runs,
        "threads": threads,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "scenes": rows,
        "curves": curves,
        "median_times_less_cpu": {
            peer: statistics.median(row[peer]["times_less_cpu"] for row in rows)
            for peer in ("official", "trajtok")
            if rows and peer in rows[0]
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
