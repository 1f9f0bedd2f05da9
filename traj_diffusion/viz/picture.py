"""One PNG per scene: the map, the agents now, where they came from, the K futures and what was recorded."""

from pathlib import Path
from typing import Any

import numpy as np

from traj_diffusion.geometry import box_corners, to_world
from traj_diffusion.scene import AgentKind, LightState, LineType, MapKind, Rollouts, Scene
from traj_diffusion.scene.archive import atomic_path
from traj_diffusion.viz import colours
from traj_diffusion.viz.brush import Brush
from traj_diffusion.viz.ground import BROKEN, YELLOW, Feature, lane_width, visible_features, zebra
from traj_diffusion.viz.legend import draw_legend, draw_scale, draw_title
from traj_diffusion.viz.pairing import Futures, planned_futures

_DPI = 100
_HEAD, _FOOT = 50, 50  # pixels above and below the map
_MARGIN, _LEAST, _MOST = 14.0, 60.0, 200.0  # metres around the agents; least and most that a picture is wide
_ARROW = 11.0  # pixels that a box must be long to carry an arrowhead
_SMALLEST = 5.0  # pixels that a box is long and wide at least, for pedestrians to be seen in a wide view
_TRAIL = 3.0  # seconds of history
_BANDS = 20  # steps of colour along a future


def save_picture(
    path: Path | str, scene: Scene, rollouts: Rollouts | None = None, *, size: tuple[int, int] = (1600, 1000)
) -> Path:
    """Draw the scene at its current index as a PNG of `size` pixels, and return its path.

    With rollouts, the K futures first sampled are drawn too, coloured by time; the R runs where no futures are kept.
    The recorded future is dashed. Same input, same bytes on one machine. Raises BadRollouts where the rollouts are
    not of this scene.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not (1200 <= size[0] <= 8000 and 400 <= size[1] <= 8000):
        raise ValueError(f"size is {size[0]} x {size[1]} pixels; wanted are 1200 to 8000 by 400 to 8000")
    path = Path(path)
    futures = None if rollouts is None else planned_futures(scene, rollouts)
    width, height = size
    shape = np.array([width, height - _HEAD - _FOOT], float)
    centre, metre = _window(scene, futures, shape)

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=colours.PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, _FOOT / height, 1, shape[1] / height))
    axes.set_axis_off()
    half = shape / metre / 2
    axes.set_xlim(-half[0], half[0])
    axes.set_ylim(-half[1], half[1])
    brush = Brush(axes, centre, metre, _DPI)
    _draw_ground(brush, visible_features(scene.map, centre - half, centre + half))
    if futures is not None:
        _draw_futures(brush, futures)
    _draw_log(brush, scene)
    _draw_trails(brush, scene)
    _draw_lights(brush, scene)
    _draw_agents(brush, scene)
    draw_scale(axes, metre, _DPI)
    draw_title(figure, scene, rollouts, size, _HEAD)
    what = "futures" if rollouts is not None and rollouts.futures is not None else "runs"
    draw_legend(figure, scene, futures, what, size, _FOOT, (centre - half, centre + half))
    with atomic_path(path) as temporary:
        # No Software entry: the file's bytes then do not change with the version of the library.
        figure.savefig(temporary, format="png", dpi=_DPI, facecolor=colours.PAPER, metadata={"Software": None})
    return path


def _window(scene: Scene, futures: Futures | None, shape: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the centre [m] of the picture and its scale [pixels / m]: all agents, or those near the ego."""
    agents, now = scene.agents, scene.current_index
    here = agents.valid[:, now]
    seen = [agents.position[here, now, :2], agents.position[here, now:, :2][agents.valid[here, now:]]]
    if futures is not None:
        seen.append(futures.xy[futures.valid])
    points = np.concatenate(seen)
    if not len(points):
        points = scene.map.points[:, :2] if len(scene.map.points) else np.zeros((1, 2))
    low, high = points.min(0) - _MARGIN, points.max(0) + _MARGIN
    aspect = shape[0] / shape[1]
    wanted = max(high[0] - low[0], (high[1] - low[1]) * aspect, _LEAST)
    span = min(wanted, _MOST) * np.array([1, 1 / aspect])
    has_ego = scene.ego is not None and bool(here[scene.ego])
    focus = agents.position[scene.ego, now, :2] if has_ego else np.median(points, 0)
    middle = (low + high) / 2
    slack = np.maximum((high - low - span) / 2, 0)
    return middle + np.clip(focus - middle, -slack, slack), float(shape[0] / span[0])


