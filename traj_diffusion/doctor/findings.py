"""What a check hands back: a verdict with its figure, its thresholds, one line of finding and one of remedy."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Series:
    """Lines over one axis, for the page and for whoever reads the JSON."""

    title: str
    x_label: str
    x: tuple[float, ...]
    lines: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Finding:
    """One check's outcome. `warn` and `fail` are the thresholds of `figure`; larger is worse where warn < fail."""

    check: str
    verdict: Verdict
    finding: str
    remedy: str = ""
    figure: float | None = None
    warn: float | None = None
    fail: float | None = None
    series: tuple[Series, ...] = ()

    @property
    def alarm(self) -> bool:
        """Whether somebody should look."""
        return self.verdict in (Verdict.WARN, Verdict.FAIL)

    def to_row(self) -> dict[str, Any]:
        """Return it as JSON can hold it; figures that are not finite become null."""
        return _finite(asdict(self))


class NotApplicable(Exception):
    """A check has nothing to look at; the message says why."""


def judged(
    check: str, figure: float, warn: float, fail: float, finding: str, remedy: str, series: tuple[Series, ...] = ()
) -> Finding:
    """Return the finding of a figure against its thresholds. A figure that is not a number fails."""
    worse = 1 if fail >= warn else -1
    if math.isnan(figure) or worse * figure > worse * fail:
        verdict = Verdict.FAIL
    elif worse * figure > worse * warn:
        verdict = Verdict.WARN
    else:
        verdict = Verdict.OK
    return Finding(
        check,
        verdict,
        finding,
        "" if verdict is Verdict.OK else remedy,
        float(figure),
        float(warn),
        float(fail),
        series,
    )


def factor(ratio: float) -> float:
    """Return how many times a ratio is off from 1, in either direction."""
    return max(ratio, 1 / ratio) if ratio > 0 else math.inf


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
