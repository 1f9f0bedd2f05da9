"""Eight seconds of a CommonRoad scenario whose obstacles a policy drives, with what a planner may expect of each.

Needs `pip install 'traj-diffusion[commonroad]'`. Run as: python commonroad_traffic.py [POLICY [SCENARIO.xml]]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from commonroad.common.file_reader import CommonRoadFileReader

import traj_diffusion as td
from traj_diffusion.sim_adapter.hosts.commonroad import CommonRoadTraffic
from traj_diffusion.testing.foreign_commonroad import commonroad_document

policy = td.load_policy(sys.argv[1] if len(sys.argv) > 1 else "idm")
folder = tempfile.TemporaryDirectory()
path = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(folder.name) / "made.xml"
if len(sys.argv) <= 2:  # a bundled scene
    path.write_text(commonroad_document(next(td.read_scenes("bundled"))), encoding="utf-8")
scenario, problems = CommonRoadFileReader(path).open()
log_steps = round(1.0 / scenario.dt)  # a second in which the traffic sees everybody move
with CommonRoadTraffic(td.TrafficModel(policy, futures=4, dt=scenario.dt), scenario, log_steps=log_steps) as traffic:
    while traffic.time_step < 8.0 / scenario.dt:
        step = traffic.step()  # or traffic.step(ego_state)
    number = int(step.agent_id[0])
    expected, futures = scenario.obstacle_by_id(number).prediction, traffic.futures(number)
    ends = np.array([one.trajectory.final_state.position for one in futures])
print(f"{step.time:.1f} s: {len(step.agent_id)} obstacles driven by {policy.name}")
print(f"obstacle {number}, to time step {expected.final_time_step}: {len(futures)} futures, {np.ptp(ends, 0)} m apart")
