"""How fast SUMO runs with driven vehicles, where the time of a tick goes, and whether the process grows: JSON.

A town of nine crossings with signals is kept at a number of vehicles; the policy drives some of them, SUMO the others.
Usage: python -P tools/bench_hosts.py [--driven 50] [--others 0] [--pedestrians 0] [--futures 8] [--seconds 30]
[--policy small] [--steps 4] [--traci] [--out FILE]. With --speed its figures go to docs/figures/speed.json and from
there into docs/adapter.md; with --endurance [--policy small] those of ten minutes of a mixed town, to endurance.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import traj_diffusion as td
from traj_diffusion.datasets.synthesis.tools import require_libsumo, sumo_home
from traj_diffusion.scene import Plan, PlanRequest, Policy, Scene
from traj_diffusion.sim_adapter.hosts.sumo import SumoTraffic

ROOT = Path(__file__).resolve().parents[1]
DT = 0.1  # s
TIMES = ("times_real_time", "times_real_time_by_cpu")
WARM_UP = 30  # ticks that no figure counts
ENDURANCE = {
    "driven": 10,
    "others": 20,
    "pedestrians": 6,
    "futures": 8,
    "seconds": 600.0,
    "out": ROOT / "docs" / "figures" / "endurance.json",
}
SPEED = {"out": ROOT / "docs" / "figures" / "speed.json"}
FEWER_STEPS = 2  # that the table of speed shows beside the default


class Clock:
    """Adds up seconds by name: on the wall, and of the processor, which a busy machine does not stretch as much."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def call(self, name: str, function: Any, *arguments: Any) -> Any:
        """Return what the function does, its time added to that name."""
        began, worked = time.perf_counter(), time.process_time()
        try:
            return function(*arguments)
        finally:
            self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - began
            self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - worked

    def clear(self) -> None:
        """Begin anew."""
        self.wall.clear()
        self.cpu.clear()


class TimedPolicy:
    """A policy whose planning is timed."""

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._policy, self._clock = policy, clock
        self.name, self.history_steps = policy.name, policy.history_steps

    def encode(self, scene: Scene) -> Any:
        """Return the policy's own context."""
        return self._policy.encode(scene)

    def plan(self, request: PlanRequest) -> Plan:
        """Return the policy's own plan."""
        plan: Plan = self._clock.call("policy", self._policy.plan, request)
        return plan


class TimedSumo:
    """A connection whose steps are timed."""

    def __init__(self, connection: Any, clock: Clock) -> None:
        self._connection, self._clock = connection, clock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._connection, name)
        setattr(self, name, found)
        return found

    def simulationStep(self) -> None:
        """Advance SUMO."""
        self._clock.call("sumo_steps", self._connection.simulationStep)


class Demand:
    """Keeps the town at its number of vehicles and pedestrians, all from one seed."""

    def __init__(self, sumo: Any, driven: int, others: int, pedestrians: int) -> None:
        self._sumo = sumo
        self._rng = np.random.default_rng(0)
        self._want = {"driven": driven, "other": others, "walker": pedestrians}
        self._count = 0
        border = ("left", "right", "top", "bottom")
        edges = [edge for edge in sumo.edge.getIDList() if not edge.startswith(":")]
        self._in = sorted(edge for edge in edges if edge.startswith(border))
        self._out = sorted(edge for edge in edges if not edge.startswith(border))

    def fill(self) -> None:
        """Add whoever is missing."""
        there = [
            *self._sumo.vehicle.getIDList(),
            *self._sumo.person.getIDList(),
            *self._sumo.simulation.getPendingVehicles(),
        ]
        for role, wanted in self._want.items():
            for _ in range(wanted - sum(name.startswith(role) for name in there)):
                self._add(role)

    def _add(self, role: str) -> None:
        self._count += 1
        name = f"{role}{self._count}"
        start, end = self._rng.choice(self._in), self._rng.choice(self._out)
        if role == "walker":
            self._sumo.person.add(name, start, 10.0)
            stage = self._sumo.simulation.findIntermodalRoute(start, end)[0]
            self._sumo.person.appendWalkingStage(name, stage.edges, -1)
            return
        kind = "DEFAULT_BIKETYPE" if self._rng.random() < 0.1 else "DEFAULT_VEHTYPE"
        self._sumo.route.add(name, self._sumo.simulation.findRoute(start, end, kind).edges)
        self._sumo.vehicle.add(name, name, typeID=kind, departSpeed="5", departLane="best")


