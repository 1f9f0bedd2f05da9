"""Text tables of runs: WOSAC with intervals, and the main figures beside it. Each names the rules it was made by."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from traj_diffusion.evaluation.rows import Run
from traj_diffusion.evaluation.run import summary
from traj_diffusion.metrics import Summary, wosac

WOSAC_FIELDS: Mapping[str, str] = {
    "metametric": "realism meta-metric",
    "linear_speed_likelihood": "  linear speed",
    "linear_acceleration_likelihood": "  linear acceleration",
    "angular_speed_likelihood": "  angular speed",
    "angular_acceleration_likelihood": "  angular acceleration",
    "distance_to_nearest_object_likelihood": "  distance to nearest object",
    "collision_indication_likelihood": "  collision",
    "time_to_collision_likelihood": "  time to collision",
    "distance_to_road_edge_likelihood": "  distance to road edge",
    "offroad_indication_likelihood": "  off-road",
    "traffic_light_violation_likelihood": "  traffic light",
    "simulated_collision_rate": "collision rate",
    "simulated_offroad_rate": "off-road rate",
    "simulated_traffic_light_violation_rate": "red-light rate",
    "min_average_displacement_error": "minADE, official, m",
}
"""Official names of a table's rows, and what they are called there."""

MAIN: Mapping[str, str] = {
    "metametric_2024": "realism meta-metric of 2024",
    "joint_min_ade@6/3s": "joint minADE@6 3 s, m",
    "joint_min_ade@6/5s": "joint minADE@6 5 s, m",
    "joint_min_ade@6/8s": "joint minADE@6 8 s, m",
    "joint_min_ade@{runs}/3s": "joint minADE@{runs} 3 s, m",
    "joint_min_ade@{runs}/5s": "joint minADE@{runs} 5 s, m",
    "joint_min_ade@{runs}/8s": "joint minADE@{runs} 8 s, m",
    "joint_min_fde@{runs}/8s": "joint minFDE@{runs} 8 s, m",
    "marginal_min_ade@{runs}/8s": "per-agent minADE@{runs} 8 s, m",
    "joint_miss_rate_argoverse@6/8s": "joint miss rate@6 8 s (2 m)",
    "joint_miss_rate_argoverse@{runs}/3s": "joint miss rate@{runs} 3 s (2 m)",
    "joint_miss_rate_argoverse@{runs}/5s": "joint miss rate@{runs} 5 s (2 m)",
    "joint_miss_rate_argoverse@{runs}/8s": "joint miss rate@{runs} 8 s (2 m)",
    "joint_energy_score": "joint energy score, m",
    "joint_apd": "diversity (joint APD), m",
    "coverage_90_along": "logs in the 90 % set, along",
    "coverage_90_across": "logs in the 90 % set, across",
    "new_collision_rate": "new collisions",
    "log/new_collision_rate": "  ... of the log",
    "new_offroad_rate": "newly off the road",
    "log/new_offroad_rate": "  ... of the log",
    "red_light_rate": "red lights run",
    "log/red_light_rate": "  ... of the log",
    "infeasible_rate": "infeasible motion",
    "log/infeasible_rate": "  ... of the log",
}


def wosac_summary(run: Run) -> wosac.WosacSummary | None:
    """Return the means of all scenes that WOSAC can score, or None if there are none."""
    scores = [row.wosac for row in run.rows if row.wosac is not None]
    return wosac.aggregate(scores) if scores else None


def metric_summary(run: Run) -> Summary:
    """Return the means of all other metrics."""
    return summary([row.metrics for row in run.rows])


def main_rows(rollouts: Collection[int]) -> dict[str, str]:
    """Return `MAIN` for runs of so many rollouts: pattern and title, each figure once.

    >>> [title for title in main_rows([32]).values() if "minADE" in title and "8 s" in title]
    ['joint minADE@6 8 s, m', 'joint minADE@32 8 s, m', 'per-agent minADE@32 8 s, m']
    """
    counts = sorted(set(rollouts))
    shown = str(counts[0]) if len(counts) == 1 else "K"
    found: dict[str, str] = {}
    for pattern, title in MAIN.items():
        title = title.format(runs=shown)
        if title not in found.values():
            found[pattern] = title
    return found


def rows_of(runs: Sequence[Run]) -> dict[str, str]:
    """Return the rows of `MAIN` in a table of these runs."""
    return main_rows([_rollouts(run) for run in runs])


def main_name(pattern: str, run: Run) -> str:
    """Return a name of `MAIN` for a run: displacement errors carry the number of rollouts."""
    return pattern.format(runs=_rollouts(run))


def _rollouts(run: Run) -> int:
    return run.rows[0].protocol.rollouts if run.rows else 0


def run_table(runs: Sequence[Run]) -> str:
    """Return the table of several runs, a column each, under a line per protocol: year, R, K and replanning rate."""
    official = [wosac_summary(run) for run in runs]
    others = [metric_summary(run) for run in runs]
    cells = [["", *(run.name for run in runs)]]
    for field, title in WOSAC_FIELDS.items():
        cells.append([title, *("-" if one is None else _cell(one.fields[field]) for one in official)])
    for pattern, title in rows_of(runs).items():
        found = [one.means.get(main_name(pattern, run)) for run, one in zip(runs, others, strict=True)]
        cells.append([title, *("-" if mean is None else _cell(mean) for mean in found)])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*captions(runs), "", *lines]) + "\n"


def captions(runs: Sequence[Run]) -> list[str]:
    """Return one line per protocol, naming whose it is where there are several, and for scenes without WOSAC
    or without rollouts."""
    by: dict[str, list[str]] = {}
    for run in runs:
        by.setdefault(run.protocol, []).append(run.name)
    lines = [text if len(by) == 1 else f"{', '.join(names)}: {text}" for text, names in by.items()]
    lines.append("Mean over scenes [95 % bootstrap interval over scenes].")
    for run in runs:
        absent = [row for row in run.rows if row.wosac is None]
        if absent:
            lines.append(f"{run.name}: no WOSAC for {len(absent)} scenes, the first: {absent[0].wosac_absent}")
        warned = [row.wosac.warnings for row in run.rows if row.wosac is not None and row.wosac.warnings]
        if warned:
            lines.append(f"{run.name}: WOSAC warns for {len(warned)} scenes, the first: {warned[0][0]}")
        if run.missing:
            total = len(run.missing) + len(run.rows)
            lines.append(f"{run.name}: no rollouts for {len(run.missing)} of {total} scenes: {', '.join(run.missing)}")
    return lines


def run_figures(run: Run) -> dict[str, Any]:
    """Return all means with their intervals as plain values for JSON; what no scene has is `absent`, with reasons."""
    official = wosac_summary(run)
    found: dict[str, Any] = {"protocol": run.protocol, "scenes": len(run.rows), "settings": dict(run.settings)}
    found["wosac"] = {}
    if official is not None:
        estimates = {**official.fields, "future_ade": official.future_ade, "min_future_ade": official.min_future_ade}
        found["wosac"] = {name: asdict(one) for name, one in estimates.items() if one.scenes}
    others = metric_summary(run)
    found["means"] = {
        name: {"mean": one.mean, "low": one.low, "high": one.high, "scenes": one.scenes}
        for name, one in others.means.items()
    }
    found["absent"] = {name: dict(reasons) for name, reasons in others.absent.items()}
    found["missing"] = dict(run.missing)
    return found


def _cell(one: Any) -> str:
    return f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]" if one.scenes else "-"
