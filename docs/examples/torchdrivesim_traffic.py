"""Ten seconds of a town of CARLA in TorchDriveSim, two worlds at once, in which a policy drives all but the ego.

Needs `pip install 'traj-diffusion[torchdrivesim]'`. Run as: python torchdrivesim_traffic.py [POLICY]
"""

import sys

import torch
from torchdrivesim.kinematic import KinematicBicycle
from torchdrivesim.map import find_map_config, traffic_controls_from_map_config
from torchdrivesim.simulator import Simulator, TorchDriveConfig

import traj_diffusion as td
from traj_diffusion.sim_adapter.hosts.torchdrivesim import DrivenWrapper

policy = td.load_policy(sys.argv[1] if len(sys.argv) > 1 else "idm")
place = find_map_config("carla_Town02")
starts = []  # x, y, heading, speed: in the middle of every third lane
for lanelet in list(place.lanelet_map.laneletLayer)[::3]:
    line = [(point.x, point.y) for point in lanelet.centerline]
    here, after = torch.tensor(line[len(line) // 2 - 1 : len(line) // 2 + 1])
    starts.append([*here.tolist(), float(torch.atan2(*(after - here).flip(0))), 5.0])
states = torch.tensor([starts, starts])  # [worlds, agents, 4]
size, present = torch.tensor([4.5, 2.0]).expand(*states.shape[:2], 2), torch.ones(states.shape[:2], dtype=torch.bool)
cars = KinematicBicycle(left_handed=place.left_handed_coordinates)
cars.set_params(lr=torch.full(states.shape[:2], 1.4))
cars.set_state(states)
inner = Simulator(
    road_mesh=place.road_mesh.expand(2), kinematic_model={"vehicle": cars}, agent_size={"vehicle": size},
    initial_present_mask={"vehicle": present}, lanelet_map=[place.lanelet_map] * 2,
    traffic_controls={name: one.extend(2) for name, one in traffic_controls_from_map_config(place).items()},
    cfg=TorchDriveConfig(left_handed_coordinates=place.left_handed_coordinates),
)  # fmt: skip
npcs = {"vehicle": torch.arange(len(starts)) > 0}
simulator = DrivenWrapper(inner, td.TrafficModel(policy), npcs)
for _ in range(100):
    simulator.step({"vehicle": torch.zeros(2, 1, 2)})
went = (inner.get_state()["vehicle"] - states)[..., 1:, :2].norm(dim=-1)
print(f"{went.shape[1]} agents in each of {len(went)} worlds, driven by {policy.name}: {went.mean():.1f} m on average")
