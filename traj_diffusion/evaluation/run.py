"""Scenes one after the other through a policy, in closed loop."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from traj_diffusion.datasets import Entry, list_sources, read_scenes
from traj_diffusion.errors import BadInput
from traj_diffusion.metrics import SceneScore, Summary, summarise
from traj_diffusion.scene import Policy, Rollouts, Scene
from traj_diffusion.sim_adapter import rollout


@dataclass(frozen=True)
class RunSettings:
    """How scenes are rolled out for an evaluation."""

    rollouts: int = 6
    futures: int = 1
    replan_every: int = 5
    ego: str = "model"
    lights: str = "hold"
    seed: int = 0


def located_scenes(entries: Sequence[Entry]) -> Iterator[tuple[Path, Scene]]:
    """Yield each scene with the file that it is from. Raises BadInput where an id comes twice: results go by it."""
    seen: dict[str, Path] = {}
    for file, group in groupby(entries, key=lambda entry: entry.file):
        for scene in read_scenes(list(group)):
            if scene.id in seen:
                raise BadInput(f"{file}: scene {scene.id} came already, from {seen[scene.id]}; give each scene once")
            seen[scene.id] = file
            yield file, scene


def scene_count(source: str | Path) -> int | None:
    """Return how many scenes a source holds, or None where only reading it would tell."""
    entries = list_sources(source)
    single = all(entry.id is not None or entry.file.name.endswith(".scene.npz") for entry in entries)
    return len(entries) if single else None


def roll_out(scene: Scene, policy: Policy, settings: RunSettings) -> Rollouts:
    """Return the closed-loop rollouts of one scene."""
    return rollout(
        scene,
        policy,
        rollouts=settings.rollouts,
        futures=settings.futures,
        replan_every=settings.replan_every,
        ego=settings.ego,
        lights=settings.lights,
        seed=settings.seed,
    )


def summary(scores: Sequence[SceneScore], seed: int = 0) -> Summary:
    """Return means with 95 % intervals over scenes."""
    return summarise(scores, np.random.default_rng(seed))
