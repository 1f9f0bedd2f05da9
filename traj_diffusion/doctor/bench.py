"""The doctor's test bench: a small world in which everything that a model is shown decides something, and a tiny model.

Each agent drives towards a fork of two lanes. The map says how much they bend, the route which of them is meant, a
light whether to brake, the history whether it was gaining speed, and an agent close ahead slows it down. Nobody can
do well at high noise without all of them, so that a detached one shows.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from traj_diffusion.datasets.conditioning import (
    ABSENT_ROUTE,
    HISTORY_STEPS,
    OFF_ROUTE,
    ON_ROUTE,
    PIECE_POINTS,
    Conditioning,
    MapTensors,
    condition,
)
from traj_diffusion.diffusion import add_noise, make_schedule, to_x0
from traj_diffusion.doctor.adapt import subject_of_model
from traj_diffusion.doctor.subject import Subject
from traj_diffusion.kinematics import DT, decode
from traj_diffusion.model import ModelConfig, TrafficDiffusion
from traj_diffusion.scene import AgentKind, LightState, Scene
from traj_diffusion.training.batch import Batch

CONFIG = ModelConfig(
    width=32,
    memory_heads=4,  # with half as many, sixteen numbers for each thing around, a map is not learnt in so few steps
    encoder_layers=1,
    denoiser_layers=2,
    near_map=6,
    near_lights=2,
    near_agents=2,
    knots=4,
    knots_per_token=2,
)
_AGENTS, _LANE = 6, 20.0
_BATCH, _RATE = 48, 4e-3


def made_batch(count: int, seed: int, knots: int = CONFIG.knots) -> Batch:
    """Return examples of six agents, some absent; futures are what the rules and some noise make of them."""
    g = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=g)

    def coin(share: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=g) < share

    shape = (count, _AGENTS)
    pace, gain, bend = uniform(4.0, 9.0, *shape), torch.randn(shape, generator=g), uniform(0.008, 0.03, *shape)
    facing = uniform(-3.1, 3.1, *shape)
    corner = torch.stack(torch.meshgrid(torch.arange(3.0), torch.arange(2.0), indexing="ij"), -1).reshape(-1, 2)
    place = corner * 80 - 60 + uniform(-8.0, 8.0, *shape, 2)
    follows = coin(0.5, count, _AGENTS // 2)  # each odd agent: close behind the one before it, or far from it
    for leader in range(0, _AGENTS, 2):
        behind = follows[:, leader // 2]
        ahead = torch.stack([facing[:, leader].cos(), facing[:, leader].sin()], -1)
        place[:, leader + 1] = torch.where(behind[:, None], place[:, leader] - 12 * ahead, place[:, leader + 1])
        facing[:, leader + 1] = torch.where(behind, facing[:, leader], facing[:, leader + 1])
        pace[:, leader + 1] = torch.where(behind, pace[:, leader], pace[:, leader + 1])
    close = torch.zeros(shape, dtype=torch.bool)
    close[:, 1::2] = follows
    there = torch.ones(shape, dtype=torch.bool)
    there[:, -1] = ~coin(0.3, count) | follows[:, -1]

    left, knows, go = coin(0.5, *shape), coin(0.85, *shape), coin(0.5, *shape)
    mean = 0.7 * gain + torch.where(go, 0.8, -1.2) - 1.5 * close
    noise = torch.randn((*shape, knots, 2), generator=g)
    action = torch.zeros(*shape, knots, 3)
    action[..., 0] = mean[..., None] + 0.5 * noise[..., 0]
    action[..., 1] = (torch.where(left, bend, -bend) * pace)[..., None] + 0.04 * noise[..., 1]

    kind = torch.full(shape, int(AgentKind.VEHICLE)) * there
    size = torch.tensor([4.5, 2.0, 1.6]).expand(*shape, 3)
    c = _conditioning(place, facing, pace, gain, there, kind, size, go, _routes(left, knows))
    motion = decode(action, c.speed, kind, size[..., 0])
    supported = there[..., None].expand(-1, -1, knots)
    return Batch(
        conditioning=c,
        map=_lanes(place, facing, bend, there),
        action=action * there[..., None, None],
        action_valid=supported,
        position=motion.position,
        heading=motion.heading,
        valid=there[..., None].expand(motion.heading.shape),
        weight=there.float(),
    )


def _routes(left: Tensor, knows: Tensor) -> Tensor:
    """Return codes [B, A, 2 A]: of an agent's two lanes one is on its route, all others are not."""
    own = torch.arange(_AGENTS)
    codes = torch.full((*left.shape, 2 * _AGENTS), OFF_ROUTE)
    codes[:, own, 2 * own] = torch.where(left, ON_ROUTE, OFF_ROUTE)
    codes[:, own, 2 * own + 1] = torch.where(left, OFF_ROUTE, ON_ROUTE)
    return torch.where(knows[..., None], codes, ABSENT_ROUTE)


