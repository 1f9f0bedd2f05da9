"""Readers, writers, simulated scenes, and conditioning: from anything recorded to what the network sees."""

from traj_diffusion.datasets.sources import Entry, list_sources, read_file, read_scenes

__all__ = ["Entry", "list_sources", "read_file", "read_scenes"]
