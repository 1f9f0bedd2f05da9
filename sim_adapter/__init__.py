"""The simulator adapter: closed loops on recorded scenes, and traffic for anybody's simulator."""

from traj_diffusion.sim_adapter.closed_loop import REPLAN_EVERY, rollout
from traj_diffusion.sim_adapter.commit import COMMITS, Commit

__all__ = ["COMMITS", "REPLAN_EVERY", "Commit", "rollout"]
