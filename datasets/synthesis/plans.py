"""Where the streets of a town run: perturbed grids, rings with spokes, and streets that follow no plan."""

import numpy as np
import shapely
from jaxtyping import Float64

from traj_diffusion.geometry import wrap_angle

Pairs = list[tuple[int, int]]
NEAREST = 75.0  # m between two junctions of an irregular town
BETWEEN = (60.0, 280.0)  # m, how long its streets may be
SHARPEST = np.deg2rad(45)  # between two streets at a junction of it


def grid(rng: np.random.Generator) -> tuple[Float64[np.ndarray, "V 2"], Pairs]:
    """Return a perturbed grid with some streets taken out and some leading out of town."""
    across = int(rng.choice([3, 4, 5], p=[0.5, 0.4, 0.1]))
    block = rng.uniform(85, 165, 2)
    columns, rows = np.meshgrid(np.arange(across), np.arange(across), indexing="ij")
    nodes = np.stack([columns, rows], -1).reshape(-1, 2) * block
    nodes = nodes + rng.uniform(-1, 1, nodes.shape) * rng.uniform(0, 0.22) * block
    pairs = [(i, i + across) for i in range(across * (across - 1))]
    pairs += [(i, i + 1) for i in range(across * across) if (i + 1) % across]
    keep = rng.random(len(pairs)) > rng.uniform(0, 0.16)
    pairs = [pair for pair, kept in zip(pairs, keep, strict=True) if kept]
    border = [i for i in range(across * across) if {0, across - 1} & set(divmod(i, across))]
    return _with_fringe(rng, nodes, pairs, border)


def rings(rng: np.random.Generator) -> tuple[Float64[np.ndarray, "V 2"], Pairs]:
    """Return ring roads around a centre, joined by spokes."""
    arms, circles = int(rng.integers(4, 7)), int(rng.integers(2, 4))
    radius = rng.uniform(85, 125) * np.arange(1, circles + 1)
    angle = np.arange(arms) * 2 * np.pi / arms + rng.uniform(-0.15, 0.15, arms)
    nodes = (radius[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)).reshape(-1, 2)
    nodes = np.concatenate([nodes + rng.uniform(-8, 8, nodes.shape), np.zeros((1, 2))])
    centre = len(nodes) - 1
    pairs = [(ring * arms + arm, ring * arms + (arm + 1) % arms) for ring in range(circles) for arm in range(arms)]
    pairs += [((ring - 1) * arms + arm, ring * arms + arm) for ring in range(1, circles) for arm in range(arms)]
    pairs += [(centre, arm) for arm in range(arms) if arm % 2 == 0 or arms < 6]
    keep = rng.random(len(pairs)) > 0.1
    pairs = [pair for pair, kept in zip(pairs, keep, strict=True) if kept]
    return _with_fringe(rng, nodes, pairs, list(range((circles - 1) * arms, circles * arms)))


def irregular(rng: np.random.Generator) -> tuple[Float64[np.ndarray, "V 2"], Pairs]:
    """Return streets between junctions strewn at random: crooked, one to five at a junction, with dead ends.

    No two cross, for they are edges of the junctions' Delaunay triangulation; those that would meet at a sharp angle,
    or at a junction that has enough of them already, are left out.
    """
    side, arms = rng.uniform(320, 520), int(rng.integers(3, 6))
    nodes = _strewn(rng, int(rng.integers(10, 19)), side)
    triangles = shapely.delaunay_triangles(shapely.multipoints(nodes), only_edges=True)
    place = {tuple(node): i for i, node in enumerate(nodes.tolist())}
    lines = [
        [place[tuple(end)] for end in shapely.get_coordinates(line).tolist()] for line in shapely.get_parts(triangles)
    ]
    pairs: Pairs = []
    heading: list[list[float]] = [[] for _ in nodes]
    for start, end in [sorted(lines)[i] for i in rng.permutation(len(lines))]:
        along = nodes[end] - nodes[start]
        ways = (float(np.arctan2(along[1], along[0])), float(np.arctan2(-along[1], -along[0])))
        if not BETWEEN[0] < np.linalg.norm(along) < BETWEEN[1]:
            continue
        if all(_room(heading[node], way, arms) for node, way in zip((start, end), ways, strict=True)):
            pairs.append((start, end))
            heading[start].append(ways[0])
            heading[end].append(ways[1])
    nodes, pairs = _connected(nodes, pairs)
    hull = shapely.get_coordinates(shapely.convex_hull(shapely.multipoints(nodes))).tolist()
    return _with_fringe(rng, nodes, pairs, [i for i, node in enumerate(nodes.tolist()) if node in hull])


def _strewn(rng: np.random.Generator, count: int, side: float) -> Float64[np.ndarray, "V 2"]:
    """Return up to that many points in a square, at least NEAREST apart."""
    kept = rng.uniform(0, side, (1, 2))
    for point in rng.uniform(0, side, (20 * count, 2)):
        if len(kept) < count and np.linalg.norm(kept - point, axis=1).min() > NEAREST:
            kept = np.concatenate([kept, point[None]])
    return kept


def _room(headings: list[float], way: float, arms: int) -> bool:
    """Return whether a junction with streets in these directions has room for one more."""
    return len(headings) < arms and all(abs(float(wrap_angle(way - other))) > SHARPEST for other in headings)


def _connected(nodes: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, Pairs]:
    """Return the largest part of a town that hangs together."""
    part = list(range(len(nodes)))
    for start, end in pairs:
        part = [part[start] if one == part[end] else one for one in part]
    kept = [i for i, one in enumerate(part) if one == max(part, key=part.count)]
    number = {old: new for new, old in enumerate(kept)}
    return nodes[kept], [(number[start], number[end]) for start, end in pairs if start in number]


def _with_fringe(
    rng: np.random.Generator, nodes: np.ndarray, pairs: Pairs, border: list[int]
) -> tuple[np.ndarray, Pairs]:
    """Return nodes and roads with roads added that lead out of town, so that traffic comes and goes."""
    middle = nodes.mean(0)
    out: list[np.ndarray] = []
    for i in border:
        if rng.random() < 0.85:
            away = (nodes[i] - middle) / np.linalg.norm(nodes[i] - middle)
            pairs.append((i, len(nodes) + len(out)))
            out.append(nodes[i] + away * rng.uniform(60, 130) + rng.uniform(-15, 15, 2))
    return np.concatenate([nodes, np.array(out).reshape(-1, 2)]), pairs
