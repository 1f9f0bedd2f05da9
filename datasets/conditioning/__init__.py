"""From scenes to what the network sees. Needs no reader and no simulator."""

from traj_diffusion.datasets.conditioning.pieces import (
    CODES,
    KIND_OF_CODE,
    PIECE_LENGTH,
    PIECE_POINTS,
    PLAIN_CODE,
    MapPieces,
    cut_map,
)
from traj_diffusion.datasets.conditioning.tensors import (
    ABSENT_ROUTE,
    HISTORY_FEATURES,
    HISTORY_STEPS,
    OFF_ROUTE,
    ON_ROUTE,
    Conditioning,
    MapTensors,
    condition,
    light_poses,
    light_rows,
    map_tensors,
    route_codes,
)

__all__ = [
    "ABSENT_ROUTE",
    "CODES",
    "HISTORY_FEATURES",
    "HISTORY_STEPS",
    "KIND_OF_CODE",
    "OFF_ROUTE",
    "ON_ROUTE",
    "PIECE_LENGTH",
    "PIECE_POINTS",
    "PLAIN_CODE",
    "Conditioning",
    "MapPieces",
    "MapTensors",
    "condition",
    "cut_map",
    "light_poses",
    "light_rows",
    "map_tensors",
    "route_codes",
]
