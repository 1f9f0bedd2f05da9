"""What the network sees, as tensors: a part that stays (map, routes) and a part that moves (agents, lights)."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from traj_diffusion.datasets.conditioning.pieces import MapPieces
from traj_diffusion.geometry import rotate, to_local, wrap_angle
from traj_diffusion.kinematics import start_speed
from traj_diffusion.scene import Map, MapKind, Routes

HISTORY_STEPS = 11  # 1 s at 10 Hz, and now
HISTORY_FEATURES = 7  # x, y, cos and sin of the turn since then, velocity x, y, seen or not


class _Movable:
    """Tensors that move between devices together."""

    def to(self, device: torch.device | str):  # type: ignore[no-untyped-def]  # Self of a dataclass
        """Return a copy on that device."""
        return type(self)(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class MapTensors(_Movable):
    """What stays while agents move. Poses are relative to the scene's origin."""

    points: Float[Tensor, "B M P 2"]  # in the piece's own frame
    pose: Float[Tensor, "B M 3"]
    length: Float[Tensor, "B M"]
    code: Int[Tensor, "B M"]
    speed_limit: Float[Tensor, "B M"]
    valid: Bool[Tensor, "B M"]


@dataclass(frozen=True)
class Conditioning(_Movable):
    """One moment of B scenes or worlds: agents with their history, lights, routes; poses relative to the origin.

    Where a mask is False the thing is absent, which is never the same as zero. `route` and `light_route` hold per
    agent and map piece (or light) ABSENT_ROUTE, ON_ROUTE or OFF_ROUTE.
    """

    history: Float[Tensor, "B A H 7"]  # in the agent's own frame now; zeros where not seen
    pose: Float[Tensor, "B A 3"]
    speed: Float[Tensor, "B A 2"]  # forward and lateral, m/s
    velocity: Float[Tensor, "B A 2"]  # in the frame of the origin
    size: Float[Tensor, "B A 3"]
    kind: Int[Tensor, "B A"]
    valid: Bool[Tensor, "B A"]
    light_pose: Float[Tensor, "B S 3"]
    light_state: Int[Tensor, "B S"]
    light_valid: Bool[Tensor, "B S"]
    route: Int[Tensor, "#B A M"]
    light_route: Int[Tensor, "#B A S"]


ABSENT_ROUTE, ON_ROUTE, OFF_ROUTE = 0, 1, 2


def map_tensors(pieces: MapPieces) -> MapTensors:
    """Return one map as tensors with a batch axis of 1. A map without pieces becomes one that is not valid."""
    if not len(pieces):
        shape = (1, 1)
        return MapTensors(
            points=torch.zeros(1, 1, pieces.points.shape[1], 2),
            pose=torch.zeros(1, 1, 3),
            length=torch.zeros(shape),
            code=torch.zeros(shape, dtype=torch.long),
            speed_limit=torch.zeros(shape),
            valid=torch.zeros(shape, dtype=torch.bool),
        )
    return MapTensors(
        points=torch.from_numpy(pieces.points)[None],
        pose=torch.from_numpy(pieces.pose)[None],
        length=torch.from_numpy(pieces.length)[None],
        code=torch.from_numpy(pieces.code.astype(np.int64))[None],
        speed_limit=torch.from_numpy(pieces.speed_limit)[None],
        valid=torch.ones(1, len(pieces), dtype=torch.bool),
    )


def history_features(
    position: Float[Tensor, "B A H 2"],
    heading: Float[Tensor, "B A H"],
    velocity: Float[Tensor, "B A H 2"],
    valid: Bool[Tensor, "B A H"],
) -> Float[Tensor, "B A H 7"]:
    """Return each agent's history in its own frame at the present (last) step."""
    now, facing = position[..., -1:, :], heading[..., -1:]
    place = to_local(position, now, facing)
    turn = heading - facing
    pace = rotate(velocity, -facing)
    features = torch.cat(
        [place, turn.cos()[..., None], turn.sin()[..., None], pace, torch.ones_like(place[..., :1])], -1
    )
    return features * valid[..., None]


def condition(
    position: Float[Tensor, "B A H 2"],
    heading: Float[Tensor, "B A H"],
    velocity: Float[Tensor, "B A H 2"],
    valid: Bool[Tensor, "B A H"],
    size: Float[Tensor, "B A 3"],
    kind: Int[Tensor, "B A"],
    light_pose: Float[Tensor, "B S 3"],
    light_state: Int[Tensor, "B S"],
    light_valid: Bool[Tensor, "B S"],
    route: Int[Tensor, "#B A M"],
    light_route: Int[Tensor, "#B A S"],
) -> Conditioning:
    """Return the conditioning of agents whose history (last step now) is given relative to the scene's origin."""
    present = valid[..., -1]
    facing = wrap_angle(heading[..., -1])
    return Conditioning(
        history=history_features(position, heading, velocity, valid),
        pose=torch.cat([position[..., -1, :], facing[..., None]], -1) * present[..., None],
        speed=start_speed(velocity[..., -1, :], facing, kind) * present[..., None],
        velocity=velocity[..., -1, :] * present[..., None],
        size=size,
        kind=torch.where(present, kind, torch.zeros_like(kind)),
        valid=present,
        light_pose=light_pose,
        light_state=light_state,
        light_valid=light_valid,
        route=route,
        light_route=light_route,
    )


def light_poses(features: Map, lane_id: np.ndarray, stop_point: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return x, y relative to the origin and the direction of traffic [S, 3] at each light's stop point [S, 3]."""
    poses = np.zeros((len(lane_id), 3), np.float32)
    lanes = features.rows(MapKind.LANE)
    row_of = dict(zip(features.id[lanes].tolist(), lanes.tolist(), strict=True))
    for light, (lane, stop) in enumerate(zip(lane_id.tolist(), stop_point, strict=True)):
        poses[light, :2] = stop[:2] - origin
        if lane in row_of and len(line := features.polyline(row_of[lane])[:, :2]) > 1:
            nearest = min(int(np.argmin(np.linalg.norm(line - stop[:2], axis=-1))), len(line) - 2)
            along = line[nearest + 1] - line[nearest]
            poses[light, 2] = np.arctan2(along[1], along[0])
    return poses


def route_codes(routes: Routes, rows: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return [len(rows), len(target)] route codes: does map row `target[j]` lie on the route of agent `rows[i]`?"""
    codes = np.full((len(rows), len(target)), ABSENT_ROUTE, np.uint8)
    for index, row in enumerate(rows.tolist()):
        if routes.origin[row]:
            codes[index] = np.where(np.isin(target, routes.lanes[row]), ON_ROUTE, OFF_ROUTE)
    return codes


def light_rows(features: Map, lane_id: np.ndarray) -> np.ndarray:
    """Return the map row of each light's lane [S], -1 where the map has no such lane."""
    lanes = features.rows(MapKind.LANE)
    row_of = dict(zip(features.id[lanes].tolist(), lanes.tolist(), strict=True))
    return np.array([row_of.get(int(lane), -1) for lane in lane_id], np.int64)
