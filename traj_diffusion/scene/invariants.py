"""What every scene promises, checked in one place."""

import numpy as np

from traj_diffusion.errors import BadScene
from traj_diffusion.scene.csr import Csr
from traj_diffusion.scene.kinds import AgentKind, LightState, MapKind
from traj_diffusion.scene.scene import Scene

MAX_COORDINATE = 1e7  # metres; the Earth's circumference is 4e7


def check_scene(scene: Scene) -> Scene:
    """Return the scene itself, or raise BadScene naming what is wrong and where."""
    agents, lights, features = scene.agents, scene.lights, scene.map
    _require(scene, scene.dt > 0 and np.isfinite(scene.dt), f"dt is {scene.dt} s; it must be positive")
    _require(
        scene,
        0 <= scene.current_index < scene.steps,
        f"current index {scene.current_index} lies outside its {scene.steps} steps",
    )
    _require(scene, scene.ego is None or 0 <= scene.ego < len(agents), f"ego row {scene.ego} of {len(agents)} agents")
    ids, counts = np.unique(agents.id, return_counts=True)
    _require(scene, bool((counts == 1).all()), f"agent id {ids[counts > 1][:1]} is used more than once")
    known = [int(kind) for kind in AgentKind]
    _require(scene, bool(np.isin(agents.kind, known).all()), f"agent kinds {np.unique(agents.kind)}; known: {known}")
    for name in ("position", "heading", "velocity", "size"):
        value = getattr(agents, name)
        value = value[..., None] if value.ndim == 2 else value
        fine = np.abs(value) <= MAX_COORDINATE  # False for NaN
        if fine.all():
            continue
        bad = agents.valid & ~fine.all(-1)
        if bad.any():
            row, step = np.argwhere(bad)[0]
            raise BadScene(
                f"scene {scene.id}: agent {agents.id[row]}, step {step}: {name} is {value[row, step].tolist()}; "
                f"valid values are finite and at most {MAX_COORDINATE:.0e}"
            )
    negative = agents.size < 0
    if negative.any() and (bad := agents.valid & negative.any(-1)).any():
        row, step = np.argwhere(bad)[0]
        raise BadScene(f"scene {scene.id}: agent {agents.id[row]}, step {step}: size is negative")
    kinds = [int(kind) for kind in MapKind]
    _require(scene, bool(np.isin(features.kind, kinds).all()), f"map kinds {np.unique(features.kind)}; known: {kinds}")
    finite = (np.abs(features.points) <= MAX_COORDINATE).all()
    _require(scene, bool(finite), f"a map point is not finite, or beyond {MAX_COORDINATE:.0e} m")
    ends = (features.start[0], features.start[-1]) == (0, len(features.points))
    _require(
        scene,
        ends and bool((np.diff(features.start) >= 0).all()) and len(features.start) == len(features) + 1,
        "the map's `start` does not cut its points into polylines",
    )
    _require(
        scene, lights.state.shape[1] == scene.steps, f"lights span {lights.state.shape[1]} steps, agents {scene.steps}"
    )
    _require(scene, bool((lights.state <= max(LightState)).all()), f"light states {np.unique(lights.state)}")
    _require(scene, bool(np.isfinite(lights.stop_point[lights.observed]).all()), "a light's stop point is not finite")
    _require(
        scene, len(scene.routes.lanes) == len(agents), f"{len(scene.routes.lanes)} routes for {len(agents)} agents"
    )
    _rows(scene, "routes", scene.routes.lanes, len(agents))
    for name in ("successors", "predecessors", "left", "right", "controls"):
        _rows(scene, f"the links {name}", getattr(features.links, name), len(features))
    limits = features.speed_limit
    _require(scene, not (limits < 0).any() and not np.isinf(limits).any(), "a speed limit is negative or infinite")
    names = agents.source_id
    _require(scene, names is None or len(names) == len(agents), "there are not as many source ids as agents")
    return scene


def _rows(scene: Scene, what: str, ragged: Csr, count: int) -> None:
    """Require rows for that many things, of entries that are rows of the map."""
    start, index = ragged.start, ragged.index
    fits = len(start) == count + 1 and start[0] == 0 and start[-1] == len(index) and bool((np.diff(start) >= 0).all())
    _require(scene, fits, f"{what}: `start` does not cut its {len(index)} entries into {count} rows")
    inside = not len(index) or (index.min() >= 0 and index.max() < len(scene.map))
    _require(scene, bool(inside), f"{what}: an entry is no row of the map, which has {len(scene.map)}")


def _require(scene: Scene, condition: bool | np.bool_, otherwise: str) -> None:
    if not condition:
        raise BadScene(f"scene {scene.id}: {otherwise}")
