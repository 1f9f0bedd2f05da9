"""Many scenes through a policy, or from files of rollouts, to one row of scores each."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from traj_diffusion.datasets import Entry, list_sources, read_scenes
from traj_diffusion.errors import BadInput, BadRollouts
from traj_diffusion.evaluation.pool import over_scenes
from traj_diffusion.evaluation.rows import Rows
from traj_diffusion.metrics import SceneScore, Summary, score, summarise
from traj_diffusion.scene import Policy, Rollouts, Scene, atomic_path, rollouts_path
from traj_diffusion.sim_adapter import rollout

Progress = Callable[[str], None]


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


def evaluate_policy(
    source: str | Path,
    policy: Policy,
    settings: RunSettings,
    rows: Path,
    progress: Progress = lambda scene: None,
    workers: int | None = 1,
) -> list[SceneScore]:
    """Return one score per scene of a source, each computed once: finished ones are kept in the file `rows`."""
    fingerprint = str(getattr(policy, "fingerprint", ""))
    kept = Rows(rows, {"policy": policy.name, "fingerprint": fingerprint, **vars(settings)})
    order: list[str] = []

    def missing() -> Iterator[tuple[Path, Scene]]:
        for file, scene in located_scenes(list_sources(source)):
            order.append(scene.id)
            if kept.find(scene.id) is None:
                yield file, scene
            else:
                progress(scene.id)

    job = partial(_rolled_out_score, settings=settings)
    for scene, made in over_scenes(missing(), policy, job, workers):
        kept.add(made)
        progress(scene.id)
    return [found for scene_id in order if (found := kept.find(scene_id)) is not None]


def _rolled_out_score(policy: Policy, scene: Scene, settings: RunSettings) -> SceneScore:
    return score(scene, roll_out(scene, policy, settings))


def evaluate_folder(
    source: str | Path, folder: Path, rows: Path, allow_missing: bool = False, progress: Progress = lambda scene: None
) -> list[SceneScore]:
    """Return one score per scene from `<scene id>.rollouts.npz` files in a folder, of whatever model.

    A file that changed is scored anew. Raises BadRollouts naming the scenes that have no file, unless they may be
    missing.
    """
    kept = Rows(rows, {"rollouts": str(folder)})
    found: list[SceneScore] = []
    missing: list[str] = []
    for _, scene in located_scenes(list_sources(source)):
        path = rollouts_path(folder, scene.id)
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            known = kept.find(scene.id, digest)
            found.append(known or kept.add(score(scene, Rollouts.load(path)), digest))
        else:
            missing.append(scene.id)
        progress(scene.id)
    if missing and not (allow_missing and found):
        raise BadRollouts(
            f"{folder}: no rollouts for {len(missing)} of {len(missing) + len(found)} scenes, first {missing[0]}; "
            "--allow-missing scores the others"
        )
    return found


def summary(scores: Sequence[SceneScore], seed: int = 0) -> Summary:
    """Return means with 95 % intervals over scenes."""
    return summarise(scores, np.random.default_rng(seed))


def write_summary(path: Path, summaries: Mapping[str, Summary], settings: Mapping[str, object] | None = None) -> None:
    """Write all means with their intervals as JSON, and the settings they were made with."""
    found = {
        name: {
            "settings": dict(settings or {}),
            "scenes": one.scenes,
            "means": {
                metric: {"mean": mean.mean, "low": mean.low, "high": mean.high, "scenes": mean.scenes}
                for metric, mean in one.means.items()
            },
            "absent": {metric: dict(reasons) for metric, reasons in one.absent.items()},
        }
        for name, one in summaries.items()
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
