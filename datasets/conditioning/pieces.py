"""The map as the network sees it: every feature cut into pieces of at most 20 m, resampled to the same few points."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from traj_diffusion.scene import Map, MapKind

PIECE_LENGTH = 20.0  # m, the longest piece
PIECE_POINTS = 10
# Each (kind, subtype) gets a code of its own; a subtype beyond the known ones falls back to the kind's first.
_SUBTYPES = {
    MapKind.LANE: 4,
    MapKind.ROAD_LINE: 9,
    MapKind.ROAD_EDGE: 3,
    MapKind.STOP_SIGN: 1,
    MapKind.CROSSWALK: 1,
    MapKind.SPEED_BUMP: 1,
    MapKind.DRIVEWAY: 1,
}
CODES = sum(_SUBTYPES.values())
KIND_OF_CODE = tuple(kind for kind, subtypes in _SUBTYPES.items() for _ in range(subtypes))
PLAIN_CODE = tuple(KIND_OF_CODE.index(kind) for kind in KIND_OF_CODE)  # the code of the same kind whose type is unknown


@dataclass(frozen=True)
class MapPieces:
    """Pieces of map features. Poses are relative to an origin that the caller chose; points to the piece's pose."""

    points: Float32[np.ndarray, "M P 2"]
    pose: Float32[np.ndarray, "M 3"]  # x, y of the piece's middle, direction from its first to its last point
    length: Float32[np.ndarray, " M"]
    code: UInt8[np.ndarray, " M"]
    speed_limit: Float32[np.ndarray, " M"]  # m/s, 0 where not recorded
    row: Int32[np.ndarray, " M"]  # the map feature that it was cut from

    def __len__(self) -> int:
        return len(self.code)


def cut_map(features: Map, origin: np.ndarray) -> MapPieces:
    """Return all features of a map cut by arc length, in recorded order; `origin` [2] is subtracted in float64."""
    sizes = np.diff(features.start)
    kept = np.flatnonzero(sizes > 0)
    if not len(kept):
        return _no_pieces()
    flat = features.points[:, :2] - origin
    # One arc length over all points: inside a feature it grows with distance, between two it jumps by a metre.
    step = np.linalg.norm(np.diff(flat, axis=0), axis=-1)
    step[features.start[1:-1][(features.start[1:-1] > 0) & (features.start[1:-1] < len(flat))] - 1] = 1.0
    along = np.concatenate([[0.0], np.cumsum(step)])
    begin = along[features.start[:-1][kept]]
    length = along[features.start[1:][kept] - 1] - begin

    pieces = np.maximum(np.ceil(length / PIECE_LENGTH - 1e-9), 1).astype(np.int64)
    owner = np.repeat(np.arange(len(kept)), pieces)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    each = length[owner] / pieces[owner]
    at = (begin[owner] + number * each)[:, None] + np.linspace(0, 1, PIECE_POINTS) * each[:, None]
    points = np.stack([np.interp(at, along, flat[:, axis]) for axis in (0, 1)], -1)

    middle = points.mean(axis=1)
    chord = points[:, -1] - points[:, 0]
    chord = np.where(np.linalg.norm(chord, axis=-1, keepdims=True) > 1e-3, chord, points[:, 1] - points[:, 0])
    direction = np.arctan2(chord[:, 1], chord[:, 0])
    cos, sin = np.cos(direction)[:, None], np.sin(direction)[:, None]
    offset = points - middle[:, None]
    local = np.stack([cos * offset[..., 0] + sin * offset[..., 1], cos * offset[..., 1] - sin * offset[..., 0]], -1)

    row = kept[owner]
    limit = np.nan_to_num(features.speed_limit[row], nan=0.0)
    return MapPieces(
        points=local.astype(np.float32),
        pose=np.concatenate([middle, direction[:, None]], -1).astype(np.float32),
        length=each.astype(np.float32),
        code=_codes(features)[row],
        speed_limit=limit.astype(np.float32),
        row=row.astype(np.int32),
    )


def _codes(features: Map) -> UInt8[np.ndarray, " M"]:
    codes = np.zeros(len(features), np.uint8)
    first = 0
    for kind, subtypes in _SUBTYPES.items():
        rows = features.kind == kind
        codes[rows] = first + np.where(features.subtype[rows] < subtypes, features.subtype[rows], 0)
        first += subtypes
    return codes


def _no_pieces() -> MapPieces:
    return MapPieces(
        points=np.zeros((0, PIECE_POINTS, 2), np.float32),
        pose=np.zeros((0, 3), np.float32),
        length=np.zeros(0, np.float32),
        code=np.zeros(0, np.uint8),
        speed_limit=np.zeros(0, np.float32),
        row=np.zeros(0, np.int32),
    )
