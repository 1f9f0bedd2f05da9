"""How far simulated motion is from recorded motion: python tools/motion_gap.py REAL_SCENES [--networks 8] [--page]

Three sets of simulated scenes are made from the same seeds: SUMO as it comes (its own default drivers, no sublanes,
its default junctions), our streets and drivers with SUMO's own motion, and what `synthesize` yields. Each is
compared with the recorded scenes, and so is one half of those with the other. Written are docs/figures/motion_gap.json
and the table in docs/synthesis.md; `--page` only writes the table.

Total variation: of the histograms of moving agents (2 m or more after the current index), steps after the current one,
0 equal and 1 disjoint; in the bins of the Sim Agents metrics and in finer ones with 0 in the middle of a bin.

Likelihood proxy: what a model would score that had learned the simulated motion by heart and sees an agent's last
second alone. For each scored recorded agent the 32 simulated tracks of its kind whose last half second is most like its
own stand in for 32 rollouts; the recording is scored under the histograms of their future, as the Sim Agents metrics do
it. Mean over the four kinematic features and over scenes.
"""

import argparse
import importlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from traj_diffusion.datasets.sources import read_scenes
from traj_diffusion.datasets.synthesis import SCENES_PER_NETWORK, synthesize, windows
from traj_diffusion.datasets.synthesis.demand import Demand
from traj_diffusion.datasets.synthesis.tools import require_libsumo
from traj_diffusion.evaluation.pages import with_block
from traj_diffusion.metrics.wosac.configs import CONFIGS
from traj_diffusion.metrics.wosac.estimators import log_likelihood
from traj_diffusion.metrics.wosac.kinematics import (
    angular_motion,
    central_difference,
    linear_acceleration,
    linear_speed,
)
from traj_diffusion.scene import AgentKind, Scene, atomic_path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "docs" / "figures" / "motion_gap.json", ROOT / "docs" / "synthesis.md"
BEGIN, END = "<!-- motion: made by tools/motion_gap.py -->\n", "<!-- end of motion -->"
SEED = 77_000
STEPS, NOW = 91, 10
MOVES = 2.0  # m
ROLLOUTS = 32
FROZEN = 1e-4  # m in a step; less is a label that does not move
KINDS = (AgentKind.VEHICLE, AgentKind.PEDESTRIAN)
TERMS = CONFIGS["sim_agents_2025"].terms[:4]
OFFICIAL = {term.feature: term.edges.astype(np.float64) for term in TERMS}
ORDER = ("linear_speed", "linear_acceleration", "angular_speed", "angular_acceleration", "jerk", "lateral_acceleration")
SETS = {"as_it_comes": "SUMO as it comes", "own_motion": "our streets and drivers, SUMO's motion", "ours": "ours"}
_TUNED = (
    "--junctions.limit-turn-speed",
    "--junctions.internal-link-detail",
    "--junctions.corner-detail",
    "--default.junctions.radius",
)
_KEPT = re.compile(r' (?:id|vClass|length|width)="[^"]*"')


def _around_zero(fine: float, reach: float, coarse: float, end: float) -> np.ndarray:
    """Return borders of bins with 0 in the middle of one: `fine` wide up to `reach`, then `coarse` wide up to `end`."""
    inner = np.arange(fine / 2, reach + fine, fine)
    half = np.concatenate([inner, np.arange(inner[-1] + coarse, end, coarse)])
    return np.concatenate([-half[::-1], half])


FINE = {
    "linear_speed": np.arange(0, 30.5, 0.5),
    "linear_acceleration": _around_zero(0.1, 1.0, 0.5, 12.0),
    "angular_speed": _around_zero(0.01, 0.085, 0.05, 0.8),
    "angular_acceleration": _around_zero(0.1, 1.0, 0.5, 4.0),
    "jerk": _around_zero(0.5, 10.0, 5.0, 60.0),
    "lateral_acceleration": _around_zero(0.1, 1.0, 0.5, 8.0),
}


@dataclass(frozen=True)
class Motion:
    """Agents of one kind in one scene, valid at the current step; NaN where nobody was seen."""

    xy: np.ndarray  # [n, 91, 2], m from the first of them
    heading: np.ndarray  # [n, 91]
    features: dict[str, np.ndarray]  # [n, 91] each
    scored: np.ndarray  # [n] bool: the ego and those to predict

    @property
    def whole(self) -> np.ndarray:
        """Which agents were seen at every step."""
        return np.isfinite(self.heading).all(1)

    @property
    def moving(self) -> np.ndarray:
        """Which agents end 2 m or more from where they are now."""
        seen = np.isfinite(self.heading)
        last = STEPS - 1 - seen[:, ::-1].argmax(1)
        return np.linalg.norm(self.xy[np.arange(len(last)), last] - self.xy[:, NOW], axis=-1) >= MOVES


