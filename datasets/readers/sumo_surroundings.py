"""What belongs to a SUMO recording and lies beside it: the network with its signals, and the vehicle types."""

import math
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from jaxtyping import Float64, UInt8

from traj_diffusion.datasets.readers.assemble import Report, add
from traj_diffusion.datasets.readers.sumo_net import derived_edges, read_roads, signals
from traj_diffusion.datasets.readers.sumo_samples import Samples
from traj_diffusion.datasets.readers.sumo_vehicles import VehicleTypes
from traj_diffusion.datasets.readers.xml_tree import number, place
from traj_diffusion.datasets.synthesis.network import Network
from traj_diffusion.datasets.synthesis.record import STATES
from traj_diffusion.datasets.synthesis.roadmap import RoadMap
from traj_diffusion.datasets.synthesis.routes import planned_rows
from traj_diffusion.datasets.synthesis.signals import arrows, show_arrows
from traj_diffusion.scene import Csr, Lights, LightState, Map, Origin, Routes


class Surroundings:
    """The map, signals and vehicle types that belong to a recording."""

    def __init__(self, path: Path, samples: Samples) -> None:
        self.report: Report = {}
        net = _beside(path, samples.files.get("net-file", []), ".net.xml", self.report)
        self.root: Element | None = None
        self.network: Network | None = None
        self.roads: RoadMap | None = None
        self.shift = np.zeros(2)
        if net is None:
            add(self.report, "no network beside the recording, read without a map")
        else:
            self.root, self.network, self.roads = read_roads(net, self.report)
            location = self.root.find("location")
            if samples.unshifted and location is not None:
                self.shift = np.array([float(v) for v in location.get("netOffset", "0,0").split(",")[:2]])
        named = [*samples.files.get("route-files", []), *samples.files.get("additional-files", [])]
        found = [file for name in named if (file := _inside(path, name)) is not None]
        routes = None if found else _beside(path, [], ".rou.xml", self.report)
        self.types = VehicleTypes(found or ([routes] if routes is not None else []))
        self.map = Map.empty() if self.roads is None else derived_edges(self.roads)

    def row_at(self, lane: str, distance: float) -> int:
        """Return the row of the map's lane at a distance [m] along one of SUMO's, or -1."""
        if self.roads is None or lane not in self.roads.rows or not math.isfinite(distance):
            return -1
        return self.roads.row_at(lane, distance / self.roads.lengths[lane])

    def lights(self, times: Float64[np.ndarray, " T"], report: Report) -> Lights:
        """Return the signals of the map at times [s]."""
        if self.roads is None or self.root is None or not self.roads.signals:
            return Lights.none(len(times))
        states = light_states(self.root, self.roads, times, report)
        if self.network is not None:
            states = show_arrows(states, arrows(self.root, self.network, self.roads))
        return signals(self.roads, states)

    def routes(self, rows: list[np.ndarray]) -> Routes:
        """Return the lanes that agents drive on in the window; `rows` are those of the map at each step, or -1."""
        lanes: list[list[int]] = [[] for _ in rows]
        if self.network is not None and self.roads is not None:
            lanes = [planned_rows(row, np.zeros(len(row)), [], self.network, self.roads) for row in rows]
        origin = [Origin.DERIVED if found else Origin.ABSENT for found in lanes]
        return Routes(Csr.from_lists(lanes), np.array(origin, np.uint8))


def _inside(path: Path, name: str) -> Path | None:
    """Return the file of that name beside the recording; a header's folders are those of another machine."""
    file = path.parent / Path(name.replace("\\", "/")).name
    return file if name and file.is_file() else None


def _beside(path: Path, named: list[str], ending: str, report: Report) -> Path | None:
    found = [file for name in named if (file := _inside(path, name)) is not None]
    own = path.name.removesuffix(".gz").removesuffix(".xml").removesuffix(".fcd")
    found = found or [file for end in ("", ".gz") if (file := path.with_name(own + ending + end)).is_file()]
    found = found or sorted(path.parent.glob(f"*{ending}")) + sorted(path.parent.glob(f"*{ending}.gz"))
    if len(found) > 1:
        add(report, f"{ending} files beside the recording of which none is named for it, not read", len(found))
    return found[0] if len(found) == 1 else None


def light_states(
    root: Element, roads: RoadMap, times: Float64[np.ndarray, " T"], report: Report
) -> UInt8[np.ndarray, "S T"]:
    """Return what the signals of a map show at times [s] by the network's own programs. Raises ValueError.

    Only programs of type static are known in advance. Of several for one light the last holds, as in SUMO; an offset
    delays a program.
    """
    programs = {element.get("id", ""): element for element in root.iter("tlLogic")}
    found = np.full((len(roads.signals), len(times)), LightState.UNKNOWN, np.uint8)
    shown: dict[str, list[str]] = {}
    for row, signal in enumerate(roads.signals):
        program = programs.get(signal.program)
        if program is None or program.get("type", "static") != "static":
            add(report, "signals whose program reacts to traffic or is not there, states unknown")
            continue
        if signal.program not in shown:
            shown[signal.program] = _shown(program, times)
        for step, states in enumerate(shown[signal.program]):
            state = states[signal.index] if 0 <= signal.index < len(states) else ""
            found[row, step] = STATES.get(state, LightState.UNKNOWN)
    add(report, "signals shown as the network's programs have it", len(shown))
    return found


def _shown(program: Element, times: np.ndarray) -> list[str]:
    """Return the state of a static program at each time."""
    phases = program.findall("phase")
    ends = np.cumsum([number(phase, "duration") for phase in phases])
    if not len(ends) or (np.diff(ends, prepend=0) < 0).any() or ends[-1] <= 0:
        raise ValueError(f"{place(program)} has no phases of positive length")
    at = np.mod(times - number(program, "offset", 0.0) + 1e-6, ends[-1])
    return [phases[min(int(i), len(phases) - 1)].get("state", "") for i in np.searchsorted(ends, at, side="right")]
