"""What stands around a picture: title, legend, scale bar."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64

from traj_diffusion.scene import AgentKind, LightState, MapKind, Rollouts, Scene
from traj_diffusion.viz import colours
from traj_diffusion.viz.pairing import Futures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PAD = 18  # pixels
Frame = tuple[Float64[np.ndarray, "2"], Float64[np.ndarray, "2"]]
"""The lower left and the upper right corner of a picture, in the scene's coordinates."""


def draw_title(figure: "Figure", scene: Scene, rollouts: Rollouts | None, size: tuple[int, int], height: int) -> None:
    """Write the scene's id and, behind it, what is in the picture."""
    width, whole = size
    y = 1 - height / 2 / whole
    text = _text(figure, _PAD / width, y, plain(scene.id), 15, weight="bold")
    end = text.get_window_extent().x1 / width
    agents = len(scene.sim_agents)
    facts = [plain(scene.source), f"{agents} agent{'s' if agents != 1 else ''}"]
    if rollouts is not None:
        model = rollouts.provenance.get("model")
        count = rollouts.runs if rollouts.futures is None else len(rollouts.futures)
        what = "run" if rollouts.futures is None else "future"
        facts.append(f"{count} {what}{'s' if count != 1 else ''}" + (f" by {plain(str(model))}" if model else ""))
    _text(figure, end + _PAD / width, y, "  ·  ".join(facts), 12, colour=colours.FAINT_INK)


def draw_legend(
    figure: "Figure", scene: Scene, futures: Futures | None, what: str, size: tuple[int, int], height: int, frame: Frame
) -> None:
    """Write one line of samples, each with its name, of what lies in the frame; `what` names the futures."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    width, whole = size
    y = height / 2 / whole
    x = float(_PAD)

    def named(name: str, artist: Any, wide: int) -> None:
        nonlocal x
        figure.add_artist(artist)
        text = _text(figure, (x + wide + 7) / width, y, name, 11)
        x = text.get_window_extent().x1 + 20

    def box(name: str, colour: str) -> None:
        bottom = y - 6 / whole
        patch = Rectangle((x / width, bottom), 22 / width, 12 / whole, transform=figure.transFigure, facecolor=colour)
        named(name, patch, 22)

    def mark(name: str, colour: str, marker: Any, edge: str = colours.INK) -> None:
        point = Line2D([(x + 6) / width], [y], marker=marker, color=colour, markersize=9, markeredgecolor=edge)
        named(name, point, 12)

    def dashes(name: str) -> None:
        ends = [x / width, (x + 30) / width]
        named(name, Line2D(ends, [y, y], color=colours.INK, linestyle=(0, (3.2, 2.6)), linewidth=1.2), 30)

    agents, lights, now = scene.agents, scene.lights, scene.current_index
    here = scene.sim_agents
    here = here[_inside(agents.position[here, now], frame)]
    if scene.ego is not None and scene.ego in here:
        box("ego", colours.EGO)
    for kind in AgentKind:
        if (agents.kind[here[here != scene.ego]] == kind).any():
            box(colours.KIND_NAME[kind], colours.KIND[kind])
    if agents.valid[here, now + 1 :].any():
        dashes("recorded")
    states = lights.state[lights.observed[:, now] & _inside(lights.stop_point[:, now], frame), now]
    shown = {colours.LIGHT[LightState(int(state))] for state in states}
    for colour, name in ((colours.STOP, "stop"), (colours.CAUTION, "caution"), (colours.GO, "go")):
        if colour in shown:
            mark(name, colour, "o")
    if colours.UNKNOWN in shown:
        mark("light unknown", colours.UNKNOWN, "o")
    signs = scene.map.start[:-1][scene.map.kind == MapKind.STOP_SIGN]
    if _inside(scene.map.points[signs], frame).any():
        mark("stop sign", colours.STOP_SIGN, (8, 0, 22.5), "white")
    if futures is not None and futures.valid.shape[-1] > 1:
        _draw_time(figure, what, (futures.valid.shape[-1] - 1) * scene.dt, size, y)


def _inside(places: Float64[np.ndarray, "n 3"], frame: Frame) -> Bool[np.ndarray, " n"]:
    return np.all((places[:, :2] >= frame[0]) & (places[:, :2] <= frame[1]), axis=1)


def _draw_time(figure: "Figure", what: str, seconds: float, size: tuple[int, int], y: float) -> None:
    """Draw the colours of the futures from now to their end, at the right."""
    from matplotlib.colors import LinearSegmentedColormap

    width, whole = size
    right = _text(figure, 1 - _PAD / width, y, f"+{seconds:.1f} s", 11, align="right")
    end = right.get_window_extent().x0 - 8
    bar = figure.add_axes(((end - 150) / width, y - 5 / whole, 150 / width, 10 / whole))
    bar.set_axis_off()
    ramp = LinearSegmentedColormap.from_list("time", list(colours.TIME))
    bar.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=ramp, interpolation="nearest")
    _text(figure, (end - 158) / width, y, f"{what}, now", 11, align="right")


def draw_scale(axes: "Axes", metre: float, dpi: int) -> None:
    """Draw a bar of a round length at the lower right of the map."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.patheffects import withStroke

    length = max(step for step in (1, 2, 5, 10, 20, 50) if step * metre <= 180 or step == 1)
    right, bottom = axes.get_xlim()[1] - _PAD / metre, axes.get_ylim()[0] + 16 / metre
    halo = [withStroke(linewidth=4, foreground=colours.PAPER)]
    tick = 4 / metre
    xs = [right - length, right - length, right - length, right, right, right]
    ys = [bottom + tick, bottom - tick, bottom, bottom, bottom - tick, bottom + tick]
    axes.plot(xs, ys, color=colours.INK, linewidth=1.5, zorder=1000, path_effects=halo, scalex=False, scaley=False)
    axes.text(
        right - length / 2,
        bottom + 7 / metre,
        f"{length} m",
        ha="center",
        va="bottom",
        color=colours.INK,
        zorder=1000,
        path_effects=halo,
        fontproperties=FontProperties(family="DejaVu Sans", size=10 * 72 / dpi * 1.1),
    )


def plain(text: str) -> str:
    """Return the text in characters that the font has: Latin-1 without controls, others as '?', at most 60."""
    shown = "".join(char if char.isprintable() and ord(char) < 256 else "?" for char in text)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _text(
    figure: "Figure",
    x: float,
    y: float,
    text: str,
    pixels: int,
    colour: str = colours.INK,
    align: str = "left",
    weight: str = "normal",
) -> Any:
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family="DejaVu Sans", size=pixels * 72 / figure.dpi, weight=weight)
    # A dollar sign in a scene's id is no formula.
    return figure.text(x, y, text, fontproperties=font, color=colour, ha=align, va="center_baseline", parse_math=False)
