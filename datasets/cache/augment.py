"""What is changed at random when a sample is loaded. Every sample draws from a generator of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool

from traj_diffusion.configs import checked, override
from traj_diffusion.errors import BadConfig
from traj_diffusion.geometry import rotate, to_local
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
    far = np.linalg.norm(out["position"] - first[:, None], axis=-1)
    noisy = valid & (far * valid > _MOVES).any(1)[:, None]
    shift = np.stack([along, across], -1)[:, None] * rng.standard_normal((*valid.shape, 2))
    out["position"] += rotate(shift, out["heading"]) * noisy[..., None]
    out["heading"] += turn[:, None] * rng.standard_normal(valid.shape) * noisy
    out["velocity"] += pace[:, None, None] * rng.standard_normal((*valid.shape, 2)) * noisy[..., None]


def _park(out: Arrays, rng: np.random.Generator, wanted: int) -> None:
    """Put cars beside lanes, in free rows: off every lane's middle, and where nobody comes by in the window."""
    free = np.flatnonzero(~out["valid"].any(1))[:wanted]
    lanes = out["map_valid"] & np.isin(out["map_code"], _STREETS)
    beside = np.flatnonzero(lanes & (np.linalg.norm(out["map_pose"][:, :2], axis=-1) < _REACH))
    if not len(free) or not len(beside):
        return
    pose = out["map_pose"][lanes]
    middles = (rotate(out["map_points"][lanes], pose[:, None, 2]) + pose[:, None, :2]).reshape(-1, 2)
    rows = iter(free.tolist())
    row = next(rows)
    for _ in range(_TRIES * len(free)):
        piece = out["map_pose"][rng.choice(beside)].astype(np.float64)
        length, width, height = rng.uniform((3.8, 1.7, 1.4), (5.4, 2.1, 2.0))
        side = rng.choice((-1.0, 1.0))
        away = side * (_LANE / 2 + width / 2 + rng.uniform(0.2, 3.0))
        angle = piece[2] + (rng.normal(0, 0.03) if rng.random() < 0.85 else np.pi / 2 * side)
        place = piece[:2] + rotate(np.array([rng.uniform(-8, 8), away]), piece[2])
        if not _is_free(out, middles, place, angle, length, width):
            continue
        out["position"][row], out["heading"][row], out["valid"][row] = place, angle, True
        out["size"][row], out["kind"][row] = (length, width, height), AgentKind.VEHICLE
        row = next(rows, -1)
        if row < 0:
            return


def _is_free(out: Arrays, middles: Any, place: Any, angle: float, length: float, width: float) -> bool:
    """Return whether a box is 1 m off the middle of every lane and 0.3 m off everybody at every step."""
    ahead, aside = np.abs(to_local(middles, place, np.float64(angle))).T
    if ((ahead < length / 2 + 0.5) & (aside < width / 2 + 1.0)).any():
        return False
    valid = out["valid"]
    ahead, aside = np.abs(to_local(out["position"][valid], place, np.float64(angle))).T
    turn = out["heading"][valid] - angle
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    long, wide = np.broadcast_to(out["size"][:, None, :2], (*valid.shape, 2))[valid].T / 2
    overlap = (ahead < length / 2 + long * cos + wide * sin + 0.3) & (aside < width / 2 + long * sin + wide * cos + 0.3)
    return not overlap.any()
