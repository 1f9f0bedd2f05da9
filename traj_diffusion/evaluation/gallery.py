"""Scenes rolled out to a folder: rollouts, pictures, players, an index of them, and a table of scores."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from traj_diffusion.datasets import list_sources
from traj_diffusion.evaluation.headline import headline, main_scores
from traj_diffusion.evaluation.pool import over_scenes
from traj_diffusion.evaluation.run import RunSettings, located_scenes, roll_out, summary
from traj_diffusion.metrics import SceneScore, score
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import Policy, Scene, file_stem

if TYPE_CHECKING:
    from traj_diffusion.viz import Entry


BASELINE = ConstantVelocity()


@dataclass(frozen=True)
class SceneMade:
    """What was made of one scene: scores, those of constant velocity, and its place in the index."""

    score: SceneScore
    baseline: SceneScore
    entry: "Entry | None"


@dataclass(frozen=True)
class Made:
    """What `roll_out_to` made: a table of scores to print, and where things lie."""

    table: str
    paths: dict[str, Path]


def roll_out_to(
    source: str | Path,
    policy: Policy,
    settings: RunSettings,
    out: Path,
    pictures: bool = True,
    progress: Callable[[str], None] = lambda scene: None,
    workers: int | None = 1,
) -> Made:
    """Roll all scenes of a source out into a folder: `<id>.rollouts.npz`, `<id>.png`, `<id>.html`, `index.html`.

    Scores stand beside those of constant velocity on the same scenes. A scene without a recorded future gets pictures
    and only such scores as need none. The first scene that cannot be read or simulated ends the work with an error
    that names its file; all before it are whole.
    """
    from traj_diffusion.viz import write_index

    done: list[SceneMade] = []
    job = partial(_make, settings=settings, out=out, pictures=pictures)
    index = None
    try:
        for scene, made in over_scenes(located_scenes(list_sources(source)), policy, job, workers):
            done.append(made)
            progress(scene.id)
    finally:  # where a scene is broken, there is an index of what was done before it
        entries = [made.entry for made in done if made.entry is not None]
        if entries:
            index = write_index(out, entries)
    paths = {"rollouts": out}
    if index is not None:
        paths = {
            "players and pictures": index,
            "first player": Path(str(entries[0].player)),
            "first picture": Path(str(entries[0].picture)),
            **paths,
        }
    columns = {policy.name: [made.score for made in done]}
    if policy.name != BASELINE.name:
        columns[BASELINE.name] = [made.baseline for made in done]
    return Made(headline({name: summary(scores) for name, scores in columns.items()}), paths)


def _make(policy: Policy, scene: Scene, settings: RunSettings, out: Path, pictures: bool) -> SceneMade:
    from traj_diffusion.viz import Entry, player, save_picture

    rollouts = roll_out(scene, policy, settings)
    rollouts.save(out)
    found = score(scene, rollouts)
    baseline = found if policy.name == BASELINE.name else score(scene, roll_out(scene, BASELINE, settings))
    entry = None
    if pictures:
        entry = Entry(
            id=scene.id,
            picture=save_picture(out / f"{file_stem(scene.id)}.png", scene, rollouts),
            player=player(scene, rollouts, out / f"{file_stem(scene.id)}.html"),
            scores=main_scores(found),
        )
    return SceneMade(found, baseline, entry)