def motion(scene: Scene, kind: AgentKind) -> Motion:
    """Return how a scene's agents of a kind move, as the Sim Agents metrics difference it, in the plane."""
    agents = scene.agents
    rows = scene.sim_agents[agents.kind[scene.sim_agents] == kind]
    valid = agents.valid[rows]
    xy = agents.position[rows, :, :2]
    xy = np.where(valid[..., None], xy - (xy[0, NOW] if len(rows) else 0.0), np.nan)
    heading = np.where(valid, agents.heading[rows].astype(np.float64), np.nan)
    x, y = (xy[..., axis].astype(np.float32) for axis in (0, 1))
    speed = linear_speed(x, y)
    acceleration = linear_acceleration(speed)
    turn, change = angular_motion(heading.astype(np.float32))
    values = (speed, acceleration, turn, change, central_difference(acceleration) / 0.1, speed * turn)
    scored = agents.to_predict[rows] | (rows == scene.ego)
    return Motion(xy, heading, dict(zip(ORDER, values, strict=True)), scored)


def total_variation(one: list[Motion], other: list[Motion]) -> dict[str, dict[str, float]]:
    """Return the distances of two sets of scenes by feature, in official and in fine bins."""

    def shares(found: list[Motion], name: str, borders: np.ndarray) -> np.ndarray:
        parts = [part.features[name][part.moving, NOW + 1 :].ravel() for part in found]
        values = np.concatenate([*parts, np.zeros(0)])
        values = values[np.isfinite(values)].clip(borders[0], borders[-1])
        return np.asarray(np.histogram(values, borders)[0] / max(len(values), 1))

    def distance(name: str, borders: np.ndarray) -> float:
        return round(float(np.abs(shares(one, name, borders) - shares(other, name, borders)).sum() / 2), 3)

    return {
        "official": {name: distance(name, borders) for name, borders in OFFICIAL.items()},
        "fine": {name: distance(name, borders) for name, borders in FINE.items()},
    }


def past(found: Motion) -> np.ndarray:
    """Return each agent's last second as [n, 4]: speed, its change and yaw rate in units of likeness, frozen or not."""
    now, before, first = found.xy[:, NOW], found.xy[:, NOW - 5], found.xy[:, NOW - 10]
    speed, earlier = np.linalg.norm(now - before, axis=-1) / 0.5, np.linalg.norm(before - first, axis=-1) / 0.5
    turned = (found.heading[:, NOW] - found.heading[:, NOW - 5] + np.pi) % (2 * np.pi) - np.pi
    steps = np.linalg.norm(np.diff(found.xy[:, : NOW + 1], axis=1), axis=-1)
    frozen = np.nan_to_num(steps).max(1, initial=0.0) < FROZEN
    return np.stack([speed, (speed - earlier) / 0.5 / 0.8, turned / 0.5 / 0.08, np.where(frozen, 0.0, 1e3)], -1)


def likelihood(logged: Motion, bank: list[Motion]) -> np.ndarray | None:
    """Return the likelihood of one scene's scored agents by term, or None without such agents."""
    rows = np.flatnonzero(logged.scored)
    if not len(rows):
        return None
    known = np.concatenate([past(part)[part.whole] for part in bank])
    wanted = past(logged)[rows]
    gap = wanted[:, None] - known
    gap[..., 0] /= 0.3 + 0.1 * wanted[:, None, 0]
    alike = np.argsort((np.nan_to_num(gap) ** 2).sum(-1), axis=1, kind="stable")[:, :ROLLOUTS]  # [E, 32]
    result = []
    for term in TERMS:
        future = np.concatenate([part.features[term.feature][part.whole, NOW + 1 :] for part in bank])
        values = logged.features[term.feature][rows, NOW + 1 :]
        log_p = log_likelihood(term, values, future[alike].transpose(1, 0, 2))
        there = np.isfinite(values)
        result.append(np.exp(log_p[there].mean()) if there.any() else np.nan)
    return np.array(result)


def proxy(logged: list[Motion], banks: Iterable[list[Motion]]) -> np.ndarray:
    """Return the likelihood of each scene by term [scenes, 4], NaN without scored agents; one bank for each scene."""
    found = [likelihood(one, bank) for one, bank in zip(logged, banks, strict=True)]
    return np.array([np.full(len(TERMS), np.nan) if one is None else one for one in found])


def simulated(name: str, networks: int) -> Iterator[Scene]:
    """Yield the scenes of one set."""
    with ExitStack() as stack:
        module = importlib.import_module("traj_diffusion.datasets.synthesis.synthesize")
        if name != "ours":
            stack.enter_context(patch.object(module, "humanise", lambda rng, tracks: tracks))
            stack.enter_context(patch.object(windows, "add_noise", lambda rng, kind, xy, heading, *_: (xy, heading)))
        if name == "as_it_comes":
            libsumo, netconvert, xml = require_libsumo(), module.netconvert, Demand.xml
            start = libsumo.start
            stack.enter_context(patch.object(module, "netconvert", lambda given: netconvert(_without(given, _TUNED))))
            stack.enter_context(
                patch.object(libsumo, "start", lambda given: start(_without(given, ("--lateral-resolution",))))
            )
            stack.enter_context(patch.object(Demand, "xml", lambda demand: _plain_types(xml(demand))))
        yield from synthesize(SEED, 0, networks * SCENES_PER_NETWORK)


