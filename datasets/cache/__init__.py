"""Scenes packed for training: compact shards on disk, samples of fixed shape in memory."""

from traj_diffusion.datasets.cache.augment import Augment, load_augment
from traj_diffusion.datasets.cache.order import batch_rows
from traj_diffusion.datasets.cache.prepare import prepare_cache, write_cache
from traj_diffusion.datasets.cache.report import CacheReport, FileReport
from traj_diffusion.datasets.cache.sample import CacheShape, Sample, pack
from traj_diffusion.datasets.cache.store import Cache, Mixture, Samples, open_caches, stream

__all__ = [
    "Augment",
    "Cache",
    "CacheReport",
    "CacheShape",
    "FileReport",
    "Mixture",
    "Sample",
    "Samples",
    "batch_rows",
    "load_augment",
    "open_caches",
    "pack",
    "prepare_cache",
    "stream",
    "write_cache",
]
