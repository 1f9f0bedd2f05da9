"""The player: one HTML file that plays a scene and its rollouts in any browser, without a network."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from traj_diffusion.scene import LightState, LineType, MapKind, Rollouts, Scene
from traj_diffusion.scene.archive import atomic_path
from traj_diffusion.viz import colours
from traj_diffusion.viz.ground import BROKEN, YELLOW, lane_width, visible_features, zebra
from traj_diffusion.viz.packing import hold, pack, whole
from traj_diffusion.viz.pairing import scene_rows

_CM, _MILLIRADIAN = 100.0, 1000.0
_AROUND = 80.0  # metres of map around whatever moves
_UNSEEN = 255  # state of a light at a step at which it was not observed


def player(scene: Scene, rollouts: Rollouts | None, path: Path | str) -> Path:
    """Write a player of the scene, its record and its rollouts as one HTML file, and return its path.

    Positions are kept to 0.5 cm, headings to 0.5 mrad. The page loads nothing, and its Content-Security-Policy
    forbids it to. Raises BadRollouts where the rollouts are not of this scene.
    """
    path = Path(path)
    style = asset("player.css")
    script = f'"use strict";\n(() => {{\n{asset("decode.js")}\n{asset("draw.js")}\n{asset("player.js")}\n}})();\n'
    page = fill(
        asset("player.html"),
        {
            "policy": html.escape(content_policy(style, script)),
            "title": html.escape(scene.id),
            "style": style,
            "script": script,
            "data": script_json(_contents(scene, rollouts)),
        },
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", "replace"))
    return path


def fill(template: str, parts: Mapping[str, str]) -> str:
    """Return the template with each {{name}} replaced, in one pass: what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def script_json(value: Any) -> str:
    """Return JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def asset(name: str) -> str:
    """Return the text of a file beside this module."""
    return resources.files("traj_diffusion.viz").joinpath(name).read_text(encoding="utf-8")


def content_policy(style: str, script: str | None) -> str:
    """Return a Content-Security-Policy that lets a page use this style and script, pictures beside it, and no more."""
    scripts = "'none'" if script is None else f"'{_hash(script)}'"
    pictures = "'self' file:" if script is None else "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src '{_hash(style)}'; img-src {pictures}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _contents(scene: Scene, rollouts: Rollouts | None) -> dict[str, Any]:
    """Return all that the page shows; positions are relative to `centre`."""
    agents, now = scene.agents, scene.current_index
    places = [agents.position[..., :2][agents.valid]]
    rows = None if rollouts is None else scene_rows(scene, rollouts)
    if rollouts is not None:
        places.append(rollouts.position[..., :2][rollouts.valid])
    points = np.concatenate(places)
    if not len(points):
        points = scene.map.points[:, :2] if len(scene.map) else np.zeros((1, 2))
    low, high = points.min(0), points.max(0)
    centre = np.round((low + high) / 2)
    last = scene.steps if rollouts is None else max(scene.steps, rollouts.first_step + rollouts.valid.shape[-1])
    ids = agents.source_id if agents.source_id is not None else [str(number) for number in agents.id.tolist()]
    # The size at the current index, or when first seen: boxes do not breathe with the recording's noise.
    step = np.where(agents.valid[:, now], now, agents.valid.argmax(-1))
    size = np.nan_to_num(agents.size[np.arange(len(agents)), step, :2].astype(float))
    held = rollouts is not None and rollouts.provenance.get("lights") == "held"
    return {
        "format": 1,
        "id": scene.id,
        "source": scene.source,
        "model": "" if rollouts is None else str(rollouts.provenance.get("model", "")),
        "dt": scene.dt,
        "now": now,
        "steps": last,
        "centre": centre.tolist(),
        "ego": scene.ego,
        "agents": {"id": list(ids), "kind": agents.kind.tolist(), "size": pack(whole(size, _CM))},
        "log": _tracks(agents.position[..., :2], agents.heading, agents.valid, centre),
        "runs": None if rollouts is None or rows is None else _runs(rollouts, rows, centre),
        "futures": None if rollouts is None else _futures(rollouts, centre),
        "lights": _lights(scene, centre, held),
        "map": _map(scene, centre, low - _AROUND, high + _AROUND),
        "names": {
            "kind": {int(kind): name for kind, name in colours.KIND_NAME.items()},
            "light": {int(state): state.name.lower().replace("_", " ") for state in LightState},
        },
        "colours": {
            "ego": colours.EGO,
            "kind": {int(kind): colour for kind, colour in colours.KIND.items()},
            "light": {int(state): colour for state, colour in colours.LIGHT.items()},
            "time": list(colours.TIME),
            "time_dark": list(colours.TIME_ON_DARK),
        },
    }


def _tracks(xy: np.ndarray, heading: np.ndarray, valid: np.ndarray, centre: np.ndarray) -> dict[str, Any]:
    """Return tracks [..., T]; headings are unwound, so that a browser may interpolate them."""
    place = np.moveaxis(hold(xy - centre, valid), -1, 0)
    turn = np.unwrap(hold(heading[..., None].astype(float), valid)[..., 0], axis=-1)
    return {
        "xy": pack(whole(place, _CM)),
        "heading": pack(whole(turn, _MILLIRADIAN)),
        "valid": pack(valid.astype(np.int64)),
    }


def _runs(rollouts: Rollouts, rows: np.ndarray, centre: np.ndarray) -> dict[str, Any]:
    tracks = _tracks(rollouts.position[..., :2], rollouts.heading, rollouts.valid, centre)
    size = None if rollouts.size is None else pack(whole(np.nan_to_num(rollouts.size[..., :2].astype(float)), _CM))
    return {"row": rows.tolist(), "first": rollouts.first_step, "size": size, **tracks}


def _futures(rollouts: Rollouts, centre: np.ndarray) -> dict[str, Any] | None:
    if rollouts.futures is None or rollouts.futures_origin is None:
        return None
    valid = np.isfinite(rollouts.futures).all(-1)
    xy = hold(rollouts.futures.astype(float) + (rollouts.futures_origin - centre), valid)
    return {"xy": pack(whole(np.moveaxis(xy, -1, 0), _CM)), "valid": pack(valid.astype(np.int64))}


def _lights(scene: Scene, centre: np.ndarray, held: bool) -> dict[str, Any]:
    lights = scene.lights
    seen = np.flatnonzero(lights.observed.any(-1))
    at = lights.stop_point[seen, lights.observed[seen].argmax(-1), :2] - centre
    state = np.where(lights.observed[seen], lights.state[seen], _UNSEEN)
    return {
        "lane": lights.lane_id[seen].tolist(),
        "xy": pack(whole(at.T, _CM)),
        "state": pack(state.astype(np.int64)),
        "held": held,
    }


def _map(scene: Scene, centre: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[dict[str, Any]]:
    """Return layers from the ground up: how to draw them, and their lines end to end."""
    layers: dict[tuple[str, float], list[np.ndarray]] = {}
    for kind, subtype, xy in visible_features(scene.map, low, high):
        name, width = kind.name.lower(), 0.0
        if kind == MapKind.LANE:
            layers.setdefault(("asphalt", lane_width(subtype)), []).append(xy)
        elif kind == MapKind.ROAD_LINE:
            colour = "yellow" if LineType(subtype) in YELLOW else "white"
            name = f"{colour}_broken" if LineType(subtype) in BROKEN else colour
        elif kind == MapKind.CROSSWALK:
            layers.setdefault(("zebra", 0.0), []).extend(zebra(xy))
        layers.setdefault((name, width), []).append(xy)
    order = (
        *("driveway", "asphalt", "speed_bump", "crosswalk", "zebra", "lane"),
        *("white", "white_broken", "yellow", "yellow_broken", "road_edge", "stop_sign"),
    )
    return [
        {
            "name": name,
            "width": width,
            "count": [len(line) for line in lines],
            "xy": pack(whole(np.concatenate(lines).T - centre[:, None], _CM)),
        }
        for (name, width), lines in sorted(layers.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
        if lines
    ]
