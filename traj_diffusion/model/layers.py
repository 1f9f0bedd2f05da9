"""The few layers that everything is made of. All attention goes through torch's fused kernel."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


class FeedForward(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)

    def forward(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead d"]:
        return self.down(functional.gelu(self.up(x), approximate="tanh"))


class Memory(nn.Module):
    """Keys and values of what is asked; made once, and shared by all layers that ask.

    Each of its heads is asked by as many heads as come to it (grouped-query attention, Ainslie et al. 2023).
    """

    def __init__(self, width: int, n_heads: int, memory_heads: int) -> None:
        super().__init__()
        self.heads = memory_heads
        self.key_value = nn.Linear(width, 2 * memory_heads * (width // n_heads), bias=False)

    def forward(self, memory: Float[Tensor, "*lead m d"]) -> tuple[Tensor, Tensor]:
        """Return keys and values [*lead, g, m, e]: heads of the memory, and how wide each is."""
        key, value = self.key_value(memory).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return key.transpose(-2, -3), value.transpose(-2, -3)


class Attention(nn.Module):
    """Multi-head attention to a `Memory` (Vaswani et al. 2017)."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "*lead n d"],
        prepared: tuple[Tensor, Tensor],
        valid: Bool[Tensor, "*lead m"] | None = None,
    ) -> Float[Tensor, "*lead n d"]:
        """Return what each of the n rows gathers from the m prepared ones; at least one of them must be valid."""
        rows, groups = x.shape[-2], prepared[0].shape[-3]
        query = self.query(x).unflatten(-1, (groups, self.n_heads // groups, -1))  # [*lead, n, g, h / g, e]
        query = query.movedim(-4, -2).flatten(-3, -2)  # to the memory, heads are so many rows more
        heard = attend(query, *prepared, valid).unflatten(-2, (-1, rows)).movedim(-2, -4)
        return self.out(heard.flatten(-3))


def attend(
    query: Float[Tensor, "*lead h n e"],
    key: Float[Tensor, "*lead h m e"],
    value: Float[Tensor, "*lead h m e"],
    valid: Bool[Tensor, "*lead m"] | None,
) -> Float[Tensor, "*lead h n e"]:
    """Return softmax(q k / sqrt(e)) v over the valid entries. The fused kernel wants exactly four axes."""
    lead = query.shape[:-3]
    query, key, value = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
    mask = None if valid is None else valid.reshape(-1, 1, 1, valid.shape[-1]).expand(-1, 1, query.shape[-2], -1)
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # The kernel's backward pass in bfloat16 takes three times as long as in float32.
        with torch.autocast("cpu", enabled=False):
            found = functional.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=mask)
    else:
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return found.unflatten(0, lead)


def fourier(value: Float[Tensor, "*lead"], width: int) -> Float[Tensor, "*lead d"]:
    """Return sines and cosines of a number in [0, 1] at frequencies from a half to some hundred turns."""
    frequency = torch.exp(torch.linspace(0, math.log(200.0), width // 2, device=value.device)) * math.pi
    angle = value[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)
