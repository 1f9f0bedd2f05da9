"""A random ego among our traffic, through Gymnasium: three episodes of five seconds on bundled scenes.

Needs `pip install 'traj-diffusion[gym]'`. Run as: python gym_traffic.py [POLICY]
"""

import sys

import gymnasium

import traj_diffusion.sim_adapter.hosts.gym  # noqa: F401  # registers TrajDiffusion-v0

policy = sys.argv[1] if len(sys.argv) > 1 else "constant_velocity"
env = gymnasium.make("TrajDiffusion-v0", scenes="bundled", policy=policy, seconds=5.0)
env.action_space.seed(0)
for episode in range(3):
    observation, info = env.reset(seed=episode)
    total, over = 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        total += float(reward)
        over = terminated or truncated
    print(f"{info['scene']}: reward {total:.1f}, {'collision' if terminated else 'drove to the end'}")
env.close()
