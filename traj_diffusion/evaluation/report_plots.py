"""The plots of the report card, each as the text of an SVG, or None where the rows hold nothing for it."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from traj_diffusion.evaluation.rows import Run
from traj_diffusion.evaluation.tables import metric_summary, wosac_summary
from traj_diffusion.metrics import budget_curve, wosac
from traj_diffusion.viz.colours import FAINT_INK, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The run that the page is about, then those beside it: told apart in print and by the colour-blind (Okabe & Ito 2008).
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6f5d", "#000000")
MARKERS = "oDsv^P<X"
SAFETY: Mapping[str, str] = {
    "new_collision_rate": "new collisions",
    "new_offroad_rate": "newly off the road",
    "red_light_rate": "red lights run",
    "wrong_way_rate": "wrong way",
    "infeasible_rate": "infeasible motion",
}
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT_INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT_INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#e2e0da",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "traj-diffusion",  # the same rows give the same bytes
    "svg.fonttype": "path",
}


def pareto(runs: Sequence[Run]) -> str | None:
    """Return the realism meta-metric over the average distance of two rollouts."""
    points = []
    for at, run in enumerate(runs):
        realism, apd = wosac_summary(run), metric_summary(run).means.get("joint_apd")
        if realism is not None and apd is not None and realism.fields["metametric"].scenes:
            points.append((at, run.name, apd, realism.fields["metametric"]))
    if not points:
        return None

    def draw(axes: "Axes") -> None:
        for at, name, x, y in points:
            spread: dict[str, Any] = {
                "xerr": [[x.mean - x.low], [x.high - x.mean]],
                "yerr": [[y.mean - y.low], [y.high - y.mean]],
            }
            axes.errorbar(x.mean, y.mean, **spread, elinewidth=1, alpha=0.9, label=name, **_style(at))
        axes.set_xlabel("diversity: joint average pairwise distance, m")
        axes.set_ylabel("realism meta-metric")
        axes.set_ylim(0, 1)
        _legend(axes, len(points))

    return _svg(draw)


def likelihoods(runs: Sequence[Run]) -> str | None:
    """Return one row per component of the meta-metric, one marker per run."""
    summaries = [(at, run.name, summary) for at, run in enumerate(runs) if (summary := wosac_summary(run)) is not None]
    if not summaries:
        return None
    terms = wosac.CONFIGS[summaries[0][2].config].terms
    names = [f"{term.feature.replace('_', ' ').removesuffix(' indication')}  ({term.weight:g})" for term in terms]

    def draw(axes: "Axes") -> None:
        for place, (at, name, summary) in enumerate(summaries):
            found = [summary.fields[f"{term.feature}_likelihood"] for term in terms]
            _dots(axes, found, place, len(summaries), at, name)
        _rows(axes, names)
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("likelihood")
        _legend(axes, len(summaries))

    return _svg(draw, height=5.4)


def displacement(runs: Sequence[Run]) -> str | None:
    """Return joint minADE at 3, 5 and 8 s."""
    horizons = (3, 5, 8)

    def means(run: Run) -> list[Any]:
        found, runs_of = metric_summary(run).means, run.rows[0].protocol.rollouts
        return [found.get(f"joint_min_ade@{runs_of}/{horizon}s") for horizon in horizons]

    found = [(at, run.name, means(run)) for at, run in enumerate(runs)]
    if all(mean is None for _, _, three in found for mean in three):
        return None

    def draw(axes: "Axes") -> None:
        for place, (at, name, three) in enumerate(found):
            _dots(axes, three, place, len(found), at, name)
        _rows(axes, [f"{horizon} s" for horizon in horizons])
        axes.set_xlim(left=-0.01 * axes.get_xlim()[1])
        axes.set_xlabel("joint minADE, m")
        _legend(axes, len(found))

    return _svg(draw)


def safety(runs: Sequence[Run]) -> str | None:
    """Return rates of what must not happen, with the log's own rate as a line in each row."""
    found = [(at, run.name, metric_summary(run).means) for at, run in enumerate(runs)]
    names = [name for name in SAFETY if any(name in means for _, _, means in found)]
    if not names:
        return None

    def draw(axes: "Axes") -> None:
        for place, (at, name, means) in enumerate(found):
            _dots(axes, [means.get(one) for one in names], place, len(found), at, name)
        log = [found[0][2].get(f"log/{name}") for name in names]  # all runs have the same scenes, hence the same log
        marks = [(mean.mean, row) for row, mean in enumerate(log) if mean is not None]
        if marks:
            x, row = np.array(marks).T
            axes.vlines(x, row - 0.42, row + 0.42, colors=INK, linewidth=2.2, label="the log")
        _rows(axes, [SAFETY[name] for name in names])
        axes.set_xlim(left=-0.01 * axes.get_xlim()[1])
        axes.set_xlabel("share of evaluated agents and rollouts")
        _legend(axes, len(found) + 1)

    return _svg(draw, height=4.4)


