"""Many simulated scenes to a folder, over several processes and resumable."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from traj_diffusion.datasets.synthesis.mixes import LATEST
from traj_diffusion.datasets.synthesis.synthesize import SCENES_PER_NETWORK, network_scenes, scene_name
from traj_diffusion.errors import HostError
from traj_diffusion.scene import save_scene

ATTEMPTS = 3  # at finishing a folder after a worker died


def write_scenes(
    out: Path,
    scenes: int,
    seed: int,
    workers: int = 2,
    first: int = 0,
    net_file: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    mix: int = LATEST,
) -> list[Path]:
    """Write the scenes `first` to `first + scenes - 1` of a seed as `<id>.scene.npz` and return their paths.

    Files that exist are kept, so a run that was stopped goes on where it was. The same files come out whatever the
    number of workers. `net_file` is a SUMO network of one's own to drive on. `progress` is told (done, of how many).
    Raises HostError if workers keep dying.
    """
    return write_numbered(out, range(first, first + scenes), seed, workers, net_file, progress, mix)


def write_numbered(
    out: Path,
    numbers: Sequence[int],
    seed: int,
    workers: int = 2,
    net_file: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    mix: int = LATEST,
) -> list[Path]:
    """Write the scenes of these numbers and return their paths; all else as in `write_scenes` and `synthesize`."""
    if workers < 1:
        raise ValueError(f"workers must be at least 1: {workers}")
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{scene_name(seed, *divmod(i, SCENES_PER_NETWORK))}.scene.npz" for i in numbers]
    for attempt in range(ATTEMPTS):
        missing: dict[int, list[int]] = {}
        for i, path in zip(numbers, paths, strict=True):
            if not path.exists():
                missing.setdefault(i // SCENES_PER_NETWORK, []).append(i % SCENES_PER_NETWORK)
        try:
            _write_missing(out, len(numbers), seed, workers, missing, net_file, progress, mix)
            break
        except BrokenProcessPool:
            if attempt + 1 == ATTEMPTS:
                raise HostError(
                    f"a worker died {ATTEMPTS} times while it made networks {min(missing)} to {max(missing)} of seed "
                    f"{seed} (SUMO crashed, or memory ran out); finished scenes are kept in {out}"
                ) from None
    return paths


def _write_missing(
    out: Path,
    scenes: int,
    seed: int,
    workers: int,
    missing: dict[int, list[int]],
    net_file: Path | None,
    progress: Callable[[int, int], None] | None,
    mix: int,
) -> None:
    done = scenes - sum(map(len, missing.values()))
    if progress is not None:
        progress(done, scenes)
    if not missing:
        return
    # A fresh process per worker: libsumo holds one simulation per process, and a fork would share its state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=context) as pool:
        jobs = {
            pool.submit(_write_network, out, seed, network, windows, net_file, mix): len(windows)
            for network, windows in missing.items()
        }
        try:
            for job in as_completed(jobs):
                job.result()
                done += jobs[job]
                if progress is not None:
                    progress(done, scenes)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_network(out: Path, seed: int, network: int, windows: list[int], net_file: Path | None, mix: int) -> None:
    for scene in network_scenes(seed, network, windows, net_file, mix):
        save_scene(scene, out / f"{scene.id}.scene.npz")
