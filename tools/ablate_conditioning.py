"""Take from a model what it is shown, part by part, in closed loop, and see whether its traffic gets worse.

python -P tools/ablate_conditioning.py score SCENES... --out WORK [--policy small] [--runs 8] [--workers 2] > J.json
python -P tools/ablate_conditioning.py write docs/results/conditioning.json docs/experiments.md

Each of SCENES is a set of its own (a folder, or a list as `tools/dev_table.py pick` makes): held-out simulated scenes,
real ones with lights. Parts are hidden from the policy alone, at every plan; what it did is scored on the whole scene,
over all simulated agents. Without guidance, so that it is the model that is asked; for lights with guidance too.

Second, at junctions: of the vehicles whose log takes one of several ways ahead, how many take it where it is given to
them as their route, where routes are hidden, and where another one of the ways is given.

`score` goes on where it was killed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from traj_diffusion import __version__
from traj_diffusion.datasets import list_sources
from traj_diffusion.evaluation import Run, RunSettings, evaluate, roll_out
from traj_diffusion.evaluation.log_baselines import log_rollouts
from traj_diffusion.evaluation.pages import with_block
from traj_diffusion.evaluation.pool import over_scenes
from traj_diffusion.evaluation.run import located_scenes
from traj_diffusion.metrics import AgentSet, Matched, match
from traj_diffusion.metrics.matching import is_vehicle
from traj_diffusion.metrics.routes import travelled, way_taken, ways_ahead, with_now
from traj_diffusion.policies import load_model
from traj_diffusion.scene import Csr, Map, Origin, Plan, PlanRequest, Policy, Routes, Scene
from traj_diffusion.scene.archive import atomic_path

START, END = "<!-- conditioning: written by tools/ablate_conditioning.py -->\n", "<!-- end of conditioning -->\n"
PARTS = ("map", "lights", "routes", "history")
GUIDED = ("lights",)
ENOUGH = 1.1  # a part is used where its loss makes a figure this many times as large
GIVEN = ("the log's way", "no route", "another way")
LEAST_WAY = 10.0  # m
DRAWS = 2000
# The figures that a part should decide, and the names under which rows hold them.
COLUMNS = {
    "joint_min_ade@{runs}/8s": "joint minADE@{runs}, m",
    "marginal_min_ade@{runs}/8s": "per-agent minADE@{runs}, m",
    "new_offroad_rate": "newly off the road",
    "red_light_rate": "red lights run",
    "route_left_rate": "routes left",
}


@dataclass(frozen=True)
class Hiding:
    """A policy that is not shown one part. Without the map there are neither routes nor lanes that lights belong to."""

    policy: Policy
    part: str

    @property
    def name(self) -> str:
        """Name of the policy and of what it lacks."""
        return f"{self.policy.name} without {self.part}"

    @property
    def fingerprint(self) -> str:
        """That of the policy and what it lacks."""
        return f"{getattr(self.policy, 'fingerprint', '')} without {self.part}"

    @property
    def history_steps(self) -> int:
        """As many as the policy's."""
        return self.policy.history_steps

    def encode(self, scene: Scene) -> Any:
        """Return what the policy makes of the scene without the part."""
        if self.part in ("map", "routes"):
            scene = replace(scene, routes=Routes.absent(len(scene.agents)))
        return self.policy.encode(replace(scene, map=Map.empty()) if self.part == "map" else scene)

    def plan(self, request: PlanRequest) -> Plan:
        """Return the policy's plan from a state without the part."""
        state = request.state
        if self.part in ("map", "lights"):
            state = replace(
                state,
                light_lane=state.light_lane[:0],
                light_stop=state.light_stop[:0],
                light_state=state.light_state[:, :0],
                light_observed=state.light_observed[:, :0],
            )
        if self.part == "history":
            valid = state.valid.copy()
            valid[..., :-1] = False
            state = replace(state, valid=valid)
        return self.policy.plan(replace(request, state=state))


@click.group(help=__doc__)
def main() -> None:
    """Two verbs."""


