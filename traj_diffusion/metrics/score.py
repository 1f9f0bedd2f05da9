"""All metrics of one scene as one row, and rows of many scenes as means with intervals and a table."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from traj_diffusion.errors import BadInput
from traj_diffusion.metrics.conventions import CONVENTIONS, displacement_as
from traj_diffusion.metrics.displacement import HORIZONS, displacement
from traj_diffusion.metrics.diversity import diversity
from traj_diffusion.metrics.figures import Absent, Figures, Tally
from traj_diffusion.metrics.matching import AgentSet, match
from traj_diffusion.metrics.multimodality import multimodality
from traj_diffusion.metrics.routes import left_routes, route_modes
from traj_diffusion.metrics.safety import safety
from traj_diffusion.scene import Rollouts, Scene

_HORIZON = re.compile(r"/[0-9.]+s$")


@dataclass(frozen=True)
class SceneScore(Mapping[str, float]):
    """The metrics of one scene, a mapping from name to value of those that are there.

    `tallies` says what was counted under each of these names, `absent` why other names have no value.
    """

    scene_id: str
    tallies: Mapping[str, Tally]
    absent: Mapping[str, str]

    @classmethod
    def of(cls, scene_id: str, figures: Figures) -> "SceneScore":
        """Return the score that holds these figures."""
        tallies = {name: figure for name, figure in figures.items() if isinstance(figure, Tally)}
        absent = {name: figure.reason for name, figure in figures.items() if isinstance(figure, Absent)}
        return cls(scene_id, MappingProxyType(tallies), MappingProxyType(absent))

    def __iter__(self) -> Iterator[str]:
        return iter(self.tallies)

    def __len__(self) -> int:
        return len(self.tallies)

    def __getitem__(self, name: str) -> float:
        if name in self.tallies:
            return self.tallies[name].value
        if name in self.absent:
            raise KeyError(f"{name} is absent in scene {self.scene_id}: {self.absent[name]}")
        raise KeyError(f"no metric is called {name!r}")

    def __str__(self) -> str:
        """Return a table of all agents' metrics at the longest horizon, beside those of the recording."""
        horizons = [float(name.rpartition("/")[2][:-1]) for name in self if _HORIZON.search(name)]
        longest = f"/{max(horizons):g}s" if horizons else ""
        rows = [(f"scene {self.scene_id}", "rollouts", "recording")]
        for name in self:
            if "/" not in name or (longest and name.endswith(longest)):
                log = f"{self[f'log/{name}']:.4g}" if f"log/{name}" in self else ""
                rows.append((name, f"{self[name]:.4g}", log))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([*lines, f"all {len(self)} by name: dict(score); why others are absent: score.absent"])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a row: a read-only mapping cannot be sent to another process."""
        return (SceneScore.from_row, (self.to_row(),))

    def to_row(self) -> dict[str, Any]:
        """Return plain values for JSON, which `from_row` reads."""
        tallies = {name: [one.total, one.count] for name, one in self.tallies.items()}
        return {"scene_id": self.scene_id, "tallies": tallies, "absent": dict(self.absent)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "SceneScore":
        """Return the score that `to_row` wrote. Raises BadInput where the row is not such a one."""
        try:
            tallies = {str(name): Tally(float(total), int(count)) for name, (total, count) in row["tallies"].items()}
            absent = {str(name): str(reason) for name, reason in row["absent"].items()}
            scene_id = str(row["scene_id"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"not a row of scores ({type(error).__name__}: {error})") from error
        bad = [name for name, one in tallies.items() if one.count < 1 or not math.isfinite(one.total)]
        if bad:
            raise BadInput(f"row of scene {scene_id}: {bad[0]} counts nothing or is not finite")
        return cls(scene_id, MappingProxyType(tallies), MappingProxyType(absent))


def score(
    scene: Scene,
    rollouts: Rollouts,
    seconds: float = 8.0,
    samples: int | None = None,
    horizons: Sequence[float] = HORIZONS,
    agents: AgentSet = AgentSet.EVALUATED,
) -> SceneScore:
    """Return every metric of this room for one scene; docs/metrics.md lists them.

    The first `seconds` of the rollouts are scored, so that rates of longer ones compare; `samples` is K of the
    displacement errors (all rollouts by default). Raises BadRollouts where the rollouts do not fit the scene.
    """
    matched = match(scene, rollouts, steps=max(1, round(seconds / scene.dt)))
    figures = displacement(matched, samples, horizons, agents)
    for metric in (diversity, multimodality, route_modes, left_routes, safety):
        figures |= metric(matched, agents)
    for benchmark in CONVENTIONS:
        figures |= displacement_as(matched, benchmark)
    return SceneScore.of(scene.id, figures)


@dataclass(frozen=True)
class Mean:
    """One metric over many scenes."""

    mean: float  # of the scenes that have it, each counting the same
    low: float  # ends of the bootstrap interval of `mean`
    high: float
    scenes: int  # that have it
    pooled: Tally  # sum and count over all scenes, each agent counting the same


@dataclass(frozen=True)
class Summary:
    """Means by name, and in how many scenes a name was absent for which reason."""

    scenes: int
    means: Mapping[str, Mean]
    absent: Mapping[str, Mapping[str, int]]

    def __getitem__(self, name: str) -> Mean:
        return self.means[name]


def summarise(
    scores: Iterable[SceneScore], rng: np.random.Generator, draws: int = 1000, level: float = 0.95
) -> Summary:
    """Return means over scenes with percentile bootstrap intervals over scenes (Efron & Tibshirani 1993, chapter 13).

    Every metric is resampled from its own scenes with a stream spawned from `rng` by its place in the sorted names, so
    that the order of scenes or shards changes neither means nor intervals. Raises BadInput where a scene comes twice.
    """
    rows = sorted(scores, key=lambda one: one.scene_id)
    twice = [one.scene_id for one, other in pairwise(rows) if one.scene_id == other.scene_id]
    if twice:
        raise BadInput(f"scene {twice[0]} is scored twice; give each scene once")
    names = sorted({name for row in rows for name in (*row.tallies, *row.absent)})
    tails = [(1 - level) / 2, (1 + level) / 2]
    means: dict[str, Mean] = {}
    absent: dict[str, dict[str, int]] = {}
    for name, stream in zip(names, rng.spawn(len(names)), strict=True):
        held = [row.tallies[name] for row in rows if name in row.tallies]
        if held:
            values = np.array([one.value for one in held])
            picks = stream.integers(0, len(values), (draws, len(values)))
            low, high = np.quantile(values[picks].mean(1), tails)
            pooled = Tally(math.fsum(one.total for one in held), sum(one.count for one in held))
            means[name] = Mean(float(values.mean()), float(low), float(high), len(held), pooled)
        reasons = [row.absent.get(name, "not computed") for row in rows if name not in row.tallies]
        if reasons:
            absent[name] = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
    return Summary(len(rows), MappingProxyType(means), MappingProxyType(absent))


def table(summaries: Mapping[str, Summary], names: Sequence[str] | None = None) -> str:
    """Return a text table: one row per metric, one column per summary (a policy, say), `mean [low, high]` in each cell.

    Without `names` every metric that some summary has. What is absent shows as `-`; where fewer scenes than all have
    it, their number follows.
    """
    if names is None:
        names = sorted({name for summary in summaries.values() for name in summary.means})
    cells = [["metric", *summaries]]
    for name in names:
        cells.append([name, *(_cell(summary, name) for summary in summaries.values())])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]]) + "\n"


def _cell(summary: Summary, name: str) -> str:
    one = summary.means.get(name)
    if one is None:
        return "-"
    some = "" if one.scenes == summary.scenes else f" ({one.scenes} of {summary.scenes})"
    return f"{one.mean:.4g} [{one.low:.4g}, {one.high:.4g}]{some}"
