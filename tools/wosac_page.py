"""Write the figures of docs/wosac.md from the JSON that the tools printed.

python -P tools/wosac_page.py collect docs/figures/wosac.json --parity P.json --bench B.json ... --official O.json ...
python -P tools/wosac_page.py write docs/figures/wosac.json docs/wosac.md
"""

import json
import statistics
from pathlib import Path
from typing import Any

import click

from traj_diffusion.evaluation.pages import with_block

START = "<!-- figures: written by tools/wosac_page.py from docs/figures/wosac.json -->\n"
END = "<!-- end of figures -->\n"


def block(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    parity = figures["parity"]

    def largest(name: str) -> float:
        return max(report[name] for report in parity)

    apart = sum(report["kinematic_samples_apart"] + report["flags_apart"] for report in parity)
    samples = sum(report["samples_per_feature"] for report in parity)
    lines = [
        f"Against {len(parity)} goldens ({sum(report['fields_compared'] for report in parity)} official numbers): the "
        f"largest difference of any is {largest('largest_field_difference'):.1e}. Of {samples:,} samples of each of 4 "
        f"kinematic features and 3 flags, {apart} differ. Times to collision differ by at most "
        f"{largest('largest_time_to_collision_difference_s'):.1e} s, distances to the nearest object by "
        f"{1e3 * largest('largest_nearest_object_difference_m'):.2f} mm, to the road edge by "
        f"{1e3 * largest('largest_road_edge_difference_m'):.2f} mm (float32 steps there: up to "
        f"{1e3 * largest('float32_step_m'):.2f} mm).",
        "",
        "| scene | configuration | agents, evaluated | rollouts | CPU seconds | peak memory of the process |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for bench in figures["bench"]:
        name, runs, memory = bench["config"], bench["rollouts"], bench["peak_mib"]
        for row in bench["scenes"]:
            who = f"{row['sim_agents']}, {row['evaluated']}"
            lines.append(f"| {row['scene']} | `{name}` | {who} | {runs} | {row['cpu_s']:.3f} | {memory} MiB |")
    machine = figures["bench"][0]["machine"]
    where = f"a shared, busy machine with {machine['cores']} cores"
    lines += ["", f"CPU time of one thread on {where}, after compilation.", ""]
    for bench in figures["bench"]:
        for grown in bench.get("curves", []):
            lines += [_growth(grown, bench["config"]), ""]
    official = side_by_side(figures)
    if official:
        ratio = statistics.median(report["times_less_cpu"] for report in official)
        lines += [
            f"Side by side with the official package on the same input and machine, a median of {ratio:.0f} times less "
            "CPU time:",
            "",
            "| scene | configuration | our CPU time | official CPU time, peak memory | ratio | largest difference |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for report in official:
            cpu, apart = report["cpu_s"], report["largest_difference"]["absolute"]
            lines.append(
                f"| {report['scene']} | `{report['config']}` | {cpu['ours']:.3f} s | {cpu['official']:.0f} s, "
                f"{report['official_peak_mib']} MiB | {report['times_less_cpu']} | {apart:.1e} |"
            )
        lines.append("")
    ports = [(row, row["trajtok"]) for bench in figures["bench"] for row in bench["scenes"] if "trajtok" in row]
    if ports:
        ratio = statistics.median(port["times_less_cpu"] for _, port in ports)
        lines += [
            f"Side by side with TrajTok's torch port (torch {ports[0][1]['versions']['torch']}, one thread each), a "
            f"median of {ratio:.0f} times less CPU time. The port's conversion of the scene is not in its times:",
            "",
            "| scene | agents, evaluated | our CPU time | its CPU time, peak memory | ratio | largest difference |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for row, port in ports:
            apart = port["largest_difference"]
            lines.append(
                f"| {row['scene']} | {row['sim_agents']}, {row['evaluated']} | {row['cpu_s']:.3f} s | "
                f"{port['cpu_s']:.1f} s, {port['peak_mib']} MiB | {port['times_less_cpu']} | "
                f"{apart['absolute']:.1e} ({apart['field'].replace('_', ' ')}) |"
            )
        lines.append("")
    return "\n".join(lines)


def side_by_side(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all comparisons with the official package: those of official_wosac.py and those of bench_wosac.py."""
    found = list(figures["official"])
    for bench in figures["bench"]:
        rows = [row for row in bench["scenes"] if "official" in row]
        found += [{"scene": row["scene"], "config": bench["config"], **row["official"]} for row in rows]
    return found


def _growth(grown: dict[str, Any], config: str) -> str:
    parts = []
    for name in ("rollouts", "agents"):
        seconds = grown[name]["cpu_s"]
        least, most = min(seconds, key=int), max(seconds, key=int)
        power = grown[name]["power"]
        parts.append(f"from {least} to {most} {name} {seconds[least]:.3f} to {seconds[most]:.3f} s (power {power})")
    return f"How time grows on scene {grown['scene']}, `{config}`: {', '.join(parts)}."


def page(text: str, figures: dict[str, Any]) -> str:
    """Return the page with its figures in place."""
    return with_block(text, START, END, block(figures))


@click.group(help=__doc__)
def main() -> None:
    """Two verbs."""


@main.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--parity", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--bench", type=click.Path(exists=True, path_type=Path), multiple=True, required=True)
@click.option("--official", type=click.Path(exists=True, path_type=Path), multiple=True)
def collect(out: Path, parity: Path, bench: tuple[Path, ...], official: tuple[Path, ...]) -> None:
    """Put what the tools printed into one file."""
    figures = {
        "parity": json.loads(parity.read_text()),
        "bench": [json.loads(file.read_text()) for file in bench],
        "official": [report for file in official for report in json.loads(file.read_text())],
    }
    out.write_text(json.dumps(figures, indent=1) + "\n")


@main.command()
@click.argument("figures", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(exists=True, path_type=Path))
def write(figures: Path, target: Path) -> None:
    """Write the figures into the page."""
    target.write_text(page(target.read_text(encoding="utf-8"), json.loads(figures.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
