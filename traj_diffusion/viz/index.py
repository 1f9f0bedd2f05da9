"""A page that links the pictures and players of many scenes, with their scores."""

import html
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from traj_diffusion.scene.archive import atomic_path
from traj_diffusion.viz.page import asset, content_policy, fill


@dataclass(frozen=True)
class Entry:
    """One scene of an index: where its picture and its player lie, and its scores by name."""

    id: str
    picture: Path | None = None
    player: Path | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


def write_index(folder: Path | str, entries: Sequence[Entry]) -> Path:
    """Write `index.html` into the folder and return its path.

    It has a table of all scores, in the order in which their names first appear, and a gallery. Links are relative,
    so that the folder can be moved; a picture or player outside the folder is linked by its way from there.
    """
    folder = Path(folder)
    names = list(dict.fromkeys(name for entry in entries for name in entry.scores))
    style = asset("index.css")
    page = fill(
        asset("index.html"),
        {
            "policy": html.escape(content_policy(style, None)),
            "style": style,
            "count": f"{len(entries)} scene{'' if len(entries) == 1 else 's'}",
            "table": _table(folder, entries, names) if names else "",
            "cards": "\n".join(_card(folder, entry) for entry in entries),
        },
    )
    path = folder / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", "replace"))
    return path


def _table(folder: Path, entries: Sequence[Entry], names: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    rows = [
        f'<tr><th scope="row">{_linked(folder, entry)}</th>'
        + "".join(f"<td>{_number(entry.scores.get(name, math.nan))}</td>" for name in names)
        + "</tr>"
        for entry in entries
    ]
    columns = [[e.scores[n] for e in entries if n in e.scores and math.isfinite(e.scores[n])] for n in names]
    means = "".join(f"<td>{_number(sum(c) / len(c) if c else math.nan)}</td>" for c in columns)
    return (
        f'<div class="wide"><table><thead><tr><th scope="col">scene</th>{head}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody><tfoot><tr><th scope="row">mean</th>{means}</tr></tfoot></table></div>'
    )


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"


def _card(folder: Path, entry: Entry) -> str:
    name = html.escape(entry.id)
    picture = ""
    if entry.picture is not None:
        picture = f'<img src="{_link(folder, entry.picture)}" alt="Scene {name}" loading="lazy">'
        target = entry.player if entry.player is not None else entry.picture
        picture = f'<a href="{_link(folder, target)}">{picture}</a>'
    return f"<figure>{picture}<figcaption>{_linked(folder, entry)}</figcaption></figure>"


def _linked(folder: Path, entry: Entry) -> str:
    name = html.escape(entry.id)
    target = entry.player if entry.player is not None else entry.picture
    return name if target is None else f'<a href="{_link(folder, target)}">{name}</a>'


def _link(folder: Path, target: Path) -> str:
    # A leading ./ keeps a name such as `javascript:x` a name.
    relative = os.path.relpath(target, folder).replace(os.sep, "/")
    return html.escape("./" + quote(relative))
