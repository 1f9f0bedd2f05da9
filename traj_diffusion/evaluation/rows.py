"""One row per scene that holds every figure of it: WOSAC, all other metrics, and what the report card's curves need.

Rows are lines of a JSON file behind a line of settings, so that an evaluation goes on where it was killed, and tables
and reports are made again from them at no cost.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from traj_diffusion.errors import BadInput
from traj_diffusion.metrics import AgentSet, SceneScore, wosac

CONFIG = "sim_agents_2025"
OTHER_YEARS: Mapping[str, str] = {"sim_agents_2024_leaderboard": "metametric_2024"}
"""Configurations whose meta-metric each row holds too, of the same features, and its name among the metrics."""
SECONDS = 8.0
"""Over how long rollouts are scored, where the recording goes on for as long."""


@dataclass(frozen=True)
class Protocol:
    """How rollouts were made, as every table has to say: R, K, and how often plans were renewed (None: not known).

    `seconds` of them were scored.
    """

    rollouts: int
    futures: int | None
    replan_hz: float | None
    seconds: float = SECONDS

    def __str__(self) -> str:
        rate = "replanning rate not recorded" if self.replan_hz is None else f"replanned at {self.replan_hz:g} Hz"
        if self.replan_hz == 0:
            rate = "never replanned"
        scored = "" if self.seconds == SECONDS else f", scored over {self.seconds:g} s"
        return f"R = {self.rollouts} rollouts, K = {self.futures or 'not recorded'}, {rate}{scored}"


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
    """The rows of one entry over a set of scenes by scene id, how they were made, and which scenes it has none for."""

    name: str
    settings: Mapping[str, Any]
    rows: Sequence[SceneRow]
    missing: Mapping[str, str] = field(default_factory=dict)  # id of a scene without rollouts -> why

    @property
    def protocol(self) -> str:
        """How the rollouts were made, and by which rules they were scored."""
        protocols = sorted({str(row.protocol) for row in self.rows})
        engine = " by the official package" if self.settings.get("engine") == "official" else ""
        rules = f"WOSAC {self.settings.get('config', CONFIG)}{engine}"
        agents = str(self.settings.get("agents", AgentSet.EVALUATED))
        whom = "" if agents == AgentSet.EVALUATED else f"; beside WOSAC {agents} agents count"
        return f"{rules}; {' / '.join(protocols)}; {len(self.rows)} scenes{whom}"


class Rows:
    """A file of rows: a line that says of what, then one line per scene. Each is made once for the same input.

    A file of other settings is refused; a last line that a kill cut off is dropped. Raises BadInput.
    """

    def __init__(self, path: Path, made_of: Mapping[str, Any]) -> None:
        self.path = path
        self._done: dict[tuple[str, str], SceneRow] = {}
        first = json.dumps(dict(made_of), sort_keys=True)
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if "\n" not in text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(first + "\n", encoding="utf-8")
            return
        if text.split("\n", 1)[0] != first:
            raise BadInput(f"{path}: holds rows of other settings ({text[:200].splitlines()[0]}); choose another --out")
        if not text.endswith("\n"):
            path.write_text(text[: text.rindex("\n") + 1], encoding="utf-8")
        self._done = {(row.scene_id, digest): row for row, digest in _read(path)}

    def find(self, scene_id: str, digest: str) -> SceneRow | None:
        """Return the row of a scene that was made of an input of this digest, if there is one."""
        return self._done.get((scene_id, digest))

    def add(self, row: SceneRow, digest: str) -> SceneRow:
        """Write a row to the file, and return it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row.to_row(), "input": digest}, allow_nan=False) + "\n")
        self._done[row.scene_id, digest] = row
        return row


def load_run(path: Path) -> Run:
    """Return the rows of a file, the latest of each scene. Raises BadInput, naming file and line."""
    try:
        with path.open(encoding="utf-8") as file:
            made_of = json.loads(file.readline())
        name, settings = str(made_of["name"]), dict(made_of["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not a file of rows that an evaluation wrote ({error})") from error
    rows = {row.scene_id: row for row, _ in _read(path)}
    return Run(name, settings, [rows[scene_id] for scene_id in sorted(rows)])


def _read(path: Path) -> list[tuple[SceneRow, str]]:
    found = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines[1:-1], 2):  # what follows the last newline was cut off, or is empty
        try:
            row = json.loads(line)
            found.append((SceneRow.from_row(row), str(row["input"])))
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path}, line {number}: {error}; remove the file to begin anew") from error
    return found


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
