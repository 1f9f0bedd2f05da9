"""Draw docs/figures/samplers.png: quality of every sampler against its cost, on data whose ideal denoiser is known.

    python tools/figure_samplers.py [--out docs/figures]

Also writes samplers.json beside it, and puts the table "which sampler" into docs/diffusion.md from that JSON.
"""

import argparse
import json
import math
import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from traj_diffusion.diffusion import (
    CosineVP,
    Ddim,
    Ddpm,
    DpmSolver,
    Edm,
    FlowEuler,
    FlowHeun,
    GaussianMixture,
    Heun,
    Rule,
    Schedule,
    StraightFlow,
    initial_noise,
    make_grid,
    ring,
    sample,
)

ROOT = Path(__file__).resolve().parents[1]
POINTS, DIRECTIONS = 10_000, 64
EVALUATIONS = (4, 6, 8, 12, 16, 24, 32, 64, 128)
SAMPLERS: tuple[tuple[str, Schedule, str, Rule, str, str], ...] = (
    ("DDPM ancestral", CosineVP(), "uniform", Ddpm(), "#b0563b", "--"),
    ("DDIM", CosineVP(), "uniform", Ddim(), "#d98b3a", "-"),
    ("DPM-Solver++ 2M", CosineVP(), "log_snr", DpmSolver(2), "#1f6f8b", "-"),
    ("DPM-Solver++ 2M SDE", CosineVP(), "log_snr", DpmSolver(2, sde=True), "#1f6f8b", "--"),
    ("EDM Heun", Edm(), "karras", Heun(), "#5b8c3e", "-"),
    ("EDM Heun, churn 10", Edm(), "karras", Heun(churn=10.0), "#5b8c3e", "--"),
    ("Flow Euler", StraightFlow(), "uniform", FlowEuler(), "#8a6bb1", "-"),
    ("Flow Heun", StraightFlow(), "uniform", FlowHeun(), "#c065a0", "-"),
)


