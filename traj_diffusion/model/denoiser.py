"""The denoiser: a transformer over agents and time chunks, with a noise level per agent.

Layout [B, A, K, C, d]: K futures of the same A agents, C tokens of time, each a few knots of action. A layer lets a
token ask the other times of its agent, then the agent's surroundings, then the other agents at the same time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from traj_diffusion.kinematics import ACTION
from traj_diffusion.model import fused
from traj_diffusion.model.config import ModelConfig
from traj_diffusion.model.encoder import SceneContext
from traj_diffusion.model.layers import Attention, FeedForward, Memory, attend, fourier

PHASES = 2  # in which an agent sums up its plan for its neighbours
N_MODULATIONS = 8  # shift and scale for each of the four sublayers


@dataclass(frozen=True)
class Prepared:
    """A scene as the denoiser wants it: made once per tick, used at every denoising step."""

    agent: Float[Tensor, "B A d"]
    key: Float[Tensor, "B A g n e"]  # of the surroundings, for all layers
    value: Float[Tensor, "B A g n e"]
    seen: Bool[Tensor, "B A n"]
    near_agents: Int[Tensor, "B A m"]
    near_agents_valid: Bool[Tensor, "B A m"]
    relation: Float[Tensor, "B A m f"]  # how the near agents lie, for all layers

    @classmethod
    def stack(cls, scenes: Sequence["Prepared"]) -> "Prepared":
        """Return scenes of the same agents along the batch axis, in that order."""

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(scene, name) for scene in scenes])

        return cls(
            agent=joined("agent"),
            key=joined("key"),
            value=joined("value"),
            seen=joined("seen"),
            near_agents=joined("near_agents"),
            near_agents_valid=joined("near_agents_valid"),
            relation=joined("relation"),
        )


class NeighbourAttention(nn.Module):
    """An agent's tokens ask its nearest agents what they are about to do, and know how those lie.

    What a neighbour is about to do is told in `PHASES` summaries of its tokens, so that the cost does not grow with the
    square of the tokens.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, tokens = config.width, config.knots // config.knots_per_token
        self.n_heads = config.n_heads
        self.query = nn.Linear(width, width, bias=False)
        self.summary = nn.Linear(width * tokens // PHASES, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "B A K C d"],
        relation: Float[Tensor, "B A m e"],
        near: Int[Tensor, "B A m"],
        valid: Bool[Tensor, "B A m"],
    ) -> Float[Tensor, "B A K C d"]:
        """Return what each token learns; nothing where there is no neighbour."""
        futures = x.shape[2]
        summary = self.summary(x.unflatten(3, (PHASES, -1)).flatten(-2))  # [B, A, K, PHASES, 2d]
        if fused.fits(x):
            heard = fused.ask_neighbours(self.query(x), summary, relation, near, valid, self.n_heads)
            return self.out(heard) * valid.any(-1)[:, :, None, None, None]
        batch = torch.arange(x.shape[0], device=x.device)[:, None, None]
        key_value = (summary[batch, near] + relation[:, :, :, None, None]).transpose(2, 3).flatten(3, 4)
        key, value = key_value.unflatten(-1, (2, self.n_heads, -1)).permute(4, 0, 1, 2, 5, 3, 6)
        query = self.query(x).unflatten(-1, (self.n_heads, -1)).transpose(3, 4)
        # A row without a valid entry would be NaN: it may attend to the first neighbour, and is then silenced.
        alone = ~valid.any(-1)
        allowed = valid.clone()
        allowed[..., 0] |= alone
        allowed = allowed.repeat_interleave(PHASES, -1)[:, :, None].expand(-1, -1, futures, -1)
        heard = attend(query, key, value, allowed)
        return self.out(heard.transpose(3, 4).flatten(-2)) * ~alone[:, :, None, None, None]


class DenoiserLayer(nn.Module):
    """Time, surroundings, other agents, thought; each modulated by the noise level (adaLN, Peebles & Xie 2023)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, heads = config.width, config.n_heads
        self.time = Attention(width, heads)
        self.times = Memory(width, heads, config.memory_heads)
        self.scene = Attention(width, heads)
        self.others = NeighbourAttention(config)
        self.feed_forward = FeedForward(width, config.expansion)
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(4))
        # One modulation for all layers and a table for each (adaLN-single, Chen et al. 2024).
        self.table = nn.Parameter(torch.zeros(N_MODULATIONS, width))

    def forward(
        self,
        x: Float[Tensor, "B A K C d"],
        modulation: Float[Tensor, "B A K 8 d"],
        scene: Prepared,
    ) -> Float[Tensor, "B A K C d"]:
        modulation = modulation + self.table
        shift, scale = modulation.unflatten(-2, (4, 2)).unbind(-2)

        def modulated(index: int, value: Tensor) -> Tensor:
            if fused.fits(value):
                return fused.modulate(value, modulation, index)
            normed = self.norms[index](value)
            return normed * (1 + scale[..., index, None, :]) + shift[..., index, None, :]

        h = modulated(0, x)
        x = x + self.time(h, self.times(h))
        h = modulated(1, x)
        futures = h.shape[2]
        x = x + self.scene(h.flatten(2, 3), (scene.key, scene.value), scene.seen).unflatten(2, (futures, -1))
        x = x + self.others(modulated(2, x), scene.relation, scene.near_agents, scene.near_agents_valid)
        return x + self.feed_forward(modulated(3, x))


class Denoiser(nn.Module):
    """Predicts x0 (or eps, or v) of all agents' actions from their noised ones."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.embed = nn.Linear(config.knots_per_token * ACTION, width)
        self.place = nn.Parameter(torch.randn(config.knots // config.knots_per_token, width) * 0.02)
        self.level = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, N_MODULATIONS * width))
        self.relation = nn.Linear(width, 2 * width, bias=False)
        self.layers = nn.ModuleList(DenoiserLayer(config) for _ in range(config.denoiser_layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.knots_per_token * ACTION)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def prepare(self, context: SceneContext) -> Prepared:
        """Return what does not change from step to step."""
        key, value = context.memory
        return Prepared(
            agent=context.agent,
            key=key,
            value=value,
            seen=context.seen,
            near_agents=context.near_agents,
            near_agents_valid=context.near_agents_valid,
            relation=self.relation(context.agent_relation),
        )

    def forward(
        self, x_t: Float[Tensor, "B A K k 3"], t: Float[Tensor, "B A K"], scene: Prepared
    ) -> Float[Tensor, "B A K k 3"]:
        """Return the prediction for normalised actions at diffusion time t in [0, 1]."""
        tokens = x_t.flatten(-2).unflatten(-1, (-1, self.config.knots_per_token * ACTION))
        x = self.embed(tokens) + self.place + scene.agent[:, :, None, None]
        modulation = self.level(fourier(t, self.config.width)).unflatten(-1, (N_MODULATIONS, -1))
        for layer in self.layers:
            x = layer(x, modulation, scene)
        return self.out(self.norm(x)).flatten(-2).unflatten(-1, (-1, ACTION))