def coverage(runs: Sequence[Run]) -> str | None:
    """Return how many logs the central sets hold, over how many they should, for runs that have any spread."""
    wanted = (0.5, 0.9)
    lines = []
    for at, run in enumerate(runs):
        means = metric_summary(run).means
        if "joint_apd" not in means or means["joint_apd"].mean == 0:
            continue  # rollouts that are all the same have no spread that could fit
        for axis, dash in (("along", "-"), ("across", ":")):
            held = [means.get(f"coverage_{100 * share:.0f}_{axis}") for share in wanted]
            if all(mean is not None for mean in held):
                lines.append((at, run.name, axis, dash, [mean.mean for mean in held if mean is not None]))
    if not lines:
        return None

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=FAINT_INK, linewidth=1)
        for at, name, axis, dash, held in lines:
            style = _style(at) | {"linestyle": dash, "linewidth": 1.2}
            axes.plot([0, *wanted, 1], [0, *held, 1], markevery=[1, 2], label=f"{name}, {axis}", **style)
        axes.set_xlabel("central set of the rollouts")
        axes.set_ylabel("share of logs inside")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        _legend(axes, len(lines))

    return _svg(draw, height=4.4)


def ranks(run: Run) -> str | None:
    """Return the histograms of the log's rank among the rollouts, along and across the present heading."""
    sizes = {len(row.ranks["along"]) for row in run.rows if row.ranks}
    if len(sizes) != 1 or (count := sizes.pop()) < 3:
        return None
    total = {axis: np.sum([row.ranks[axis] for row in run.rows if row.ranks], axis=0) for axis in ("along", "across")}

    def draw(axes: "Axes") -> None:
        for axis, colour, shift in (("along", COLOURS[0], -0.2), ("across", COLOURS[1], 0.2)):
            share = total[axis] / total[axis].sum()
            axes.bar(np.arange(count) + shift, share, width=0.4, color=colour, label=axis)
        axes.axhline(1 / count, color=FAINT_INK, linewidth=1)
        axes.set_xlabel(f"rank of the log among {count - 1} rollouts")
        axes.set_ylabel("share of agents")
        axes.grid(axis="x", visible=False)
        _legend(axes, 2)

    return _svg(draw)


def budget(runs: Sequence[Run]) -> str | None:
    """Return the expected joint minADE of the best of K rollouts, over K."""
    curves = []
    for at, run in enumerate(runs):
        errors = [row.joint_ade for row in run.rows if row.joint_ade]
        if not errors or len({len(one) for one in errors}) != 1:
            continue
        samples = [2**power for power in range(len(errors[0]).bit_length()) if 2**power <= len(errors[0])]
        samples += [] if samples[-1] == len(errors[0]) else [len(errors[0])]
        curves.append((at, run.name, samples, budget_curve(np.array(errors), samples, np.random.default_rng(0))))
    if not curves:
        return None

    def draw(axes: "Axes") -> None:
        for at, name, samples, curve in curves:
            axes.fill_between(samples, curve[:, 1], curve[:, 2], color=_colour(at), alpha=0.12, linewidth=0)
            axes.plot(samples, curve[:, 0], linewidth=1.4, label=name, **(_style(at) | {"linestyle": "-"}))
        axes.set_xscale("log", base=2)
        ticks = max((samples for _, _, samples, _ in curves), key=len)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("rollouts K")
        axes.set_ylabel("expected joint minADE, m")
        _legend(axes, len(curves))

    return _svg(draw)


def _dots(axes: "Axes", found: Sequence[Any], place: int, count: int, at: int, name: str) -> None:
    """Draw one run's mean and interval in each row that has one; runs of a row lie one above the other."""
    shift = (place - (count - 1) / 2) * 0.8 / max(count, 1)
    has = [(row, mean) for row, mean in enumerate(found) if mean is not None and mean.scenes]
    if not has:
        return
    y = [row + shift for row, _ in has]
    x = np.array([mean.mean for _, mean in has])
    spread = np.array([[mean.mean - mean.low for _, mean in has], [mean.high - mean.mean for _, mean in has]])
    axes.errorbar(x, y, xerr=np.maximum(spread, 0), elinewidth=1, alpha=0.9, label=name, **_style(at))


def _rows(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    for row in range(1, len(names)):
        axes.axhline(row - 0.5, color="#efede7", linewidth=0.8)


def _legend(axes: "Axes", entries: int) -> None:
    columns = min(entries, 3)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, columnspacing=1.2)


def _colour(at: int) -> str:
    return COLOURS[at % len(COLOURS)]


def _style(at: int) -> dict[str, Any]:
    size = 6.5 if at == 0 else 4.5
    return {"color": _colour(at), "marker": MARKERS[at % len(MARKERS)], "markersize": size, "linestyle": "none"}


def _svg(draw: "Callable[[Axes], None]", width: float = 6.2, height: float = 4.0) -> str:
    """Return the drawing as SVG. Text is outlines, so that it looks the same wherever it is opened."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(dict[Any, Any](_SETTINGS)):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
