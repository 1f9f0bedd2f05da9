"""Which metrics a table shows unless asked for more, and what they are called there."""

import re
from collections.abc import Mapping
from dataclasses import replace

from traj_diffusion.metrics import SceneScore, Summary, table

# Name of the metric -> heading. K stands for the number of rollouts that was scored.
HEADLINE: Mapping[str, str] = {
    "joint_min_ade@K/8s": "joint minADE@K, m",
    "joint_min_fde@K/8s": "joint minFDE@K, m",
    "marginal_min_ade@K/8s": "per-agent minADE@K, m",
    "marginal_min_fde@K/8s": "per-agent minFDE@K, m",
    "joint_miss_rate_argoverse@K/8s": "joint miss rate@K (2 m)",
    "marginal_miss_rate_argoverse@K/8s": "per-agent miss rate@K (2 m)",
    "joint_apd": "diversity (APD), m",
    "collision_rate": "collision rate",
    "log/collision_rate": "... of the recording",
    "offroad_rate/vehicle": "off-road rate, vehicles",
    "log/offroad_rate/vehicle": "... of recorded vehicles",
}


def headings(names: Mapping[str, object]) -> dict[str, str]:
    """Return the main ones of these names of metrics, each with its heading, in the order of the table.

    >>> headings({"joint_apd": 0.0, "joint_min_ade@6/8s": 1.2, "joint_min_ade@6/3s": 0.4})
    {'joint_min_ade@6/8s': 'joint minADE@6, m', 'joint_apd': 'diversity (APD), m'}
    """
    found = {}
    for wanted, heading in HEADLINE.items():
        pattern = re.compile(re.escape(wanted).replace("@K", r"@(\d+)"))
        for match in filter(None, map(pattern.fullmatch, names)):
            found[match[0]] = heading.replace("@K", f"@{match[1]}") if match.lastindex else heading
    return found


def main_scores(score: SceneScore) -> dict[str, float]:
    """Return the main metrics of one scene by their headings."""
    return {heading: score[name] for name, heading in headings(score).items() if not name.startswith("log/")}


def headline(summaries: Mapping[str, Summary]) -> str:
    """Return the table of the main metrics, one column per summary."""
    shown: dict[str, str] = {}
    for summary in summaries.values():
        shown |= headings(summary.means)
    order = {heading: name for name, heading in shown.items()}
    named = {
        column: replace(one, means={shown[name]: mean for name, mean in one.means.items() if name in shown})
        for column, one in summaries.items()
    }
    return table(named, list(order))
