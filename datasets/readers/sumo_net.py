"""A SUMO network (.net.xml) as a map without agents: a scene of one step.

The map is the one that simulated scenes get: lanes for cars and bicycles cut into pieces, links, painted lines, road
edges from the lanes' outlines, crossings, signals with their stop points, stop signs. Positions stay in the network's
own frame, whatever its <location> says. Lost: heights, rails, walkways, rights of way, roundabouts.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import shapely

from traj_diffusion.datasets.readers.assemble import MAX_POINTS, Report, add
from traj_diffusion.datasets.readers.opendrive import nobody
from traj_diffusion.datasets.readers.xml_tree import read_tree, root_of, said
from traj_diffusion.datasets.synthesis.network import Network, parse_network
from traj_diffusion.datasets.synthesis.roadmap import SPACING, RoadMap, build_map, drivable_area
from traj_diffusion.errors import BadFile, BadRecord, BadScene
from traj_diffusion.geometry import arc_length
from traj_diffusion.scene import Lights, LightState, Map, MapKind, Origin, Routes, Scene, check_scene
from traj_diffusion.scene.invariants import MAX_COORDINATE

NAME = "SUMO network"
PATTERNS = ("*.net.xml", "*.net.xml.gz")
MAX_WIDTH = 100.0  # m, of one lane


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is XML whose root is <net>."""
    return root_of(head) == "net"


def read(path: Path) -> Iterator[Scene]:
    """Yield the map as a scene of one step without agents. Raises BadFile, or BadRecord where the network is broken."""
    report: Report = {}
    _, _, roads = read_roads(Path(path), report)
    count = len(roads.signals)
    try:
        yield check_scene(
            Scene(
                id=stem(Path(path), ".net.xml"),
                source="sumo",
                dt=0.1,
                current_index=0,
                ego=None,
                agents=nobody(1),
                map=derived_edges(roads),
                lights=signals(roads, np.full((count, 1), LightState.UNKNOWN, np.uint8)),
                routes=Routes.absent(0),
                report=tuple(report.items()),
            )
        )
    except BadScene as error:
        raise BadRecord(f"{path}, record 0: {error}") from error


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def read_roads(path: Path, report: Report) -> tuple[Element, Network, RoadMap]:
    """Return the document of a network file, its network, and the map of that. Raises BadFile or BadRecord."""
    root = read_tree(path, "net")
    try:
        network = parse_network(root)
        _check(network)
        roads = build_map(network, drivable_area(network)) if any(_mapped(network)) else _no_roads()
    except (LookupError, ValueError, OverflowError, shapely.errors.ShapelyError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadRecord(f"{path}, record 0: {said(error)}") from error
    add(report, "heights of the network, dropped", int(_has_heights(root)))
    return root, network, roads


def signals(roads: RoadMap, state: np.ndarray) -> Lights:
    """Return the signals of a map with their states [S, T]."""
    count, steps = state.shape
    stop = np.array([[*signal.stop_point, 0.0] for signal in roads.signals]).reshape(count, 1, 3)
    return Lights(
        lane_id=np.array([roads.features.id[signal.row] for signal in roads.signals], np.int64),
        stop_point=np.repeat(stop, steps, 1),
        state=state,
        observed=np.ones((count, steps), bool),
    )


def derived_edges(roads: RoadMap) -> Map:
    """Return the map of a network file, whose road edges are made from its lanes."""
    features = roads.features
    return replace(features, edge_origin=Origin.DERIVED if len(features.rows(MapKind.ROAD_EDGE)) else Origin.ABSENT)


def stem(path: Path, ending: str) -> str:
    """Return a file's name without its ending and .gz."""
    return path.name.removesuffix(".gz").removesuffix(ending).removesuffix(".xml")


def _mapped(network: Network) -> Iterator[bool]:
    return (lane.cars or lane.bicycles for lane in network.lanes.values())


def _no_roads() -> RoadMap:
    return RoadMap(Map.empty(), {}, {}, {}, (), shapely.Polygon())


def _check(network: Network) -> None:
    """Raise ValueError where lanes are too long, wide or far away to make a map of."""
    points = 0.0
    for lane in network.lanes.values():
        if not (0 < lane.width <= MAX_WIDTH and 0 <= lane.speed < 1e4 and 0 <= lane.length < 1e7):
            raise ValueError(f"lane {lane.id!r} is {lane.width} m wide and {lane.length} m long, {lane.speed} m/s fast")
        if not (np.abs(lane.shape) <= MAX_COORDINATE).all():
            raise ValueError(f"lane {lane.id!r} reaches beyond {MAX_COORDINATE:.0e} m")
        points += float(arc_length(lane.shape)[-1]) / SPACING
    if 3 * points > MAX_POINTS:
        raise ValueError(f"its lanes are {points * SPACING / 1000:,.0f} km long, too much for one scene")


def _has_heights(root: Element) -> bool:
    return any(lane.get("shape", "").split(" ", 1)[0].count(",") == 2 for lane in root.iterfind("edge/lane"))
