"""The simulator adapter: closed loops on recorded scenes, and traffic for anybody's simulator."""

from traj_diffusion.sim_adapter.closed_loop import REPLAN_EVERY, rollout
from traj_diffusion.sim_adapter.commit import COMMITS, Choice, Commit, Following
from traj_diffusion.sim_adapter.traffic_model import Latency, TrafficModel

__all__ = ["COMMITS", "REPLAN_EVERY", "Choice", "Commit", "Following", "Latency", "TrafficModel", "rollout"]
