"""A brush on matplotlib axes that thinks in metres; the scene's other drawing code never touches the library."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Colour = str | tuple[float, ...] | np.ndarray


class Brush:
    """Draws onto axes that show `centre` with `metre` pixels to the metre. What is drawn later lies on top."""

    def __init__(self, axes: "Axes", centre: Float64[np.ndarray, "2"], metre: float, dpi: int) -> None:
        self._axes, self._centre, self.metre = axes, centre, metre
        self._point = 72 / dpi  # matplotlib's points to the pixel
        self._order = 0

    def _add(self, collection: Any) -> None:
        self._order += 1
        collection.set_zorder(self._order)
        self._axes.add_collection(collection, autolim=False)

    def lines(
        self,
        lines: Sequence[np.ndarray],
        colour: Colour,
        pixels: float,
        dash: tuple[float, float] | None = None,
        cap: str = "round",
    ) -> None:
        """Draw polylines, each [p, 2] in metres; `dash` is pixels drawn and pixels left out."""
        from matplotlib.collections import LineCollection

        if len(lines):
            width = pixels * self._point
            moved = [line - self._centre for line in lines]
            style = "solid" if dash is None else (0, [part * self._point / width for part in dash])
            self._add(LineCollection(moved, colors=colour, linewidths=width, linestyles=[style], capstyle=cap))

    def areas(
        self, areas: Sequence[np.ndarray], fill: Colour | Sequence[Colour], edge: Colour = "none", pixels: float = 0.0
    ) -> None:
        """Draw polygons, each [p, 2] in metres."""
        from matplotlib.collections import PolyCollection

        if len(areas):
            moved = [area - self._centre for area in areas]
            width = pixels * self._point
            self._add(PolyCollection(moved, facecolors=fill, edgecolors=edge, linewidths=width, joinstyle="round"))

    def dots(
        self, at: np.ndarray, colour: Colour | Sequence[Colour], pixels: float, edge: Colour, sides: int = 0
    ) -> None:
        """Draw discs, or regular polygons of so many sides, of that diameter at the points [n, 2]."""
        from matplotlib.collections import CircleCollection, RegularPolyCollection

        if len(at):
            area = np.pi / 4 * (pixels * self._point) ** 2
            shared: dict[str, Any] = {
                "sizes": [area],
                "facecolors": colour,
                "edgecolors": [edge],
                "linewidths": 1.4 * self._point,
                "offsets": at - self._centre,
                "offset_transform": self._axes.transData,
            }
            round_ = CircleCollection(**shared) if not sides else None
            self._add(round_ or RegularPolyCollection(sides, rotation=np.pi / sides, **shared))
