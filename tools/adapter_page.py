"""Put the measured figures of docs/figures into docs/adapter.md, between its markers.

python -P tools/adapter_page.py [--check]

Benches write JSON and call this: tools/bench_streaming.py, tools/bench_budget.py, tools/bench_runtimes.py,
tools/fuzz_observations.py, tools/long_run.py, tools/bench_hosts.py --endurance and --speed,
docs/examples/ppo_ego.py (by hand).
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from traj_diffusion.evaluation.pages import with_block

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "adapter.md"
FIGURES = ROOT / "docs" / "figures"


def main() -> None:
    """Rewrite the page, or with --check end with 1 where it is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    old = new = PAGE.read_text(encoding="utf-8")
    for name, block in BLOCKS.items():
        path = FIGURES / f"{name}.json"
        begin, end = f"<!-- {name}: made by tools/adapter_page.py -->\n", f"<!-- end of {name} -->"
        text = block(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else "Not measured yet.\n"
        new = with_block(new, begin, end, f"\n{text}\n")
    if asked.check and new != old:
        sys.exit("docs/adapter.md: its figures are not those of docs/figures; run tools/adapter_page.py")
    if not asked.check:
        PAGE.write_text(new, encoding="utf-8")


def streaming(found: dict[str, Any]) -> str:
    """Return the table of denoising steps and starts."""
    rows = found["summary"]
    if not rows:
        return "Not measured yet.\n"
    lines = [
        f"`{found['policy']}` on {rows[0]['scenes']} held-out simulated scenes, {found['rollouts']} closed-loop runs "
        "of 8 s each, a new plan every 0.5 s. Spread: how far apart the 8 futures of one plan are after 8 s. Bold: the "
        f"cheapest within {found['within']:.0%} of the best minADE and {found['collides']:.3f} of the lowest collision "
        "rate. A plan that starts at t = 0.5 takes half the steps.",
        "",
        "| steps | next plans start at | minADE, m | collision rate | jerk at the seam, m/s³ | spread, m | CPU, ms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        start = "noise" if row["start"] is None else f"the last plan, t = {row['start']:g}"
        bold = "**" if row["chosen"] else ""
        lines.append(
            f"| {bold}{row['steps']}{bold} | {bold}{start}{bold} | {row['min_ade']:.3f} | "
            f"{row['collision_rate']:.3f} | {row['seam_jerk']:.1f} | {row['spread']:.2f} | {row['cpu_ms']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def budget(found: dict[str, Any]) -> str:
    """Return the table of latencies under budgets."""
    lines = [
        f"`{found['policy']}`, {found['agents']} agents, {found['futures']} futures, {found['steps']} steps, "
        f"{found['ticks']} ticks of 0.1 s on {found['threads']} thread(s); load of the machine {found['load']:.1f}.",
        "",
        "| budget, ms | p50 | p95 | p99 | longest | late | plans with less | the last plan went on | followed late |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        limit = "none" if row["budget_ms"] is None else f"{row['budget_ms']:g}"
        times = " | ".join(f"{row[name]:.0f}" for name in ("p50", "p95", "p99", "longest"))
        lines.append(f"| {limit} | {times} | {row['late']} | {row['less']} | {row['none']} | {row['behind']} |")
    return "\n".join(lines) + "\n"


def fuzz_observations(found: dict[str, Any]) -> str:
    """Return what came of the mutated observations."""
    ends = found["ends"]
    return (
        f"Of {found['count']:,} mutated observations (seed {found['seed']}) {ends['worked']:,} worked, "
        f"{ends['refused']:,} were refused in one line and had changed nothing, {len(found['failures'])} ended "
        "otherwise.\n"
    )


def long_run(found: dict[str, Any]) -> str:
    """Return the table of one minute of traffic, by thirds."""
    drivers = found["drivers"]
    lines = [
        f"{found['seconds']:g} s on {found['networks']} random town(s), vehicles entering and leaving at the border; "
        f"driven by `{found['policy']}` and by SUMO itself.",
        "",
        "![vehicles, speed, density, collision, off-road and standing over time](figures/long_run.png)",
        "",
        "| driver | seconds | vehicles | speed, m/s | colliding | off the road | standing with a free way |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for driver, series in drivers.items():
        for row in series["thirds"]:
            lines.append(
                f"| {driver} | {row['from']:g} to {row['to']:g} | {row['vehicles']:.1f} | {row['speed']:.2f} | "
                f"{row['colliding']:.3f} | {row['offroad']:.3f} | {row['idle']:.3f} |"
            )
    return "\n".join(lines) + "\n"


def endurance(found: dict[str, Any]) -> str:
    """Return what ten minutes of SUMO traffic did to the process."""
    memory = found["memory_mib_each_minute"]
    return (
        f"{found['simulated_seconds'] / 60:g} minutes of {found['host']}, nine signalled crossings: "
        f"{found['driven']:g} vehicles and pedestrians driven by "
        f"`{found['policy']}` with "
        f"{found['futures']} futures, {found['others']} vehicles SUMO's own.\n\n"
        "| teleports | warnings | memory after the first minutes, MiB | at the end, MiB | most, MiB |\n"
        "| --- | --- | --- | --- | --- |\n"
        f"| {found['teleports']} | {found['warnings']} | {memory[min(1, len(memory) - 1)]:g} | {memory[-1]:g} | "
        f"{max(memory):g} |\n"
    )


def speed(found: dict[str, Any]) -> str:
    """Return where the time of SUMO's ticks goes."""
    names = {
        "policy": "the policy's plans",
        "sumo_steps": "SUMO's steps",
        "sumo_moves": "SUMO's search for the lanes on which vehicles are put",
        "traffic_model": "the traffic model around the plans",
        "host_translation": "translation from and to SUMO",
    }
    fewer = found["with_fewer_steps"]
    lines = [
        f"{found['host']}, {found['driven']:g} vehicles driven by `{found['policy']}` with {found['futures']} futures, "
        f"a new plan every 0.5 s, {found['simulated_seconds']:g} s on {found['cores']} cores at load "
        f"{found['load']:.1f}: {found['times_real_time']:.2f} times real time, and "
        f"{found['times_real_time_by_cpu']:.2f} times by CPU time. The adapter's own share, the last two rows, is "
        f"{found['adapter_share_by_cpu']:.1%} of the CPU time. With {fewer['steps']} denoising steps "
        f"(`load_model(..., steps={fewer['steps']})`) it is {fewer['times_real_time']:.2f} times real time, and "
        f"{fewer['times_real_time_by_cpu']:.2f} by CPU time.",
        "",
        "| of a tick of 0.1 s | CPU, ms | on the clock, ms |",
        "| --- | --- | --- |",
    ]
    for name, told in names.items():
        lines.append(f"| {told} | {found['cpu_ms_per_tick'][name]:.2f} | {found['ms_per_tick'][name]:.2f} |")
    return "\n".join(lines) + "\n"


def ppo_ego(found: dict[str, Any]) -> str:
    """Return how the reward rose."""
    return (
        f"Among `{found['traffic']}`, {found['steps']:,} steps of 0.1 s, {found['episodes']} episodes of up to 5 s on "
        "the bundled scenes.\n\n"
        "| episodes | 1st fifth | 2nd | 3rd | 4th | last fifth |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        f"| mean reward | {' | '.join(f'{mean:.1f}' for mean in found['fifths'])} |\n"
    )


def runtimes(found: dict[str, Any]) -> str:
    """Return the table of runtimes."""
    lines = [
        f"`{found['policy']}`, {found['agents']} agents, {found['futures']} futures, {found['steps']} steps; the least "
        f"of {found['repeats']} repeats in turns on {found['cores']} cores at a load of {found['load']:.1f}. CPU "
        "time is the fairer one on a busy machine. Off: the largest difference to torch's prediction, in normalised "
        "actions.",
        "",
        "| runtime | threads | step: CPU, ms | on the clock, ms | plan: CPU, ms | on the clock, ms | off |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        times = " | ".join(f"{row[name]:.1f}" for name in ("step_cpu_ms", "step_ms", "plan_cpu_ms", "plan_ms"))
        lines.append(f"| {row['runtime']} | {row['threads']} | {times} | {row['off']:.1e} |")
    return "\n".join(lines) + "\n"


BLOCKS: dict[str, Callable[[dict[str, Any]], str]] = {
    "streaming": streaming,
    "budget": budget,
    "runtimes": runtimes,
    "fuzz_observations": fuzz_observations,
    "long_run": long_run,
    "endurance": endurance,
    "speed": speed,
    "ppo_ego": ppo_ego,
}

if __name__ == "__main__":
    main()
