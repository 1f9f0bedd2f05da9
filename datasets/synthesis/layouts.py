"""Road layouts as the plain XML from which SUMO's netconvert builds junctions and signals."""

from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Float64

from traj_diffusion.datasets.synthesis.signals import Signals

CLOSED_TO = "pedestrian rail rail_urban rail_electric rail_fast tram ship"
PARKING_WIDTH = 2.4  # m; AASHTO's Green Book gives 2.1-3.0 m for parallel parking


@dataclass(frozen=True)
class Road:
    """A two-way or one-way road between two nodes, its shape included."""

    start: int
    end: int
    shape: Float64[np.ndarray, "P 2"]
    lanes: int
    speed: float
    two_way: bool = True
    parking: bool = False
    sidewalk: float = 0.0
    bike_lane: float = 0.0
    bicycles: bool = True
    turn_lane: float = 0.0  # m before its end at which a lane for left turns begins, in both directions; 0 for none


@dataclass(frozen=True)
class Layout:
    """Nodes, their junction types, and the roads between them."""

    nodes: Float64[np.ndarray, "V 2"]
    junction: tuple[str, ...]
    roads: tuple[Road, ...]
    lane_width: float
    radius: float  # m, of the corners of junctions
    connections: tuple[tuple[int, int, int, int], ...] = ()  # road, road, from lane, to lane, where not to be guessed
    signals: Signals = field(default_factory=Signals)
    narrowed: bool = False  # see Mix

    def node_xml(self) -> str:
        """Return the text of a .nod.xml file."""
        rows = [
            f'<node id="n{i}" x="{x:.3f}" y="{y:.3f}" type="{kind}"/>'
            for i, ((x, y), kind) in enumerate(zip(self.nodes, self.junction, strict=True))
        ]
        return "<nodes>\n" + "\n".join(rows) + "\n</nodes>\n"

    def edge_xml(self) -> str:
        """Return the text of an .edg.xml file."""
        rows = []
        for i, road in enumerate(self.roads):
            rows.append(self._edge(f"r{i}", road, road.start, road.end, road.shape))
            if road.two_way:
                rows.append(self._edge(f"-r{i}", road, road.end, road.start, road.shape[::-1]))
        return "<edges>\n" + "\n".join(rows) + "\n</edges>\n"

    def connection_xml(self) -> str:
        """Return the text of a .con.xml file."""
        rows = [
            f'<connection from="r{one}" to="r{other}" fromLane="{lane}" toLane="{target}"/>'
            for one, other, lane, target in self.connections
        ]
        return "<connections>\n" + "\n".join(rows) + "\n</connections>\n"

    def _edge(self, name: str, road: Road, start: int, end: int, shape: np.ndarray) -> str:
        attributes = {
            "id": name,
            "from": f"n{start}",
            "to": f"n{end}",
            "numLanes": str(road.lanes + road.parking + (road.turn_lane > 0)),
            "speed": f"{road.speed:.2f}",
            "width": f"{self.lane_width:.2f}",
            "priority": str(road.lanes),
            "spreadType": "right" if road.two_way else "center",
            "shape": " ".join(f"{x:.3f},{y:.3f}" for x, y in shape),
            "disallow": CLOSED_TO + ("" if road.bicycles else " bicycle"),
        }
        if road.sidewalk:
            attributes["sidewalkWidth"] = f"{road.sidewalk:.2f}"
        if road.bike_lane:
            attributes["bikeLaneWidth"] = f"{road.bike_lane:.2f}"
        text = " ".join(f"{key}={quoteattr(value)}" for key, value in attributes.items())
        inner = ""
        if road.parking:
            inner += f'<lane index="0" disallow="all" width="{PARKING_WIDTH}"/>'
        if road.turn_lane:
            # A sidewalk is the first lane.
            through = road.lanes + (road.sidewalk > 0 and not self.narrowed)
            for at, lanes in (("0", through), (f"-{road.turn_lane:.1f}", through + 1)):
                inner += f'<split pos="{at}" lanes="{" ".join(map(str, range(lanes)))}"/>'
        return f"<edge {text}>{inner}</edge>"
