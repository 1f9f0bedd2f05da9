"""The diffusion policy: conditioning from the simulated state, joint actions from noise, futures through kinematics."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from traj_diffusion.datasets.conditioning import (
    ABSENT_ROUTE,
    HISTORY_STEPS,
    Conditioning,
    MapTensors,
    condition,
    cut_map,
    light_poses,
    light_rows,
    map_tensors,
    route_codes,
)
from traj_diffusion.diffusion import (
    Ddim,
    as_denoiser,
    initial_noise,
    keyed_normal,
    make_schedule,
    sample,
    uniform_grid,
)
from traj_diffusion.geometry import to_world
from traj_diffusion.kinematics import ACTION, DT, decode
from traj_diffusion.model import Prepared, TrafficDiffusion, find_checkpoint, load_checkpoint
from traj_diffusion.scene import Map, Plan, PlanRequest, Scene, WorldState

DEFAULT_STEPS = 4
# Futures are denoised in blocks of this many, the last one filled up: a row's last bits depend on the shape of its
# batch, and nobody's future may depend on how many others are asked for. It bounds memory too.
BLOCK = 8


@dataclass(frozen=True)
class EncodedScene:
    """What the policy remembers of a scene: its map as vectors, and the routes of its agents by their id."""

    origin: Float64[np.ndarray, " 2"]
    map: Map
    piece_row: np.ndarray
    tensors: MapTensors
    tokens: Tensor
    scene: Scene
    row_of: dict[int, int]


@contextmanager
def single_threaded() -> Iterator[int]:
    """Let each of torch's operations run in one thread, and yield how many it had.

    How an operation is split among threads decides its last bits. Blocks are shared out instead, each whole in one
    thread, so that the same seed gives the same bits on any number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


