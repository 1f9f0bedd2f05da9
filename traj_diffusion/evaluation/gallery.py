"""Scenes rolled out to a folder: rollouts, pictures, players, an index of them, and a table of scores."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from traj_diffusion.datasets import list_sources
from traj_diffusion.evaluation.headline import headline, main_scores
from traj_diffusion.evaluation.run import RunSettings, located_scenes, naming, roll_out, summary
from traj_diffusion.metrics import SceneScore, score
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import Policy, file_stem


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
) -> Made:
    """Roll all scenes of a source out into a folder: `<id>.rollouts.npz`, `<id>.png`, `<id>.html`, `index.html`.

    Scores stand beside those of constant velocity on the same scenes. A scene without a recorded future gets pictures
    and only such scores as need none. The first scene that cannot be read or simulated ends the work with an error
    that names its file; all before it are whole.
    """
    from traj_diffusion.viz import Entry, player, save_picture, write_index

    entries: list[Entry] = []
    scores: dict[str, list[SceneScore]] = {policy.name: []}
    baseline = ConstantVelocity()
    try:
        for file, scene in located_scenes(list_sources(source)):
            with naming(file):
                rollouts = roll_out(scene, policy, settings)
            rollouts.save(out)
            found = score(scene, rollouts)
            scores[policy.name].append(found)
            if policy.name != baseline.name:
                held = roll_out(scene, baseline, replace(settings, futures=1))
                scores.setdefault(baseline.name, []).append(score(scene, held))
            if pictures:
                entries.append(
                    Entry(
                        id=scene.id,
                        picture=save_picture(out / f"{file_stem(scene.id)}.png", scene, rollouts),
                        player=player(scene, rollouts, out / f"{file_stem(scene.id)}.html"),
                        scores=main_scores(found),
                    )
                )
            progress(scene.id)
    finally:  # where a scene is broken, there is an index of what was done before it
        index = write_index(out, entries) if entries else None
    paths = {"rollouts": out}
    if index is not None:
        paths = {
            "players and pictures": index,
            "first player": Path(str(entries[0].player)),
            "first picture": Path(str(entries[0].picture)),
            **paths,
        }
    return Made(headline({name: summary(rows) for name, rows in scores.items()}), paths)
