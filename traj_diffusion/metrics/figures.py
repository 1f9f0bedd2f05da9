"""What a metric hands back: a sum and a count for each name, or the reason why there is none."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from traj_diffusion.scene import AgentKind


@dataclass(frozen=True)
class Tally:
    """A metric over `count` things (agents, pairs, or the scene as one) that sums up to `total`."""

    total: float
    count: int

    @property
    def value(self) -> float:
        """The mean over what was counted."""
        return self.total / self.count

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.total + other.total, self.count + other.count)


@dataclass(frozen=True)
class Absent:
    """A metric that cannot be had here, and why. It enters no mean; in particular it is not a zero."""

    reason: str


Figure = Tally | Absent
Figures = dict[str, Figure]


def tally(values: Float64[np.ndarray, "*shape"], counted: Bool[np.ndarray, "*shape"], otherwise: str) -> Figure:
    """Return sum and count of the counted values; Absent with the reason `otherwise` where none is counted."""
    count = int(counted.sum())
    if count == 0:
        return Absent(otherwise)
    total = float(values[counted].sum())
    return Tally(total, count) if math.isfinite(total) else Absent("the value is not finite")


def by_kind(
    name: str,
    flag: Bool[np.ndarray, "R A"],
    counted: Bool[np.ndarray, "R A"],
    kind: UInt8[np.ndarray, " A"],
    otherwise: str = "no agent to count",
) -> Figures:
    """Return the share of flagged (run, agent) pairs under `name`, and per kind under `name/vehicle` and so on."""
    values = flag.astype(np.float64)
    found: Figures = {name: tally(values, counted, otherwise)}
    for one in AgentKind:
        reason = f"no {one.name.lower()} among the counted agents"
        found[f"{name}/{one.name.lower()}"] = tally(values, counted & (kind == one), reason)
    return found


def absent(names: Iterable[str], reason: str) -> Figures:
    """Return every name as absent for one reason."""
    return {name: Absent(reason) for name in names}


def with_kinds(name: str) -> list[str]:
    """Return the names that `by_kind` gives."""
    return [name, *(f"{name}/{kind.name.lower()}" for kind in AgentKind)]
