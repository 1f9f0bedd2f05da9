"""The report card: one self-contained page on realism, diversity, displacement, safety, coverage and sample budget.

It is made from rows at no cost, loads nothing, and its Content-Security-Policy forbids it to.
"""

import base64
import hashlib
import html
from collections.abc import Sequence
from pathlib import Path

from traj_diffusion import __version__
from traj_diffusion.errors import BadInput
from traj_diffusion.evaluation import report_plots as plots
from traj_diffusion.evaluation.rows import Run, load_run
from traj_diffusion.evaluation.tables import WOSAC_FIELDS, captions, main_name, metric_summary, rows_of, wosac_summary
from traj_diffusion.scene import atomic_path

_STYLE = """
.lead { margin: 0 0 20px; color: var(--faint); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); gap: 20px; }
.plots figure { background: #fff; color: #20262e; }
figcaption b { display: block; }
tr.part th { padding-left: 30px; color: var(--faint); }
th[scope=row] { text-align: left; }
h2 { margin: 24px 0 10px; font-size: 17px; }
@media print { .plots { grid-template-columns: 1fr 1fr; } }
"""


def report_card(files: Sequence[Path], out: Path, title: str = "Report card") -> Path:
    """Write the report card of rows that evaluations left behind, and return its path.

    The first file is the one that the page is about, the others stand beside it. Raises BadInput where a file holds no
    rows, or where the files are not of the same scenes: means over different scenes do not compare.
    """
    return write_report([load_run(file) for file in files], out, title)


def write_report(runs: Sequence[Run], out: Path, title: str = "Report card") -> Path:
    """Write the report card of runs, the first one being the one it is about. See `report_card`."""
    check_comparable(runs)
    from traj_diffusion.viz.page import asset, fill

    style = asset("index.css") + _STYLE
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    figures = "\n".join(_figure(*figure) for figure in _figures(runs))
    page = fill(
        _PAGE,
        {
            "policy": f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'",
            "title": html.escape(title),
            "style": style,
            "lead": "<br>".join(html.escape(line) for line in [*captions(runs), f"traj-diffusion {__version__}"]),
            "table": _table(runs),
            "figures": figures,
        },
    )
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise BadInput unless there is a run, each has rows, names differ, and all are of the same scenes."""
    if not runs:
        raise BadInput("no rows to report on; give at least one file of rows")
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"two files hold rows of {twice}; give each once")
    first = {row.scene_id for row in runs[0].rows}
    for run in runs:
        found = {row.scene_id for row in run.rows}
        if not found:
            raise BadInput(f"{run.name}: no finished row")
        if found != first:
            odd = sorted(found ^ first)
            raise BadInput(
                f"{run.name} and {runs[0].name} differ in {len(odd)} scenes, {odd[0]} for one; their means would not "
                "compare: finish both evaluations over the same scenes"
            )


def _figures(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Return title, explanation and SVG of each plot that the rows have something for."""
    first = runs[0].name
    found = [
        (
            "Realism against diversity",
            "Up and to the right is better than either alone: a model can buy diversity with realism. The log's own "
            "replay shows how high realism goes with one future.",
            plots.pareto(runs),
        ),
        (
            "Likelihood of each component",
            "What the realism meta-metric is made of; the weight stands beside each name.",
            plots.likelihoods(runs),
        ),
        (
            "Displacement",
            "Error of the best joint rollout, over all steps up to each horizon. Spraying futures lowers it.",
            plots.displacement(runs),
        ),
        (
            "Safety beside the log",
            "Share of evaluated agents, in all rollouts. The line is the recording itself: its boxes overlap at times, "
            "and its cars cut corners.",
            plots.safety(runs),
        ),
        (
            "Does the spread fit?",
            "Share of logs inside the central 50 and 90 % of the rollouts at 8 s. On the diagonal the spread is right; "
            "below it the rollouts are too sure or biased, above it too unsure.",
            plots.coverage(runs),
        ),
        (
            f"Rank of the log among the rollouts of {first}",
            "Flat if log and rollouts are alike, U-shaped if the rollouts are too sure, a hump if too unsure.",
            plots.ranks(runs[0]),
        ),
        (
            "What a sample is worth",
            "Expected error of the best of K rollouts, exact over all choices of K; bands are 95 % over scenes.",
            plots.budget(runs),
        ),
    ]
    return [(title, text, svg) for title, text, svg in found if svg is not None]


def _figure(title: str, text: str, svg: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return (
        f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{html.escape(title)}">'
        f"<figcaption><b>{html.escape(title)}</b>{html.escape(text)}</figcaption></figure>"
    )


def _table(runs: Sequence[Run]) -> str:
    official, others = [wosac_summary(run) for run in runs], [metric_summary(run) for run in runs]
    head = "".join(f'<th scope="col">{html.escape(run.name)}</th>' for run in runs)
    lines = []
    for field, title in WOSAC_FIELDS.items():
        means = [None if one is None else one.fields[field] for one in official]
        cells = [_cell(mean.mean, mean.low, mean.high) if mean and mean.scenes else "–" for mean in means]
        lines.append((title, cells))
    for pattern, title in rows_of(runs).items():
        found = [one.means.get(main_name(pattern, run)) for run, one in zip(runs, others, strict=True)]
        lines.append((title, [_cell(mean.mean, mean.low, mean.high) if mean else "–" for mean in found]))
    rows = "".join(
        f'<tr{" class=part" if title.startswith(" ") else ""}><th scope="row">{html.escape(title.strip())}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for title, cells in lines
    )
    head = f'<thead><tr><th scope="col">mean [95 %]</th>{head}</tr></thead>'
    return f'<div class="wide"><table>{head}<tbody>{rows}</tbody></table></div>'


def _cell(mean: float, low: float, high: float) -> str:
    return f"{mean:.3f} <small>[{low:.3f}, {high:.3f}]</small>"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{policy}}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{title}}</title>
<style>{{style}}</style>
</head>
<body>
<h1>{{title}}</h1>
<p class="lead">{{lead}}</p>
<div class="plots">
{{figures}}
</div>
<h2>All figures</h2>
{{table}}
</body>
</html>
"""
