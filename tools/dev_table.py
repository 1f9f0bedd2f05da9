"""Score baselines and models on a list of development scenes, and write the tables of a page.

python -P tools/dev_table.py score SCENES.json --out WORK [--policy NAME ...] > docs/figures/baselines.json
python -P tools/dev_table.py write docs/figures/baselines.json docs/baselines.md
python -P tools/dev_table.py write small.json baselines.json docs/model.md --whole "third 2"

`score` goes on where it was killed: rows lie in WORK, one file per baseline, as `traj-diffusion evaluate SCENES.json
--policy NAME --out WORK` leaves them. SCENES.json is a list of {file, id} whose entries may say `light_steps` and
`third`; tables are made of all scenes, of those with lights and those without, and of each third.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from traj_diffusion import __version__
from traj_diffusion.evaluation import Run, RunSettings, evaluate, run_figures
from traj_diffusion.evaluation.evaluate import LOG_BASELINES
from traj_diffusion.evaluation.tables import MAIN, WOSAC_FIELDS, main_name
from traj_diffusion.policies import BASELINES, load_policy

START = "<!-- figures: written by tools/dev_table.py -->\n"
END = "<!-- end of figures -->\n"
SETTINGS = RunSettings(rollouts=32, futures=1, replan_every=5, seed=0)
NAMES = (*BASELINES, *LOG_BASELINES)


@click.group(help=__doc__)
def main() -> None:
    """Two verbs."""


@main.command()
@click.argument("scenes", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--policy", "names", multiple=True, default=NAMES, show_default=True)
@click.option("--workers", type=int, default=1, show_default=True)
@click.option("--part", help="Score this part alone, such as 'third 2'.")
def score(scenes: Path, out: Path, names: tuple[str, ...], workers: int, part: str | None) -> None:
    """Score baselines (or any policy that `load_policy` knows) and print all means as JSON."""
    entries: list[dict[str, Any]] = json.loads(scenes.read_text(encoding="utf-8"))
    wanted, source = parts(entries), scenes
    if part is not None:
        if part not in wanted:
            sys.exit(f"{scenes}: no part {part!r}; it has {', '.join(wanted)}")
        wanted = {part: wanted[part]}
        entries = [entry for entry in entries if entry["id"] in wanted[part]]
        source = out / f"{part.replace(' ', '-')}.json"
        out.mkdir(parents=True, exist_ok=True)
        located = [entry | {"file": str((scenes.parent / entry["file"]).resolve())} for entry in entries]
        source.write_text(json.dumps(located), encoding="utf-8")
    runs = []
    for name in names:
        driver = name if name in LOG_BASELINES else load_policy(name)
        with click.progressbar(length=len(entries), label=name, file=sys.stderr) as bar:
            rows = out / f"{name}.rows.jsonl"
            runs.append(evaluate(source, driver, SETTINGS, rows, workers=workers, progress=lambda _: bar.update(1)))
    found = {
        "scenes": scenes.name,
        "settings": asdict(SETTINGS) | {"version": __version__},
        "parts": {name: _figures(runs, ids) for name, ids in wanted.items()},
    }
    click.echo(json.dumps(found, indent=1, allow_nan=False))


@main.command()
@click.argument("figures", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(exists=True, path_type=Path))
@click.option("--whole", default="all scenes", show_default=True, help="Of which part all figures are shown.")
def write(figures: tuple[Path, ...], target: Path, whole: str) -> None:
    """Write the tables into the page, columns in the order of the files."""
    before, _, rest = target.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    text = block(merged([json.loads(path.read_text()) for path in figures]), whole)
    target.write_text(before + START + text + END + after, encoding="utf-8")


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
    return {part: ids for part, ids in found.items() if ids}


def block(found: dict[str, Any], part: str) -> str:
    """Return the tables as Markdown: all figures for one part, the main one for each."""
    if part not in found["parts"]:
        sys.exit(f"no part {part!r}; known: {', '.join(found['parts'])}")
    whole = found["parts"][part]
    names = list(whole)
    lines = [f"{found['scenes']}, traj-diffusion {found['settings']['version']}. Means over scenes, 95 % intervals."]
    by: dict[str, list[str]] = {}
    for name, figures in whole.items():
        by.setdefault(figures["protocol"], []).append(f"`{name}`")
    lines += [f"{', '.join(group)}: {protocol}." for protocol, group in by.items()]
    titles = {f"wosac {field}": title.strip() for field, title in WOSAC_FIELDS.items()}
    titles |= {f"means {pattern.format(runs=SETTINGS.rollouts)}": title.strip() for pattern, title in MAIN.items()}
    lines += ["", f"| {part}: {_scenes(whole)} scenes | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for key, title in titles.items():
        lines.append(f"| {title} | {' | '.join(_cell(whole[name], key) for name in names)} |")
    lines += ["", f"| realism meta-metric | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for title, figures in found["parts"].items():
        cells = " | ".join(_cell(figures[name], "wosac metametric") for name in names)
        lines.append(f"| {title} ({_scenes(figures)}) | {cells} |")
    return "\n".join([*lines, ""])


def _figures(runs: list[Run], wanted: set[str]) -> dict[str, Any]:
    """Return the main figures of each run over some of its scenes."""
    found = {}
    for run in runs:
        part = Run(run.name, run.settings, [row for row in run.rows if row.scene_id in wanted])
        figures = run_figures(part)
        kept = {main_name(pattern, part) for pattern in MAIN}
        figures["means"] = {name: mean for name, mean in figures["means"].items() if name in kept}
        found[run.name] = {name: figures[name] for name in ("protocol", "scenes", "wosac", "means")}
    return found


def _scenes(figures: dict[str, Any]) -> int:
    return max(run["scenes"] for run in figures.values())


def _cell(figures: dict[str, Any], key: str) -> str:
    group, name = key.split(" ", 1)
    mean = figures[group].get(name)
    return "–" if mean is None else f"{mean['mean']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]"


if __name__ == "__main__":
    main()
