"""nuPlan's closed loop of a scenario whose agents a policy drives; the ego follows its own log.

Needs nuplan-devkit 1.2; no registry has it: github.com/motional/nuplan-devkit. **Its test runs it against a fake**
(`traj_diffusion.testing.nuplan_fake`), never against nuPlan itself. Hand `simulated` a scenario that nuPlan's
NuPlanScenarioBuilder found, and any planner in the place of LogFuturePlanner.
"""

from nuplan.planning.simulation.controller.perfect_tracking import PerfectTrackingController
from nuplan.planning.simulation.planner.log_future_planner import LogFuturePlanner
from nuplan.planning.simulation.runner.simulations_runner import SimulationRunner
from nuplan.planning.simulation.simulation import Simulation
from nuplan.planning.simulation.simulation_setup import SimulationSetup
from nuplan.planning.simulation.simulation_time_controller.step_simulation_time_controller import (
    StepSimulationTimeController,
)

import traj_diffusion as td
from traj_diffusion.sim_adapter.hosts.nuplan import DrivenAgents


def simulated(scenario, policy):
    """Run a scenario to its end, and return the simulation with its history."""
    traffic = td.TrafficModel(td.load_policy(policy), futures=4, dt=scenario.database_interval)
    setup = SimulationSetup(
        time_controller=StepSimulationTimeController(scenario),
        observations=DrivenAgents(scenario, traffic),  # in the place of IDMAgents
        ego_controller=PerfectTrackingController(scenario),
        scenario=scenario,
    )
    simulation = Simulation(setup)
    SimulationRunner(simulation, LogFuturePlanner(scenario, num_poses=80, future_time_horizon=8.0)).run()
    return simulation
