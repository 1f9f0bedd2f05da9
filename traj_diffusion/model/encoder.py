"""The scene encoder: from conditioning to what the denoiser asks at every step. It runs once per tick.

Every agent has its own frame. It sees its nearest map pieces, lights and agents, each together with how it lies in
that frame; so the encoding does not change when the world is shifted or turned, or agents change their order.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from traj_diffusion.datasets.conditioning import (
    CODES,
    HISTORY_FEATURES,
    KIND_OF_CODE,
    ON_ROUTE,
    PIECE_POINTS,
    Conditioning,
    MapTensors,
)
from traj_diffusion.geometry import to_local
from traj_diffusion.model.config import ModelConfig
from traj_diffusion.model.layers import Attention, FeedForward, Memory
from traj_diffusion.model.neighbours import RELATIVE_FEATURES, as_seen, gather, nearest, outline_features
from traj_diffusion.scene import MapKind

N_KINDS = 5  # AgentKind, and 0 for nobody
N_LIGHT_STATES = 9
N_ROUTE_CODES = 3
# By how much [m] pieces count as further away than they are: where roads run and end matters more than their paint.
_LESS_TELLING = {MapKind.ROAD_LINE: 6.0, MapKind.SPEED_BUMP: 10.0, MapKind.DRIVEWAY: 12.0}
_BEYOND = torch.tensor([_LESS_TELLING.get(kind, 0.0) for kind in KIND_OF_CODE])
ON_THE_WAY = 20.0  # m by which pieces and lights of an agent's route count as nearer to it
FACING = 0.5  # cosine of the angle between an agent and a light that is meant for it, at least
NOT_FACING = 30.0  # m by which the other lights count as further away
STILL = 0.3  # m/s; whoever is slower is rarely in the way of what others plan
STILL_BEYOND = 15.0  # m by which those count as further away when it comes to plans


@dataclass(frozen=True)
class SceneContext:
    """What is known of the surroundings of each agent that is planned for, in its own frame."""

    agent: Float[Tensor, "B A d"]
    memory: tuple[Float[Tensor, "B A g n e"], Float[Tensor, "B A g n e"]]  # keys and values of what surrounds it
    seen: Bool[Tensor, "B A n"]
    near_agents: Int[Tensor, "B A m"]
    near_agents_valid: Bool[Tensor, "B A m"]
    agent_relation: Float[Tensor, "B A m d"]


class MapEncoder(nn.Module):
    """One vector for each map piece, from its points in its own frame (PointNet, Qi et al. 2017)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.shape = nn.Sequential(nn.Linear(PIECE_POINTS * 2 + 2, width), nn.GELU(), nn.Linear(width, width))
        self.code = nn.Embedding(CODES, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, tensors: MapTensors) -> Float[Tensor, "B M d"]:
        """Return one row per piece; rows of absent pieces mean nothing."""
        extra = torch.stack([tensors.length / 20, tensors.speed_limit / 20], -1)
        return self.norm(self.shape(torch.cat([tensors.points.flatten(-2) / 10, extra], -1)) + self.code(tensors.code))


