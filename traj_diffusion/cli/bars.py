"""Progress of long work."""

import itertools
import sys
from typing import Any

import click


def progress_bar(length: int | None, label: str) -> Any:
    """Return a progress bar on stderr, where that is a terminal; of unknown length it only counts."""
    endless = itertools.count() if length is None else None
    return click.progressbar(endless, length, label, hidden=not sys.stderr.isatty(), show_pos=True, file=sys.stderr)
