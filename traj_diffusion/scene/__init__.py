"""The nouns of the field: Scene and its parts, Rollouts, and what passes between a policy and its loop."""

from traj_diffusion.scene.csr import Csr
from traj_diffusion.scene.files import load_scene, save_scene
from traj_diffusion.scene.invariants import check_scene
from traj_diffusion.scene.kinds import AgentKind, EdgeType, LaneType, LightState, LineType, MapKind, Origin
from traj_diffusion.scene.policy import Plan, PlanRequest, Policy, WorldState
from traj_diffusion.scene.rollouts import Rollouts
from traj_diffusion.scene.scene import Agents, Lights, Links, Map, Routes, Scene

__all__ = [
    "AgentKind",
    "Agents",
    "Csr",
    "EdgeType",
    "LaneType",
    "LightState",
    "Lights",
    "LineType",
    "Links",
    "Map",
    "MapKind",
    "Origin",
    "Plan",
    "PlanRequest",
    "Policy",
    "Rollouts",
    "Routes",
    "Scene",
    "WorldState",
    "check_scene",
    "load_scene",
    "save_scene",
]