class EncoderLayer(nn.Module):
    """An agent asks its surroundings, then thinks. All layers ask the same memory, and so do the denoiser's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.n_heads)
        self.feed_forward = FeedForward(config.width, config.expansion)
        self.norm_ask, self.norm_think = nn.LayerNorm(config.width), nn.LayerNorm(config.width)

    def forward(
        self, agent: Float[Tensor, "B A d"], memory: tuple[Tensor, Tensor], seen: Bool[Tensor, "B A n"]
    ) -> Float[Tensor, "B A d"]:
        agent = agent + self.attention(self.norm_ask(agent)[..., None, :], memory, seen)[..., 0, :]
        return agent + self.feed_forward(self.norm_think(agent))


class SceneEncoder(nn.Module):
    """Agents with their history, and what surrounds each of them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.map = MapEncoder(config)
        history = config.history_steps * HISTORY_FEATURES
        self.history = nn.Sequential(nn.Linear(history + 5, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.kind = nn.Embedding(N_KINDS, width)
        self.light = nn.Embedding(N_LIGHT_STATES, width)
        self.route = nn.Embedding(N_ROUTE_CODES, width)
        self.see_map = Relation(width, RELATIVE_FEATURES + outline_features(PIECE_POINTS))
        self.see_light = Relation(width)
        self.see_agent = Relation(width)
        self.alone = nn.Parameter(torch.zeros(width))  # so that there is always something to attend to
        self.memory = Memory(width, config.n_heads, config.memory_heads)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        for embedding in (self.kind, self.light, self.route, self.map.code):
            nn.init.normal_(embedding.weight, std=0.1)  # what no scene shows must not drown what it does

    def forward(
        self, c: Conditioning, tensors: MapTensors, map_tokens: Float[Tensor, "b M d"], focus: int | None = None
    ) -> SceneContext:
        """Return the context of the first `focus` agents, or of all of them; the others are only seen.

        `map_tokens` are of `TrafficDiffusion.encode_map`. They and `tensors` may have a batch axis of 1, shared by all.
        """
        cfg, worlds, ours = self.config, c.valid.shape[0], slice(focus)
        pose, velocity = c.pose[:, ours], c.velocity[:, ours]
        place = pose[..., :2]

        pieces, pieces_seen = nearest(
            place,
            velocity,
            tensors.pose[..., :2].expand(worlds, -1, -1),
            (tensors.length / 2 - _BEYOND.to(place)[tensors.code])[:, None]
            + ON_THE_WAY * (c.route[:, ours] == ON_ROUTE),
            tensors.valid.expand(worlds, -1)[:, None],
            cfg.near_map,
        )
        on_route = c.route[:, ours].expand(worlds, -1, -1).gather(2, pieces)
        map_pairs = self.see_map(
            gather(map_tokens, pieces) + self.route(on_route),
            as_seen(pose, velocity, pieces, tensors.pose, points=tensors.points),
        )

        lights, lights_seen = nearest(
            place,
            velocity,
            c.light_pose[..., :2],
            ON_THE_WAY * (c.light_route[:, ours] == ON_ROUTE) - NOT_FACING * ~_faces(pose, c.light_pose),
            c.light_valid[:, None],
            cfg.near_lights,
        )
        light_route = c.light_route[:, ours].expand(worlds, -1, -1).gather(2, lights)
        light_tokens = self.see_light.what(self.light(gather(c.light_state, lights))) + self.route(light_route)
        light_pairs = self.see_light(light_tokens, as_seen(pose, velocity, lights, c.light_pose))

        history = torch.cat([(c.history * _HISTORY_SCALE.to(c.history)).flatten(-2), c.size / 5, c.speed / 10], -1)
        everybody = self.history(history) + self.kind(c.kind)
        near = torch.zeros_like(c.pose[..., 0])[:, None]
        others = c.valid[:, None] & ~torch.eye(c.valid.shape[1], dtype=torch.bool, device=c.valid.device)[ours]
        agents, agents_seen = nearest(place, velocity, c.pose[..., :2], near, others, cfg.near_agents)
        agent_pairs = self.see_agent(
            gather(self.see_agent.what(everybody), agents), as_seen(pose, velocity, agents, c.pose, c.velocity)
        )

        agent = everybody[:, ours]
        beyond = -STILL_BEYOND * (velocity.norm(dim=-1) < STILL)[:, None]
        planners, planners_seen = nearest(place, velocity, place, beyond, others[..., ours], cfg.near_agents)
        plan_pairs = self.see_agent(
            gather(self.see_agent.what(agent), planners), as_seen(pose, velocity, planners, pose, velocity)
        )

        alone = self.alone.expand(*agent.shape[:2], 1, -1)
        seen = torch.cat([pieces_seen, lights_seen, agents_seen, torch.ones_like(agents_seen[..., :1])], -1)
        memory = self.memory(torch.cat([map_pairs, light_pairs, agent_pairs, alone], -2))
        for layer in self.layers:
            agent = layer(agent, memory, seen)
        return SceneContext(agent, memory, seen, planners, planners_seen, plan_pairs)


def _faces(pose: Float[Tensor, "B A 3"], light: Float[Tensor, "B S 3"]) -> Bool[Tensor, "B A S"]:
    """Return which lights stand before an agent and are meant for its direction."""
    offset = to_local(light[:, None, :, :2], pose[..., None, :2], pose[..., None, 2])
    return (offset[..., 0] > 0) & ((light[:, None, :, 2] - pose[..., None, 2]).cos() > FACING)


_HISTORY_SCALE = torch.tensor([0.1, 0.1, 1.0, 1.0, 0.1, 0.1, 1.0])


class Relation(nn.Module):
    """A thing as somebody sees it: what it is, and how it lies in the observer's frame.

    `what` is applied before things are gathered, once for each thing and not once for each pair.
    """

    def __init__(self, width: int, features: int = RELATIVE_FEATURES) -> None:
        super().__init__()
        self.what = nn.Linear(width, width)
        self.where = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, what: Float[Tensor, "B A n d"], where: Float[Tensor, "B A n f"]) -> Float[Tensor, "B A n d"]:
        """Return one row per pair."""
        return self.norm(what + self.where(where))
