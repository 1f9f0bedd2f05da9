"""What towns are drawn from. A mix is never changed once scenes of it are known by their seed; a new one is added."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Mix:
    """How often a town is of a kind, and what else its towns have that those of another mix do not."""

    kinds: Mapping[str, float]
    signals: bool = True  # programs are drawn, and arrows shown; else they are as netconvert makes them
    narrowed: bool = False  # a street with sidewalks and a turn lane lacks one of its other lanes, even if it had one


MIXES: Mapping[int, Mix] = MappingProxyType(
    {
        1: Mix({"grid": 0.6, "roundabouts": 0.15, "rings": 0.13, "motorway": 0.12}, signals=False, narrowed=True),
        2: Mix({"grid": 0.45, "irregular": 0.2, "roundabouts": 0.13, "rings": 0.1, "motorway": 0.12}),
    }
)
LATEST = max(MIXES)
