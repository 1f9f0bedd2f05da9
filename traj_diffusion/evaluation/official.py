"""The official package's score, where it is installed in an environment of its own.

    python -m traj_diffusion.evaluation.official [DIR]      # makes that environment: Python 3.11, about 2 GB

It keeps to TensorFlow 2.13 and takes 13 to 100 s and 1 to 8 GB a scene. Nothing of it is part of this package: another
Python runs its public functions on a Scenario and its ScenarioRollouts, as `official_worker` shows.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from traj_diffusion.datasets.submissions import encode_rollouts
from traj_diffusion.datasets.womd_writer import scenario_bytes
from traj_diffusion.errors import BadConfig, HostError
from traj_diffusion.scene import Rollouts, Scene

VARIABLE = "TRAJ_DIFFUSION_OFFICIAL"
"""Names the folder of the environment, where it is not in the user's cache."""
CONFIGS = ("sim_agents_2025", "scenario_gen_2025")
# The package pins versions that no longer install beside each other, so it comes without its dependencies.
PACKAGE = "waymo-open-dataset-tf-2-12-0==1.6.7"
NEEDS = (
    "tensorflow-cpu==2.13.0",
    "tensorflow-probability==0.21.0",
    "numpy==1.23.5",
    "protobuf==4.25.*",
    "scikit-learn==1.3.2",
)


def environment() -> Path:
    """Return where the environment with the official package belongs."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "traj-diffusion" / "official").expanduser()


def official_python() -> Path:
    """Return the Python that has the official package. Raises BadConfig, saying how to make it."""
    python = environment() / "bin" / "python"
    if not python.exists():
        raise BadConfig(
            f"the official package is not installed at {environment()}; make it (Python 3.11, 2 GB) with: "
            f"python -m traj_diffusion.evaluation.official, or name another place in {VARIABLE}"
        )
    return python


def official_report(scene: Scene, rollouts: Rollouts, config: str) -> dict[str, Any]:
    """Return what the official package says of 32 rollouts of a scene, and its time [s] and memory [MiB].

    Raises BadConfig where it is not installed or does not know the configuration, HostError where it fails.
    """
    if config not in CONFIGS:
        raise BadConfig(f"the official package 1.6.7 is asked for {', '.join(CONFIGS)} only, not {config}")
    python, worker = official_python(), Path(__file__).with_name("official_worker.py")
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "scenario", Path(folder) / "rollouts"
        for file, content in zip(files, (scenario_bytes(scene), encode_rollouts(rollouts)), strict=True):
            file.write_bytes(content)
        command = [str(python), str(worker), *map(str, files), config]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"the official package failed on scene {scene.id}: {done.stderr[-500:]}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def make_environment(folder: Path) -> None:
    """Make an environment with the official package. Raises BadConfig where this Python is too new for it."""
    if sys.version_info >= (3, 12):
        raise BadConfig("the official package needs TensorFlow 2.13 and so Python 3.11; run this with such a Python")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", PACKAGE], check=True)
    subprocess.run([*pip, *NEEDS], check=True)


if __name__ == "__main__":
    make_environment(Path(sys.argv[1]) if len(sys.argv) > 1 else environment())
