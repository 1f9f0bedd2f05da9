"""The scenes of the benchmark `simulated-1`: made from a seed on the user's own machine, held to what they must hold.

They are too many to ship, and SUMO makes them in minutes. `simulated_1.json` has a digest of each scene's content, so
that whoever has the same scenes has the same benchmark, wherever they were made or copied from.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

import numpy as np

from traj_diffusion.datasets.synthesis import SCENES_PER_NETWORK
from traj_diffusion.datasets.synthesis.write import write_numbered
from traj_diffusion.errors import BadFile
from traj_diffusion.scene import Scene, load_scene

NAME = "simulated-1"
SEED = 9100
"""Nothing is trained on its towns."""
NETWORKS = 16
WINDOWS = (0, 4, 8)
"""Few windows of many towns: those of one town share streets and drivers, so intervals would be too narrow."""
RESOLUTION = 1000.0
"""Parts of a metre, a radian, a metre per second that digests tell apart."""
SUMO = "eclipse-sumo"
_NAN = np.int64(-(2**62))


@dataclass(frozen=True)
class Frozen:
    """What `simulated_1.json` holds: with which SUMO and which mix of towns scenes are made; digests by scene id."""

    sumo: str
    mix: int
    scenes: Mapping[str, str]


@cache
def frozen() -> Frozen:
    """Return which scenes the benchmark's name stands for."""
    held = json.loads((files("traj_diffusion.evaluation") / "simulated_1.json").read_text(encoding="utf-8"))
    return Frozen(held["made_with"][SUMO], held["mix"], held["scenes"])


def scene_numbers() -> list[int]:
    """Return the numbers of the scenes among those of the seed, as `traj-diffusion synthesize` counts them."""
    return [network * SCENES_PER_NETWORK + window for network in range(NETWORKS) for window in WINDOWS]


def default_folder() -> Path:
    """Return where the scenes are kept unless the user says otherwise."""
    return Path.home() / ".cache" / "traj-diffusion" / NAME


def simulated_scenes(
    folder: Path, workers: int = 1, progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Return the folder that holds the benchmark's scenes and nothing else, after making those that are missing.

    `progress` is told (done, of how many) while they are made. Raises BadFile where a scene is not the one that the
    benchmark is frozen to, or a foreign file is among them; MissingExtra where scenes are missing and SUMO too.
    """
    numbers = scene_numbers()
    made = [number for number in numbers if not _path(folder, number).exists()]
    # One town first: with another SUMO it is wrong already, and the others need not be waited for.
    first = [number for number in made if number // SCENES_PER_NETWORK == made[0] // SCENES_PER_NETWORK]
    for part in (first, numbers) if made else ():
        write_numbered(
            folder, part, SEED, workers, progress=lambda done, _: progress(done, len(numbers)), mix=frozen().mix
        )
        try:
            check_frozen(folder, [number for number in part if number in made])
        except BadFile:
            for number in made:
                _path(folder, number).unlink(missing_ok=True)  # or they would be found, and refused, next time
            raise
    check_frozen(folder, [number for number in numbers if number not in made])
    wanted = {_path(folder, number) for number in numbers}
    foreign = sorted(path for path in folder.iterdir() if path not in wanted and not path.name.startswith("."))
    if foreign:
        raise BadFile(
            f"{foreign[0]}: is no scene of the benchmark {NAME}; keep its folder for its {len(wanted)} scenes"
        )
    return folder


def check_frozen(folder: Path, numbers: Sequence[int]) -> None:
    """Raise BadFile unless the scenes of these numbers hold what the benchmark's name stands for."""
    known = frozen()
    for number in numbers:
        path = _path(folder, number)
        scene = load_scene(path)
        if content_digest(scene) != known.scenes.get(scene.id):
            raise BadFile(
                f"{path}: is not the scene that the benchmark {NAME} is frozen to, and its figures would not compare; "
                f"SUMO {known.sumo} makes it (here: {_installed_sumo()}): "
                f"pip install {SUMO}=={known.sumo} libsumo=={known.sumo} sumolib=={known.sumo}"
            )


def content_digest(scene: Scene) -> str:
    """Return the start of the SHA-256 of what a scene holds, its real numbers rounded to a thousandth.

    Not of its file, whose bytes depend on who packs it; and the last bits of another machine's sines do not count.
    """
    digest = hashlib.sha256(json.dumps([scene.id, scene.dt, scene.current_index, scene.ego]).encode())
    for name, array in _arrays(scene):
        values = array
        if array.dtype.kind == "f":
            scaled = np.round(np.where(np.isnan(array), 0, array).astype(np.float64) * RESOLUTION)
            values = np.where(np.isnan(array), _NAN, scaled.astype(np.int64))
        digest.update(f"{name} {array.shape}".encode())
        digest.update(values.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def _arrays(scene: Scene) -> Iterator[tuple[str, np.ndarray]]:
    """Yield all that a policy or a metric may look at, named one by one: a new field changes no old digest."""
    agents, features, links, lights = scene.agents, scene.map, scene.map.links, scene.lights
    for name in ("id", "kind", "position", "heading", "velocity", "size", "valid", "to_predict"):
        yield f"agents.{name}", getattr(agents, name)
    for name in ("points", "start", "kind", "subtype", "id", "speed_limit"):
        yield f"map.{name}", getattr(features, name)
    for name in ("successors", "predecessors", "left", "right", "controls"):
        yield f"links.{name}.start", getattr(links, name).start
        yield f"links.{name}.index", getattr(links, name).index
    for name in ("lane_id", "stop_point", "state", "observed"):
        yield f"lights.{name}", getattr(lights, name)
    yield "routes.start", scene.routes.lanes.start
    yield "routes.index", scene.routes.lanes.index
    yield "routes.origin", scene.routes.origin


def _path(folder: Path, number: int) -> Path:
    network, window = divmod(number, SCENES_PER_NETWORK)
    return folder / f"sumo-{SEED}-{network}-{window}.scene.npz"


def _installed_sumo() -> str:
    try:
        return f"SUMO {version(SUMO)}"
    except PackageNotFoundError:
        return "none installed"