def _conditioning(
    place: Tensor,
    facing: Tensor,
    pace: Tensor,
    gain: Tensor,
    there: Tensor,
    kind: Tensor,
    size: Tensor,
    go: Tensor,
    route: Tensor,
) -> Conditioning:
    ahead = torch.stack([facing.cos(), facing.sin()], -1)
    ago = (torch.arange(HISTORY_STEPS) - HISTORY_STEPS + 1) * DT
    speed = pace[..., None] + gain[..., None] * ago
    along = pace[..., None] * ago + 0.5 * gain[..., None] * ago.square()
    lights = torch.cat([place + 20 * ahead, facing[..., None]], -1)
    own = torch.eye(_AGENTS, dtype=torch.long) * ON_ROUTE + (1 - torch.eye(_AGENTS, dtype=torch.long)) * OFF_ROUTE
    return condition(
        position=place[..., None, :] + along[..., None] * ahead[..., None, :],
        heading=facing[..., None].expand(-1, -1, HISTORY_STEPS),
        velocity=speed[..., None] * ahead[..., None, :],
        valid=there[..., None].expand(-1, -1, HISTORY_STEPS),
        size=size,
        kind=kind,
        light_pose=lights,
        light_state=torch.where(go, int(LightState.GO), int(LightState.STOP)),
        light_valid=there,
        route=route,
        light_route=own.expand(len(place), -1, -1),
    )


def _lanes(place: Tensor, facing: Tensor, bend: Tensor, there: Tensor) -> MapTensors:
    """Return two arcs of 20 m that begin at each agent, to the left and to the right."""
    curve = torch.stack([bend, -bend], -1).flatten(1)
    start, turn = place.repeat_interleave(2, 1), facing.repeat_interleave(2, 1)
    along = torch.linspace(0, _LANE, PIECE_POINTS)
    angle = curve[..., None] * along
    arc = torch.stack([angle.sin(), 1 - angle.cos()], -1) / curve[..., None, None]
    middle, chord = arc.mean(-2), arc[..., -1, :]
    direction = torch.atan2(chord[..., 1], chord[..., 0])

    def turned(xy: Tensor, by: Tensor) -> Tensor:
        cos, sin = by.cos(), by.sin()
        return torch.stack([cos * xy[..., 0] - sin * xy[..., 1], sin * xy[..., 0] + cos * xy[..., 1]], -1)

    pose = torch.cat([start + turned(middle, turn), (turn + direction)[..., None]], -1)
    flat = torch.zeros_like(curve)
    return MapTensors(
        points=turned(arc - middle[..., None, :], -direction[..., None].expand(arc.shape[:-1])),
        pose=pose,
        length=flat + _LANE,
        code=flat.long(),
        speed_limit=flat,
        valid=there.repeat_interleave(2, 1),
    )


@dataclass(frozen=True)
class Trained:
    """A tiny model after its training, the moving average that it should be used with, and states on the way."""

    model: TrafficDiffusion  # raw weights
    average: TrafficDiffusion
    earlier: TrafficDiffusion


def train_tiny(steps: int = 400, seed: int = 0, parameterisation: str = "x0") -> Trained:
    """Return a model trained on the made world; half a minute on one core."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TrafficDiffusion(replace(CONFIG, parameterisation=parameterisation))
    average, earlier = deepcopy(model).requires_grad_(False), deepcopy(model)
    schedule, optimiser = make_schedule(CONFIG.schedule), torch.optim.AdamW(model.parameters(), lr=_RATE)
    for step, batch in enumerate(_batches(steps, seed)):
        generator = torch.Generator().manual_seed(10_000 + step)
        c = batch.conditioning
        x0 = model.normalise(batch.action[:, :, None], c.kind).expand(-1, -1, 2, -1, -1)
        t = torch.rand(len(x0), 1, 2, generator=generator)
        x_t = add_noise(x0.contiguous(), torch.randn(x0.shape, generator=generator), t, schedule)
        said = model(x_t, t.expand(-1, _AGENTS, -1), model.encode(c, batch.map, model.encode_map(batch.map)))
        x0_hat = to_x0(parameterisation, said, x_t, schedule.alpha(t), schedule.sigma(t))
        loss = ((x0_hat - x0).square() * batch.weight[:, :, None, None, None]).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 50) * (1 - 0.95 * step / steps)
        optimiser.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, 1 - min(0.98, (1 + step) / (10 + step)))
        if step == steps // 2:
            earlier = deepcopy(average)
    return Trained(model.eval().requires_grad_(False), average.eval(), earlier.eval().requires_grad_(False))


def _batches(steps: int, seed: int) -> Iterator[Batch]:
    for step in range(steps):
        yield made_batch(_BATCH, 1_000_000 * (seed + 1) + step)


def bench_subject(trained: Trained, scenes: tuple[Scene, ...] = (), examples: int = 24) -> Subject:
    """Return the tiny model as a healthy subject, with data that it was not trained on."""
    batch = made_batch(examples, 77)
    subject = subject_of_model(trained.average, batch, scenes, "tiny bench model")
    earlier = subject_of_model(trained.earlier, batch, (), "halfway")
    return replace(subject, average=trained.average.state_dict(), earlier=(earlier,))
