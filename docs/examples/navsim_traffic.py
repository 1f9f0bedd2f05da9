"""The traffic in which NAVSIM v2 scores two proposals for the ego: each is an episode that reacts to its own.

Needs navsim; no registry has it: github.com/autonomousvision/navsim. **Its test runs it against a fake**
(`traj_diffusion.testing.nuplan_fake`), never against NAVSIM itself. `driven` is what the configuration
`traffic_agents_policy` names; the scorer calls it with the ego's simulated states and its metric cache.
"""

from nuplan.planning.simulation.trajectory.trajectory_sampling import TrajectorySampling

import traj_diffusion as td
from traj_diffusion.sim_adapter.hosts.navsim import DrivenTrafficAgents


def driven(policy):
    """Return NAVSIM's traffic policy: 4 s in steps of 0.1 s."""
    sampling = TrajectorySampling(num_poses=40, interval_length=0.1)
    return DrivenTrafficAgents(sampling, td.TrafficModel(td.load_policy(policy), futures=4))


def reactions(policy, proposals, metric_cache):
    """Return where the driven objects end up beside each proposal [proposals, 41, 11] of the ego's states."""
    traffic, found = driven(policy), []
    for states in proposals:
        tracks = traffic.simulate_environment(states, metric_cache)
        found.append({one.track_token: (one.center.x, one.center.y) for one in tracks[-1].tracked_objects})
    return found