def _draw_ground(brush: Brush, features: list[Feature]) -> None:
    def of(kind: MapKind, points: int = 2) -> list[Feature]:
        return [feature for feature in features if feature.kind == kind and len(feature.xy) >= points]

    lanes, lines = of(MapKind.LANE), of(MapKind.ROAD_LINE)
    brush.areas([f.xy for f in of(MapKind.DRIVEWAY, 3)], colours.DRIVEWAY)
    for width in sorted({lane_width(f.subtype) for f in lanes}):
        band = [f.xy for f in lanes if lane_width(f.subtype) == width]
        brush.lines(band, colours.ASPHALT, width * brush.metre)
    brush.areas([f.xy for f in of(MapKind.SPEED_BUMP, 3)], colours.BUMP)
    brush.areas([f.xy for f in of(MapKind.CROSSWALK, 3)], colours.ASPHALT)
    brush.areas([bar for f in of(MapKind.CROSSWALK, 3) for bar in zebra(f.xy)], colours.ZEBRA)
    brush.lines([f.xy for f in lanes], colours.LANE, 0.9)
    thin = max(0.15 * brush.metre, 1.1)
    for colour, yellow in ((colours.WHITE_LINE, False), (colours.YELLOW_LINE, True)):
        matching = [f for f in lines if (LineType(f.subtype) in YELLOW) == yellow]
        solid = [f.xy for f in matching if LineType(f.subtype) not in BROKEN]
        dashed = [f.xy for f in matching if LineType(f.subtype) in BROKEN]
        brush.lines(solid, colour, thin)
        brush.lines(dashed, colour, thin, dash=(3 * brush.metre, 3 * brush.metre), cap="butt")
    brush.lines([f.xy for f in of(MapKind.ROAD_EDGE)], colours.EDGE, 1.6)
    signs = [f.xy[:1] for f in of(MapKind.STOP_SIGN, 1)]
    brush.dots(np.concatenate(signs) if signs else np.zeros((0, 2)), [colours.STOP_SIGN], 15.0, "white", sides=8)


def _draw_futures(brush: Brush, futures: Futures) -> None:
    """Draw all lines band by band, the far ones first, so that the next second lies on top."""
    count, _, steps = futures.valid.shape
    whole = futures.valid.all(-1)
    alpha = float(np.clip(1.8 / max(count, 1) ** 0.55, 0.18, 0.9))
    cuts = (
        np.unique(np.linspace(0, steps - 1, min(_BANDS, steps - 1) + 1).astype(int)) if steps > 1 else np.zeros(1, int)
    )
    shades = _time_colours(len(cuts) - 1)
    for band in reversed(range(len(cuts) - 1)):
        piece = slice(cuts[band], cuts[band + 1] + 1)
        lines = list(futures.xy[whole][:, piece])
        lines += [xy[ok] for xy, ok in zip(futures.xy[~whole][:, piece], futures.valid[~whole][:, piece], strict=True)]
        brush.lines([line for line in lines if len(line) > 1], (*shades[band], alpha), 2.0, cap="butt")


def _time_colours(count: int) -> np.ndarray:
    """Return colours [count, 3] from near to far in time."""
    from matplotlib.colors import to_rgb

    stops = np.array([to_rgb(colour) for colour in colours.TIME])
    at = np.linspace(0, len(stops) - 1, count)
    return np.stack([np.interp(at, range(len(stops)), stops[:, channel]) for channel in range(3)], -1)


def _draw_log(brush: Brush, scene: Scene) -> None:
    agents, now = scene.agents, scene.current_index
    here = agents.valid[:, now]
    lines = [xy[valid] for xy, valid in zip(agents.position[here, now:, :2], agents.valid[here, now:], strict=True)]
    brush.lines([line for line in lines if len(line) > 1], colours.INK, 1.3, dash=(6.0, 5.0), cap="butt")


def _draw_trails(brush: Brush, scene: Scene) -> None:
    from matplotlib.colors import to_rgba

    agents, now = scene.agents, scene.current_index
    first = max(0, now - round(_TRAIL / scene.dt))
    pieces: list[np.ndarray] = []
    shades: list[tuple[float, ...]] = []
    for row in scene.sim_agents.tolist():
        both = agents.valid[row, first:now] & agents.valid[row, first + 1 : now + 1]
        for step in (first + np.flatnonzero(both)).tolist():
            pieces.append(agents.position[row, step : step + 2, :2])
            shades.append(to_rgba(_colour(scene, row), 0.75 * (step + 1 - first) / (now - first)))
    brush.lines(pieces, np.array(shades), 4.0, cap="butt")


def _colour(scene: Scene, row: int) -> str:
    return colours.EGO if row == scene.ego else colours.KIND[AgentKind(int(scene.agents.kind[row]))]


def _draw_agents(brush: Brush, scene: Scene) -> None:
    """Draw boxes with an arrowhead to the front; the small ones on top, the ego on top of all."""
    agents, now = scene.agents, scene.current_index
    rows = scene.sim_agents
    size = agents.size[rows, now, :2].astype(float)
    order = np.lexsort((-size[:, 0], rows == (-1 if scene.ego is None else scene.ego)))
    rows, size = rows[order], np.maximum(size[order], max(0.5, _SMALLEST / brush.metre))
    centre, heading = agents.position[rows, now, :2], agents.heading[rows, now].astype(float)
    fills = [_colour(scene, int(row)) for row in rows]
    boxes = list(box_corners(centre, heading, size[:, 0], size[:, 1]))
    brush.areas(boxes, "white", "white", 2.2)  # a halo around the box, which takes nothing from its size
    brush.areas(boxes, fills)
    arrow = np.array([[0.40, 0.0], [0.12, 0.34], [0.12, -0.34]]) * size[:, None]
    heads = to_world(arrow, centre[:, None], np.repeat(heading[:, None], 3, 1))
    brush.areas(list(heads[size[:, 0] * brush.metre > _ARROW]), (1.0, 1.0, 1.0, 0.85))


def _draw_lights(brush: Brush, scene: Scene) -> None:
    lights, now = scene.lights, scene.current_index
    rows = np.flatnonzero(lights.observed[:, now])
    fills: list[Any] = [colours.LIGHT[LightState(int(state))] for state in lights.state[rows, now]]
    brush.dots(lights.stop_point[rows, now, :2], fills, 11.0, colours.INK)
