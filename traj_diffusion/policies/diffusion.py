"""The diffusion policy: conditioning from the simulated state, joint actions from noise, futures through kinematics."""

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Shaped
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
    Denoiser,
    DpmSolver,
    add_noise,
    as_denoiser,
    initial_noise,
    inpaint,
    keyed_normal,
    make_schedule,
    power_grid,
    sample,
)
from traj_diffusion.errors import BadConfig, BadScene
from traj_diffusion.geometry import to_world
from traj_diffusion.kinematics import ACTION, DT, decode
from traj_diffusion.model import Prepared, TrafficDiffusion, find_checkpoint, load_checkpoint
from traj_diffusion.policies.inpainting import given_actions
from traj_diffusion.policies.lean import lean
from traj_diffusion.policies.road import RoadField, road_field
from traj_diffusion.policies.streaming import Memory, carried_over
from traj_diffusion.policies.surroundings import Guidance, Surroundings, is_red
from traj_diffusion.scene import Map, Plan, PlanRequest, Scene, WorldState

DEFAULT_STEPS = 4  # from noise
# How noisy the last plan is made before the next one starts from it, as a share of the schedule's time, and which share
# of the steps it then takes; None: every plan starts from noise. docs/adapter.md has a table of both.
DEFAULT_WARM: float | None = 0.5
DEFAULT_GUIDANCE: Guidance | None = Guidance()
# Futures are denoised in blocks of this many, the last one filled up: a row's last bits depend on the shape of its
# batch, and nobody's future may depend on how many others are asked for. It bounds memory too.
BLOCK = 4


@dataclass(frozen=True)
class EncodedScene:
    """What the policy remembers of a scene: its map as vectors, and the routes of its agents by their id."""

    origin: Float64[np.ndarray, " 2"]
    map: Map
    piece_row: np.ndarray
    tensors: MapTensors
    tokens: Tensor
    field: RoadField | None
    scene: Scene
    row_of: dict[int, int]


@dataclass(frozen=True)
class Walk:
    """The way from noise to actions for all worlds and futures: where it starts, what it visits, what is known."""

    x_T: Float[Tensor, "R K A k 3"]
    eps: Float[Tensor, "R K A k 3"]
    grid: Shaped[Tensor, " times"]
    known: Float[Tensor, "R K A k 3"] | None = None  # x0 where `is_known`
    is_known: Bool[Tensor, "R K A k 3"] | None = None


class _Torch:
    """How many threads torch's operations had before plans took them away, and how many plans are being made."""

    lock = threading.Lock()
    plans = 0
    threads = 1


@contextmanager
def single_threaded() -> Iterator[int]:
    """Let each of torch's operations run in one thread, and yield how many it had.

    How an operation is split among threads decides its last bits. Blocks are shared out instead, each whole in one
    thread, so that the same seed gives the same bits on any number of cores. The setting is the process's, and several
    plans may be made at once: the first to begin takes the threads, the last to end gives them back.
    """
    with _Torch.lock:
        if not _Torch.plans:
            _Torch.threads = torch.get_num_threads()
            torch.set_num_threads(1)
        _Torch.plans += 1
    try:
        yield _Torch.threads
    finally:
        with _Torch.lock:
            _Torch.plans -= 1
            if not _Torch.plans:
                torch.set_num_threads(_Torch.threads)


