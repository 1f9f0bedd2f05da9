"""Ten seconds of a small SUMO town in which a policy drives every second car; SUMO's own drivers have the rest.

Needs `pip install 'traj-diffusion[sumo]'`. Run as: python sumo_traffic.py [POLICY]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import libsumo
import sumolib

import traj_diffusion as td
from traj_diffusion.sim_adapter.hosts.sumo import SumoTraffic

folder = tempfile.TemporaryDirectory()
net = Path(folder.name) / "town.net.xml"
grid = "--grid --grid.number 2 --grid.length 100 --grid.attach-length 80 --default-junction-type traffic_light"
subprocess.run([sumolib.checkBinary("netgenerate"), *grid.split(), "-o", str(net)], check=True, capture_output=True)

libsumo.start(["sumo", "-n", str(net), "--step-length", "0.1", "--time-to-teleport", "-1", "--no-step-log", "true"])
border = ("left", "right", "top", "bottom")
ways_in = sorted(edge for edge in libsumo.edge.getIDList() if edge.startswith(border))
ways_out = sorted(edge for edge in libsumo.edge.getIDList() if edge[2:].startswith(border))
for number, (start, end) in enumerate(zip(ways_in, reversed(ways_out), strict=True)):
    libsumo.route.add(f"route{number}", libsumo.simulation.findRoute(start, end).edges)
    libsumo.vehicle.add(f"car{number}", f"route{number}", departSpeed="8")

policy = td.load_policy(sys.argv[1] if len(sys.argv) > 1 else "constant_velocity")
traffic = td.TrafficModel(policy, futures=4, seed=0)
with SumoTraffic(traffic, libsumo, net, vehicles=lambda name: int(name[3:]) % 2 == 0) as town:
    for _ in range(100):
        step = town.step()
    latency = traffic.latency()
    print(f"{step.time:.1f} s: {len(town.driven)} of {libsumo.vehicle.getIDCount()} vehicles driven by {policy.name}")
    print(f"latency p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms")
libsumo.close()
