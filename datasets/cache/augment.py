"""What is changed at random when a sample is loaded. Every sample draws from a generator of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import no_type_check

import numpy as np
from jaxtyping import Bool
from numba import njit

from traj_diffusion.configs import checked, override
from traj_diffusion.errors import BadConfig
from traj_diffusion.geometry import rotate
from traj_diffusion.scene import AgentKind

Arrays = dict[str, np.ndarray]
_HISTORY = 10  # steps before the present one
_STREETS = (0, 2)  # codes of lanes of no type, and of surface streets: where cars park
_REACH = 60.0  # m from the centre, of parked cars
_LANE = 3.5  # m
_TRIES = 4  # places that are looked at for each parked car
_MOVES = 0.1  # m in a window; what moves less is frozen, and stays so


@dataclass(frozen=True)
class Augment:
    """How samples are changed. The default changes nothing."""

    rotate: bool = False  # the whole scene, by any angle
    history_noise: float = 0.0  # m, sd of each place before the present; headings by a fifth [rad], velocities [m/s]
    drop_agents: float = 0.0  # share that is taken out; the ego stays
    drop_pieces: float = 0.0  # share of map pieces that is taken out
    parked: float = 0.0  # mean number of parked cars that are put beside lanes where nobody drives
    jitter: float = 0.0  # noise of a sensor on all states of whoever moves; 1 is 0.5 to 2 cm along, less across

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            most = 1.0 if field.name.startswith("drop_") else 100.0
            if not 0 <= value <= most:
                raise BadConfig(f"{field.name} lies between 0 and {most:g}, not {value}")


def load_augment(assignments: Sequence[str]) -> Augment | None:
    """Return the changes that `key=value` texts ask for, None where there are none. Raises BadConfig."""
    types = {field.name: field.type for field in fields(Augment) if isinstance(field.type, type)}
    return Augment(**checked(override({}, assignments), types, "augmentation")) if assignments else None


@dataclass(frozen=True)
class Changes:
    """Which agents and map pieces stay; settled before the nearest are chosen, so that others take their place."""

    agents: Bool[np.ndarray, " A"]
    pieces: Bool[np.ndarray, " M"]


def choose(augment: Augment, rng: np.random.Generator, agents: int, pieces: int) -> Changes:
    """Return what stays. At least one agent does."""
    kept = rng.random(agents) >= augment.drop_agents
    if not kept.any():
        kept[rng.integers(agents)] = True
    return Changes(kept, rng.random(pieces) >= augment.drop_pieces)


def alter(out: Arrays, augment: Augment, rng: np.random.Generator) -> None:
    """Change one sample in place."""
    if augment.parked:
        _park(out, rng, int(rng.poisson(augment.parked)))
    if augment.jitter:
        _jitter(out, rng, augment.jitter)
    if augment.history_noise:
        _disturb(out, rng, augment.history_noise)
    if augment.rotate:
        _rotate(out, float(rng.uniform(-np.pi, np.pi)))


def _rotate(out: Arrays, angle: float) -> None:
    for name in ("position", "velocity"):
        out[name][...] = rotate(out[name], np.float32(angle))
    out["heading"][...] += np.float32(angle) * out["valid"]
    for name, valid in (("map_pose", out["map_valid"]), ("light_pose", out["light_seen"])):
        out[name][:, :2] = rotate(out[name][:, :2], np.float32(angle))
        out[name][:, 2] += np.float32(angle) * valid


def _disturb(out: Arrays, rng: np.random.Generator, sd: float) -> None:
    past = slice(0, _HISTORY)
    seen = out["valid"][:, past]
    out["position"][:, past] += rng.normal(0, sd, (*seen.shape, 2)) * seen[..., None]
    out["velocity"][:, past] += rng.normal(0, sd, (*seen.shape, 2)) * seen[..., None]
    out["heading"][:, past] += rng.normal(0, sd / 5, seen.shape) * seen


def _jitter(out: Arrays, rng: np.random.Generator, strength: float) -> None:
    """Add white noise to all states; ranges are wide, for sensors and the labels made of them differ."""
    valid = out["valid"]
    agents = len(valid)
    along = rng.uniform(0.005, 0.02, agents) * strength
    across = along * rng.uniform(0.2, 0.6, agents)
    turn = rng.uniform(0.0005, 0.003, agents) * strength
    pace = rng.uniform(0.01, 0.05, agents) * strength
    first = out["position"][np.arange(agents), valid.argmax(1)]
    far = np.abs(out["position"] - first[:, None]).max(-1)
    noisy = valid & (far * valid > _MOVES).any(1)[:, None]
    noise = rng.standard_normal((5, *valid.shape), np.float32) * noisy
    noise *= np.stack([along, across, turn, pace, pace])[..., None].astype(np.float32)
    out["position"] += rotate(np.stack([noise[0], noise[1]], -1), out["heading"])
    out["heading"] += noise[2]
    out["velocity"] += np.stack([noise[3], noise[4]], -1)


def _park(out: Arrays, rng: np.random.Generator, wanted: int) -> None:
    """Put cars beside lanes, in free rows: off every lane's middle, and where nobody comes by in the window."""
    free = np.flatnonzero(~out["valid"].any(1))[:wanted]
    lanes = out["map_valid"] & np.isin(out["map_code"], _STREETS)
    beside = np.flatnonzero(lanes & (np.linalg.norm(out["map_pose"][:, :2], axis=-1) < _REACH))
    if not len(free) or not len(beside):
        return
    pose = out["map_pose"][lanes]
    middles = (rotate(out["map_points"][lanes], pose[:, None, 2]) + pose[:, None, :2]).reshape(-1, 2)
    states = (out["position"], out["heading"], out["valid"], out["size"])
    draws = rng.random((_TRIES * len(free), 9))
    taken = 0
    for which, left, length, width, height, gap, askew, across, along in draws.tolist():
        x, y, direction = out["map_pose"][beside[int(which * len(beside))]].tolist()
        length, width, height = 3.8 + 1.6 * length, 1.7 + 0.4 * width, 1.4 + 0.6 * height
        side = 1.0 if left < 0.5 else -1.0
        is_across = across < 0.15  # as on a lot
        away = side * (_LANE / 2 + (length if is_across else width) / 2 + 0.2 + 2.8 * gap)
        ahead = 16 * along - 8
        x += ahead * math.cos(direction) - away * math.sin(direction)
        y += ahead * math.sin(direction) + away * math.cos(direction)
        angle = direction + 0.1 * (askew - 0.5) + (math.pi / 2 * side if is_across else 0.0)
        if not _is_free(middles, *states, x, y, angle, length, width):
            continue
        row = free[taken]
        out["position"][row], out["heading"][row], out["valid"][row] = (x, y), angle, True
        out["size"][row], out["kind"][row] = (length, width, height), AgentKind.VEHICLE
        taken += 1
        if taken == len(free):
            return


@njit(cache=True)
@no_type_check  # a run-time check of shapes would wrap the function before numba sees it
def _is_free(middles, position, heading, valid, size, x, y, angle, length, width):  # pragma: no cover
    """Return whether a box is 1 m off the middle of every lane and 0.3 m off everybody at every step."""
    cos, sin = np.cos(angle), np.sin(angle)
    for i in range(len(middles)):
        dx, dy = middles[i, 0] - x, middles[i, 1] - y
        if abs(cos * dx + sin * dy) < length / 2 + 0.5 and abs(cos * dy - sin * dx) < width / 2 + 1.0:
            return False
    for row in range(len(valid)):
        long, wide = size[row, 0] / 2, size[row, 1] / 2
        for step in range(valid.shape[1]):
            if not valid[row, step]:
                continue
            dx, dy = position[row, step, 0] - x, position[row, step, 1] - y
            along, across = abs(np.cos(heading[row, step] - angle)), abs(np.sin(heading[row, step] - angle))
            ahead = length / 2 + long * along + wide * across + 0.3
            aside = width / 2 + long * across + wide * along + 0.3
            if abs(cos * dx + sin * dy) < ahead and abs(cos * dy - sin * dx) < aside:
                return False
    return True
