"""A SUMO network file as plain Python: its lanes, connections, crossings, junctions and signals."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float64

from traj_diffusion.datasets.readers.xml_tree import read_tree
from traj_diffusion.errors import BadFile


@dataclass(frozen=True)
class NetLane:
    """One lane of the network, of a road or inside a junction."""

    id: str
    edge: str
    index: int
    internal: bool
    shape: Float64[np.ndarray, "P 2"]
    length: float  # as SUMO counts positions along it
    width: float
    speed: float
    cars: bool
    bicycles: bool
    pedestrians: bool

    @property
    def parking(self) -> bool:
        """Whether nobody may drive or walk here: a strip at the kerb."""
        return not (self.cars or self.bicycles or self.pedestrians)


@dataclass(frozen=True)
class Connection:
    """From a lane over a connector inside the junction into the next lane."""

    source: str
    target: str
    via: str | None
    direction: str  # s straight, l left, r right, t turn around, L and R partly
    state: str  # of the right of way: M major, m minor, w all-way stop, s stop, o controlled by a signal off
    signal: tuple[str, int] | None  # id of the traffic light and which character of its state


@dataclass(frozen=True)
class Network:
    """All that the generator needs to know of a network."""

    lanes: dict[str, NetLane]
    edges: dict[str, list[str]]  # edge id -> its lane ids, from the right
    ends: dict[str, tuple[str, str]]  # edge id -> from and to junction
    connections: tuple[Connection, ...]
    crossings: tuple[tuple[str, Float64[np.ndarray, "4 2"]], ...]
    dead_ends: frozenset[str]  # junctions with at most one neighbour
    after: dict[str, list[Connection]] = field(repr=False)  # by source lane
    next_edges: dict[str, list[tuple[str, str]]] = field(repr=False)  # edge -> (edge, direction) that cars can take


def read_network(path: Path) -> Network:
    """Return the network of a .net.xml file, plain or gzip. Raises BadFile."""
    root = read_tree(path, "net")
    try:
        return parse_network(root)
    except (KeyError, ValueError) as error:
        raise BadFile(f"{path}: not a readable SUMO network ({type(error).__name__}: {error})") from error


def parse_network(root: ElementTree.Element) -> Network:
    """Return the network of a parsed document. Raises KeyError or ValueError."""
    lanes: dict[str, NetLane] = {}
    edges: dict[str, list[str]] = {}
    ends: dict[str, tuple[str, str]] = {}
    crossings = []
    neighbours: dict[str, set[str]] = {}
    for edge in root.iter("edge"):
        function = edge.get("function", "normal")
        if function == "crossing":
            crossings += [(lane.attrib["id"], _crosswalk(lane)) for lane in edge.iter("lane")]
        if function not in ("normal", "internal"):
            continue
        name = edge.attrib["id"]
        edges[name] = []
        for element in edge.iter("lane"):
            lane = _lane(element, name, function == "internal")
            lanes[lane.id] = lane
            edges[name].append(lane.id)
        if function == "normal":
            ends[name] = (edge.attrib["from"], edge.attrib["to"])
            for one, other in (ends[name], ends[name][::-1]):
                neighbours.setdefault(one, set()).add(other)
    connections = tuple(_connection(element) for element in root.iter("connection"))
    connections = tuple(c for c in connections if c.source in lanes and c.target in lanes)
    after: dict[str, list[Connection]] = {}
    next_edges: dict[str, list[tuple[str, str]]] = {}
    for connection in connections:
        after.setdefault(connection.source, []).append(connection)
        source, target = lanes[connection.source], lanes[connection.target]
        if source.cars and target.cars and not source.internal and connection.direction not in ("t", "invalid"):
            step = (target.edge, connection.direction)
            if step not in next_edges.setdefault(source.edge, []):
                next_edges[source.edge].append(step)
    return Network(
        lanes=lanes,
        edges=edges,
        ends=ends,
        connections=connections,
        crossings=tuple(crossings),
        dead_ends=frozenset(name for name, others in neighbours.items() if len(others) <= 1),
        after=after,
        next_edges=next_edges,
    )


def _lane(element: ElementTree.Element, edge: str, internal: bool) -> NetLane:
    allow, disallow = element.get("allow"), element.get("disallow")

    def may(kind: str) -> bool:
        if allow is not None:
            return kind in allow.split() or allow == "all"
        return disallow is None or not (kind in disallow.split() or disallow == "all")

    return NetLane(
        id=element.attrib["id"],
        edge=edge,
        index=int(element.attrib["index"]),
        internal=internal,
        shape=_points(element.attrib["shape"]),
        length=float(element.attrib["length"]),
        width=float(element.get("width", 3.2)),
        speed=float(element.attrib["speed"]),
        cars=may("passenger"),
        bicycles=may("bicycle"),
        pedestrians=may("pedestrian") and not may("passenger"),
    )


def _connection(element: ElementTree.Element) -> Connection:
    signal = None if "tl" not in element.attrib else (element.attrib["tl"], int(element.attrib["linkIndex"]))
    return Connection(
        source=f"{element.attrib['from']}_{element.attrib['fromLane']}",
        target=f"{element.attrib['to']}_{element.attrib['toLane']}",
        via=element.get("via"),
        direction=element.get("dir", "s"),
        state=element.get("state", "M"),
        signal=signal,
    )


def _crosswalk(lane: ElementTree.Element) -> np.ndarray:
    """Return the corners of a crossing: its centre line from end to end, as wide as it is."""
    line = _points(lane.attrib["shape"])
    start, end = line[0], line[-1]
    along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-6)
    aside = np.array([-along[1], along[0]]) * float(lane.get("width", 4.0)) / 2
    return np.stack([start - aside, end - aside, end + aside, start + aside])


def _points(text: str) -> np.ndarray:
    points = np.array([[float(value) for value in point.split(",")[:2]] for point in text.split()])
    if len(points) < 2 or not all(math.isfinite(value) for value in points.ravel()):
        raise ValueError(f"a shape has {len(points)} usable points")
    return points