def _without(arguments: list[str], names: tuple[str, ...]) -> list[str]:
    """Return a command line without some options and the value behind each."""
    gone = {at + shift for at, word in enumerate(arguments) if word in names for shift in (0, 1)}
    return [word for at, word in enumerate(arguments) if at not in gone]


def _plain_types(routes: str) -> str:
    """Return a route file whose vehicle types keep their class and size, and are SUMO's own in all else."""
    return re.sub(r"<vType[^>]*/>", lambda hit: f"<vType{''.join(_KEPT.findall(hit.group()))}/>", routes)


def compare(real: list[Scene], networks: int) -> dict[str, Any]:
    """Return all distances and likelihoods, for JSON."""
    sets = {name: list(simulated(name, networks)) for name in SETS}
    result: dict[str, Any] = {
        "recorded_scenes": len(real),
        "simulated_scenes": {name: len(scenes) for name, scenes in sets.items()},
        "seed": SEED,
        "features": ORDER,
    }
    rng = np.random.default_rng(0)
    for kind in KINDS:
        logged = [motion(scene, kind) for scene in real]
        one: dict[str, Any] = {"scored_agents": int(sum(part.scored.sum() for part in logged))}
        others = [[part for at, part in enumerate(logged) if at != number] for number in range(len(logged))]
        scores = {"recorded": proxy(logged, others)}
        half = rng.permutation(len(logged))
        parts = [[logged[at] for at in half[start::2]] for start in (0, 1)]
        one["recorded"] = {"total_variation": total_variation(*parts)}
        for name, scenes in sets.items():
            bank = [motion(scene, kind) for scene in scenes]
            one[name] = {"total_variation": total_variation(bank, logged)}
            scores[name] = proxy(logged, [bank] * len(logged))
        for name, score in scores.items():
            scored = score[np.isfinite(score).all(1)]
            one[name]["likelihood"] = [round(float(value), 3) for value in (*scored.mean(0), scored.mean())]
        for name, before in (("ours", "as_it_comes"), ("recorded", "ours")):
            gain = (scores[name] - scores[before]).mean(1)
            gain = gain[np.isfinite(gain)]
            draws = rng.integers(0, len(gain), (1000, len(gain)))
            spread = np.percentile(gain[draws].mean(1), [2.5, 97.5])
            one[f"{name}_minus_{before}"] = [round(float(value), 3) for value in (gain.mean(), *spread)]
        result[kind.name.lower()] = one
    return result


def table(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    counts = found["simulated_scenes"]
    lines = [
        f"{found['recorded_scenes']} recorded scenes against {counts['ours']} simulated ones of seed {found['seed']}. "
        "Features come in the order speed, acceleration, yaw rate, yaw acceleration, and in fine bins jerk and lateral "
        "acceleration. Likelihoods are means over scenes, differences have 95 % bootstrap intervals.",
        "",
        "| motion | total variation, Sim Agents bins | fine bins | likelihood proxy: the four, **mean** |",
        "| --- | --- | --- | --- |",
    ]
    for kind in (kind.name.lower() for kind in KINDS):
        for name, title in {**SETS, "recorded": "recorded: halves of it; other scenes of it"}.items():
            one = found[kind][name]
            cells = [" ".join(f"{value:.3f}" for value in one["total_variation"][bins].values()) for bins in
                     ("official", "fine")]  # fmt: skip
            *four, mean = one["likelihood"]
            lines.append(
                f"| {kind}s, {title} | {cells[0]} | {cells[1]} | {' '.join(f'{x:.3f}' for x in four)} **{mean:.3f}** |"
            )
    lines.append("")
    for kind in (kind.name.lower() for kind in KINDS):
        gain, low, high = found[kind]["ours_minus_as_it_comes"]
        rest, under, over = found[kind]["recorded_minus_ours"]
        lines.append(
            f"- {kind}s, {found[kind]['scored_agents']} scored: ours is {gain:+.3f} [{low:+.3f}, {high:+.3f}] above "
            f"SUMO as it comes; other recordings are {rest:+.3f} [{under:+.3f}, {over:+.3f}] above ours."
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and write as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="?", help="recorded scenes: a folder or a JSON list")
    parser.add_argument("--networks", type=int, default=8, help="simulated networks of 12 scenes each (default 8)")
    parser.add_argument("--page", action="store_true", help="only write the table")
    given = parser.parse_args()
    if not given.page:
        if given.scenes is None:
            parser.error("which recorded scenes?")
        real = [
            scene
            for scene in read_scenes(given.scenes)
            if (scene.steps, scene.current_index) == (STEPS, NOW) and scene.ego is not None
        ]
        found = compare(real, given.networks)
        with atomic_path(RESULTS) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    made = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    PAGE.write_text(with_block(PAGE.read_text(encoding="utf-8"), BEGIN, END, f"\n{made}\n\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
