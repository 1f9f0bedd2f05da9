"""MetaDrive, headless: eight seconds of a procedural scene and of a bundled one in ScenarioNet's format.

Needs `pip install 'traj-diffusion[metadrive]'`. Run as: python metadrive_traffic.py [POLICY]"""

import pickle
import sys
import tempfile
from pathlib import Path

from metadrive import MetaDriveEnv
from metadrive.envs.scenario_env import ScenarioEnv

import traj_diffusion as td
from traj_diffusion.sim_adapter.hosts.metadrive import DrivenScenarioTraffic, DrivenTraffic, without_assets
from traj_diffusion.testing.foreign import scenarionet_document

policy = td.load_policy(sys.argv[1] if len(sys.argv) > 1 else "idm")
without_assets()  # no 3D models are needed without a window
document = scenarionet_document(next(td.read_scenes("bundled")))
folder = tempfile.TemporaryDirectory()
summary = {"dataset_summary": {"0.pkl": document["metadata"]}, "dataset_mapping": {"0.pkl": ""}, "0": document}
for name, content in summary.items():
    Path(folder.name, f"{name}.pkl").write_bytes(pickle.dumps(content))
procedural = {"map": "SXO", "traffic_density": 0.1, "traffic_mode": "respawn"}
recorded = {"data_directory": folder.name, "num_scenarios": 1}
for base, manager, options in (
    (MetaDriveEnv, DrivenTraffic, procedural),
    (ScenarioEnv, DrivenScenarioTraffic, recorded),
):
    env = base({"log_level": 50, **options})
    env.lazy_init()
    env.engine.update_manager("traffic_manager", manager(td.TrafficModel(policy)))
    env.reset(seed=0)
    over, ticks = False, 0
    while not over and ticks < 80:
        _, _, terminated, truncated, _ = env.step([0.0, 0.0])
        over, ticks = terminated or truncated, ticks + 1
    agents = len(env.engine.traffic_manager.spawned_objects)
    print(f"{base.__name__}: {ticks} ticks, {agents} agents driven by {policy.name}")
    env.close()
