"""Score baselines and models on a list of development scenes, and write the tables of a page.

python -P tools/dev_table.py score SCENES.json --out WORK [--policy NAME ...] > docs/figures/baselines.json
python -P tools/dev_table.py write docs/figures/baselines.json docs/baselines.md
python -P tools/dev_table.py write small.json baselines.json docs/model.md --whole "third 2" --whole "all scenes"
python -P tools/dev_table.py pick dev_scenes.json --part "third 0" --part "third 1" --first 15 > thirty.json
python -P tools/dev_table.py list "Argoverse 2=av2" nuScenes=scenarionet/nuscenes > zero_shot.json
python -P tools/dev_table.py write zero_shot_figures.json docs/model.md --block zero-shot --whole "Argoverse 2"

`score` goes on where it was killed: rows lie in WORK, one file per baseline, as `traj-diffusion evaluate SCENES.json
--policy NAME --out WORK` leaves them. SCENES.json is a list of {file, id} whose entries may say `light_steps`, `third`
and `set`; tables are made of all scenes, of those with lights and those without, of each third and of each set. `pick`
takes some of them; `list` makes such a list of what can be scored in some folders, a set each, and says on stderr what
cannot, and why.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from traj_diffusion import __version__
from traj_diffusion.datasets import list_sources, read_scenes
from traj_diffusion.errors import TrajDiffusionError
from traj_diffusion.evaluation import Run, RunSettings, evaluate, run_figures
from traj_diffusion.evaluation.evaluate import LOG_BASELINES
from traj_diffusion.evaluation.pages import with_block
from traj_diffusion.evaluation.score_row import scored_seconds
from traj_diffusion.evaluation.tables import MAIN, WOSAC_FIELDS, main_name, main_rows
from traj_diffusion.metrics import AgentSet
from traj_diffusion.policies import BASELINES, load_policy
from traj_diffusion.scene import Scene

BLOCK = "figures"
LEAST = 3.0  # s of recorded future, the shortest horizon of displacement errors
SETTINGS = RunSettings(rollouts=32, futures=1, replan_every=5, seed=0)
NAMES = (*BASELINES, *LOG_BASELINES)
MAIN_KEY = "wosac metametric"


@click.group(help=__doc__)
def main() -> None:
    """Four verbs."""


@main.command()
@click.argument("scenes", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option(
    "--policy",
    "names",
    multiple=True,
    default=NAMES,
    show_default=True,
    metavar="NAME|LABEL=FILE",
    help="Again for more.",
)
@click.option("--workers", type=int, default=1, show_default=True)
@click.option("--part", help="Score this part alone, such as 'third 2'.")
@click.option("--everybody", is_flag=True, help="Count all simulated agents, where lists name none to be predicted.")
def score(scenes: Path, out: Path, names: tuple[str, ...], workers: int, part: str | None, everybody: bool) -> None:
    """Score baselines (or any policy that `load_policy` knows) and print all means as JSON."""
    entries = located(scenes)
    wanted, source = parts(entries), scenes
    if part is not None:
        if part not in wanted:
            sys.exit(f"{scenes}: no part {part!r}; it has {', '.join(wanted)}")
        wanted = {part: wanted[part]}
        entries = [entry for entry in entries if entry["id"] in wanted[part]]
        source = out / f"{part.replace(' ', '-')}.json"
        out.mkdir(parents=True, exist_ok=True)
        source.write_text(json.dumps(entries), encoding="utf-8")
    agents = AgentSet.SIMULATED if everybody else AgentSet.EVALUATED
    runs: dict[str, Run] = {}
    for name in names:
        name, _, file = name.partition("=")
        driver = name if name in LOG_BASELINES else load_policy(file or name)
        with click.progressbar(length=len(entries), label=name, file=sys.stderr) as bar:
            rows = out / f"{name}.rows.jsonl"

            def done(_: str) -> None:
                bar.update(1)

            runs[name] = evaluate(source, driver, SETTINGS, rows, workers=workers, agents=agents, progress=done)
    found = {
        "scenes": scenes.name,
        "settings": asdict(SETTINGS) | {"version": __version__},
        "parts": {name: _figures(runs, ids) for name, ids in wanted.items()},
    }
    click.echo(json.dumps(found, indent=1, allow_nan=False))


@main.command()
@click.argument("scenes", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--part", "names", multiple=True, required=True, help="Such as 'third 2' or 'with lights'.")
@click.option("--first", type=click.IntRange(min=1), help="No more than so many of each part, in the list's order.")
def pick(scenes: Path, names: tuple[str, ...], first: int | None) -> None:
    """Print a list of the scenes of some parts of a list, each once."""
    entries = located(scenes)
    wanted = parts(entries)
    unknown = [name for name in names if name not in wanted]
    if unknown:
        sys.exit(f"{scenes}: no part {unknown[0]!r}; it has {', '.join(wanted)}")
    chosen = [[entry for entry in entries if entry["id"] in wanted[name]][:first] for name in names]
    found = {entry["id"]: entry for part in chosen for entry in part}
    click.echo(json.dumps(list(found.values()), indent=1))


def located(scenes: Path) -> list[dict[str, Any]]:
    """Return the entries of a list, their files as paths that hold from anywhere."""
    entries: list[dict[str, Any]] = json.loads(scenes.read_text(encoding="utf-8"))
    return [entry | {"file": str((scenes.parent / entry["file"]).resolve())} for entry in entries]


@main.command("list")
@click.argument("folders", nargs=-1, required=True, metavar="NAME=FOLDER...")
def list_scenes(folders: tuple[str, ...]) -> None:
    """Print a list of the scenes of some folders that have 3 s of recorded future and somebody to score."""
    found: list[dict[str, Any]] = []
    for one in folders:
        name, _, folder = one.partition("=")
        for source in list_sources(folder):
            try:
                for scene in read_scenes([source]):
                    reason = why_not(scene) or ("its id came already" if scene.id in {e["id"] for e in found} else "")
                    if reason:
                        click.echo(f"{source.file}: {scene.id}: {reason}", err=True)
                        continue
                    lights = int(scene.lights.observed.any(0).sum()) if len(scene.lights) else 0
                    entry = {"file": str(source.file.resolve()), "id": scene.id, "set": name, "light_steps": lights}
                    found.append(entry | {"future": scored_seconds(scene), "sim_agents": len(scene.sim_agents)})
            except TrajDiffusionError as error:
                click.echo(str(error), err=True)
    click.echo(json.dumps(found, indent=1))


def why_not(scene: Scene) -> str:
    """Return why a scene cannot be scored, or nothing."""
    future = (scene.steps - 1 - scene.current_index) * scene.dt
    if future < LEAST - 1e-6:
        return f"{max(future, 0):g} s of future; {LEAST:g} s are the least"
    first = scene.current_index + 1
    if not scene.agents.valid[scene.sim_agents, first:].any():
        return "nobody who is there at the current index has a recorded future"
    return ""


@main.command()
@click.argument("figures", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--whole",
    "wholes",
    multiple=True,
    default=("all scenes",),
    show_default=True,
    help="Show all figures of this part.",
)
@click.option("--block", "name", default=BLOCK, show_default=True, help="Between which marks of the page they stand.")
def write(figures: tuple[Path, ...], target: Path, wholes: tuple[str, ...], name: str) -> None:
    """Write the tables into the page, columns in the order of the files."""
    start, end = marks(name)
    text = block(merged([json.loads(path.read_text()) for path in figures]), wholes)
    target.write_text(with_block(target.read_text(encoding="utf-8"), start, end, text), encoding="utf-8")


def marks(name: str = BLOCK) -> tuple[str, str]:
    """Return the lines between which a block of tables stands."""
    return f"<!-- {name}: written by tools/dev_table.py -->\n", f"<!-- end of {name} -->\n"


def merged(files: list[dict[str, Any]]) -> dict[str, Any]:
    """Return figures of several files as if they were of one, of the parts that all of them have."""
    names = {one["scenes"] for one in files}
    if len(names) > 1:
        sys.exit(f"figures of {' and of '.join(sorted(names))} cannot stand in one table")
    common = [part for part in files[0]["parts"] if all(part in other["parts"] for other in files)]
    columns = {part: {k: v for one in files for k, v in one["parts"][part].items()} for part in common}
    return files[0] | {"parts": columns}


def parts(entries: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Return ids of the scenes of each table; a part that no scene belongs to is left out."""
    found = {
        "all scenes": {entry["id"] for entry in entries},
        "with lights": {entry["id"] for entry in entries if entry.get("light_steps", 0) > 0},
        "without lights": {entry["id"] for entry in entries if entry.get("light_steps", 1) == 0},
    }
    for third in sorted({entry["third"] for entry in entries if "third" in entry}):
        found[f"third {third}"] = {entry["id"] for entry in entries if entry.get("third") == third}
    for name in dict.fromkeys(entry["set"] for entry in entries if "set" in entry):
        found[name] = {entry["id"] for entry in entries if entry.get("set") == name}
    return {part: ids for part, ids in found.items() if ids}


