"""Scenes made by hand with known answers, and contracts that policies and hosts are held to. For users' tests too."""

from traj_diffusion.testing.scenes import crossing, make_map, make_scene, straight_road

__all__ = ["crossing", "make_map", "make_scene", "straight_road"]
