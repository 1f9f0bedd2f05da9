"""The simulator adapter: closed loops on recorded scenes, and traffic for anybody's simulator."""

from traj_diffusion.scene import Latency
from traj_diffusion.sim_adapter.closed_loop import REPLAN_EVERY, rollout
from traj_diffusion.sim_adapter.commit import COMMITS, Choice, Commit, Following
from traj_diffusion.sim_adapter.controllers import Assign, Callback, Controller
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

__all__ = [
    "COMMITS",
    "REPLAN_EVERY",
    "Assign",
    "Callback",
    "Choice",
    "Commit",
    "Controller",
    "Following",
    "Latency",
    "TrafficModel",
    "rollout",
]
