"""What a scene may hold but seldom does, counted and named: wrong units, another frame, mixed-up columns.

`check_scene` refuses what cannot be; these are the things that it lets pass and that a person should look at.
"""

import numpy as np

from traj_diffusion.geometry import wrap_angle
from traj_diffusion.scene.kinds import AgentKind, MapKind
from traj_diffusion.scene.motion import velocity_of_motion
from traj_diffusion.scene.scene import Agents, Report, Scene

MOVING = 2.0  # m/s; below it headings and velocities are compared with noise
FASTEST = 70.0  # m/s
SIZES = 0.1, 30.0  # m; a box beyond is in another unit, or none
TURNS = 8 * np.pi  # rad; real headings count a turn or two, degrees count hundreds
REACH = 300.0  # m from the map's bounds
WIDER = 1.2  # times as wide as long


def doubts(scene: Scene) -> Report:
    """Return what is odd about a scene, and how often: nothing for most."""
    found = [*_motion(scene.agents, scene.dt), *_boxes(scene.agents), *_map(scene)]
    if len(scene.agents) and not scene.agents.valid[:, scene.current_index].any():
        found.append(("nobody is there at the current step", np.ones(1, bool)))
    return tuple((what, int(where.sum())) for what, where in found if where.any())


def _motion(agents: Agents, dt: float) -> list[tuple[str, np.ndarray]]:
    velocity = velocity_of_motion(agents.position[..., :2], agents.valid, dt)
    speed = np.hypot(velocity[..., 0], velocity[..., 1])
    moving = agents.valid & (speed > MOVING)
    steps = moving.sum(1)
    often = steps >= 5
    rolls = often & np.isin(agents.kind, (AgentKind.VEHICLE, AgentKind.CYCLIST))
    off = wrap_angle(agents.heading.astype(np.float64) - np.arctan2(velocity[..., 1], velocity[..., 0]))
    along = np.where(moving, np.cos(off), 0.0).sum(1) / np.maximum(steps, 1)
    wrong = np.hypot(*np.moveaxis(agents.velocity - velocity, -1, 0)) > 1.0 + 0.5 * speed
    return [
        ("vehicles and cyclists whose heading lies across their motion", rolls & (np.abs(along) < 0.7)),
        ("vehicles and cyclists that go backwards", rolls & (along <= -0.7)),
        ("agents whose velocity is not that of their motion", often & ((wrong & moving).sum(1) > steps / 2)),
        (f"states faster than {FASTEST:g} m/s", agents.valid & (speed > FASTEST)),
    ]


def _boxes(agents: Agents) -> list[tuple[str, np.ndarray]]:
    length, width = agents.size[..., 0], agents.size[..., 1]
    ever = agents.valid.any(1)
    odd = agents.valid & (((length < SIZES[0]) | (length > SIZES[1])) | ((width < SIZES[0]) | (width > SIZES[1])))
    wider = ever & (~agents.valid | (width > WIDER * length)).all(1) & (agents.kind == AgentKind.VEHICLE)
    turned = agents.valid & (np.abs(agents.heading) > TURNS)
    return [
        (f"agents shorter or narrower than {SIZES[0]:g} m or beyond {SIZES[1]:g} m", odd.any(1)),
        ("vehicles wider than long", wider),
        ("agents with headings beyond four turns, degrees perhaps", turned.any(1)),
        ("agents that are never valid", ~ever),
    ]


def _map(scene: Scene) -> list[tuple[str, np.ndarray]]:
    features = scene.map
    if not len(features.points):
        return []
    now = scene.agents.valid[:, scene.current_index]
    place = scene.agents.position[now, scene.current_index, :2]
    low, high = features.points[:, :2].min(0) - REACH, features.points[:, :2].max(0) + REACH
    times = np.unique(features.id, return_counts=True)[1]
    lanes = features.id[features.rows(MapKind.LANE)]
    return [
        (f"agents more than {REACH:g} m off the map", ((place < low) | (place > high)).any(-1)),
        ("map ids that are used more than once", times > 1),
        ("map features without points", np.diff(features.start) == 0),
        ("lights of lanes outside the map", ~np.isin(scene.lights.lane_id, lanes)),
    ]