class DiffusionPolicy:
    """Joint futures of all agents from a trained denoiser. Keeps nothing between calls."""

    def __init__(
        self,
        model: TrafficDiffusion,
        name: str,
        steps: int = DEFAULT_STEPS,
        warm: float | None = DEFAULT_WARM,
        guidance: Guidance | None = DEFAULT_GUIDANCE,
    ) -> None:
        if steps < 1:
            raise ValueError(f"a plan takes at least one denoising step, not {steps}")
        if warm is not None and not 0 < warm <= 1:
            raise ValueError(f"a warm start lies in (0, 1], a share of the schedule's time, not at {warm}")
        self.model = model
        self.steps = steps
        self.warm = warm
        self.guidance = guidance
        self._name = name
        self._schedule = make_schedule(model.config.schedule)

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Digest of weights, denoising steps, warm start and guidance, by which policies of one name differ."""
        started = "" if self.warm is None else f" {self.warm}"
        digest = hashlib.sha256(f"{self.steps}{started} {self.guidance}".encode())
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
        """Return the scene's map as one vector per piece; coordinates are taken relative to a point in its middle.

        Raises BadScene where the scene's steps are not those that the model was trained on.
        """
        if abs(scene.dt - DT) > 1e-9:
            raise BadScene(f"scene {scene.id}: its steps are of {scene.dt:g} s; this policy plans in steps of {DT:g} s")
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
            field=None if self.guidance is None else self._field(scene, origin),
            scene=scene,
            row_of={int(agent): row for row, agent in enumerate(scene.agents.id)},
        )

    def _field(self, scene: Scene, origin: np.ndarray) -> RoadField | None:
        now = scene.current_index
        field = road_field(scene.map, origin, scene.agents.position[scene.agents.valid[:, now], now])
        return None if field is None else replace(field, distance=field.distance.to(self.device))

    @torch.no_grad()
    def plan(self, request: PlanRequest) -> Plan:
        """Return K joint futures of 8 s for each world."""
        state = request.state
        if abs(state.dt - DT) > 1e-9:
            raise ValueError(f"this policy plans in steps of {DT} s, the state has {state.dt} s")
        with single_threaded() as threads:
            c = self.condition(request)
            pairs = [(world, future) for world in range(c.valid.shape[0]) for future in range(request.futures)]
            walk = self._walk(c, request)
            blocks = [pairs[first : first + BLOCK] for first in range(0, len(pairs), BLOCK)]
            with ThreadPoolExecutor(min(threads, len(blocks))) as pool:
                done = list(pool.map(lambda block: self._denoise_block(c, request.context, walk, block), blocks))
            x0 = torch.cat(done).unflatten(0, walk.eps.shape[:2])
            return self._futures(c, request, x0)

    def _walk(self, c: Conditioning, request: PlanRequest) -> Walk:
        """Return where denoising starts: at noise, or at the last plan moved on and noised again; and what is given."""
        schedule, eps = self._schedule, self._noise(request).to(self.device)
        steps = self.steps if request.steps is None else max(min(self.steps, request.steps), 1)
        known = is_known = None
        if request.given is not None and request.given.valid.any():
            action, supported = given_actions(request.given, c, request.context.origin, eps.shape[3])
            known = self.model.normalise(action.transpose(1, 2), c.kind).transpose(1, 2)
            is_known = supported[..., None].expand_as(known)
        carried = None if self.warm is None else carried_over(request)
        if carried is None or self.warm is None:
            grid, x_T = power_grid(schedule, steps), self.start(eps)
        else:
            start, fewer = self.warm * schedule.t_max, math.ceil(self.warm * steps)
            grid = power_grid(schedule, fewer, max(round(start), fewer - 1) if schedule.discrete else start)
            x_T = add_noise(carried[:, None].expand_as(eps).contiguous(), eps, grid[0].to(eps.device), schedule)
        return Walk(x_T, eps, grid, known, is_known)

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
        walk: Walk,
        block: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "b A k 3"]:
        """Return x0 of these (world, future) pairs."""
        prepared = {world: self._encode_world(c, context, world) for world in sorted({world for world, _ in block})}
        filled = [*block, *[block[-1]] * (BLOCK - len(block))]
        alone = len(prepared) == 1
        scenes = Prepared.stack([prepared[world] for world, _ in (filled[:1] if alone else filled)])

        def of_block(value: Tensor) -> Tensor:
            return torch.stack([value[world, future] for world, future in filled])

        def predict(x_t: Tensor, t: Tensor) -> Tensor:
            x_t, t = x_t[:, :, None], t[:, None, None].expand(*x_t.shape[:2], 1)
            if alone:  # futures of one world ask the same surroundings, which then need not lie in memory four times
                return self.model(x_t.transpose(0, 2), t.transpose(0, 2), scenes)[0].transpose(0, 1)
            return self.model(x_t, t, scenes)[:, :, 0]

        x_T = of_block(walk.x_T)
        worlds, steps = [world for world, _ in filled], len(walk.grid) - 1
        if walk.known is None or walk.is_known is None:
            leant = self._leant(c, context, worlds, steps)
            return self.denoise(predict, x_T, walk.grid, leant)[: len(block)]
        # One noise for all levels, as on the way that a deterministic sampler takes to the same end.
        eps, known, is_known = of_block(walk.eps), of_block(walk.known), of_block(walk.is_known)
        denoise = as_denoiser(predict, self.model.config.parameterisation, self._schedule)
        denoise = self._leant(c, context, worlds, steps, known, is_known)(denoise)
        x0 = inpaint(denoise, x_T, self._schedule, walk.grid, DpmSolver(), lambda draw, shape: eps, known, is_known)
        return x0[: len(block)]

    def _leant(
        self,
        c: Conditioning,
        context: EncodedScene,
        worlds: list[int],
        steps: int,
        known: Float[Tensor, "b A k 3"] | None = None,
        is_known: Bool[Tensor, "b A k 3"] | None = None,
    ) -> Callable[[Denoiser], Denoiser]:
        """Return what turns a denoiser of these worlds into one that guidance leans in its last steps.

        Whose future is given is not leant, and others are held apart from where that future leads.
        """
        guidance = self.guidance
        if guidance is None:
            return lambda denoise: denoise
        kind = c.kind[worlds]
        scale = self.model.denormalise(torch.ones(*kind.shape, 1, ACTION, device=self.device), kind)
        pose, speed, size, valid = c.pose[worlds], c.speed[worlds], c.size[worlds], c.valid[worlds]
        free = torch.ones_like(valid) if is_known is None else ~is_known.any(-1).any(-1)
        red = is_red(c.light_state[worlds]) & c.light_valid[worlds]
        around = Surroundings.of(pose, speed, size, kind, valid, scale, free, c.light_pose[worlds], red, context.field)
        first = steps - guidance.last

        def wrap(denoise: Denoiser) -> Denoiser:
            step = 0

            def denoise_and_lean(x_t: Tensor, t: Tensor) -> Tensor:
                nonlocal step
                step += 1
                x0 = denoise(x_t, t)
                if step <= first:
                    return x0
                if known is not None and is_known is not None:
                    x0 = torch.where(is_known, known, x0)
                return lean(x0, around, guidance)

            return denoise_and_lean

        return wrap

    def start(self, eps: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return x_T, from which sampling starts, of unit noise."""
        return initial_noise(eps, self._schedule)

    def denoise(
        self,
        network: Denoiser,
        x_T: Float[Tensor, "*shape"],
        grid: Tensor | None = None,
        leant: Callable[[Denoiser], Denoiser] = lambda denoise: denoise,
    ) -> Float[Tensor, "*shape"]:
        """Return x0 by this policy's sampler, from a network (x_t, t) -> prediction; t is [first axis of x_t].

        The grid of noise levels is that of the policy's steps unless another is given.
        """
        denoise = leant(as_denoiser(network, self.model.config.parameterisation, self._schedule))
        if grid is None:
            grid = power_grid(self._schedule, self.steps)
        return sample(denoise, x_T, self._schedule, grid, DpmSolver())

    def _futures(self, c: Conditioning, request: PlanRequest, x0: Float[Tensor, "R K A k 3"]) -> Plan:
        """Return where normalised actions lead, in world coordinates."""
        state, futures = request.state, request.futures
        action = self.model.denormalise(x0.transpose(1, 2), c.kind).transpose(1, 2)

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
        memory = Memory(state.agent_id, request.tick, x0)
        return Plan(position, heading.astype(np.float32), pace.cpu().numpy(), weight, DT, memory)

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


