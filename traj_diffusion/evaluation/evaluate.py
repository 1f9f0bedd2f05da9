"""A policy, a baseline or anybody's rollouts over many scenes to rows of figures: the one way to score scenes."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from traj_diffusion import __version__
from traj_diffusion.datasets import list_sources, read_scenes
from traj_diffusion.datasets.submissions import read_submission
from traj_diffusion.errors import BadInput, BadRollouts, BadScene
from traj_diffusion.evaluation.log_baselines import LOG_NOISE, LOG_REPLAY, NOISE, log_rollouts
from traj_diffusion.evaluation.pool import over_scenes
from traj_diffusion.evaluation.rows import CONFIG, OTHER_YEARS, Rows, Run, SceneRow
from traj_diffusion.evaluation.run import RunSettings, roll_out
from traj_diffusion.evaluation.score_row import score_row
from traj_diffusion.metrics import AgentSet
from traj_diffusion.scene import Policy, Rollouts, Scene, rollouts_path

Entry = Policy | str | Path
"""What can be scored: a policy, `log_replay` or `log_noise` by name, or a folder of rollouts of whatever model."""
LOG_BASELINES = {LOG_REPLAY: 0.0, LOG_NOISE: NOISE}


def entry_name(entry: Entry) -> str:
    """Return what an entry is called in tables: the policy's name, or that of the folder."""
    if isinstance(entry, Path):
        return entry.resolve().name
    return entry if isinstance(entry, str) else entry.name


def rollouts_of(entry: Entry, scene: Scene, settings: RunSettings) -> Rollouts:
    """Return an entry's rollouts of one scene.

    Raises BadScene where it has none for the scene, BadRollouts where its file is broken, ValueError for an unknown
    name.
    """
    if isinstance(entry, Path):
        path = rollouts_path(entry, scene.id)
        if not path.is_file():
            raise BadScene(f"scene {scene.id}: there is no {path}")
        return Rollouts.load(path)
    if isinstance(entry, str):
        if entry not in LOG_BASELINES:
            raise ValueError(f"unknown log baseline {entry!r}; known: {', '.join(LOG_BASELINES)}")
        return log_rollouts(scene, settings.rollouts, LOG_BASELINES[entry], settings.seed)
    return roll_out(scene, entry, settings)


def unpacked(submission: Path, folder: Path) -> Path:
    """Return a folder with the rollouts of a submission (binproto or tar.gz), written one scene at a time."""
    for rollouts in read_submission(submission):
        rollouts.save(folder)
    return folder


def evaluate(
    source: str | Path,
    entry: Entry,
    settings: RunSettings,
    path: Path,
    *,
    config: str = CONFIG,
    engine: str = "own",
    workers: int | None = 1,
    allow_missing: bool = False,
    agents: AgentSet = AgentSet.EVALUATED,
    progress: Callable[[str], None] = lambda scene: None,
) -> Run:
    """Return one row per scene of a source, each made once: finished ones are kept in the file at `path`.

    A scene whose file or rollouts changed is scored anew. Rows do not depend on `workers` (None: one per core), nor on
    what was killed before. All figures but WOSAC's count `agents`. Raises BadRollouts where rollouts do not fit their
    scene and, after all others are scored, where scenes have none (naming them) unless they may be missing; BadInput
    where the file is of other settings.
    """
    kept, seen = Rows(path, made_of(entry, settings, config, engine, agents)), dict[str, Path]()
    found, missing, digests = list[SceneRow](), dict[str, str](), dict[str, str]()

    def known(scene_id: str, file: Path) -> bool:
        digests[scene_id] = _digest(entry, scene_id, file)
        row = kept.find(scene_id, digests[scene_id])
        if row is not None:
            found.append(row)
            progress(scene_id)
        return row is not None

    def unfinished() -> Iterator[tuple[Path, Scene]]:
        for file, group in groupby(list_sources(source), key=lambda one: one.file):
            entries = list(group)
            for one in entries:
                if one.id is not None:
                    _note(one.id, file, seen)
            for scene in read_scenes([one for one in entries if one.id is None or not known(one.id, file)]):
                if all(scene.id != one.id for one in entries):
                    _note(scene.id, file, seen)
                    if known(scene.id, file):
                        continue
                yield file, scene

    job = partial(_made, settings=settings, config=config, engine=engine, agents=agents)
    for scene, made in over_scenes(unfinished(), entry, job, workers):
        if isinstance(made, str):
            missing[scene.id] = made
        else:
            found.append(kept.add(SceneRow.from_row(made), digests[scene.id]))
        progress(scene.id)
    if missing and not (allow_missing and found):
        hint = "; --allow-missing scores the others" if found else ""
        raise BadRollouts(
            f"{entry_name(entry)}: no rollouts for {len(missing)} of {len(missing) + len(found)} scenes: "
            f"{', '.join(missing)} ({next(iter(missing.values()))}){hint}"
        )
    return Run(entry_name(entry), run_settings(entry, settings, config, engine, agents), _by_id(found), missing)


def made_of(
    entry: Entry, settings: RunSettings, config: str, engine: str, agents: AgentSet = AgentSet.EVALUATED
) -> dict[str, Any]:
    """Return all that decides an entry's figures beside the scenes: its weights, how it was run, how it is scored."""
    fingerprint = "" if isinstance(entry, str | Path) else str(getattr(entry, "fingerprint", ""))
    told = run_settings(entry, settings, config, engine, agents)
    made = {"name": entry_name(entry), "fingerprint": fingerprint, "version": __version__, "settings": told}
    return made | {"also": list(OTHER_YEARS)}


def run_settings(
    entry: Entry, settings: RunSettings, config: str, engine: str, agents: AgentSet = AgentSet.EVALUATED
) -> dict[str, Any]:
    """Return how an entry is run and scored; files say for themselves how they were run."""
    scored = {"config": config, "engine": engine, "agents": str(agents)}
    return {**({} if isinstance(entry, Path) else asdict(settings)), **scored}


def _made(
    entry: Entry,
    scene: Scene,
    settings: RunSettings,
    config: str,
    engine: str,
    agents: AgentSet = AgentSet.EVALUATED,
) -> dict[str, Any] | str:
    """Return the row of a scene as plain values, or why the entry has no rollouts for it."""
    try:
        rollouts = rollouts_of(entry, scene, settings)
    except BadScene as error:
        return str(error)
    return score_row(scene, rollouts, config, engine, agents).to_row()


def _note(scene_id: str, file: Path, seen: dict[str, Path]) -> None:
    if scene_id in seen:
        raise BadInput(f"{file}: scene {scene_id} came already, from {seen[scene_id]}; give each scene once")
    seen[scene_id] = file


def _digest(entry: Entry, scene_id: str, file: Path) -> str:
    """Return the digest of the scene's file, and of its rollouts where they are files too."""
    rollouts = rollouts_path(entry, scene_id) if isinstance(entry, Path) else None
    return _file_digest(file) + (_file_digest(rollouts) if rollouts is not None and rollouts.is_file() else "")


def _file_digest(file: Path) -> str:
    return _digest_of(file, file.stat().st_mtime_ns)


@cache
def _digest_of(file: Path, changed: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def _by_id(rows: list[SceneRow]) -> list[SceneRow]:
    """Return rows in an order that does not depend on which were kept: means and intervals are the same to the bit."""
    return sorted(rows, key=lambda row: row.scene_id)
