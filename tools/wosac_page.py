"""Write the figures of docs/wosac.md from the JSON that the tools printed.

python -P tools/wosac_page.py collect docs/figures/wosac.json --parity P.json --bench B.json ... --official O.json ...
python -P tools/wosac_page.py write docs/figures/wosac.json docs/wosac.md
"""

import json
from pathlib import Path
from typing import Any

import click

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
    lines += ["", f"One thread on a shared machine with {machine['cores']} cores, after compilation.", ""]
    if figures["official"]:
        lines += [
            "Side by side with the official package on the same input and machine:",
            "",
            "| scene | configuration | our CPU time | official CPU time, peak memory | ratio | largest difference |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for report in figures["official"]:
            cpu, apart = report["cpu_s"], report["largest_difference"]["absolute"]
            lines.append(
                f"| {report['scene']} | `{report['config']}` | {cpu['ours']:.3f} s | {cpu['official']:.0f} s, "
                f"{report['official_peak_mib']} MiB | {report['times_less_cpu']} | {apart:.1e} |"
            )
        lines.append("")
    return "\n".join(lines)


def page(text: str, figures: dict[str, Any]) -> str:
    """Return the page with its figures in place."""
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    return before + START + block(figures) + END + after


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
