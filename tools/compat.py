"""The compatibility matrix of hosts, measured: runs each host's tests against the package that is installed here.

A host whose package is missing keeps the row that another environment measured. Rows are kept in
docs/results/compat.json, and the table is written into docs/adapter.md between its markers.
Usage: python -P tools/compat.py [HOST ...] (no host: all); --page only writes the table.
"""

import argparse
import importlib
import json
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from traj_diffusion.evaluation.pages import with_block

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs" / "results" / "compat.json"
PAGE = ROOT / "docs" / "adapter.md"
BEGIN, END = "<!-- compat: begin -->", "<!-- compat: end -->"


class Host(NamedTuple):
    """A row: the package that must be there (none: no registry has it), the tests, what they run against, its needs.

    Words after a test file's name choose the tests in it.
    """

    package: str
    extra: str
    tests: tuple[str, ...]
    how: str
    needs: str = ""  # module:name


CONTRACT = "test_hosts_keep_the_contract.py"
UNHAD = "test_hosts_of_no_registry.py"
HOSTS = {
    "SUMO (libsumo, TraCI)": Host(
        "libsumo", "sumo", ("test_sumo.py", f"{CONTRACT}::test_sumo_keeps_the_contract"), "real"
    ),
    "Gymnasium": Host("gymnasium", "gym", ("test_gym.py", f"{CONTRACT}::test_gymnasium_keeps_the_contract"), "real"),
    "PettingZoo": Host(
        "pettingzoo", "pettingzoo", ("test_pettingzoo.py", f"{CONTRACT}::test_pettingzoo_keeps_the_contract"), "real"
    ),
    "HighwayEnv": Host(
        "highway-env", "highway", ("test_highway.py", f"{CONTRACT}::test_highwayenv_keeps_the_contract"), "real"
    ),
    "MetaDrive": Host("metadrive-simulator", "metadrive", ("test_metadrive.py",), "real, headless"),
    "CommonRoad": Host("commonroad-io", "commonroad", ("test_commonroad_host.py",), "real"),
    "TorchDriveSim, release (NPCWrapper)": Host(
        "torchdrivesim", "torchdrivesim", ("test_torchdrivesim.py",), "real", "torchdrivesim.simulator:NPCWrapper"
    ),
    "TorchDriveSim, its repository (NPCController)": Host(
        "torchdrivesim",
        "torchdrivesim",
        ("test_torchdrivesim.py",),
        "real, acd66cc of its repository",
        "torchdrivesim.simulator:NPCController",
    ),
    "gRPC service (AlpaSim's wire)": Host("grpcio", "serve", ("test_serve.py",), "real gRPC; AlpaSim itself not run"),
    "CARLA": Host(
        "carla", "carla", ("test_carla.py",), "maps: the real `carla.Map`; the loop: **a fake** server that records"
    ),
    "autoware_carla_scenario": Host(
        "autoware-carla-scenario",
        "autoware",
        ("test_autoware.py",),
        "real registry, base class and map; the world is **a fake**",
    ),
    "Waymax": Host("", "", (f"{UNHAD} waymax",), "**a fake** with its published signatures"),
    "nuPlan": Host("", "", (f"{UNHAD} nuplan",), "**a fake** with its published signatures"),
    "NAVSIM v2": Host("", "", (f"{UNHAD} navsim",), "**a fake** with its published signatures"),
}


def measure(name: str, host: Host) -> dict[str, Any] | None:
    """Return a host's row, or None where its package is not installed."""
    try:
        version = metadata.version(host.package) if host.package else ""
    except metadata.PackageNotFoundError:
        return None
    module, _, wanted = host.needs.partition(":")
    if wanted and not hasattr(importlib.import_module(module), wanted):
        return None
    files = [str(ROOT / "tests" / "sim_adapter" / test.split()[0]) for test in host.tests]
    chosen = [part for test in host.tests for word in test.split()[1:] for part in ("-k", word)]
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    return {
        "host": name,
        "extra": host.extra,
        "package": host.package,
        "version": version,
        "how": host.how,
        "passed": counts.get("passed", 0),
        "failed": counts.get("failed", 0) + counts.get("error", 0),
        "skipped": counts.get("skipped", 0),
        "python": platform.python_version(),
    }


def table(rows: dict[str, Any]) -> str:
    """Return the matrix as Markdown."""
    lines = [
        "| host | package | extra | tested against | tests passed | failed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in (rows[name] for name in HOSTS if name in rows):
        package = f"{row['package']} {row['version']}" if row["package"] else "on no registry"
        extra = f"`[{row['extra']}]`" if row["extra"] else "none"
        lines.append(f"| {row['host']} | {package} | {extra} | {row['how']} | {row['passed']} | {row['failed']} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hosts", nargs="*", metavar="HOST", help=", ".join(HOSTS))
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    unknown = set(options.hosts) - set(HOSTS)
    if unknown:
        parser.error(f"unknown host {sorted(unknown)[0]!r}; known: {', '.join(HOSTS)}")
    measured = {}
    for name in [] if options.page else options.hosts or HOSTS:
        row = measure(name, HOSTS[name])
        print(
            f"{name}: " + ("not installed here" if row is None else f"{row['passed']} passed, {row['failed']} failed")
        )
        if row is not None:
            measured[name] = row
    # Read only now: another environment may have measured its hosts meanwhile.
    rows = (json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else {}) | measured
    ROWS.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    text = with_block(PAGE.read_text(encoding="utf-8"), BEGIN, END, f"\n{table(rows)}\n")
    PAGE.write_text(text, encoding="utf-8")
    return 1 if any(row["failed"] for row in measured.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
