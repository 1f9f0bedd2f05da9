"""Inject every deliberate bug into a healthy subject and put what doctor says into docs/doctor.md.

    python tools/doctor_mutations.py [--json docs/figures/doctor_mutations.json] [--from-json]

Trains the tiny bench model first; --from-json makes the table again from an earlier run.
"""

import argparse
import json
from pathlib import Path

from traj_diffusion.doctor.bench import train_tiny
from traj_diffusion.doctor.mutations import run_mutations, to_table
from traj_diffusion.evaluation.pages import with_block

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "doctor.md"
BEGIN, END = "<!-- mutations: begin -->", "<!-- mutations: end -->"


def write_table(rows: dict, page: Path = PAGE) -> None:
    """Replace what stands between the marks by the table of a run."""
    text = with_block(page.read_text(encoding="utf-8"), BEGIN, END, f"\n{to_table(rows)}")
    page.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "figures" / "doctor_mutations.json")
    parser.add_argument("--from-json", action="store_true", help="do not run, read the JSON")
    options = parser.parse_args()
    if not options.from_json:
        found = run_mutations(train_tiny(), progress=print)
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write_table(json.loads(options.json.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
