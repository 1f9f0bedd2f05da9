"""One row per scene that holds every figure of it: WOSAC, all other metrics, and what the report card's curves need.

Rows are lines of a JSON file behind a line of settings, so that an evaluation goes on where it was killed, and tables
and reports are made again from them at no cost.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from traj_diffusion import __version__
from traj_diffusion.datasets import list_sources, read_scenes
from traj_diffusion.errors import BadInput, BadRollouts, BadScene
from traj_diffusion.evaluation.log_baselines import LOG_NOISE, LOG_REPLAY, NOISE, log_rollouts
from traj_diffusion.evaluation.run import RunSettings, roll_out
from traj_diffusion.metrics import AgentSet, Matched, SceneScore, match, rank_histogram, score, wosac
from traj_diffusion.metrics.multimodality import last_step_ranks
from traj_diffusion.scene import Policy, Rollouts, Scene, rollouts_path

CONFIG = "sim_agents_2025"
SECONDS = 8.0
Entry = Policy | str | Path
"""What can be scored: a policy, `log_replay` or `log_noise` by name, or a folder of rollouts of whatever model."""
Maker = Callable[[Scene], Rollouts]


@dataclass(frozen=True)
class Protocol:
    """How rollouts were made, as every table has to say: R, K, and how often plans were renewed (None: not known)."""

    rollouts: int
    futures: int | None
    replan_hz: float | None

    def __str__(self) -> str:
        rate = "replanning rate not recorded" if self.replan_hz is None else f"replanned at {self.replan_hz:g} Hz"
        if self.replan_hz == 0:
            rate = "never replanned"
        return f"R = {self.rollouts} rollouts, K = {self.futures or 'not recorded'}, {rate}"


@dataclass(frozen=True)
class SceneRow:
    """All figures of one scene.

    `joint_ade` [m] is the mean error of each rollout over 8 s, from which sample-budget curves are made; `ranks` are
    histograms of the log's rank among the rollouts, along and across. Both are empty where the scene has no future.
    """

    metrics: SceneScore
    wosac: wosac.WosacScore | None
    wosac_absent: str  # why, where it is None
    protocol: Protocol
    joint_ade: tuple[float, ...]
    ranks: Mapping[str, tuple[float, ...]]

    @property
    def scene_id(self) -> str:
        """The scene's id."""
        return self.metrics.scene_id

    def to_row(self) -> dict[str, Any]:
        """Return plain values for JSON, which `from_row` reads; those of `SceneScore.to_row` are among them."""
        found = self.wosac
        kept = None
        if found is not None:
            numbers = {**found.fields, "future_ade": found.future_ade, "min_future_ade": found.min_future_ade}
            kept = {
                "config": found.config,
                "rollouts": found.rollouts,
                "fields": {name: None if math.isnan(value) else value for name, value in numbers.items()},
                "buckets": {name: None if math.isnan(value) else value for name, value in found.buckets.items()},
                "warnings": list(found.warnings),
            }
        return {
            **self.metrics.to_row(),
            "wosac": kept,
            "wosac_absent": self.wosac_absent,
            "protocol": asdict(self.protocol),
            "joint_ade": list(self.joint_ade),
            "ranks": {axis: list(counts) for axis, counts in self.ranks.items()},
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "SceneRow":
        """Return the row that `to_row` wrote, without the parts of WOSAC per agent. Raises BadInput."""
        metrics = SceneScore.from_row(row)
        try:
            return cls(
                metrics=metrics,
                wosac=None if row["wosac"] is None else _wosac_from(metrics.scene_id, row["wosac"]),
                wosac_absent=str(row["wosac_absent"]),
                protocol=Protocol(**row["protocol"]),
                joint_ade=tuple(float(value) for value in row["joint_ade"]),
                ranks={str(axis): tuple(float(count) for count in counts) for axis, counts in row["ranks"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"not a row of figures ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class Run:
    """The rows of one policy over a set of scenes, and the settings that they were made with."""

    name: str
    settings: Mapping[str, Any]
    rows: Sequence[SceneRow]

    @property
    def protocol(self) -> str:
        """How the rollouts were made, and by which rules they were scored."""
        protocols = sorted({str(row.protocol) for row in self.rows})
        return f"WOSAC {self.settings.get('config', CONFIG)}; {' / '.join(protocols)}; {len(self.rows)} scenes"


def score_row(scene: Scene, rollouts: Rollouts, config: str = CONFIG) -> SceneRow:
    """Return all figures of one scene. Raises BadRollouts where the rollouts do not fit it.

    Where WOSAC cannot score the scene (no road edges, not 91 steps) its row says why, and has all other figures.
    """
    matched = match(scene, rollouts, steps=max(1, round(SECONDS / scene.dt)))
    found: wosac.WosacScore | None = None
    reason = ""
    try:
        found = wosac.score(scene, rollouts, config)
    except (BadScene, BadRollouts) as error:
        reason = str(error)
    every, futures = rollouts.provenance.get("replan_every"), rollouts.provenance.get("futures")
    replayed = rollouts.provenance.get("model") in (LOG_REPLAY, LOG_NOISE)
    return SceneRow(
        metrics=score(scene, rollouts, SECONDS),
        wosac=found,
        wosac_absent=reason,
        protocol=Protocol(
            rollouts=rollouts.runs,
            futures=futures if isinstance(futures, int) else None,
            replan_hz=0.0 if replayed else round(1 / (every * scene.dt), 3) if isinstance(every, int) else None,
        ),
        joint_ade=_joint_ade(matched),
        ranks=_ranks(matched),
    )


def entry_name(entry: Entry) -> str:
    """Return what an entry is called in tables: the policy's name, or that of the folder."""
    if isinstance(entry, Path):
        return entry.resolve().name
    return entry if isinstance(entry, str) else entry.name


def maker(entry: Entry, settings: RunSettings) -> Maker:
    """Return what makes the rollouts of a scene. Raises ValueError for an unknown name."""
    if isinstance(entry, Path):
        return _from_folder(entry)
    if isinstance(entry, str):
        noises = {LOG_REPLAY: 0.0, LOG_NOISE: NOISE}
        if entry not in noises:
            raise ValueError(f"unknown log baseline {entry!r}; known: {', '.join(noises)}")
        noise = noises[entry]
        return lambda scene: log_rollouts(scene, settings.rollouts, noise, settings.seed)
    return lambda scene: roll_out(scene, entry, settings)


def entry_settings(entry: Entry, settings: RunSettings) -> dict[str, Any]:
    """Return all that decides the figures of an entry: its weights or files by digest, how it was run, and by what."""
    found: dict[str, Any] = {"name": entry_name(entry), "version": __version__}
    if isinstance(entry, Path):
        digest = hashlib.sha256()
        for path in sorted(entry.glob("*.rollouts.npz")):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
        return found | {"rollouts": str(entry), "digest": digest.hexdigest()}
    return found | {"fingerprint": str(getattr(entry, "fingerprint", "")), **asdict(settings)}


def _from_folder(folder: Path) -> Maker:
    def read(scene: Scene) -> Rollouts:
        path = rollouts_path(folder, scene.id)
        if not path.is_file():
            raise BadRollouts(f"{path}: no such file; wanted is one file of rollouts for each scene")
        return Rollouts.load(path)

    return read


def evaluate_wosac(
    source: str | Path,
    entry: Entry,
    settings: RunSettings,
    path: Path,
    progress: Callable[[str], None] = lambda scene: None,
    config: str = CONFIG,
) -> Run:
    """Return one row per scene of a source; those that the file at `path` holds already are not made again.

    Raises BadInput where that file is of other settings or files, BadRollouts where rollouts are missing or do not fit.
    """
    wanted = entry_settings(entry, settings) | {"config": config}
    make, done, rows = maker(entry, settings), _begin(path, wanted), []
    for scene in read_scenes(list_sources(source)):
        if scene.id not in done:
            done[scene.id] = score_row(scene, make(scene), config)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[scene.id].to_row(), allow_nan=False) + "\n")
        rows.append(done[scene.id])
        progress(scene.id)
    return Run(entry_name(entry), wanted, rows)


def load_run(path: Path) -> Run:
    """Return the rows of a file, in its order. Raises BadInput, naming file and line."""
    try:
        first, *lines = path.read_text(encoding="utf-8").split("\n")
        settings = json.loads(first)["settings"]
        name = str(settings["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not a file of rows that an evaluation wrote ({error})") from error
    rows: dict[str, SceneRow] = {}
    for number, line in enumerate(lines[:-1], 2):  # what follows the last newline was cut off, or is empty
        try:
            row = SceneRow.from_row(json.loads(line))
        except ValueError as error:
            raise BadInput(f"{path}, line {number}: {error}; remove the file to begin anew") from error
        rows[row.scene_id] = row
    return Run(name, settings, list(rows.values()))


def _begin(path: Path, settings: Mapping[str, Any]) -> dict[str, SceneRow]:
    """Return the finished rows of a file, and begin it where there is none; drop a last line that a kill cut off."""
    first = json.dumps({"settings": dict(settings)}, sort_keys=True)
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if "\n" not in text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(first + "\n", encoding="utf-8")
        return {}
    if text.split("\n", 1)[0] != first:
        raise BadInput(f"{path}: holds rows of other settings ({text[:200].splitlines()[0]}); choose another folder")
    if not text.endswith("\n"):
        path.write_text(text[: text.rindex("\n") + 1], encoding="utf-8")
    return {row.scene_id: row for row in load_run(path).rows}


def _wosac_from(scene_id: str, row: Mapping[str, Any]) -> wosac.WosacScore:
    numbers = {str(name): math.nan if value is None else float(value) for name, value in row["fields"].items()}
    future, least = numbers.pop("future_ade"), numbers.pop("min_future_ade")
    none = np.zeros(0, np.int64)
    return wosac.WosacScore(
        scene_id=scene_id,
        config=str(row["config"]),
        rollouts=int(row["rollouts"]),
        fields=numbers,
        buckets={str(name): math.nan if value is None else float(value) for name, value in row["buckets"].items()},
        future_ade=future,
        min_future_ade=least,
        agent_id=none,
        kind=none.astype(np.uint8),
        step=none,
        log_likelihood={},
        logged_events={},
        simulated_events={},
        warnings=tuple(str(warning) for warning in row["warnings"]),
    )


def _joint_ade(matched: Matched) -> tuple[float, ...]:
    """Return the mean error of each rollout, over evaluated agents and their valid steps; its least is joint minADE."""
    count = matched.log_valid.sum(-1)
    seen = matched.counted(AgentSet.EVALUATED) & (count > 0)
    if not seen.any():
        return ()
    error = np.linalg.norm((matched.position - matched.log_position)[:, seen, :, :2], axis=-1)
    each = (error * matched.log_valid[seen]).sum(-1) / count[seen]
    return tuple(float(value) for value in each.mean(1))


def _ranks(matched: Matched) -> dict[str, tuple[float, ...]]:
    along, across, counted = last_step_ranks(matched, matched.counted(AgentSet.EVALUATED))
    if not counted.any():
        return {}
    runs = len(matched.valid)
    axes = {"along": along, "across": across}
    return {
        axis: tuple(float(count) for count in rank_histogram(below[counted], equal[counted], runs))
        for axis, (below, equal) in axes.items()
    }
