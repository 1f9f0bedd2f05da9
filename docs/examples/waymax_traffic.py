"""A scenario of WOMD in Waymax in which a policy drives everyone but the SDC, which replays its log.

Needs Waymax and its access to WOMD; no registry has it: github.com/waymo-research/waymax. **Its test runs it against a
fake** (`traj_diffusion.testing.waymax_fake`), never against Waymax itself. Run as: python waymax_traffic.py [POLICY]
"""

import dataclasses
import sys

from waymax import config, dataloader, dynamics, env

import traj_diffusion as td
from traj_diffusion.sim_adapter.hosts.waymax import TrafficActor

policy = td.load_policy(sys.argv[1] if len(sys.argv) > 1 else "idm")
scenario = next(dataloader.simulator_state_generator(config.WOD_1_1_0_VALIDATION))
settings = dataclasses.replace(config.EnvironmentConfig(), controlled_object=config.ObjectType.VALID)
environment = env.MultiAgentEnvironment(dynamics_model=dynamics.StateDynamics(), config=settings)
actor = TrafficActor(td.TrafficModel(policy, futures=4), lambda state: ~state.object_metadata.is_sdc)

state = environment.reset(scenario)
traffic = actor.init(None, state)
steps = int(state.remaining_timesteps)
for _ in range(steps):  # outside of jax.jit: the traffic is Python
    output = actor.select_action({}, state, traffic, None)
    state, traffic = environment.step(state, output.action), output.actor_state
print(f"{steps / 10:.1f} s: {int(output.is_controlled.sum())} objects driven by {actor.name}")
