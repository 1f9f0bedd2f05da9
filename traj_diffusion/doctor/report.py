"""A report as lines of text and as JSON."""

import json
from pathlib import Path
from typing import Any

from traj_diffusion import __version__
from traj_diffusion.doctor.findings import Finding, Verdict
from traj_diffusion.doctor.registry import NAMES, Report
from traj_diffusion.scene.archive import atomic_path

SCHEMA_VERSION = 1
_WIDTH = max(map(len, NAMES))


def line(finding: Finding) -> str:
    """Return one finding as text: verdict, name, what was found, against which threshold, and what to do."""
    text = f"{finding.verdict.value.ljust(7)}  {finding.check.ljust(_WIDTH)}  {finding.finding}"
    if finding.figure is not None:
        text += f"  [{finding.figure:.3g}; {limits(finding)}]"
    return text + (f"\n{' ' * (_WIDTH + 11)}-> {finding.remedy}" if finding.remedy else "")


def limits(finding: Finding) -> str:
    """Return the thresholds as text."""
    if finding.warn is None or finding.fail is None:
        return ""
    sign = ">" if finding.fail >= finding.warn else "<"
    return f"warns {sign} {finding.warn:g}, fails {sign} {finding.fail:g}"


def closing(report: Report) -> str:
    """Return the last line: how many checks came out how."""
    counts = {verdict: sum(f.verdict is verdict for f in report.findings) for verdict in Verdict}
    shares = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    return f"{report.subject}: {shares} in {report.seconds:.0f} s"


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON can hold it."""
    return {
        "content": "traj-diffusion doctor",
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "subject": report.subject,
        "failed": report.failed,
        "seconds": round(report.seconds, 2),
        "checks": [finding.to_row() for finding in report.findings],
    }


def write_json(path: Path, report: Report) -> None:
    """Write the report as a JSON file."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(to_json(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")
