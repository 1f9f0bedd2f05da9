"""Scenes made by hand with known answers, and contracts that policies and hosts are held to. For users' tests too."""

from traj_diffusion.testing.host_contract import HOST_CONTRACT
from traj_diffusion.testing.host_witness import WitnessedTraffic, host_findings
from traj_diffusion.testing.policy_contract import POLICY_CONTRACT
from traj_diffusion.testing.scenes import busy_scene, crossing, crowded, make_map, make_scene, straight_road

__all__ = [
    "HOST_CONTRACT",
    "POLICY_CONTRACT",
    "WitnessedTraffic",
    "busy_scene",
    "crossing",
    "crowded",
    "host_findings",
    "make_map",
    "make_scene",
    "straight_road",
]
