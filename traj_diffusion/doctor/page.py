"""A report as one HTML page that needs nothing else: the verdicts, the plots, and what noise does to a real future."""

import base64
import html
import io
from pathlib import Path

import torch
from torch import Tensor

from traj_diffusion.doctor.adapt import load_data
from traj_diffusion.doctor.findings import Finding, Series
from traj_diffusion.doctor.registry import Report
from traj_diffusion.doctor.report import closing, limits
from traj_diffusion.doctor.subject import Subject, drive
from traj_diffusion.model import TrafficDiffusion
from traj_diffusion.model.config import ModelConfig
from traj_diffusion.scene.archive import atomic_path
from traj_diffusion.training.batch import Batch, make_batch
from traj_diffusion.training.config import TrainConfig

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: .35rem .6rem;
border-bottom: 1px solid #dde3ea; } code { font-size: .92em; } .ok { color: #1f7a4d; } .warn { color: #a86400; }
.fail { color: #b3261e; font-weight: 700; } .skipped { color: #77838f; } .remedy { color: #4b5966; }
figure { margin: 1.5rem 0; } img { max-width: 100%; } small { white-space: nowrap; }
figcaption { font-size: .92em; } .plots { display: grid; gap: 0 1.5rem;
grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); }
@media (max-width: 30rem) { .plots { display: block; } table { font-size: .85em; } }
@media (prefers-color-scheme: dark) { body { background: #14181d; color: #dfe5ec; } td, th { border-color: #2c343d; }
.ok { color: #58c08c; } .warn { color: #e6a94a; } .fail { color: #ff7b70; } .remedy, .skipped { color: #97a3af; }
img { background: #fff; } }
"""


def write_page(path: Path, report: Report, subject: Subject) -> None:
    """Write the page; plots are inside it as PNG, so that it opens without a network."""
    rows = "\n".join(_row(finding) for finding in report.findings)
    noised = _figure(
        _noised_picture(subject),
        "A recorded future (orange), and where 12 draws of it lead with little, some and much noise (grey)",
    )
    plots = "".join(
        _figure(_plot(series), f"{finding.check}: {series.title}")
        for finding in report.findings
        for series in finding.series
    )
    alarms = ", ".join(f'<a href="#{name}"><code>{name}</code></a>' for name in report.alarms())
    title = html.escape(f"Doctor: {report.subject}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><meta name="viewport" '
        f'content="width=device-width"><style>{_STYLE}</style></head><body><h1>{title}</h1>'
        f"<p>{html.escape(closing(report))}{'. Look at ' + alarms if alarms else ''}</p>"
        "<table><thead><tr><th>verdict</th><th>check</th><th>finding</th><th>figure</th></tr></thead>"
        f'<tbody>{rows}</tbody></table>{noised}<div class="plots">{plots}</div></body></html>\n'
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _row(finding: Finding) -> str:
    remedy = f'<div class="remedy">{html.escape(finding.remedy)}</div>' if finding.remedy else ""
    shown = [html.escape(part) for part in limits(finding).split(", ")]
    figure = "" if finding.figure is None else f"{finding.figure:.3g}<br><small>{'<br>'.join(shown)}</small>"
    verdict = finding.verdict.value
    return (
        f'<tr id="{finding.check}"><td class="{verdict}">{verdict}</td><td><code>{finding.check}</code></td>'
        f"<td>{html.escape(finding.finding)}{remedy}</td><td>{figure}</td></tr>"
    )


def _figure(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _plot(series: Series) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.8), layout="constrained")
    axes = figure.add_subplot()
    for name, values in series.lines.items():
        axes.plot(series.x, values, label=name, marker="o" if len(series.x) < 12 else None, markersize=3)
    axes.set_xlabel(series.x_label)
    if "sigma / alpha" in series.x_label:
        axes.set_xscale("log")
        axes.set_xticks(series.x, [f"{value:g}" for value in series.x])
        axes.minorticks_off()
    axes.grid(alpha=0.3)
    if len(series.lines) > 1:
        axes.legend(fontsize=8)
    return _png(figure)


def _noised_picture(subject: Subject) -> bytes:
    """Draw where a recorded vehicle's actions lead when noise of a low, a medium and a high level is added to them."""
    from matplotlib.figure import Figure

    batch, row, agent = _turning_vehicle(subject)
    normaliser = TrafficDiffusion(ModelConfig(width=8, n_heads=1, memory_heads=1, encoder_layers=0, denoiser_layers=0))
    normalise, denormalise = subject.normalise or normaliser.normalise, subject.denormalise or normaliser.denormalise
    kind = batch.conditioning.kind
    x0 = normalise(batch.action[:, :, None], kind).expand(-1, -1, 12, -1, -1).contiguous()
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for place, share in enumerate((0.15, 0.5, 0.9)):
        time = share * float(subject.schedule.t_max)
        t = torch.full((len(x0),), round(time) if subject.schedule.discrete else time)
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(place))
        x_t = subject.add_noise(x0, eps, t)
        axes = figure.add_subplot(1, 3, place + 1)
        _draw(axes, drive(denormalise(x_t, kind), batch).position[row, agent], "#8a94a0")
        _draw(axes, batch.position[row, agent][None], "#c2410c")
        alpha, sigma = float(subject.schedule.alpha(t[:1])), float(subject.schedule.sigma(t[:1]))
        axes.set_title(f"t = {t[0].item():g}: alpha {alpha:.2f}, sigma {sigma:.2f}", fontsize=10)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("m ahead")
        if place == 0:
            axes.set_ylabel("m to the left")
    return _png(figure)


def _draw(axes: object, position: Tensor, colour: str) -> None:
    for track in position.numpy():
        axes.plot(track[:, 0], track[:, 1], color=colour, linewidth=1)  # type: ignore[attr-defined]


def _turning_vehicle(subject: Subject) -> tuple[Batch, int, int]:
    """Return data, and the row and agent of it whose record turns most on its way."""
    batch = subject.batch
    if batch is None:
        batch = make_batch(load_data("bundled")[0], TrainConfig(), None)
    went = (batch.position.norm(dim=-1) * batch.valid).amax(-1)
    turned = (batch.heading.abs().clamp(max=2) * batch.valid).amax(-1)
    score = torch.where(batch.valid.all(-1), went.clamp(max=30) * (0.2 + turned), -1.0)
    row, agent = divmod(int(score.argmax()), score.shape[1])
    return batch, row, agent


def _png(figure: object) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)  # type: ignore[attr-defined]
    return stream.getvalue()
