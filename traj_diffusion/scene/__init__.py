"""The nouns of the field: Scene and its parts, Rollouts, and what passes between a policy and its loop."""

from traj_diffusion.scene.archive import atomic_path, file_stem
from traj_diffusion.scene.csr import Csr
from traj_diffusion.scene.doubts import doubts
from traj_diffusion.scene.files import load_scene, save_scene
from traj_diffusion.scene.invariants import check_scene
from traj_diffusion.scene.kinds import AgentKind, EdgeType, LaneType, LightState, LineType, MapKind, Origin
from traj_diffusion.scene.motion import heading_of_motion, resample_scene, velocity_of_motion
from traj_diffusion.scene.observation import GivenFuture, Latency, Observation, Step, check_observation
from traj_diffusion.scene.policy import Given, Plan, PlanRequest, Policy, WorldState
from traj_diffusion.scene.rollouts import Rollouts, rollouts_path
from traj_diffusion.scene.scene import Agents, Lights, Links, Map, Routes, Scene

__all__ = [
    "AgentKind",
    "Agents",
    "Csr",
    "EdgeType",
    "Given",
    "GivenFuture",
    "LaneType",
    "Latency",
    "LightState",
    "Lights",
    "LineType",
    "Links",
    "Map",
    "MapKind",
    "Observation",
    "Origin",
    "Plan",
    "PlanRequest",
    "Policy",
    "Rollouts",
    "Routes",
    "Scene",
    "Step",
    "WorldState",
    "atomic_path",
    "check_observation",
    "check_scene",
    "doubts",
    "file_stem",
    "heading_of_motion",
    "load_scene",
    "resample_scene",
    "rollouts_path",
    "save_scene",
    "velocity_of_motion",
]
