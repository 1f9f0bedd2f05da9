"""How the signals of a town run: whether left turns have phases of their own, how long a cycle is, when each begins."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from jaxtyping import Bool, UInt8

from traj_diffusion.datasets.synthesis.network import Network
from traj_diffusion.datasets.synthesis.roadmap import RoadMap
from traj_diffusion.scene import LightState


class LeftTurns(StrEnum):
    """How the signals of a town treat left turns."""

    YIELD = "yield"  # to oncoming traffic, in its green
    BOTH = "both"  # yield first; where a lane turns left alone, a phase of their own follows
    PROTECTED = "protected"  # only in a phase of their own, shown by arrows, wherever lanes turn left alone
    SPLIT = "split"  # each approach has its green alone


OPTIONS = {
    LeftTurns.YIELD: "--tls.left-green.time 0",
    LeftTurns.BOTH: "",
    LeftTurns.PROTECTED: "--tls.minor-left.max-speed 0",
    LeftTurns.SPLIT: "--tls.layout incoming",
}
ARROWS = {
    LightState.STOP: LightState.ARROW_STOP,
    LightState.CAUTION: LightState.ARROW_CAUTION,
    LightState.GO: LightState.ARROW_GO,
}


@dataclass(frozen=True)
class Signals:
    """The programs of a town's signals; as it stands here, what netconvert makes unless told otherwise."""

    left: LeftTurns = LeftTurns.BOTH
    cycle: int | None = None  # s
    left_green: int | None = None  # s
    spread: int | None = None  # seed of the moments in the cycle at which signals begin; None: all at its start

    def options(self) -> list[str]:
        """Return netconvert's options for them."""
        found = OPTIONS[self.left].split()
        if self.cycle is not None:
            found += ["--tls.cycle.time", str(self.cycle)]
        if self.left_green is not None and self.left != LeftTurns.YIELD:
            found += ["--tls.left-green.time", str(self.left_green)]
        return found

    def stagger(self, net: Path) -> None:
        """Set the signals of a network file off against each other, for netconvert begins all cycles at once."""
        if self.spread is not None:
            rng = np.random.default_rng(self.spread)
            text = re.sub(
                r'(<tlLogic [^>]*offset=")[^"]*',
                lambda found: found[1] + str(rng.integers(120)),
                net.read_text("utf-8"),
            )
            net.write_text(text, "utf-8")


def draw_signals(rng: np.random.Generator) -> Signals:
    """Return random programs. Cycles of 60-120 s and greens of 8-15 s for left turns are those of signal manuals."""
    left = list(LeftTurns)[int(rng.choice(4, p=[0.2, 0.35, 0.3, 0.15]))]
    return Signals(left, int(rng.integers(60, 121)), int(rng.integers(8, 16)), int(rng.integers(2**31)))


def arrows(net: Element, network: Network, roads: RoadMap) -> Bool[np.ndarray, " S"]:
    """Return which signals of a map are arrows: of lanes that only turn left, and need not yield while it is green.

    `net` is the document of the network's file, which holds the programs.
    """
    yields = {
        (logic.get("id", ""), index)
        for logic in net.iter("tlLogic")
        for phase in logic.iter("phase")
        for index, state in enumerate(phase.get("state", ""))
        if state == "g"
    }
    alone = {
        connection.via
        for connection in network.connections
        if connection.signal is not None
        and connection.signal not in yields
        and all(other.direction in ("l", "L", "t") for other in network.after[connection.source])
    }
    return np.array([roads.lane_of[signal.row] in alone for signal in roads.signals], bool)


def show_arrows(lights: UInt8[np.ndarray, "S T"], arrow: Bool[np.ndarray, " S"]) -> UInt8[np.ndarray, "S T"]:
    """Return the states with those of the arrows as such."""
    shown = lights.copy()
    for state, as_arrow in ARROWS.items():
        shown[arrow[:, None] & (lights == state)] = as_arrow
    return shown
