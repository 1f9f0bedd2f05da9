"""A scene as the cache keeps it: what training needs of it, in whole multiples of small units.

Heights, ids of agents, lane links and agents that are never seen are not kept; WOMD's full record stays with the
recording. Everything else can be made from this: each current index, every augmentation.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from traj_diffusion.datasets.cache.codec import Reader, Writer
from traj_diffusion.datasets.conditioning import CODES, PIECE_LENGTH, PIECE_POINTS, cut_map, light_poses, light_rows
from traj_diffusion.errors import BadScene
from traj_diffusion.scene import AgentKind, LightState, Map, Scene

DT = 0.1  # s; a cache holds nothing else
# The units. What is kept lies within half of one of what was given.
PLACE = 1e-3  # m, of agents
ANGLE = 1e-4  # rad
PACE = 1e-2  # m/s
SIZE = 1e-2  # m, boxes of agents and lengths of pieces
LINE = 5e-3  # m, of map pieces and lights
MAX_STATES = 1_000_000  # agents times steps of one scene
MAX_ROWS = 2**23  # features of one map
MAX_PIECES = 4096  # of one map; of a larger one those that are nearest
_CELL = 200.0  # m; windows whose centre lies in one cell share a map that had to be cut down
_SCENE = struct.Struct("<IIIIiI dd")
_MAP = struct.Struct("<I dd")
UNSEEN = 255  # in place of a light's state


@dataclass(frozen=True)
class CompactMap:
    """Pieces of a map, as `cut_map` makes them, in units; places relative to `origin`."""

    origin: Float64[np.ndarray, "2"]
    pose: Int64[np.ndarray, "3 M"]  # LINE, LINE, ANGLE
    points: Int64[np.ndarray, "2 M P"]  # LINE, in the piece's own frame
    length: Int64[np.ndarray, " M"]  # SIZE
    code: Int64[np.ndarray, " M"]
    speed_limit: Int64[np.ndarray, " M"]  # PACE
    row: Int64[np.ndarray, " M"]  # the map feature that a piece was cut from

    def pack(self) -> bytes:
        """Return it as one block of bytes."""
        out = Writer()
        count = len(self.row)
        out.put(self.pose, 1)
        out.put(self.points.reshape(2 * count, PIECE_POINTS), 2)
        out.put(np.stack([self.length, self.code, self.speed_limit, self.row]), 1)
        return _MAP.pack(count, *self.origin) + out.block()

    @classmethod
    def unpack(cls, block: memoryview | bytes) -> "CompactMap":
        """Return what `pack` made bytes of. Raises ValueError for bytes that it never makes."""
        count, *origin = _head(_MAP, block)
        if count > MAX_PIECES:
            raise ValueError(f"its map claims {count} pieces; at most {MAX_PIECES} would fit")
        source = Reader(block[_MAP.size :])
        pose = source.take(3, count, 1)
        points = source.take(2 * count, PIECE_POINTS, 2).reshape(2, count, PIECE_POINTS)
        length, code, speed_limit, row = source.take(4, count, 1)
        source.end()
        if not (_within(code, 0, CODES) and _within(row, 0, MAX_ROWS)):
            raise ValueError("its map has pieces of no known kind, or of no feature")
        return cls(np.array(origin), pose, points, length, code, speed_limit, row)


@dataclass(frozen=True)
class CompactScene:
    """Agents, lights and routes of a scene over all T steps, in units; places relative to `origin`.

    Where an agent is not valid its values are those of the step before, or of the first valid one.
    """

    origin: Float64[np.ndarray, "2"]
    current_index: int
    ego: int | None
    kind: UInt8[np.ndarray, " N"]
    valid: Bool[np.ndarray, "N T"]
    position: Int64[np.ndarray, "2 N T"]  # PLACE
    heading: Int64[np.ndarray, "N T"]  # ANGLE
    velocity: Int64[np.ndarray, "2 N T"]  # PACE
    size: Int64[np.ndarray, "3 N T"]  # SIZE
    light_pose: Int64[np.ndarray, "3 S"]  # LINE, LINE, ANGLE
    light_row: Int64[np.ndarray, " S"]  # of the map feature that it controls, or -1
    light_state: UInt8[np.ndarray, "S T"]  # LightState, 255 where not observed
    has_route: Bool[np.ndarray, " N"]
    route_start: Int64[np.ndarray, " starts"]  # CSR of map features by agent
    route_row: Int64[np.ndarray, " entries"]
    map: CompactMap

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return self.valid.shape[1]

    def pack(self) -> bytes:
        """Return it as one block of bytes, its map left out."""
        out = Writer()
        agents, steps = self.valid.shape
        out.put_bits(self.valid)
        out.put(self.position.reshape(2 * agents, steps), 2)
        out.put(self.heading, 1)
        out.put(self.velocity.reshape(2 * agents, steps), 1)
        out.put(self.size.reshape(3 * agents, steps), 1)
        out.put(np.stack([self.kind, self.has_route]))
        out.put(self.light_pose)
        out.put(self.light_row[None])
        out.put(self.light_state, 1)
        out.put(self.route_start[None], 1)
        out.put(self.route_row[None], 1)
        head = _SCENE.pack(
            agents,
            steps,
            len(self.light_row),
            len(self.route_row),
            -1 if self.ego is None else self.ego,
            self.current_index,
            *self.origin,
        )
        return head + out.block()

    @classmethod
    def unpack(cls, block: memoryview | bytes, features: CompactMap) -> "CompactScene":
        """Return what `pack` made bytes of. Raises ValueError for bytes that it never makes."""
        agents, steps, lights, entries, ego, now, x, y = _head(_SCENE, block)
        if agents * steps > MAX_STATES or lights * steps > MAX_STATES or not -1 <= ego < agents or not now < steps:
            raise ValueError(
                f"it claims {agents} agents, {lights} lights, {steps} steps, ego {ego}, current index {now}"
            )
        source = Reader(block[_SCENE.size :])
        valid = source.take_bits(agents, steps)
        position = source.take(2 * agents, steps, 2).reshape(2, agents, steps)
        heading = source.take(agents, steps, 1)
        velocity = source.take(2 * agents, steps, 1).reshape(2, agents, steps)
        size = source.take(3 * agents, steps, 1).reshape(3, agents, steps)
        kind, has_route = source.take(2, agents)
        light_pose = source.take(3, lights)
        light_row = source.take(1, lights)[0]
        light_state = source.take(lights, steps, 1)
        route_start = source.take(1, agents + 1, 1)[0]
        route_row = source.take(1, entries, 1)[0]
        source.end()
        if route_start[0] != 0 or route_start[-1] != entries or (np.diff(route_start) < 0).any():
            raise ValueError("its routes are not cut into agents")
        known = _within(kind, 0, max(AgentKind) + 1) and _within(light_row, -1, MAX_ROWS)
        if not known or not _within(light_state[light_state != UNSEEN], 0, max(LightState) + 1):
            raise ValueError("it has agents or lights of no known kind")
        return cls(
            np.array([x, y]),
            now,
            None if ego < 0 else ego,
            kind.astype(np.uint8),
            valid,
            position,
            heading,
            velocity,
            size,
            light_pose,
            light_row,
            light_state.astype(np.uint8),
            has_route.astype(bool),
            route_start,
            route_row,
            features,
        )


def map_digest(block: memoryview | bytes) -> bytes:
    """Return the content hash of a map block: 16 bytes, by which windows of one run find the map that they share."""
    return hashlib.blake2b(block, digest_size=16).digest()


def scene_origin(scene: Scene) -> Float64[np.ndarray, "2"]:
    """Return the whole metres nearest to where the ego is at the current index, or the mean of those who are there.

    Raises BadScene where a cache cannot hold the scene: at another rate than 10 Hz, too large, or nobody to simulate.
    """
    agents, now = scene.agents, scene.current_index
    if abs(scene.dt - DT) > 1e-3:
        raise BadScene(f"its time step is {scene.dt:g} s; a cache holds scenes of {DT} s")
    if not len(agents):
        raise BadScene("it has no agents")
    present = agents.valid[:, now]
    if not present.any():
        raise BadScene("no agent is valid at its current index")
    if max(agents.valid.size, scene.lights.state.size) > MAX_STATES:
        raise BadScene(f"{len(agents)} agents and {len(scene.lights)} lights over {scene.steps} steps are too many")
    place = agents.position[:, now, :2]
    return np.round(place[scene.ego] if scene.ego is not None and present[scene.ego] else place[present].mean(0))


def compact_scene(scene: Scene, features: CompactMap | None = None) -> CompactScene:
    """Return a scene in units. `features` is its map, where that was made before. Raises BadScene as `scene_origin`."""
    agents, now = scene.agents, scene.current_index
    origin = scene_origin(scene)
    kept = np.flatnonzero(agents.valid.any(1))
    valid = agents.valid[kept]
    ego = None if scene.ego is None or scene.ego not in kept else int(np.searchsorted(kept, scene.ego))
    rows, steps = np.arange(len(kept))[:, None], _held(valid)

    def units(values: np.ndarray, unit: float) -> np.ndarray:
        """Return [N, T, D] as whole multiples [D, N, T], each invalid state as the one before it."""
        return np.rint(values[kept].astype(np.float64)[rows, steps] / unit).astype(np.int64).transpose(2, 0, 1)

    seen = np.flatnonzero(scene.lights.observed.any(1))
    last = scene.steps - 1 - scene.lights.observed[seen, ::-1].argmax(1)
    lane = scene.lights.lane_id[seen]
    poses = light_poses(scene.map, lane, scene.lights.stop_point[seen, last], origin)
    routes = [scene.routes.lanes[int(row)] for row in kept]
    return CompactScene(
        origin=origin,
        current_index=now,
        ego=ego,
        kind=agents.kind[kept],
        valid=valid,
        position=units(agents.position[..., :2] - origin, PLACE),
        heading=units(agents.heading[..., None], ANGLE)[0],
        velocity=units(agents.velocity, PACE),
        size=units(agents.size, SIZE),
        light_pose=_pose_units(poses),
        light_row=light_rows(scene.map, lane),
        light_state=np.where(scene.lights.observed[seen], scene.lights.state[seen], UNSEEN).astype(np.uint8),
        has_route=scene.routes.origin[kept] != 0,
        route_start=np.cumsum([0, *map(len, routes)]).astype(np.int64),
        route_row=np.concatenate([np.zeros(0, np.int64), *routes]).astype(np.int64),
        map=compact_map(scene.map, origin) if features is None else features,
    )


def map_cell(features: Map, centre: np.ndarray) -> tuple[float, ...]:
    """Return what a compact map depends on besides its features: nothing, or the cell that the centre lies in."""
    length = np.linalg.norm(np.diff(features.points[:, :2], axis=0), axis=-1).sum() if len(features.points) else 0.0
    if len(features) + length / PIECE_LENGTH < MAX_PIECES:  # then there cannot be more pieces than that
        return ()
    return tuple((np.floor(centre / _CELL) + 0.5) * _CELL)


def compact_map(features: Map, centre: np.ndarray) -> CompactMap:
    """Return the pieces of a map in units, in recorded order.

    Of a map with more than MAX_PIECES pieces those nearest to the middle of the 200 m cell around `centre` are kept.
    """
    corner = np.floor(features.points[:, :2].min(0)) if len(features.points) else np.zeros(2)
    pieces = cut_map(features, corner)
    kept = np.arange(len(pieces))
    if len(pieces) > MAX_PIECES:
        middle = (np.floor(centre / _CELL) + 0.5) * _CELL
        far = np.linalg.norm(pieces.pose[:, :2] - (middle - corner), axis=-1)
        kept = np.sort(np.argsort(far, kind="stable")[:MAX_PIECES])
    return CompactMap(
        origin=corner,
        pose=_pose_units(pieces.pose[kept]),
        points=np.rint(pieces.points[kept].astype(np.float64) / LINE).astype(np.int64).transpose(2, 0, 1),
        length=np.rint(pieces.length[kept].astype(np.float64) / SIZE).astype(np.int64),
        code=pieces.code[kept].astype(np.int64),
        speed_limit=np.rint(pieces.speed_limit[kept].astype(np.float64) / PACE).astype(np.int64),
        row=pieces.row[kept].astype(np.int64),
    )


def _pose_units(pose: np.ndarray) -> np.ndarray:
    """Return poses [n, 3] as whole multiples [3, n]."""
    return np.rint(pose.astype(np.float64).T / np.array([LINE, LINE, ANGLE])[:, None]).astype(np.int64)


def _held(valid: np.ndarray) -> np.ndarray:
    """Return for each state [N, T] the step of the latest valid one, or of the first one before there was any."""
    steps = np.arange(valid.shape[1])
    return np.maximum(np.maximum.accumulate(np.where(valid, steps, 0), axis=1), valid.argmax(1)[:, None])


def _within(values: np.ndarray, low: int, high: int) -> bool:
    return bool(((values >= low) & (values < high)).all())


def _head(layout: struct.Struct, block: memoryview | bytes) -> tuple[Any, ...]:
    if len(block) < layout.size:
        raise ValueError(f"it has {len(block)} bytes, fewer than its head")
    return layout.unpack_from(block)
