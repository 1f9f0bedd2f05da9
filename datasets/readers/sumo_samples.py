"""The stream of SUMO's floating car data: states as they come, kept until a window has used them up."""

import math
import re
from array import array

import numpy as np

from traj_diffusion.datasets.readers.assemble import WINDOW
from traj_diffusion.datasets.readers.steps import DT

MAX_SAMPLES = 2_000_000  # of one window and its neighbours
MAX_NAMES = 1_000_000
MAX_TIME = 1e8  # s
LONGEST_STEP = 2.0  # s; straight lines between states that lie further apart would be made up
FIELDS = ("x", "y", "angle", "speed", "pos")


class Samples:
    """What the stream has brought so far and no window has used up."""

    def __init__(self) -> None:
        self.origin: float | None = None
        self.times: list[float] = []
        self.files: dict[str, list[str]] = {}
        self.geographic = self.unshifted = False
        self.rows: dict[tuple[str, str], int] = {}
        self.names: list[tuple[str, str]] = []  # element and id of each row
        self.types: list[str] = []
        self.lane_rows: dict[str, int] = {"": 0}
        self.lanes = [""]
        self.who, self.lane, self.time = array("q"), array("q"), array("d")
        self.values = {name: array("d") for name in FIELDS}

    def comment(self, text: str) -> None:
        """Note the files and frame that SUMO's header names; it stands before the first timestep."""
        if self.origin is not None:
            return
        for key, value in re.findall(r'<(net-file|route-files|additional-files) value="([^"]*)"', text):
            self.files.setdefault(key, []).extend(re.split(r"[,\s]+", value))
        self.geographic |= re.search(r'<fcd-output\.geo value="(true|1)"', text) is not None
        self.unshifted |= re.search(r'<fcd-output\.utm value="(true|1)"', text) is not None
        if self.geographic:
            raise ValueError("positions are longitude and latitude; write them without --fcd-output.geo")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Take up one element. Raises ValueError."""
        if name == "timestep":
            now = seconds(attributes["time"])
            if self.times and now <= self.times[-1]:
                raise ValueError(f"timestep {now} s follows {self.times[-1]} s")
            self.origin = now if self.origin is None else self.origin
            self.times.append(now)
            return
        if name not in ("vehicle", "person", "container") or attributes.get("vehicle"):
            return  # whoever rides in a vehicle is nobody of their own
        if not self.times:
            raise ValueError(f"a <{name}> outside of any timestep")
        if "angle" not in attributes or "x" not in attributes or "y" not in attributes:
            raise ValueError(f"a <{name}> without x, y or angle; --fcd-output.attributes must keep these")
        key = (name, attributes["id"])
        row = self.rows.setdefault(key, len(self.rows))
        if row == len(self.types):
            self.names.append(key)
            self.types.append(attributes.get("type", ""))
        if len(self.who) >= MAX_SAMPLES or row >= MAX_NAMES:
            raise ValueError(f"over {MAX_SAMPLES:,} states in one window, or {MAX_NAMES:,} agents, too many to read")
        self.who.append(row)
        self.time.append(self.times[-1])
        lane = attributes.get("lane", "")
        if lane not in self.lane_rows:
            self.lane_rows[lane] = len(self.lanes)
            self.lanes.append(lane)
        self.lane.append(self.lane_rows[lane])
        for field, values in self.values.items():
            values.append(float(attributes.get(field, "nan")))

    def complete(self, window: int, ended: bool) -> bool:
        """Return whether all states of a window have come; those of the latest timestep may still be on their way."""
        known = self.times if ended else self.times[:-1]
        return bool(known) and known[-1] >= self._start_of(window) + (WINDOW - 1) * DT - 1e-6

    def step(self) -> float:
        """Return the usual time between timesteps [s]."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else DT

    def drop(self, window: int) -> int:
        """Forget what no window from that one on needs; return the number of the first that has something."""
        start = self._start_of(window) - LONGEST_STEP
        kept = int(np.searchsorted(np.array(self.time), start))
        for values in (self.who, self.lane, self.time, *self.values.values()):
            del values[:kept]  # type: ignore[attr-defined]
        self.times = [time for time in self.times if time >= start] or self.times[-1:]
        following = self.time[0] if len(self.time) else self.times[-1]
        return int((following - self._start_of(0)) / (WINDOW * DT))

    def steps_from(self, window: int) -> int:
        """Return how many steps of 0.1 s there are from the start of a window to the end."""
        return max(math.floor((self.times[-1] - self._start_of(window)) / DT + 1e-6) + 1, 0)

    def grid(self, window: int, steps: int) -> np.ndarray:
        """Return the times of a window's steps, multiples of 0.1 s from the first timestep on."""
        return np.round((self.origin or 0.0) + (window * WINDOW + np.arange(steps)) * DT, 6)

    def _start_of(self, window: int) -> float:
        return (self.origin or 0.0) + window * WINDOW * DT


def seconds(text: str) -> float:
    """Return a time as SUMO writes it: seconds, or [days:]hours:minutes:seconds. Raises ValueError."""
    parts = [float(part) for part in text.split(":")]
    factors = [1.0, 60.0, 3600.0, 86400.0][: len(parts)]
    total = sum(part * factor for part, factor in zip(reversed(parts), factors, strict=True))
    if not abs(total) <= MAX_TIME:
        raise ValueError(f"time {text[:40]!r} is no number of seconds up to {MAX_TIME:.0e}")
    return total
