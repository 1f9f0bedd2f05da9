"""The frozen benchmarks: simulated scenes, one protocol, baselines beside the entry.

Anyone can reproduce their figures on a laptop, without a licence. The scenes of `bundled-1` come with the package,
those of `simulated-1` are made where they are first asked for. Figures compare only under the same name: a change of
scenes, protocol or metrics gets a new one.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from traj_diffusion import __version__
from traj_diffusion.datasets import list_sources
from traj_diffusion.errors import BadConfig, BadFile
from traj_diffusion.evaluation.evaluate import Entry, entry_name, evaluate
from traj_diffusion.evaluation.log_baselines import LOG_NOISE, LOG_REPLAY
from traj_diffusion.evaluation.rows import CONFIG
from traj_diffusion.evaluation.run import RunSettings
from traj_diffusion.evaluation.simulated import NAME as SIMULATED
from traj_diffusion.evaluation.simulated import default_folder, frozen, simulated_scenes
from traj_diffusion.evaluation.tables import run_figures, run_table
from traj_diffusion.policies import BASELINES

BUNDLED = "bundled-1"
NAMES = (BUNDLED, SIMULATED)
SCENES = "bundled"
PROTOCOL = RunSettings(rollouts=32, futures=1, replan_every=5, ego="model", lights="hold", seed=0)
FROZEN: Mapping[str, str] = {
    "sumo-9000-12-1.scene.npz": "bd4b9b3e3fedf7d6",
    "sumo-9000-13-5.scene.npz": "529cecc311adc08a",
    "sumo-9000-3-3.scene.npz": "9401b4d915417fe8",
    "sumo-9000-4-1.scene.npz": "736481690caa3f99",
    "sumo-9000-8-2.scene.npz": "13776b90ae91eac3",
    "sumo-9000-9-0.scene.npz": "3ddb848680a0d009",
}
"""Scene files of `bundled-1` and the start of their SHA-256."""
COMPARED = (*BASELINES, LOG_REPLAY, LOG_NOISE)


def benchmark(
    entry: Entry | None,
    out: Path,
    progress: Callable[[str], None] = lambda scene: None,
    workers: int | None = 1,
    name: str = BUNDLED,
    scenes: Path | None = None,
) -> dict[str, Any]:
    """Return the figures of an entry and of all baselines on the frozen scenes, as plain values for JSON.

    `entry` is a policy, a folder with one `<scene id>.rollouts.npz` for each scene, of whatever model, or None for the
    baselines alone. Rows are kept in `out`, so that a second run goes on where the first was killed. `scenes` is the
    folder of those of `simulated-1`, see `frozen_scenes`. Raises BadFile where scenes are not those of the benchmark,
    BadRollouts where rollouts are missing or do not fit.
    """
    source = frozen_scenes(name, scenes, workers)
    entries: list[Entry] = [] if entry is None else [entry]
    known = [entry_name(one) for one in entries]
    entries += [BASELINES[one]() if one in BASELINES else one for one in COMPARED if one not in known]
    runs = [
        evaluate(source, one, PROTOCOL, _rows(out, entry_name(one), name), workers=workers, progress=progress)
        for one in entries
    ]
    return {
        "benchmark": name,
        "protocol": {**asdict(PROTOCOL), "replan_hz": 2.0, "config": CONFIG},
        "scenes": list(FROZEN) if name == BUNDLED else [f"{scene}.scene.npz" for scene in frozen().scenes],
        "version": __version__,
        "entry": runs[0].name if entry is not None else None,
        "runs": {run.name: run_figures(run) for run in runs},
        "table": f"Benchmark {name}\n{run_table(runs)}",
        "rows": {run.name: str(_rows(out, run.name, name)) for run in runs},
    }


def frozen_scenes(
    name: str,
    folder: Path | None = None,
    workers: int | None = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str | Path:
    """Return the scenes of a benchmark as commands take them, after making those of `simulated-1` that are missing.

    `folder` is where the latter are kept (default: the user's cache). Raises BadFile where they are not what the name
    stands for, BadConfig for an unknown name.
    """
    if name == SIMULATED:
        return simulated_scenes(folder or default_folder(), workers or os.cpu_count() or 1, progress)
    if name != BUNDLED:
        raise BadConfig(f"unknown benchmark {name!r}; known: {', '.join(NAMES)}")
    check_frozen()
    return SCENES


def check_frozen() -> None:
    """Raise BadFile unless the bundled scenes are those that `bundled-1` stands for."""
    found = {
        entry.file.name: hashlib.sha256(entry.file.read_bytes()).hexdigest()[:16] for entry in list_sources(SCENES)
    }
    if found != FROZEN:
        other = sorted(set(found.items()) ^ set(FROZEN.items()))
        raise BadFile(
            f"{other[0][0]}: is not the file that the benchmark {BUNDLED} is frozen to; its figures would not compare"
        )


def _rows(out: Path, entry: str, name: str) -> Path:
    return out / f"{entry}.{name}.jsonl"
