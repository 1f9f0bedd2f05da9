"""Twenty seconds of HighwayEnv's highway and roundabout in which a policy drives all other vehicles.

Needs `pip install 'traj-diffusion[highway]'`. Run as: python highway_traffic.py [POLICY]
"""

import sys

import gymnasium
import highway_env

from traj_diffusion.sim_adapter.hosts.highway import DrivenVehicle

gymnasium.register_envs(highway_env)


class Driven(DrivenVehicle):
    """What drives: a bundled model, a baseline by name, or any Policy."""

    policy = sys.argv[1] if len(sys.argv) > 1 else "constant_velocity"


for name in ("highway-fast-v0", "roundabout-v1"):
    config = {"other_vehicles_type": f"{__name__}.Driven", "vehicles_count": 10}
    env = gymnasium.make(name, config=config)
    env.reset(seed=0)
    steps, over = 0, False
    while not over and steps < 20:
        _, _, terminated, truncated, _ = env.step(1)  # idle
        steps, over = steps + 1, terminated or truncated
    road = env.unwrapped.road
    driven = sum(isinstance(vehicle, Driven) for vehicle in road.vehicles)
    print(f"{name}: {driven} of {len(road.vehicles)} vehicles driven by {Driven.policy} for {steps} steps")
    env.close()
