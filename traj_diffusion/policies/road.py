"""How far a point lies beyond the road's edge, on a grid made once per map: cheap to ask, with a slope to follow."""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Float64
from numba import njit
from torch import Tensor

from traj_diffusion.scene import Map, MapKind

CELL = 0.5  # m
REACH = 10.0  # m from an edge; further away everything counts as REACH within the road
MOST_CELLS = 3_000  # along each axis; maps that are larger get larger cells
LEVEL = 4.0  # m; edges further above or below the agents nearest to them belong to another road


@dataclass(frozen=True)
class RoadField:
    """Signed distances [m] to the nearest road edge at the nodes of a grid; positive is off the road."""

    distance: Float[Tensor, "rows columns"]
    low: tuple[float, float]  # x, y of the first node, relative to the scene's origin
    cell: float

    def __call__(self, place: Float[Tensor, "*lead 2"]) -> Float[Tensor, "*lead"]:
        """Return distances at points relative to the scene's origin, bilinear between nodes; differentiable."""
        rows, columns = self.distance.shape
        low = torch.tensor(self.low, dtype=place.dtype, device=place.device)
        at = (place - low) / self.cell
        inside = ((at >= 0) & (at < torch.tensor([columns - 1, rows - 1], device=place.device))).all(-1)
        at = torch.where(inside[..., None], at, torch.zeros_like(at))
        node = at.detach().floor()
        share = at - node
        index = (node[..., 1] * columns + node[..., 0]).long()
        flat = self.distance.flatten()
        x, y = share[..., 0], share[..., 1]
        near = flat[index] * (1 - x) + flat[index + 1] * x
        far = flat[index + columns] * (1 - x) + flat[index + columns + 1] * x
        return torch.where(inside, near * (1 - y) + far * y, torch.full_like(x, -REACH))


def road_field(
    features: Map, origin: Float64[np.ndarray, " 2"], agents: Float64[np.ndarray, "N 3"]
) -> RoadField | None:
    """Return the field of a map's road edges, None where it has none. Ground for vehicles lies to an edge's left.

    Flat: where roads cross on bridges, edges count that lie at the height of the agents [m] nearest to them.
    """
    lines = [features.polyline(int(row)) for row in features.rows(MapKind.ROAD_EDGE)]
    lines = [line for line in (_level(line, agents) for line in lines) if len(line) > 1]
    if not lines:
        return None
    flat = [np.ascontiguousarray(line[:, :2] - origin) for line in lines]
    low = np.min([line.min(0) for line in flat], 0) - REACH
    high = np.max([line.max(0) for line in flat], 0) + REACH
    cell = max(CELL, float((high - low).max()) / MOST_CELLS)
    columns, rows = (int(size) for size in np.ceil((high - low) / cell) + 1)
    field = np.full((rows, columns), -REACH, np.float32)
    nearest = np.full((rows, columns), np.float32(REACH))
    for line in flat:
        _draw(line, low, cell, field, nearest)
    return RoadField(torch.from_numpy(field), (float(low[0]), float(low[1])), cell)


def _level(line: np.ndarray, agents: np.ndarray) -> np.ndarray:
    """Return the line, or nothing of it where its middle lies on another level than the nearest agent."""
    if not len(agents) or len(line) < 2:
        return line
    middle = line[len(line) // 2]
    nearest = agents[np.linalg.norm(agents[:, :2] - middle[:2], axis=-1).argmin()]
    return line if abs(nearest[2] - middle[2]) < LEVEL else line[:0]


@njit(cache=True)
@no_type_check  # a run-time check of shapes would wrap the function before numba sees it
def _draw(line, low, cell, field, nearest):  # pragma: no cover
    """Write one polyline into the field, where it is nearer than what is there. At corners the two normals decide."""
    rows, columns = field.shape
    count = len(line) - 1
    along = np.zeros((count, 2))
    for i in range(count):
        dx, dy = line[i + 1, 0] - line[i, 0], line[i + 1, 1] - line[i, 1]
        size = max(np.sqrt(dx * dx + dy * dy), 1e-9)
        along[i, 0], along[i, 1] = dx / size, dy / size
    closed = np.abs(line[0] - line[count]).max() < 0.5
    for i in range(count):
        before = i - 1 if i else (count - 1 if closed else i)
        after = i + 1 if i + 1 < count else (0 if closed else i)
        x0, y0, x1, y1 = line[i, 0], line[i, 1], line[i + 1, 0], line[i + 1, 1]
        size = np.sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2)
        first_column = max(int((min(x0, x1) - REACH - low[0]) / cell), 0)
        last_column = min(int((max(x0, x1) + REACH - low[0]) / cell) + 1, columns - 1)
        first_row = max(int((min(y0, y1) - REACH - low[1]) / cell), 0)
        last_row = min(int((max(y0, y1) + REACH - low[1]) / cell) + 1, rows - 1)
        for row in range(first_row, last_row + 1):
            for column in range(first_column, last_column + 1):
                px, py = low[0] + column * cell - x0, low[1] + row * cell - y0
                travelled = px * along[i, 0] + py * along[i, 1]
                share = min(max(travelled, 0.0), size)
                gx, gy = px - share * along[i, 0], py - share * along[i, 1]
                gap = np.sqrt(gx * gx + gy * gy)
                if gap >= nearest[row, column]:
                    continue
                nearest[row, column] = gap
                other = before if travelled < 0 else (after if travelled > size else i)
                tx, ty = along[i, 0] + along[other, 0], along[i, 1] + along[other, 1]
                field[row, column] = -gap if tx * gy - ty * gx >= 0 else gap
