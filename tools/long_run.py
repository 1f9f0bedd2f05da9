"""Drive a minute of traffic that enters and leaves at the border, beside SUMO's own drivers; figure and table.

python -P tools/long_run.py [--policy small] [--seconds 60] [--period 2.5] [--commit sample] [--futures 1] [--seed 0]
    [--out docs/figures/long_run.json]

A grid of nine crossings is filled by trips from border to border, one every `--period` seconds, after 30 s of SUMO's
own driving. Once a second are measured: vehicles, their mean speed, density, and the shares that overlap somebody, are
off the road, or stand though nobody is within 30 m ahead of them and no red or yellow light within 60 m. The figure is
drawn beside the JSON, the table goes into docs/adapter.md. Needs the extra [sumo].
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from traj_diffusion.datasets.synthesis.network import read_network
from traj_diffusion.datasets.synthesis.roadmap import build_map, drivable_area
from traj_diffusion.datasets.synthesis.tools import require_libsumo, sumo_home
from traj_diffusion.metrics.collisions import overlaps
from traj_diffusion.metrics.offroad import edge_distance
from traj_diffusion.policies import load_policy
from traj_diffusion.scene import AgentKind, Observation, atomic_path
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.sim_adapter.commit import Ground
from traj_diffusion.sim_adapter.hosts.sumo import SumoTraffic

ROOT = Path(__file__).resolve().parents[1]
DT = 0.1
WARM_UP = 30.0
GRID = "--grid --grid.number 3 --grid.length 110 --grid.attach-length 90 --default-junction-type traffic_light"
SHOWN = {
    "vehicles": "vehicles",
    "speed": "mean speed, m/s",
    "density": "vehicles per km",
    "colliding": "share that overlaps somebody",
    "offroad": "share off the road",
    "idle": "share that stands with a free way",
}
STANDS, ALONE, LIGHT = 0.5, 30.0, 60.0  # m/s, m, m


def main() -> None:
    """Run both drivers, write the JSON, the figure and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="small")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--period", type=float, default=2.5)
    parser.add_argument("--commit", default="sample")
    parser.add_argument("--futures", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "long_run.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="traj-diffusion-") as folder:
        net, trips = town(Path(folder), asked)
        drivers = {name: run(net, trips, name == asked.policy, asked) for name in (asked.policy, "SUMO")}
    result = {
        "policy": asked.policy,
        "seconds": asked.seconds,
        "commit": asked.commit,
        "futures": asked.futures,
        "seed": asked.seed,
        "networks": 1,
        "drivers": {name: {"thirds": thirds(series), **series} for name, series in drivers.items()},
    }
    with atomic_path(asked.out) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(result, asked.out.with_suffix(".png"))
    subprocess.run([sys.executable, "-P", str(ROOT / "tools" / "adapter_page.py")], check=True)


def town(folder: Path, asked: argparse.Namespace) -> tuple[Path, Path]:
    """Return a network, and trips that enter and leave at its border."""
    net, trips = folder / "town.net.xml", folder / "town.rou.xml"
    environment = os.environ | {"SUMO_HOME": str(sumo_home())}
    program = str(sumo_home() / "bin" / "netgenerate")
    subprocess.run([program, *GRID.split(), "-o", str(net)], check=True, capture_output=True, env=environment)
    network = read_network(net)
    edges, border = network.ends, network.dead_ends
    ins = sorted(edge for edge, pair in edges.items() if pair[0] in border)
    outs = sorted(edge for edge, pair in edges.items() if pair[1] in border)
    rng = np.random.default_rng(asked.seed)
    lines = []
    for number in range(int((WARM_UP + asked.seconds) / asked.period)):
        begin = str(rng.choice(ins))
        end = str(rng.choice([edge for edge in outs if edges[edge][1] != edges[begin][0]]))
        lines.append(
            f'<trip id="car{number}" depart="{number * asked.period:.1f}" from="{begin}" to="{end}" departSpeed="max"/>'
        )
    trips.write_text("<routes>" + "".join(lines) + "</routes>", encoding="utf-8")
    return net, trips


def run(net: Path, trips: Path, driven: bool, asked: argparse.Namespace) -> dict[str, list[float]]:
    """Return what was measured once a second, with everyone driven by the policy or nobody."""
    sumo, network = require_libsumo(), read_network(net)
    ground = Ground(build_map(network, drivable_area(network)).features)
    km = sum(network.lanes[lanes[0]].length for edge, lanes in network.edges.items() if edge in network.ends) / 1000
    quiet = "--no-step-log true --no-warnings true --collision.action none --time-to-teleport -1"
    sumo.start(["sumo", "-n", str(net), "-r", str(trips), "--step-length", str(DT), *quiet.split()])
    series: dict[str, list[float]] = {name: [] for name in SHOWN}
    try:
        sumo.simulationStep(WARM_UP)
        traffic = TrafficModel(
            load_policy(asked.policy), futures=asked.futures, seed=asked.seed, dt=DT, commit=asked.commit
        )
        with SumoTraffic(traffic, sumo, net, vehicles=lambda name: driven) as host:
            for tick in range(round(asked.seconds / DT)):
                host.step()
                if tick % round(1 / DT) == 0:
                    for name, value in (measured(host.observe(), ground, km) | {"idle": idle(sumo)}).items():
                        series[name].append(value)
    finally:
        sumo.close()
    return series


def measured(seen: Observation, ground: Ground, km: float) -> dict[str, float]:
    """Return the figures of one moment."""
    count = len(seen)
    if not count:
        return dict.fromkeys(SHOWN, 0.0)
    there = np.ones((1, count, 1), bool)
    heading, size = seen.heading.astype(np.float64)[None, :, None], seen.size.astype(np.float64)
    hit = overlaps(seen.position[None, :, None, :2], heading, size[None, :, :2], there)[1][0]
    cars = there & (seen.kind == AgentKind.VEHICLE)[None, :, None]
    off = edge_distance(seen.position[None, :, None] - ground.origin, heading, size[None, :, None], cars, ground.edges)
    return {
        "vehicles": float(count),
        "speed": round(float(np.linalg.norm(seen.velocity, axis=-1).mean()), 3),
        "density": round(count / km, 3),
        "colliding": round(float(hit.any(-1).mean()), 4),
        "offroad": round(float((off[0, :, 0] > 0).mean()), 4),
    }


def idle(sumo: Any) -> float:
    """Return the share of vehicles that stand though, for all that SUMO knows of their way, they could go."""
    names = sumo.vehicle.getIDList()
    return round(sum(_could_go(sumo, name) for name in names) / max(len(names), 1), 4)


def _could_go(sumo: Any, name: str) -> bool:
    if sumo.vehicle.getSpeed(name) >= STANDS:
        return False
    leader = sumo.vehicle.getLeader(name, ALONE)
    if leader is not None and leader[0]:
        return False
    return all(away > LIGHT or state in "gG" for _, _, away, state in sumo.vehicle.getNextTLS(name)[:1])


def thirds(series: dict[str, list[float]]) -> list[dict[str, float]]:
    """Return the means over the first, the second and the last third."""
    length = len(series["vehicles"])
    cuts = [round(length * part / 3) for part in range(4)]
    return [
        {"from": a, "to": b, **{name: round(float(np.mean(values[a:b])), 4) for name, values in series.items()}}
        for a, b in pairwise(cuts)
    ]


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw each figure over time, one line per driver."""
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(3.0 * len(SHOWN), 2.6), layout="constrained")
    for axis, (name, label) in zip(axes, SHOWN.items(), strict=True):
        for driver, series in result["drivers"].items():
            axis.plot(series[name], label=driver)
        axis.set_title(label, fontsize=9)
        axis.set_xlabel("s")
        axis.set_ylim(bottom=0)
    axes[0].legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90, format="png")
    plt.close(figure)


if __name__ == "__main__":
    main()
