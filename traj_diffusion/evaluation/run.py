"""Many scenes through a policy, or from files of rollouts, to one row of scores each. Goes on where it was killed."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from traj_diffusion.datasets import Entry, list_sources, read_scenes
from traj_diffusion.errors import BadRollouts
from traj_diffusion.metrics import SceneScore, Summary, score, summarise, table
from traj_diffusion.scene import Policy, Rollouts, Scene, atomic_path, rollouts_path
from traj_diffusion.sim_adapter import rollout

# What a table shows unless asked for more: name of the metric -> heading.
HEADLINE: Mapping[str, str] = {
    "joint_min_ade@8s": "joint minADE, m",
    "joint_min_fde@8s": "joint minFDE, m",
    "marginal_min_ade@8s": "per-agent minADE, m",
    "joint_miss_rate_argoverse@8s": "joint miss rate",
    "marginal_miss_rate_argoverse@8s": "per-agent miss rate",
    "average_pairwise_distance": "diversity (APD), m",
    "collision_rate": "collision rate",
    "log/collision_rate": "... of the log",
    "offroad_rate": "off-road rate",
    "log/offroad_rate": "... of the log",
}

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
    source: str | Path, policy: Policy, settings: RunSettings, rows: Path, progress: Progress = lambda scene: None
) -> list[SceneScore]:
    """Return one score per scene of a source, each computed once: finished ones are kept in the file `rows`."""
    done = read_rows(rows, {"policy": policy.name, **vars(settings)})
    return list(_scores(list_sources(source), rows, done, progress, lambda scene: roll_out(scene, policy, settings)))


def evaluate_folder(
    source: str | Path, folder: Path, rows: Path, allow_missing: bool = False, progress: Progress = lambda scene: None
) -> list[SceneScore]:
    """Return one score per scene from `<scene id>.rollouts.npz` files in a folder, of whatever model.

    Raises BadRollouts naming the scenes that have no file, unless they may be missing.
    """
    done = read_rows(rows, {"rollouts": str(folder)})
    found: list[SceneScore] = []
    missing: list[str] = []
    for scene in read_scenes(list_sources(source)):
        path = rollouts_path(folder, scene.id)
        if scene.id in done:
            found.append(done[scene.id])
        elif path.is_file():
            found.append(score(scene, Rollouts.load(path)))
            append_row(rows, found[-1])
        else:
            missing.append(scene.id)
        progress(scene.id)
    if missing and not allow_missing:
        raise BadRollouts(
            f"{folder}: no rollouts for {len(missing)} of {len(missing) + len(found)} scenes, first {missing[0]}; "
            "--allow-missing scores the others"
        )
    return found


def _scores(
    entries: Sequence[Entry],
    rows: Path,
    done: Mapping[str, SceneScore],
    progress: Progress,
    make: Callable[[Scene], Rollouts],
) -> Iterator[SceneScore]:
    for scene in read_scenes(entries):
        if scene.id in done:
            found = done[scene.id]
        else:
            found = score(scene, make(scene))
            append_row(rows, found)
        progress(scene.id)
        yield found


def read_rows(path: Path, settings: Mapping[str, object]) -> dict[str, SceneScore]:
    """Return the finished rows of an evaluation, by scene id, and begin the file where there is none.

    Its first line holds the settings. A file of other settings is refused, a last line that a kill cut off is dropped.
    """
    first = json.dumps({"settings": dict(settings)}, sort_keys=True)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(first + "\n", encoding="utf-8")
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[0] != first:
        raise BadRollouts(f"{path}: holds scores of other settings ({lines[0][:200]}); choose another --out")
    if lines[-1]:  # no newline at the end: the last row was being written
        path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    rows = [SceneScore.from_row(json.loads(line)) for line in lines[1:-1]]
    return {row.scene_id: row for row in rows}


def append_row(path: Path, row: SceneScore) -> None:
    """Add one finished row."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row.to_row()) + "\n")


def headline(summaries: Mapping[str, Summary]) -> str:
    """Return the table of the main metrics, one column per summary."""
    return table(summaries, [name for name in HEADLINE if any(name in s.means for s in summaries.values())])


def summary(scores: Sequence[SceneScore], seed: int = 0) -> Summary:
    """Return means with 95 % intervals over scenes."""
    return summarise(scores, np.random.default_rng(seed))


def write_summary(path: Path, summaries: Mapping[str, Summary]) -> None:
    """Write all means with their intervals as JSON."""
    found = {
        name: {
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
