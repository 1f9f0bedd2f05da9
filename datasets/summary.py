"""What is inside a scene, as rows of text for a table."""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from traj_diffusion.scene import AgentKind, LightState, MapKind, Origin, Scene, doubts


def summarise(scene: Scene) -> list[tuple[str, str]]:
    """Return (what, value) rows: time, agents, map, links, lights, routes, what a reader repaired, what is odd."""
    agents, features, lights = scene.agents, scene.map, scene.lights
    now = agents.valid[:, scene.current_index]
    ego = "none" if scene.ego is None else f"row {scene.ego}, id {agents.id[scene.ego]}"
    links = features.links
    entries = {name: len(getattr(links, name).index) for name in ("successors", "predecessors", "left", "right")}
    limits = int(np.isfinite(features.speed_limit).sum())
    routes = np.bincount(scene.routes.origin, minlength=len(Origin))
    rows = [
        ("scene", scene.id),
        ("source", scene.source),
        ("steps", f"{scene.steps} of {scene.dt:g} s, {(scene.steps - 1) * scene.dt:.1f} s in all"),
        ("current index", f"{scene.current_index}, {scene.steps - 1 - scene.current_index} steps of future"),
        ("ego", ego),
        ("agents now", _by_kind(agents.kind[now], AgentKind)),
        ("agents in all", _by_kind(agents.kind, AgentKind)),
        ("to predict", str(int(agents.to_predict.sum()))),
        ("valid states", f"{float(agents.valid.mean()) if agents.valid.size else 0.0:.1%}"),
    ]
    rows += [(f"map: {name}", text) for name, text in _map_rows(scene)] or [("map", "no features")]
    counts = ", ".join(f"{count} {name}" for name, count in entries.items())
    rows += [
        ("lane links", f"{_name(links.origin)}: {counts}" if links.origin != Origin.ABSENT else "absent"),
        ("road edges", _name(features.edge_origin)),
        ("speed limits", f"on {limits} of {len(features.rows(MapKind.LANE))} lanes"),
        ("lights", f"{len(lights)} signals; {_by_kind(lights.state[lights.observed], LightState, 'states')}"),
        ("routes", ", ".join(f"{routes[origin]} {_name(origin)}" for origin in Origin if routes[origin]) or "none"),
    ]
    rows += [("report", f"{what}: {count}") for what, count in scene.report]
    return rows + [("odd", f"{what}: {count}") for what, count in doubts(scene)]


def _name(member: IntEnum) -> str:
    return member.name.lower().replace("_", " ")


def _by_kind(values: np.ndarray, kinds: type[IntEnum], noun: str = "") -> str:
    """Return a count and its parts, as in '7: 5 vehicle, 2 pedestrian'."""
    parts = [f"{int((values == kind).sum())} {_name(kind)}" for kind in kinds if (values == kind).any()]
    total = f"{len(values)} {noun}".strip()
    return f"{total}: {', '.join(parts)}" if parts else total


def _map_rows(scene: Scene) -> Sequence[tuple[str, str]]:
    features = scene.map
    segments = np.linalg.norm(np.diff(features.points, axis=0), axis=-1)
    along = np.concatenate([[0.0], np.cumsum(segments)]) if len(features.points) else np.zeros(1)
    # The last point of a polyline, or its start where it has none: the hop to the next polyline is no length.
    last = np.maximum(features.start[1:] - 1, features.start[:-1])
    length = along[np.minimum(last, len(along) - 1)] - along[np.minimum(features.start[:-1], len(along) - 1)]
    found = []
    for kind in MapKind:
        rows = features.rows(kind)
        if len(rows):
            km = f", {float(length[rows].sum()) / 1000:.2f} km" if kind <= MapKind.ROAD_EDGE else ""
            found.append((_name(kind), f"{len(rows)}{km}"))
    return found
