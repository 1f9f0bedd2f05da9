"""Compare our WOSAC score with the official package's, on any scene and any rollouts.

    python -P tools/official_wosac.py make          # an environment with the official package (about 2 GB)
    python -P tools/official_wosac.py compare SCENES ROLLOUTS [--config scenario_gen_2025]
    python -P tools/official_wosac.py validate SCENES ROLLOUTS [--config scenario_gen_2025]
    python -P tools/official_wosac.py golden SCENES ROLLOUTS --kind NAME --out FOLDER

The environment lies in the user's cache, or where the variable TRAJ_DIFFUSION_OFFICIAL says. SCENES is what every
command takes; ROLLOUTS is a folder of `<scene id>.rollouts.npz`, or a submission (binproto or tar.gz). Prints JSON:
both scores, their differences and times, per scene. `validate` makes a submission of the rollouts, as
`write_submission` does, and asks the package's own validator about it; that needs none of TensorFlow. `golden` keeps
the official score with every feature at every step, and the rollouts, for tools/wosac_parity.py and the tests. The
official code keeps to TensorFlow 2.13 and Python 3.11 or older, and needs 13 to 100 s and 1 to 8 GB a scene.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from traj_diffusion.datasets import read_scenes
from traj_diffusion.datasets.submissions import Declaration, encode_rollouts, read_submission, write_submission
from traj_diffusion.datasets.womd_writer import scenario_bytes
from traj_diffusion.errors import HostError
from traj_diffusion.evaluation.official import CONFIGS, environment, make_environment, official_python, official_report
from traj_diffusion.metrics import wosac
from traj_diffusion.scene import Rollouts, Scene


def compare(scene: Scene, rollouts: Rollouts, config: str) -> dict[str, Any]:
    """Return both scores of one scene, their largest difference, and both times [s]; CPU time bears a busy machine."""
    wosac.score(scene, rollouts, config)  # compiles, or reads what was compiled
    wall, cpu = time.perf_counter(), time.process_time()
    ours = wosac.score(scene, rollouts, config)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    official = official_report(scene, rollouts, config)
    pairs = {name: (ours.fields[name], value) for name, value in official["fields"].items() if name in ours.fields}
    pairs |= {name: (ours.buckets[name], value) for name, value in official["buckets"].items() if name in ours.buckets}
    name, (mine, theirs) = max(pairs.items(), key=lambda item: abs(item[1][0] - item[1][1]))
    return {
        "scene": scene.id,
        "config": config,
        "largest_difference": {"field": name, "ours": mine, "official": theirs, "absolute": abs(mine - theirs)},
        "fields_compared": len(pairs),
        "ours": {**ours.fields, **ours.buckets},
        "official": {**official["fields"], **official["buckets"]},
        "cpu_s": {"ours": round(cpu, 4), "official": official["cpu_s"]},
        "wall_s": {"ours": round(wall, 4), "official": official["wall_s"]},
        "times_less_cpu": round(official["cpu_s"] / cpu),
        "official_peak_mib": official["peak_mib"],
        "versions": official["versions"],
    }


def pairs_of(scenes: str, rollouts: Path) -> Iterator[tuple[Scene, Rollouts]]:
    """Yield each scene that has rollouts, with them."""
    by_id: dict[str, Rollouts] = {}
    if not rollouts.is_dir():
        by_id = {item.scene_id: item for item in read_submission(rollouts)}
    for scene in read_scenes(scenes):
        file = rollouts / f"{scene.id}.rollouts.npz"
        if scene.id in by_id:
            yield scene, by_id[scene.id]
        elif rollouts.is_dir() and file.exists():
            yield scene, Rollouts.load(file)


def validate(pairs: Iterable[tuple[Scene, Rollouts]], config: str, shards: int = 2) -> dict[str, Any]:
    """Return what the official validator says of a submission of these rollouts. Raises HostError where it fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def written() -> Iterator[Rollouts]:
            for scene, rollouts in pairs:
                (folder / scene.id).write_bytes(scenario_bytes(scene))
                yield rollouts

        file = write_submission(folder / "submission.tar.gz", written(), _DECLARATION, shards)
        worker = Path(__file__).with_name("official_validator.py")
        command = [str(word) for word in (official_python(), worker, file, folder, config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"the official validator failed: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def golden(scene: Scene, rollouts: Rollouts, config: str, kind: str, out: Path) -> str:
    """Write a golden of three files `<scene id>__<kind>` and return that name. Raises HostError.

    Scenario generation's kinds must end in `scenariogen`, by which parity tells them. Positions and headings are kept
    as the float32 that the official code is given.
    """
    generation = config == "scenario_gen_2025"
    if kind.endswith("scenariogen") != generation:
        raise click.UsageError(f"--kind {kind} with {config}: kinds of scenario generation end in 'scenariogen'")
    out.mkdir(parents=True, exist_ok=True)
    name = f"{scene.id}__{kind}"
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "scenario", Path(folder) / "rollouts"
        for file, content in zip(files, (scenario_bytes(scene), encode_rollouts(rollouts)), strict=True):
            file.write_bytes(content)
        worker = Path(__file__).with_name("official_golden.py")
        command = [str(word) for word in (official_python(), worker, *files, config, out / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"the official package failed on scene {scene.id}: {done.stderr[-500:]}")
    position, heading = rollouts.position.astype(np.float32), rollouts.heading.astype(np.float32)
    arrays = {axis: np.swapaxes(position[..., at], 0, 1) for at, axis in enumerate("xyz")}
    arrays |= {"sim_agent_ids": rollouts.agent_id.astype(np.int32), "heading": np.swapaxes(heading, 0, 1)}
    if generation and rollouts.size is not None:
        arrays |= {part: rollouts.size[..., at].T for at, part in enumerate(("length", "width", "height"))}
        arrays["object_type"] = rollouts.kind
    np.savez_compressed(out / f"{name}.rollouts.npz", **arrays)  # type: ignore[arg-type]
    return name


_DECLARATION = Declaration(
    account_name="somebody@example.org",
    unique_method_name="trial",
    authors=("nobody",),
    num_model_parameters="1K",
    uses_lidar_data=False,
    uses_camera_data=False,
    uses_public_model_pretraining=False,
    acknowledge_complies_with_closed_loop_requirement=True,
)


@click.group(help=__doc__)
def main() -> None:
    """Four verbs."""


@main.command()
def make() -> None:
    """Make an environment of its own with the official package."""
    make_environment(environment())


@main.command(name="validate")
@click.argument("scenes")
@click.argument("rollouts", type=click.Path(exists=True, path_type=Path))
@click.option("--config", type=click.Choice(CONFIGS), default=CONFIGS[0])
def validate_command(scenes: str, rollouts: Path, config: str) -> None:
    """Ask the official validator about a submission of these rollouts; exit 1 where it refuses a scene."""
    found = validate(pairs_of(scenes, rollouts), config)
    print(json.dumps(found, indent=1))
    if found["refused"] or not found["taken"]:
        sys.exit(1)


@main.command(name="golden")
@click.argument("scenes")
@click.argument("rollouts", type=click.Path(exists=True, path_type=Path))
@click.option("--config", type=click.Choice(CONFIGS), default=CONFIGS[0])
@click.option("--kind", required=True, help="What the rollouts are, in a word; goldens are called <scene id>__<kind>.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
def golden_command(scenes: str, rollouts: Path, config: str, kind: str, out: Path) -> None:
    """Keep the official score of scenes and rollouts, with every feature at every step."""
    for scene, item in pairs_of(scenes, rollouts):
        print(golden(scene, item, config, kind, out), flush=True)


@main.command(name="compare")
@click.argument("scenes")
@click.argument("rollouts", type=click.Path(exists=True, path_type=Path))
@click.option("--config", type=click.Choice(CONFIGS), default=CONFIGS[0])
@click.option("--tolerance", default=1e-5, help="Exit 1 where a number differs by more.")
def compare_command(scenes: str, rollouts: Path, config: str, tolerance: float) -> None:
    """Score scenes both ways and print the differences."""
    reports = [compare(scene, item, config) for scene, item in pairs_of(scenes, rollouts)]
    if not reports:
        raise click.UsageError(f"no scene of {scenes} has rollouts in {rollouts}")
    print(json.dumps(reports, indent=1))
    if max(report["largest_difference"]["absolute"] for report in reports) > tolerance:
        sys.exit(1)


if __name__ == "__main__":
    main()