@main.command()
@click.argument("sets", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="SCENES...")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--policy", default="small", show_default=True)
@click.option("--runs", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--part", "parts", multiple=True, default=PARTS, show_default=True, type=click.Choice(PARTS))
def score(sets: tuple[Path, ...], out: Path, policy: str, runs: int, workers: int, parts: tuple[str, ...]) -> None:
    """Print all figures as JSON."""
    settings = RunSettings(rollouts=runs, futures=1, replan_every=5, seed=0)
    bare, guided = load_model(policy, guidance=None), load_model(policy)
    found: dict[str, Any] = {"policy": policy, "settings": asdict(settings) | {"version": __version__}, "sets": {}}
    for source in sets:
        folder = out / source.stem
        there = present(scene for _, scene in located_scenes(list_sources(source)))
        shown = [part for part in parts if part in there]
        entries: list[tuple[str, Policy]] = [("whole", bare), *((f"no {part}", Hiding(bare, part)) for part in shown)]
        lit = [part for part in shown if part in GUIDED]
        entries += [("whole, guided", guided)] if lit else []
        entries += [(f"no {part}, guided", Hiding(guided, part)) for part in lit]
        runs_of = {}
        for name, driver in entries:
            rows = folder / f"{name.replace(' ', '-').replace(',', '')}.rows.jsonl"
            show = partial(_show, f"{source.stem}, {name}")
            runs_of[name] = evaluate(
                source, driver, settings, rows, workers=workers, agents=AgentSet.SIMULATED, progress=show
            )
        found["sets"][source.stem] = {
            "scenes": [row.scene_id for row in runs_of["whole"].rows],
            "protocol": runs_of["whole"].protocol,
            "absent": [part for part in parts if part not in there],
            "figures": figures_of(runs_of),
            "junctions": _junctions(source, bare, settings, folder / "junctions", workers),
        }
    click.echo("", err=True)
    click.echo(json.dumps(found, indent=1, allow_nan=False))


def present(scenes: Iterable[Scene]) -> set[str]:
    """Return which parts some scene has: what none has cannot be missed."""
    found = {"history"}
    for scene in scenes:
        has = {"map": len(scene.map) > 0, "lights": len(scene.lights) > 0, "routes": bool(scene.routes.origin.any())}
        found |= {part for part, is_there in has.items() if is_there}
    return found


def _show(what: str, scene: str) -> None:
    click.echo(f"\r\x1b[K{what}: {scene} ", nl=False, err=True)


def figures_of(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Return each run's figures, and how many times as large they are as those of the whole, on the same scenes."""
    found: dict[str, Any] = {}
    for name, run in runs.items():
        base = runs["whole, guided" if name.endswith("guided") else "whole"]
        found[name] = {}
        for pattern in COLUMNS:
            figure = pattern.format(runs=run.rows[0].protocol.rollouts)
            mine = {row.scene_id: row.metrics.tallies.get(figure) for row in run.rows}
            whole = {row.scene_id: row.metrics.tallies.get(figure) for row in base.rows}
            ids = sorted(one for one in mine if mine[one] is not None and whole.get(one) is not None)
            if not ids:
                continue
            # Per scene for errors, pooled for rates: a rate of a scene with one vehicle weighs as that vehicle.
            weigh = figure.endswith("_rate")
            pairs = np.array([[_weight(one[scene], weigh) for scene in ids] for one in (mine, whole)])
            found[name][pattern] = ratio(pairs) | {"scenes": len(ids)}
    return found


def _weight(tally: Any, pooled: bool) -> tuple[float, float]:
    return (tally.total, tally.count) if pooled else (tally.value, 1.0)


def ratio(pairs: np.ndarray) -> dict[str, float | None]:
    """Return the mean of the first of two, and its ratio to the second with a 95 % interval; pairs [2, scenes, 2].

    Scenes are drawn anew, both of a scene together (Efron & Tibshirani 1993, chapter 13). None where there is nothing
    to divide by.
    """

    def means(sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / np.maximum(sums[..., 1], 1e-12)

    mean, base = means(pairs.sum(1))
    count = pairs.shape[1]
    drawn = np.random.default_rng(0).integers(count, size=(DRAWS, count))
    one, other = means(pairs[:, drawn].sum(2))
    usable = other > 0
    found: dict[str, float | None] = {"mean": float(mean), "ratio": None, "low": None, "high": None}
    if base > 0:
        found["ratio"] = float(mean / base)
    if base > 0 and usable.all():
        low, high = np.quantile(one / other, [0.025, 0.975])
        found |= {"low": float(low), "high": float(high)}
    return found


def _junctions(source: Path, policy: Policy, settings: RunSettings, folder: Path, workers: int) -> dict[str, Any]:
    """Return how often vehicles take which way, by what they are given; a file for each scene is kept in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    key = f"{getattr(policy, 'fingerprint', policy.name)} {json.dumps(asdict(settings))} {__version__}"
    kept: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.json")):
        one = json.loads(file.read_text(encoding="utf-8"))
        if one["key"] == key:
            kept[one["scene"]] = one
    asked = located_scenes(list_sources(source))
    missing = ((file, scene) for file, scene in asked if scene.id not in kept)
    for scene, counts in over_scenes(missing, policy, partial(at_junctions, settings=settings), workers):
        kept[scene.id] = {"key": key, "scene": scene.id, "counts": counts}
        with atomic_path(folder / f"{scene.id}.json") as temporary:
            temporary.write_text(json.dumps(kept[scene.id]) + "\n", encoding="utf-8")
        _show(f"{source.stem}, junctions", scene.id)
    total = {
        given: {name: sum(one["counts"][given][name] for one in kept.values()) for name in ("log", "other", "none")}
        for given in GIVEN
    }
    return {"vehicles": sum(one["counts"]["vehicles"] for one in kept.values()), "taken": total}


def at_junctions(policy: Policy, scene: Scene, settings: RunSettings) -> dict[str, Any]:
    """Return how many (run, vehicle) pairs take the log's way, the other one or none, for each thing given."""
    vehicles = deciding(scene)
    counts: dict[str, Any] = {"vehicles": len(vehicles)}
    counts |= {given: dict.fromkeys(("log", "other", "none"), 0) for given in GIVEN}
    if not vehicles:
        return counts
    for given in GIVEN:
        matched = match(scene, roll_out(with_routes(scene, vehicles, given), policy, settings))
        paths = with_now(matched.position, matched.now_position[None])
        for one in vehicles:
            lines = [way.line for way in one.ways]
            for path in paths[:, one.agent]:
                taken = way_taken(path, lines, one.reach, max(1, round(1 / matched.dt)))
                name = "log" if taken == one.logged else "other" if taken == one.other else "none"
                counts[given][name] += 1
    return counts


@dataclass(frozen=True)
class Deciding:
    """A vehicle whose log takes one of several ways ahead."""

    agent: int  # among the matched ones
    row: int  # of the scene's agents
    reach: float  # m, what it covers in the log
    ways: tuple[Any, ...]
    logged: int
    other: int


def deciding(scene: Scene) -> list[Deciding]:
    """Return the vehicles of a scene that have a choice within what they cover in the log, which must be 10 m."""
    if scene.map.links.origin == Origin.ABSENT or scene.steps - 1 <= scene.current_index or not len(scene.sim_agents):
        return []
    matched: Matched = match(scene, log_rollouts(scene, 1))
    logs = with_now(matched.log_position, matched.now_position)
    reach, found = travelled(logs)[:, -1], []
    whole = is_vehicle(matched.kind) & matched.log_valid.all(-1) & (reach >= LEAST_WAY)
    for agent in np.flatnonzero(whole):
        ways = ways_ahead(matched, int(agent), float(reach[agent]))
        if len(ways) < 2:
            continue
        logged = way_taken(logs[agent], [way.line for way in ways], float(reach[agent]), max(1, round(1 / matched.dt)))
        if logged is not None:
            other = (logged + 1) % len(ways)
            found.append(
                Deciding(int(agent), int(matched.rows[agent]), float(reach[agent]), tuple(ways), logged, other)
            )
    return found


def with_routes(scene: Scene, vehicles: Sequence[Deciding], given: str) -> Scene:
    """Return the scene with what is given to these vehicles as their route; others keep theirs."""
    lanes = [scene.routes.lanes[row].tolist() for row in range(len(scene.agents))]
    origin = scene.routes.origin.copy()
    for one in vehicles:
        way = {GIVEN[0]: one.logged, GIVEN[1]: None, GIVEN[2]: one.other}[given]
        lanes[one.row] = [] if way is None else list(one.ways[way].rows)
        origin[one.row] = Origin.ABSENT if way is None else Origin.DERIVED
    return replace(scene, routes=Routes(Csr.from_lists(lanes), origin))


@main.command()
@click.argument("figures", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(exists=True, path_type=Path))
def write(figures: Path, target: Path) -> None:
    """Write the tables into the page."""
    text = block(json.loads(figures.read_text(encoding="utf-8")))
    target.write_text(with_block(target.read_text(encoding="utf-8"), START, END, text), encoding="utf-8")


def block(found: dict[str, Any]) -> str:
    """Return the tables as Markdown, two for each set of scenes."""
    runs = found["settings"]["rollouts"]
    lines = [
        f"`{found['policy']}`. In brackets: how many times as large as with everything shown, on the same scenes, with "
        f"a 95 % interval over scenes; **bold** where that is {ENOUGH:g} or more."
    ]
    for name, one in found["sets"].items():
        titles = [title.format(runs=runs) for title in COLUMNS.values()]
        without = f" They have no {' and no '.join(one['absent'])}." if one["absent"] else ""
        lines += ["", f"{name}: {one['protocol']}.{without}", "", f"| | {' | '.join(titles)} |"]
        lines.append("| --- |" + " ---: |" * len(COLUMNS))
        for what, figures in one["figures"].items():
            lines.append(f"| {what} | {' | '.join(_cell(figures.get(key), what) for key in COLUMNS)} |")
        taken, vehicles = one["junctions"]["taken"], one["junctions"]["vehicles"]
        if not vehicles:
            lines += ["", f"{name}: no vehicle's log takes one of several ways."]
            continue
        head = f"{name}: {vehicles} vehicles at a fork, given"
        lines += ["", f"| {head} | take the log's way | take the other one | take neither |"]
        lines.append("| --- | ---: | ---: | ---: |")
        for given, counts in taken.items():
            total = max(sum(counts.values()), 1)
            shares = " | ".join(f"{counts[key] / total:.1%}" for key in ("log", "other", "none"))
            lines.append(f"| {given} | {shares} |")
    return "\n".join([*lines, ""])


def _cell(figure: dict[str, Any] | None, what: str) -> str:
    if figure is None:
        return "–"
    text = f"{figure['mean']:.3f}"
    if what.startswith("whole"):
        return text
    if figure["ratio"] is None:  # nobody does it with everything shown
        return f"{text} (**from none**)" if figure["mean"] > 0 else text
    times = f"{figure['ratio']:.2f}"
    if figure["low"] is not None:
        times += f", {figure['low']:.2f} to {figure['high']:.2f}"
    return f"{text} ({f'**{times}**' if figure['ratio'] >= ENOUGH else times})"


if __name__ == "__main__":
    main()
