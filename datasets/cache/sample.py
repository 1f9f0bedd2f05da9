"""From a compact scene to a sample: arrays of fixed shape around one current index, as training takes them."""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from numba import njit

from traj_diffusion.datasets.cache.augment import Augment, alter, choose
from traj_diffusion.datasets.cache.compact import ANGLE, LINE, PACE, PLACE, SIZE, UNSEEN, CompactScene, compact_scene
from traj_diffusion.datasets.conditioning import ABSENT_ROUTE, HISTORY_STEPS, OFF_ROUTE, ON_ROUTE, PIECE_POINTS
from traj_diffusion.scene import Scene

Sample = dict[str, np.ndarray]
NOW = HISTORY_STEPS - 1  # where the current index of a scene comes to lie


@dataclass(frozen=True)
class CacheShape:
    """How much of a scene a sample holds. What is nearest to the ego comes first; the rest is cut off."""

    agents: int = 40
    pieces: int = 448
    lights: int = 32
    steps: int = 91  # the current one is the eleventh, whatever it is in the recording

    def fields(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of each array of one sample."""
        a, m, s, t = self.agents, self.pieces, self.lights, self.steps
        return {
            "position": ((a, t, 2), "f4"),
            "heading": ((a, t), "f4"),
            "velocity": ((a, t, 2), "f4"),
            "valid": ((a, t), "?"),
            "size": ((a, 3), "f4"),
            "kind": ((a,), "u1"),
            "map_points": ((m, PIECE_POINTS, 2), "f4"),
            "map_pose": ((m, 3), "f4"),
            "map_length": ((m,), "f4"),
            "map_code": ((m,), "u1"),
            "map_speed": ((m,), "f4"),
            "map_valid": ((m,), "?"),
            "light_pose": ((s, 3), "f4"),
            "light_state": ((s,), "u1"),  # when last seen up to the current index
            "light_seen": ((s,), "?"),
            "route": ((a, m), "u1"),
            "light_route": ((a, s), "u1"),
        }

    def zeros(self, *batch: int) -> Sample:
        """Return arrays of a sample with nothing in it, with batch axes in front."""
        return {name: np.zeros((*batch, *wanted), dtype) for name, (wanted, dtype) in self.fields().items()}


def pack(scene: Scene, shape: CacheShape) -> Sample:
    """Return one scene as a cache would: relative to its ego, or the mean of its agents, at the current index.

    Only agents that are valid at the current index are in it: the others are not simulated. Raises BadScene where a
    cache cannot hold the scene.
    """
    sample = shape.zeros()
    compact = compact_scene(scene)
    fill(sample, compact, compact.current_index, shape)
    return sample


def fill(
    out: Sample,
    scene: CompactScene,
    now: int,
    shape: CacheShape,
    augment: Augment | None = None,
    rng: np.random.Generator | None = None,
) -> None:
    """Write the sample of a scene at the current index `now` into arrays of zeros, changed as `augment` says."""
    agents = np.flatnonzero(scene.valid[:, now])
    place = scene.position[:, agents, now].T * PLACE
    is_ego = agents == (-1 if scene.ego is None else scene.ego)
    centre = place[is_ego][0] if is_ego.any() else place.mean(0)
    features = scene.map
    pieces = np.arange(len(features.row))
    if augment is not None and rng is not None:
        changes = choose(augment, rng, agents=len(agents), pieces=len(pieces))
        agents, place = agents[changes.agents | is_ego], place[changes.agents | is_ego]
        pieces = pieces[changes.pieces]

    order = np.argsort(np.hypot(*(place - centre).T), kind="stable")[: shape.agents]
    agents = agents[order]
    _fill_agents(out, scene, agents, now, centre)

    offset = scene.origin - features.origin + centre  # of the sample's centre in the frame of the map
    at = features.pose[:2, pieces] * LINE - offset[:, None]
    if len(pieces) > shape.pieces:
        kept = np.sort(np.argsort(np.hypot(*at), kind="stable")[: shape.pieces])
        pieces, at = pieces[kept], at[:, kept]
    m = len(pieces)
    np.multiply(features.points[:, pieces].transpose(1, 2, 0), LINE, out=out["map_points"][:m], casting="same_kind")
    out["map_pose"][:m, :2] = at.T
    out["map_pose"][:m, 2] = features.pose[2, pieces] * ANGLE
    out["map_length"][:m] = features.length[pieces] * SIZE
    out["map_code"][:m] = features.code[pieces]
    out["map_speed"][:m] = features.speed_limit[pieces] * PACE
    out["map_valid"][:m] = True

    lights = _fill_lights(out, scene, now, centre, shape)
    _route_codes(
        agents, scene.has_route, scene.route_start, scene.route_row, features.row[pieces], out["route"][: len(agents)]
    )
    _route_codes(
        agents,
        scene.has_route,
        scene.route_start,
        scene.route_row,
        scene.light_row[lights],
        out["light_route"][: len(agents)],
    )
    if augment is not None and rng is not None:
        alter(out, augment, rng)


def _fill_agents(out: Sample, scene: CompactScene, agents: np.ndarray, now: int, centre: np.ndarray) -> None:
    """Write the states of some agents from HISTORY_STEPS - 1 steps before `now`; what is not valid stays zero."""
    n = len(agents)
    first = max(now - NOW, 0)  # in the recording
    at = first - (now - NOW)  # in the sample
    count = min(scene.steps - first, out["valid"].shape[1] - at)
    steps = slice(at, at + count)
    _states(
        agents,
        scene.valid[:, first : first + count],
        scene.position[:, :, first : first + count],
        scene.heading[:, first : first + count],
        scene.velocity[:, :, first : first + count],
        centre,
        out["position"][:n, steps],
        out["heading"][:n, steps],
        out["velocity"][:n, steps],
        out["valid"][:n, steps],
    )
    out["size"][:n] = scene.size[:, agents, now].T * SIZE
    out["kind"][:n] = scene.kind[agents]


@njit(cache=True)
@no_type_check
def _states(agents, valid, position, heading, velocity, centre, at, facing, pace, seen):  # pragma: no cover
    for n in range(len(agents)):
        row = agents[n]
        for step in range(valid.shape[1]):
            if valid[row, step]:
                seen[n, step] = True
                for axis in range(2):
                    at[n, step, axis] = position[axis, row, step] * PLACE - centre[axis]
                    pace[n, step, axis] = velocity[axis, row, step] * PACE
                facing[n, step] = heading[row, step] * ANGLE


def _fill_lights(out: Sample, scene: CompactScene, now: int, centre: np.ndarray, shape: CacheShape) -> np.ndarray:
    """Write the lights that are nearest, those last that were not seen up to now, and return which they are."""
    seen = scene.light_state[:, : now + 1] != UNSEEN
    ever = seen.any(1)
    last = now - seen[:, ::-1].argmax(1)
    at = scene.light_pose[:2] * LINE - centre[:, None]
    lights = np.argsort(np.where(ever, np.hypot(*at), np.inf), kind="stable")[: shape.lights]
    lights = lights[ever[lights]]
    s = len(lights)
    out["light_pose"][:s, :2] = at[:, lights].T
    out["light_pose"][:s, 2] = scene.light_pose[2, lights] * ANGLE
    out["light_state"][:s] = scene.light_state[lights, last[lights]]
    out["light_seen"][:s] = True
    return lights


@njit(cache=True)
@no_type_check
def _route_codes(agents, has_route, start, rows, target, out):  # pragma: no cover
    out[:, : len(target)] = ABSENT_ROUTE
    top = 0
    for j in range(len(target)):
        top = max(top, target[j] + 1)
    mine = np.zeros(top, np.int64)
    for i in range(len(agents)):
        agent = agents[i]
        if not has_route[agent]:
            continue
        for entry in range(start[agent], start[agent + 1]):
            if 0 <= rows[entry] < top:
                mine[rows[entry]] = i + 1
        for j in range(len(target)):
            on = target[j] >= 0 and mine[target[j]] == i + 1
            out[i, j] = ON_ROUTE if on else OFF_ROUTE
