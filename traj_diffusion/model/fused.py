"""Small operations of encoder and denoiser as compiled kernels, for sampling on a CPU.

An agent asks some fifty things with two tokens. At such sizes torch's kernels spend their time on copies between
layouts and on calls, so that attention would take longer than the matrix products around it. Here each operation
runs in one pass over the data as it lies. Training, GPUs and exported models take torch's own operations, to which
`tests/model/test_fused.py` holds these.
"""

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numba import njit
from torch import Tensor

LOG2_E = np.float32(1.4426950408889634)
EPS = 1e-5  # of torch's LayerNorm


def fits(x: Tensor) -> bool:
    """Return whether kernels may stand in for torch's operations: float32 on a CPU, without a slope, not traced."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        and not (torch.jit.is_tracing() or torch.compiler.is_compiling())
    )


def modulate(
    x: Float[Tensor, "*lead C d"], modulation: Float[Tensor, "*lead 8 d"], sublayer: int
) -> Float[Tensor, "*lead C d"]:
    """Return layer_norm(x) * (1 + scale) + shift, of which `modulation` holds (shift, scale) of each sublayer."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    rows, width = x.shape[-2:]
    _modulate(_array(x, rows, width), _array(modulation, *modulation.shape[-2:]), sublayer, _array(out, rows, width))
    return out


def ask_neighbours(
    query: Float[Tensor, "B A K C d"],
    summary: Float[Tensor, "B A K P e"],
    relation: Float[Tensor, "B A m e"],
    near: Int[Tensor, "B A m"],
    valid: Bool[Tensor, "B A m"],
    heads: int,
) -> Float[Tensor, "B A K C d"]:
    """Return what tokens gather from their near agents' summaries; keys and values (e = 2 d) are summary + relation.

    Zero where an agent has no neighbour.
    """
    worlds, agents, futures, tokens, width = query.shape
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    size = width // heads
    _ask_neighbours(
        query.contiguous().numpy().reshape(worlds, agents, futures, tokens, heads, size),
        summary.contiguous().numpy().reshape(worlds, agents, futures, summary.shape[3], 2, heads, size),
        relation.contiguous().numpy().reshape(worlds, agents, near.shape[2], 2, heads, size),
        near.contiguous().numpy(),
        valid.contiguous().numpy(),
        out.numpy().reshape(worlds, agents, futures, tokens, heads, size),
    )
    return out


def as_seen(
    pose: Float[Tensor, "B A 3"],
    velocity: Float[Tensor, "B A 2"],
    index: Int[Tensor, "B A n"],
    other: Float[Tensor, "b M 3"],
    other_velocity: Float[Tensor, "b M 2"] | None,
    points: Float[Tensor, "c M P 2"] | None,
    features: int,
    fine: float,
) -> Float[Tensor, "B A n f"]:
    """Return what `neighbours.as_seen` says of the others at `index`."""
    out = torch.empty(*index.shape, features)
    _as_seen(
        pose.contiguous().numpy(),
        velocity.contiguous().numpy(),
        index.contiguous().numpy(),
        other.contiguous().numpy(),
        np.zeros((0, 0, 2), np.float32) if other_velocity is None else other_velocity.contiguous().numpy(),
        np.zeros((0, 0, 0, 2), np.float32) if points is None else points.contiguous().numpy(),
        fine,
        out.numpy(),
    )
    return out


def _array(x: Tensor, *shape: int) -> np.ndarray:
    return x.contiguous().numpy().reshape(-1, *shape)


@njit(cache=True, nogil=True, fastmath=True)
@no_type_check  # a run-time check of shapes would wrap the function before numba sees it
def _modulate(x, modulation, sublayer, out):  # pragma: no cover
    groups, rows, width = x.shape
    for group in range(groups):
        shift, scale = modulation[group, 2 * sublayer], modulation[group, 2 * sublayer + 1]
        for row in range(rows):
            line, result = x[group, row], out[group, row]
            mean = np.float32(0)
            for i in range(width):
                mean += line[i]
            mean /= np.float32(width)
            spread = np.float32(0)
            for i in range(width):
                spread += (line[i] - mean) * (line[i] - mean)
            factor = np.float32(1) / np.sqrt(spread / np.float32(width) + np.float32(EPS))
            for i in range(width):
                result[i] = (line[i] - mean) * factor * (np.float32(1) + scale[i]) + shift[i]