def block(found: dict[str, Any], wholes: Sequence[str]) -> str:
    """Return the tables as Markdown: all figures of each part in `wholes`, the main one of each part.

    A figure that nobody has there has no row.
    """
    unknown = [part for part in wholes if part not in found["parts"]]
    if unknown:
        sys.exit(f"no part {unknown[0]!r}; known: {', '.join(found['parts'])}")
    lines = [
        f"{found['scenes']}, traj-diffusion {found['settings']['version']}. Means over scenes, 95 % intervals; "
        "in round brackets how many scenes have the figure, where not all do."
    ]
    for part in wholes:
        lines += _table(part, found["parts"][part])
    names = list(found["parts"][wholes[0]])
    if any(_cell(figures[name], MAIN_KEY, 0) != "–" for figures in found["parts"].values() for name in names):
        lines += ["", f"| realism meta-metric | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
        for title, figures in found["parts"].items():
            cells = " | ".join(_cell(figures[name], MAIN_KEY, _scenes(figures)) for name in names)
            lines.append(f"| {title} ({_scenes(figures)}) | {cells} |")
    return "\n".join([*lines, ""])


def _table(part: str, whole: dict[str, Any]) -> list[str]:
    names, scenes = list(whole), _scenes(whole)
    by: dict[str, list[str]] = {}
    for name, figures in whole.items():
        by.setdefault(figures["protocol"], []).append(f"`{name}`")
    titles = {f"wosac {field}": title.strip() for field, title in WOSAC_FIELDS.items()}
    rows = main_rows([SETTINGS.rollouts])
    titles |= {f"means {pattern.format(runs=SETTINGS.rollouts)}": title.strip() for pattern, title in rows.items()}
    lines = ["", *(f"{', '.join(group)}: {protocol}." for protocol, group in by.items())]
    lines += ["", f"| {part}: {scenes} scenes | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for key, title in titles.items():
        cells = [_cell(whole[name], key, scenes) for name in names]
        if set(cells) != {"–"}:
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _figures(runs: dict[str, Run], wanted: set[str]) -> dict[str, Any]:
    """Return the main figures of each run over some of its scenes."""
    found = {}
    for name, run in runs.items():
        part = Run(run.name, run.settings, [row for row in run.rows if row.scene_id in wanted])
        figures = run_figures(part)
        kept = {main_name(pattern, part) for pattern in MAIN}
        figures["means"] = {figure: mean for figure, mean in figures["means"].items() if figure in kept}
        found[name] = {key: figures[key] for key in ("protocol", "scenes", "wosac", "means")}
    return found


def _scenes(figures: dict[str, Any]) -> int:
    return max(run["scenes"] for run in figures.values())


def _cell(figures: dict[str, Any], key: str, scenes: int) -> str:
    group, name = key.split(" ", 1)
    mean = figures[group].get(name)
    if mean is None:
        return "–"
    some = "" if mean["scenes"] == scenes else f" ({mean['scenes']})"
    return f"{mean['mean']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]{some}"


if __name__ == "__main__":
    main()