class DiffusionPolicy:
    """Joint futures of all agents from a trained denoiser. Keeps nothing between calls."""

    def __init__(self, model: TrafficDiffusion, name: str, steps: int = DEFAULT_STEPS) -> None:
        if steps < 1:
            raise ValueError(f"a plan takes at least one denoising step, not {steps}")
        self.model = model
        self.steps = steps
        self._name = name
        self._schedule = make_schedule(model.config.schedule)
        self._grid = uniform_grid(self._schedule, steps)

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Digest of weights and denoising steps, by which policies of one name differ."""
        digest = hashlib.sha256(str(self.steps).encode())
        for weight in self.model.state_dict().values():
            digest.update(weight.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def history_steps(self) -> int:
        """Steps of history that the network sees."""
        return HISTORY_STEPS

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.action_scale.device

    @torch.no_grad()
    def encode(self, scene: Scene) -> EncodedScene:
        """Return the scene's map as one vector per piece; coordinates are taken relative to a point in its middle."""
        points = scene.map.points[:, :2] if len(scene.map.points) else scene.agents.position[:, scene.current_index, :2]
        origin = np.round((points.min(axis=0) + points.max(axis=0)) / 2) if len(points) else np.zeros(2)
        pieces = cut_map(scene.map, origin)
        tensors = map_tensors(pieces).to(self.device)
        with single_threaded():
            tokens = self.model.encode_map(tensors)
        return EncodedScene(
            origin=origin,
            map=scene.map,
            piece_row=pieces.row,
            tensors=tensors,
            tokens=tokens,
            scene=scene,
            row_of={int(agent): row for row, agent in enumerate(scene.agents.id)},
        )

    @torch.no_grad()
    def plan(self, request: PlanRequest) -> Plan:
        """Return K joint futures of 8 s for each world."""
        state = request.state
        if abs(state.dt - DT) > 1e-9:
            raise ValueError(f"this policy plans in steps of {DT} s, the state has {state.dt} s")
        with single_threaded() as threads:
            c = self.condition(request)
            pairs = [(world, future) for world in range(c.valid.shape[0]) for future in range(request.futures)]
            noise = self._noise(request).to(self.device)
            blocks = [pairs[first : first + BLOCK] for first in range(0, len(pairs), BLOCK)]
            with ThreadPoolExecutor(min(threads, len(blocks))) as pool:
                done = list(pool.map(lambda block: self._denoise_block(c, request.context, noise, block), blocks))
            x0 = torch.cat(done).unflatten(0, noise.shape[:2])
            return self._futures(c, request, self.model.denormalise(x0.transpose(1, 2), c.kind).transpose(1, 2))

    def condition(self, request: PlanRequest) -> Conditioning:
        """Return what the network sees of the request's state."""
        state, context = request.state, request.context
        history = min(HISTORY_STEPS, state.valid.shape[2])
        pad = HISTORY_STEPS - history

        def recent(values: np.ndarray) -> np.ndarray:
            values = values[:, :, -history:]
            return np.pad(values, ((0, 0), (0, 0), (pad, 0), *((0, 0),) * (values.ndim - 3)))

        valid = recent(state.valid)
        position = (recent(state.position)[..., :2] - context.origin) * valid[..., None]
        rows = np.array([context.row_of.get(int(agent), -1) for agent in state.agent_id], np.int64)
        to = self.device
        return condition(
            position=torch.from_numpy(position.astype(np.float32)).to(to),
            heading=torch.from_numpy(np.where(valid, recent(state.heading), 0).astype(np.float32)).to(to),
            velocity=torch.from_numpy((recent(state.velocity) * valid[..., None]).astype(np.float32)).to(to),
            valid=torch.from_numpy(valid).to(to),
            size=torch.from_numpy(state.size.astype(np.float32)).expand(state.worlds, -1, -1).to(to),
            kind=torch.from_numpy(state.kind.astype(np.int64)).expand(state.worlds, -1).to(to),
            **{name: value.to(to) for name, value in self._lights(state, context, rows).items()},
            route=_routes(state, context.scene, rows, context.piece_row, context.tensors.valid.shape[1]).to(to),
        )

    def _lights(self, state: WorldState, context: EncodedScene, rows: np.ndarray) -> dict[str, Tensor]:
        pose = light_poses(context.map, state.light_lane, state.light_stop, context.origin)
        lanes = light_rows(context.map, state.light_lane)
        return {
            "light_pose": torch.from_numpy(pose).expand(state.worlds, -1, -1),
            "light_state": torch.from_numpy(state.light_state.astype(np.int64)),
            "light_valid": torch.from_numpy(state.light_observed),
            "light_route": _routes(state, context.scene, rows, lanes, len(lanes)),
        }

    def _encode_world(self, c: Conditioning, context: EncodedScene, world: int) -> Prepared:
        worlds = c.valid.shape[0]
        rows = {
            name: value[world : world + 1] if value.shape[0] == worlds else value for name, value in vars(c).items()
        }
        return self.model.encode(Conditioning(**rows), context.tensors, context.tokens)

    @torch.no_grad()  # each thread has a switch of its own
    def _denoise_block(
        self,
        c: Conditioning,
        context: EncodedScene,
        noise: Float[Tensor, "R K A k 3"],
        block: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "b A k 3"]:
        """Return x0 of these (world, future) pairs."""
        prepared = {world: self._encode_world(c, context, world) for world in sorted({world for world, _ in block})}
        filled = [*block, *[block[-1]] * (BLOCK - len(block))]
        scenes = Prepared.stack([prepared[world] for world, _ in filled])
        eps = torch.stack([noise[world, future] for world, future in filled])

        def network(x_t: Tensor, t: Tensor) -> Tensor:
            return self.model(x_t[:, :, None], t[:, None, None].expand(*x_t.shape[:2], 1), scenes)[:, :, 0]

        denoise = as_denoiser(network, self.model.config.parameterisation, self._schedule)
        x_T = initial_noise(eps, self._schedule)
        return sample(denoise, x_T, self._schedule, self._grid, Ddim())[: len(block)]

    def _futures(self, c: Conditioning, request: PlanRequest, action: Float[Tensor, "R K A k 3"]) -> Plan:
        """Return where physical actions lead, in world coordinates."""
        state, futures = request.state, request.futures

        def per_future(value: Tensor) -> Tensor:
            return value[:, None].expand(-1, futures, *(-1,) * (value.ndim - 1))

        motion = decode(action, per_future(c.speed), per_future(c.kind), per_future(c.size[..., 0]))
        pose = per_future(c.pose)
        place = to_world(motion.position, pose[..., None, :2], pose[..., None, 2])
        pace = to_world(motion.velocity, torch.zeros_like(motion.velocity), pose[..., None, 2])
        present = state.position[:, None, :, -1, None, :]
        position = np.broadcast_to(present, (*place.shape[:-1], 3)).copy()
        position[..., :2] = place.double().cpu().numpy() + request.context.origin
        heading = state.heading[:, None, :, -1, None] + motion.heading.cpu().numpy()
        weight = np.zeros((state.worlds, futures), np.float32)
        return Plan(position, heading.astype(np.float32), pace.cpu().numpy(), weight, DT)

    def _noise(self, request: PlanRequest) -> Float[Tensor, "R K A k 3"]:
        """Return unit noise, each future of each agent from a stream of its own."""
        shape = (request.state.worlds, request.futures, len(request.state.agent_id))
        keys = [
            np.full(shape, request.seed, np.int64),
            np.broadcast_to(request.world[:, None, None], shape),
            np.broadcast_to(request.state.agent_id, shape),
            np.full(shape, request.tick, np.int64),
            np.broadcast_to(np.arange(request.futures)[:, None], shape),
        ]
        knots = self.model.config.knots
        drawn = keyed_normal([key.reshape(-1) for key in keys], knots * ACTION)
        return torch.from_numpy(drawn).reshape(*shape, knots, ACTION)


def _routes(state: WorldState, scene: Scene, rows: np.ndarray, target: np.ndarray, width: int) -> Tensor:
    """Return route codes [1, A, width]; an agent of whom neither state nor scene (row -1) says one has no route."""
    codes = np.full((1, len(rows), width), ABSENT_ROUTE, np.int64)
    known = rows >= 0
    if len(target):
        codes[0, known] = route_codes(scene.routes, rows[known], target)
        if state.routes is not None:
            told = np.flatnonzero(state.routes.origin)
            codes[0, told] = route_codes(state.routes, told, target)
    return torch.from_numpy(codes)


def load_model(name_or_file: Any = "tiny", device: str = "cpu", steps: int = DEFAULT_STEPS) -> DiffusionPolicy:
    """Return a policy that samples from a bundled checkpoint (by name) or from a file."""
    path = find_checkpoint(name_or_file)
    model, _ = load_checkpoint(path, device)
    return DiffusionPolicy(model, path.stem, steps)