@njit(cache=True, nogil=True, fastmath=True)
@no_type_check
def _softmax(score, count, bits, power):  # pragma: no cover
    """Replace the first `count` scores (in powers of two) by their softmax. `bits` and `power` are one memory."""
    most = score[0]
    for i in range(1, count):
        most = max(most, score[i])
    for i in range(count):
        z = max(score[i] - most, np.float32(-126))
        whole = np.floor(z + np.float32(0.5))
        bits[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        score[i] = z - whole
    total = np.float32(0)
    for i in range(count):
        r = score[i]  # 2^r for r in [-1/2, 1/2] to 2e-7: its Taylor series to the sixth power
        p = np.float32(1.5403530e-4) * r + np.float32(1.3333558e-3)
        p = p * r + np.float32(9.6181291e-3)
        p = p * r + np.float32(5.5504109e-2)
        p = p * r + np.float32(2.4022651e-1)
        p = p * r + np.float32(6.9314718e-1)
        p = p * r + np.float32(1)
        score[i] = p * power[i]
        total += score[i]
    for i in range(count):
        score[i] /= total


@njit(cache=True, nogil=True, fastmath=True)
@no_type_check
def _ask_neighbours(query, summary, relation, near, valid, out):  # pragma: no cover
    worlds, agents, futures, tokens, heads, size = query.shape
    phases, most = summary.shape[3], near.shape[2]
    factor = LOG2_E / np.float32(np.sqrt(size))
    key = np.empty((most * phases, size), np.float32)
    value = np.empty((most * phases, size), np.float32)
    score = np.empty(most * phases, np.float32)
    bits = np.empty(most * phases, np.int32)
    power = bits.view(np.float32)
    for world in range(worlds):
        for agent in range(agents):
            for future in range(futures):
                for head in range(heads):
                    count = 0
                    for j in range(most):
                        if not valid[world, agent, j]:
                            continue
                        lies = relation[world, agent, j]
                        for phase in range(phases):
                            plans = summary[world, near[world, agent, j], future, phase]
                            for i in range(size):
                                key[count, i] = plans[0, head, i] + lies[0, head, i]
                            for i in range(size):
                                value[count, i] = plans[1, head, i] + lies[1, head, i]
                            count += 1
                    for token in range(tokens):
                        asked, result = query[world, agent, future, token, head], out[world, agent, future, token, head]
                        result[:] = 0
                        if not count:
                            continue
                        for entry in range(count):
                            alike = np.float32(0)
                            for i in range(size):
                                alike += asked[i] * key[entry, i]
                            score[entry] = alike * factor
                        _softmax(score, count, bits, power)
                        for entry in range(count):
                            weight = score[entry]
                            for i in range(size):
                                result[i] += weight * value[entry, i]


@njit(cache=True, nogil=True)
@no_type_check
def _as_seen(pose, velocity, index, other, other_velocity, points, fine, out):  # pragma: no cover
    worlds, agents, count = index.shape
    seen = np.empty((points.shape[2], 2))
    for world in range(worlds):
        for a in range(agents):
            x0, y0, facing = pose[world, a, 0], pose[world, a, 1], np.float64(pose[world, a, 2])
            cos, sin = np.cos(facing), np.sin(facing)
            for rank in range(count):
                one, line = index[world, a, rank], out[world, a, rank]
                there = other[world if len(other) > 1 else 0, one]
                dx, dy = np.float64(there[0]) - x0, np.float64(there[1]) - y0
                x, y = cos * dx + sin * dy, cos * dy - sin * dx
                turn = there[2] - facing
                cos_turn, sin_turn = np.cos(turn), np.sin(turn)
                vx, vy = -np.float64(velocity[world, a, 0]), -np.float64(velocity[world, a, 1])
                if other_velocity.size:
                    moving = other_velocity[world if len(other_velocity) > 1 else 0, one]
                    vx, vy = vx + moving[0], vy + moving[1]
                distance = np.sqrt(x * x + y * y)
                line[0], line[1] = x / 50, y / 50
                line[2], line[3] = x / (distance + 5), y / (distance + 5)
                line[4] = np.log1p(distance) / 4
                line[5], line[6] = cos_turn, sin_turn
                line[7], line[8] = (cos * vx + sin * vy) / 10, (cos * vy - sin * vx) / 10
                if points.size:
                    piece = points[world if len(points) > 1 else 0, one]
                    for i in range(len(seen)):
                        seen[i, 0] = cos_turn * piece[i, 0] - sin_turn * piece[i, 1] + x
                        seen[i, 1] = sin_turn * piece[i, 0] + cos_turn * piece[i, 1] + y
                    _outline(seen, fine, line[9:])


@njit(cache=True, nogil=True)
@no_type_check
def _outline(seen, fine, line):  # pragma: no cover
    """Write what `neighbours.outline` says of a polyline in an agent's frame."""
    nearest, foot_x, foot_y = np.inf, 0.0, 0.0
    along_x, along_y, total = 0.0, 0.0, 0.0
    for i in range(len(seen)):
        line[2 * i], line[2 * i + 1] = seen[i, 0] / 20, seen[i, 1] / 20
    for i in range(len(seen) - 1):
        x, y = seen[i, 0], seen[i, 1]
        dx, dy = seen[i + 1, 0] - x, seen[i + 1, 1] - y
        share = min(max(-(x * dx + y * dy) / max(dx * dx + dy * dy, 1e-6), 0.0), 1.0)
        x, y = x + share * dx, y + share * dy
        gap = np.sqrt(x * x + y * y)
        if gap < nearest:  # a softmax of all gaps: what was summed so far is scaled anew
            scale = np.exp(gap - nearest)
            along_x, along_y, total = along_x * scale, along_y * scale, total * scale
            nearest, foot_x, foot_y = gap, x, y
        weight = np.exp(nearest - gap)
        along_x, along_y, total = along_x + weight * dx, along_y + weight * dy, total + weight
    along_x, along_y = along_x / total, along_y / total
    size = max(np.sqrt(along_x * along_x + along_y * along_y), 1e-3)
    rest = line[2 * len(seen) :]
    rest[0] = np.log1p(nearest) / 2
    rest[1], rest[2] = np.tanh(foot_x / fine), np.tanh(foot_y / fine)
    rest[3], rest[4] = along_x / size, along_y / size
