"""Two random learners among our traffic, through PettingZoo: three episodes of five seconds on bundled scenes.

Needs `pip install 'traj-diffusion[pettingzoo]'`. Run as: python pettingzoo_traffic.py [POLICY]
"""

import sys

from traj_diffusion.sim_adapter.hosts.pettingzoo import TrafficParallelEnv

policy = sys.argv[1] if len(sys.argv) > 1 else "constant_velocity"
env = TrafficParallelEnv("bundled", policy, learners=2, seconds=5.0)
for agent in env.possible_agents:
    env.action_space(agent).seed(0)
for episode in range(3):
    _, infos = env.reset(seed=episode)
    total = dict.fromkeys(env.agents, 0.0)
    while env.agents:
        actions = {agent: env.action_space(agent).sample() for agent in env.agents}
        _, rewards, terminations, _, _ = env.step(actions)
        for agent, reward in rewards.items():
            total[agent] += reward
    rewards_text = ", ".join(f"{agent} {reward:.1f}" for agent, reward in total.items())
    print(f"{infos['agent_0']['scene']}: reward {rewards_text}")
env.close()