def sliced_wasserstein(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the sliced 2-Wasserstein distance of two clouds [n, 2], over evenly spread directions."""
    angle = torch.arange(DIRECTIONS, dtype=torch.float64) * (math.pi / DIRECTIONS)
    direction = torch.stack([angle.cos(), angle.sin()])
    a, b = ((z.double() @ direction).sort(0).values for z in (x, y))
    return float((a - b).square().mean().sqrt())


def draw_by(schedule: Schedule, grid: str, rule: Rule, data: GaussianMixture, evaluations: int) -> tuple:
    """Return points drawn at about that cost, and the evaluations that it took."""
    steps = evaluations if rule.evaluations == 1 else (evaluations + 1) // 2
    count = 0
    ideal = data.denoiser(schedule)

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return ideal(x_t, t)

    eps = torch.randn(POINTS, 2, generator=torch.Generator().manual_seed(1))
    x_T = initial_noise(eps, schedule)
    times = make_grid(grid, schedule, steps)
    return sample(denoise, x_T, schedule, times, rule, torch.Generator().manual_seed(2)), count


def measure() -> dict:
    """Return distances of all samplers at all costs, and that of two clouds both drawn from the data: the floor."""
    data = ring(8, radius=1.4, std=0.12)
    truth = data.draw(POINTS, torch.Generator().manual_seed(3))
    floor = [sliced_wasserstein(truth, data.draw(POINTS, torch.Generator().manual_seed(seed))) for seed in range(4, 24)]
    rows, clouds = [], {}
    for name, schedule, grid, rule, _, _ in SAMPLERS:
        for evaluations in EVALUATIONS:
            x0, count = draw_by(schedule, grid, rule, data, evaluations)
            which = torch.bincount(data.nearest(x0), minlength=8) / POINTS
            rows.append(
                {
                    "sampler": name,
                    "rule": repr(rule),
                    "schedule": repr(schedule),
                    "grid": grid,
                    "evaluations": count,
                    "distance": sliced_wasserstein(x0, truth),
                    "mode_weight_error": float((which - data.weight).abs().sum() / 2),
                }
            )
            if evaluations == 16:
                clouds[name] = x0
    return {"points": POINTS, "floor": sum(floor) / len(floor), "rows": rows, "clouds": clouds, "truth": truth}


def needed(result: dict, name: str) -> int | None:
    """Return the evaluations from which on a sampler stays within one and a half times the floor."""
    rows = [row for row in result["rows"] if row["sampler"] == name]
    good = None
    for row in reversed(rows):
        if row["distance"] > 1.5 * result["floor"]:
            break
        good = row["evaluations"]
    return good


def draw(result: dict, path: Path) -> None:
    """Draw the curves, and what 16 evaluations look like."""
    figure = plt.figure(figsize=(12, 9), layout="constrained")
    parts = figure.add_gridspec(3, 4, height_ratios=[2.1, 1, 1])
    axes = figure.add_subplot(parts[0, :])
    for name, _, _, _, colour, line in SAMPLERS:
        rows = [row for row in result["rows"] if row["sampler"] == name]
        cost, distance = [row["evaluations"] for row in rows], [row["distance"] for row in rows]
        axes.plot(cost, distance, line, color=colour, marker="o", markersize=4, linewidth=1.8, label=name)
    axes.axhline(result["floor"], color="0.4", linewidth=1, linestyle=":")
    axes.annotate(
        "two draws from the data itself", (EVALUATIONS[-1], result["floor"]), (0, -3), textcoords="offset points",
        ha="right", va="top", color="0.35", fontsize=9,
    )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="evaluations of the denoiser", ylabel="sliced Wasserstein distance")
    axes.set_xticks(EVALUATIONS, [str(n) for n in EVALUATIONS])
    axes.set_ylim(0.8 * result["floor"], 0.7)  # a start at sigma = 80 leaves few large steps of Heun far outside
    axes.minorticks_off()
    axes.set_yticks([0.05, 0.1, 0.2, 0.5], ["0.05", "0.1", "0.2", "0.5"])
    axes.grid(alpha=0.25)
    axes.legend(ncols=2, frameon=False, fontsize=9)
    axes.set_title(
        "Eight samplers, each with the ideal denoiser of eight Gaussians on a ring (dashed: stochastic)", loc="left"
    )
    for i, (name, _, _, rule, colour, _) in enumerate(SAMPLERS):
        small = figure.add_subplot(parts[1 + i // 4, i % 4])
        small.scatter(*result["truth"][:1500].T, s=2, color="0.82", linewidths=0)
        small.scatter(*result["clouds"][name][:1500].T, s=2, color=colour, linewidths=0)
        small.set(xlim=(-2.1, 2.1), ylim=(-2.1, 2.1), xticks=[], yticks=[], aspect="equal")
        small.set_title(f"{name}, {16 if rule.evaluations == 1 else 15} evaluations", fontsize=9)
    figure.savefig(path, dpi=110)


def table(result: dict) -> str:
    """Return the table of docs/diffusion.md."""
    columns = ["sampler", "schedule, grid", "8 evaluations", "16", "32", "128", "good from"]
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join(["---"] * len(columns)) + " |"]
    for name, schedule, grid, _, _, _ in SAMPLERS:
        rows = [row for row in result["rows"] if row["sampler"] == name]
        at = [min(rows, key=lambda row: abs(row["evaluations"] - n))["distance"] for n in (8, 16, 32, 128)]
        good = needed(result, name)
        kind = f"{type(schedule).__name__}, {grid}"
        lines.append("| " + " | ".join([name, kind, *[f"{d:.3f}" for d in at], str(good or "more")]) + " |")
    lines.append("")
    lines.append(
        f"Sliced Wasserstein distance of {result['points']} points to as many of the data; two draws from the data "
        f"have {result['floor']:.3f}. *Good from*: the evaluations from which on it stays within 1.5 times that. Heun "
        "asks twice a step and once in the last: one less than the column says."
    )
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def main() -> None:
    """Measure, draw, and bring the page up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    result = measure()
    draw(result, out / "samplers.png")
    kept = {key: result[key] for key in ("points", "floor", "rows")}
    write(out / "samplers.json", json.dumps(kept, indent=1) + "\n")
    page = ROOT / "docs" / "diffusion.md"
    before, rest = page.read_text(encoding="utf-8").split("<!-- samplers: begin -->\n")
    after = rest.split("<!-- samplers: end -->")[1]
    write(page, f"{before}<!-- samplers: begin -->\n{table(result)}\n<!-- samplers: end -->{after}")


if __name__ == "__main__":
    main()