def resident_mib() -> float:
    """Return how much memory this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def start(folder: Path, through_traci: bool) -> tuple[Any, Path]:
    """Return a running SUMO and its network."""
    sumo = require_libsumo()
    net = folder / "town.net.xml"
    options = "--grid --grid.number 3 --grid.length 120 --grid.attach-length 100 --default-junction-type traffic_light"
    options += " --default.lanenumber 2 --sidewalks.guess --crossings.guess"
    program = sumo_home() / "bin" / "netgenerate"
    subprocess.run([str(program), *options.split(), "-o", str(net)], check=True, capture_output=True)
    settings = f"--step-length {DT} --time-to-teleport -1 --no-step-log true --no-warnings true --collision.action none"
    arguments = ["-n", str(net), *settings.split()]
    if not through_traci:
        sumo.start(["sumo", *arguments])
        return sumo, net
    import traci

    traci.start([str(sumo_home() / "bin" / "sumo"), *arguments], label="bench")
    return traci.getConnection("bench"), net


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the figures of one run."""
    sumo, net = start(folder, options.traci)
    clock = Clock()
    demand = Demand(sumo, options.driven, options.others, options.pedestrians)
    asked = td.load_model(options.policy, steps=options.steps) if options.steps else td.load_policy(options.policy)
    policy = TimedPolicy(asked, clock)
    traffic = td.TrafficModel(policy, futures=options.futures, seed=0, dt=DT)
    step_traffic = traffic.step
    traffic.step = lambda seen: clock.call("traffic_model", step_traffic, seen)  # type: ignore[method-assign]
    wanted = ("driven", "walker")
    warnings, teleports, memory, there, ticks = 0, 0, [], [], 0
    said = list[str]()
    with SumoTraffic(traffic, TimedSumo(sumo, clock), net, lambda name: name.startswith(wanted)) as town:
        move = town._move
        town._move = lambda moves: clock.call("sumo_moves", move, moves)  # type: ignore[method-assign]
        for tick in range(round(options.seconds / DT) + WARM_UP):
            if tick == WARM_UP:
                clock.clear()
            demand.fill()
            step = clock.call("tick", town.step)
            warnings += len(step.warnings)
            said += list(step.warnings)[: 10 - len(said)]
            teleports += sumo.simulation.getStartingTeleportNumber()
            there.append(len(town.driven))
            ticks += tick >= WARM_UP
            if tick % 600 == WARM_UP:
                memory.append(round(resident_mib(), 1))
    sumo.close()
    wall, cpu = parts(clock.wall, ticks), parts(clock.cpu, ticks)
    return {
        "host": "SUMO through " + ("TraCI" if options.traci else "libsumo"),
        "policy": policy.name,
        "driven": round(float(np.mean(there[WARM_UP:])), 1),
        "others": options.others,
        "pedestrians": options.pedestrians,
        "futures": options.futures,
        "simulated_seconds": options.seconds,
        "times_real_time": round(DT * 1e3 / sum(wall.values()), 3),
        "times_real_time_by_cpu": round(DT * 1e3 / sum(cpu.values()), 3),
        "ms_per_tick": {name: round(ms, 2) for name, ms in wall.items()},
        "cpu_ms_per_tick": {name: round(ms, 2) for name, ms in cpu.items()},
        "adapter_share_by_cpu": round((cpu["traffic_model"] + cpu["host_translation"]) / sum(cpu.values()), 4),
        "load": round(os.getloadavg()[0], 1),
        "warnings": warnings,
        "first_warnings": said[:10],
        "teleports": teleports,
        "memory_mib_each_minute": memory,
        "cores": os.cpu_count(),
    }


def parts(spent: dict[str, float], ticks: int) -> dict[str, float]:
    """Return where the ms of a tick go: the policy, SUMO's own work, and the rest, which is the adapter's.

    SUMO's are its steps and its search for the lane on which it puts somebody.
    """
    ms = {name: 1e3 * seconds / ticks for name, seconds in spent.items()}
    policy, steps, moves = ms["policy"], ms["sumo_steps"], ms["sumo_moves"]
    return {
        "policy": policy,
        "sumo_steps": steps,
        "sumo_moves": moves,
        "traffic_model": ms["traffic_model"] - policy,
        "host_translation": ms["tick"] - steps - moves - ms["traffic_model"],
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driven", type=int, default=50)
    parser.add_argument("--others", type=int, default=0)
    parser.add_argument("--pedestrians", type=int, default=0)
    parser.add_argument("--futures", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--policy", default="small")
    parser.add_argument("--steps", type=int, help="Denoising steps of a model, where not its default.")
    parser.add_argument("--traci", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--endurance", action="store_true")
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    if options.endurance or options.speed:
        vars(options).update(ENDURANCE if options.endurance else SPEED)
    with tempfile.TemporaryDirectory() as folder:
        found = run(options, Path(folder))
        if options.speed:
            options.steps = FEWER_STEPS
            faster = run(options, Path(folder))
            found["with_fewer_steps"] = {"steps": FEWER_STEPS} | {key: faster[key] for key in TIMES}
    text = json.dumps(found, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    if options.endurance or options.speed:
        subprocess.run([sys.executable, "-P", str(ROOT / "tools" / "adapter_page.py")], check=True)


if __name__ == "__main__":
    main()
