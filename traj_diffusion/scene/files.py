"""Scenes on disk: `<scene id>.scene.npz`, plain arrays and a JSON header."""

from pathlib import Path

import numpy as np

from traj_diffusion.errors import BadFile
from traj_diffusion.scene.archive import read_archive, write_archive
from traj_diffusion.scene.csr import Csr
from traj_diffusion.scene.invariants import check_scene
from traj_diffusion.scene.kinds import Origin
from traj_diffusion.scene.scene import Agents, Lights, Links, Map, Routes, Scene

SCHEMA_VERSION = 1
_AGENTS = ("id", "kind", "position", "heading", "velocity", "size", "valid", "to_predict")
_MAP = ("points", "start", "kind", "subtype", "id", "speed_limit")
_LINKS = ("successors", "predecessors", "left", "right", "controls")
_LIGHTS = ("lane_id", "stop_point", "state", "observed")


def save_scene(scene: Scene, path: Path) -> Path:
    """Write a scene to `path`, whole or not at all."""
    arrays = {f"agents.{name}": getattr(scene.agents, name) for name in _AGENTS}
    arrays |= {f"map.{name}": getattr(scene.map, name) for name in _MAP}
    arrays |= {f"lights.{name}": getattr(scene.lights, name) for name in _LIGHTS}
    ragged = {f"links.{name}": getattr(scene.map.links, name) for name in _LINKS} | {"routes.lanes": scene.routes.lanes}
    for name, rows in ragged.items():
        arrays |= {f"{name}.start": rows.start, f"{name}.index": rows.index}
    arrays["routes.origin"] = scene.routes.origin
    header = {
        "id": scene.id,
        "source": scene.source,
        "dt": scene.dt,
        "current_index": scene.current_index,
        "ego": scene.ego,
        "source_id": scene.agents.source_id,
        "links_origin": int(scene.map.links.origin),
        "edge_origin": int(scene.map.edge_origin),
        "report": scene.report,
    }
    write_archive(path, "scene", SCHEMA_VERSION, header, arrays)
    return path


def load_scene(path: Path) -> Scene:
    """Read a scene that `save_scene` wrote. Raises BadFile or BadScene."""
    header, arrays = read_archive(path, "scene", SCHEMA_VERSION)

    def ragged(name: str) -> Csr:
        return Csr(arrays[f"{name}.start"], arrays[f"{name}.index"])

    try:
        links = Links(**{name: ragged(f"links.{name}") for name in _LINKS}, origin=Origin(header["links_origin"]))
        scene = Scene(
            id=header["id"],
            source=header["source"],
            dt=header["dt"],
            current_index=header["current_index"],
            ego=header["ego"],
            agents=Agents(
                **{name: arrays[f"agents.{name}"] for name in _AGENTS},
                source_id=None if header["source_id"] is None else tuple(header["source_id"]),
            ),
            map=Map(
                **{name: arrays[f"map.{name}"] for name in _MAP},
                links=links,
                edge_origin=Origin(header["edge_origin"]),
            ),
            lights=Lights(**{name: arrays[f"lights.{name}"] for name in _LIGHTS}),
            routes=Routes(ragged("routes.lanes"), arrays["routes.origin"]),
            report=tuple((str(what), int(count)) for what, count in header["report"]),
        )
        _check_shapes(scene)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadFile(f"{path}: entries are missing or do not fit: {error}") from error
    return check_scene(scene)


def _check_shapes(scene: Scene) -> None:
    agents, features, lights = scene.agents, scene.map, scene.lights
    count, steps = agents.valid.shape
    wanted = {
        "agents.id": (agents.id, (count,)),
        "agents.kind": (agents.kind, (count,)),
        "agents.position": (agents.position, (count, steps, 3)),
        "agents.heading": (agents.heading, (count, steps)),
        "agents.velocity": (agents.velocity, (count, steps, 2)),
        "agents.size": (agents.size, (count, steps, 3)),
        "agents.to_predict": (agents.to_predict, (count,)),
        "map.points": (features.points, (len(features.points), 3)),
        "map.start": (features.start, (len(features) + 1,)),
        "map.subtype": (features.subtype, (len(features),)),
        "map.id": (features.id, (len(features),)),
        "map.speed_limit": (features.speed_limit, (len(features),)),
        "lights.state": (lights.state, (len(lights), steps)),
        "lights.observed": (lights.observed, (len(lights), steps)),
        "lights.stop_point": (lights.stop_point, (len(lights), steps, 3)),
        "routes.origin": (scene.routes.origin, (count,)),
    }
    for name, (array, shape) in wanted.items():
        if np.shape(array) != shape:
            raise ValueError(f"{name} has shape {np.shape(array)}, wanted {shape}")