def load_model(
    name_or_file: Any = "small",
    device: str = "cpu",
    steps: int = DEFAULT_STEPS,
    warm: float | None = DEFAULT_WARM,
    guidance: Guidance | None = DEFAULT_GUIDANCE,
    runtime: str = "torch",
) -> DiffusionPolicy:
    """Return a policy that samples from a bundled checkpoint (by name), a file, or a folder that was exported.

    `runtime` is torch, onnx, openvino, or fastest: a denoising step is timed in each that is installed, so that what
    wins may change, and with it the last bits of every future. A checkpoint is exported to get there, which takes
    about half a minute; `traj-diffusion export` does it once. Raises MissingExtra without the runtime's extra.
    """
    # The runtimes build on this file.
    from traj_diffusion.policies.runtime import in_runtime, is_exported, load_exported

    if runtime != "torch" and torch.device(device).type != "cpu":
        raise BadConfig(f"runtime {runtime!r} runs on the CPU, not on {device!r}; runtime='torch' runs there")
    if is_exported(name_or_file):
        if runtime == "torch":
            raise BadConfig(f"{name_or_file} was exported and has no weights for torch; runtime='onnx' runs it")
        return load_exported(name_or_file, runtime, steps, warm, guidance)
    path = find_checkpoint(name_or_file)
    model, _ = load_checkpoint(path, device)
    policy = DiffusionPolicy(model, path.stem, steps, warm, guidance)
    return policy if runtime == "torch" else in_runtime(policy, runtime)
