"""PPO learns to drive a scene's ego among our traffic, through Gymnasium: does the reward rise?

Needs `pip install 'traj-diffusion[gym]' stable-baselines3`. Run as: python ppo_ego.py [POLICY] [STEPS] [JSON]
"""

import json
import sys
from pathlib import Path

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import traj_diffusion.sim_adapter.hosts.gym  # noqa: F401  # registers TrajDiffusion-v0

policy = sys.argv[1] if len(sys.argv) > 1 else "constant_velocity"
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 8192
monitor = Monitor(gymnasium.make("TrajDiffusion-v0", scenes="bundled", policy=policy, seconds=5.0))
learner = PPO("MultiInputPolicy", VecNormalize(DummyVecEnv([lambda: monitor])), n_steps=512, seed=0, device="cpu")
learner.learn(steps)

rewards = np.array(monitor.get_episode_rewards())
fifths = [part.mean() for part in np.array_split(rewards, 5)]
print(f"{len(rewards)} episodes of up to 5 s among {policy}, mean reward of each fifth of them:")
print(", ".join(f"{mean:.1f}" for mean in fifths))
if len(sys.argv) > 3:
    told = {"traffic": policy, "steps": steps, "episodes": len(rewards), "rewards": rewards.round(2).tolist()}
    Path(sys.argv[3]).write_text(json.dumps(told | {"fifths": np.round(fifths, 2).tolist()}) + "\n", encoding="utf-8")
