"""Random road layouts, as the plain XML from which SUMO's netconvert builds a network with junctions and signals."""

from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Float64

from traj_diffusion.geometry import rotate

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


@dataclass(frozen=True)
class Layout:
    """Nodes, their junction types, and the roads between them."""

    nodes: Float64[np.ndarray, "V 2"]
    junction: tuple[str, ...]
    roads: tuple[Road, ...]
    lane_width: float
    radius: float

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

    def _edge(self, name: str, road: Road, start: int, end: int, shape: np.ndarray) -> str:
        attributes = {
            "id": name,
            "from": f"n{start}",
            "to": f"n{end}",
            "numLanes": str(road.lanes + road.parking),
            "speed": f"{road.speed:.2f}",
            "width": f"{self.lane_width:.2f}",
            "priority": str(road.lanes),
            "spreadType": "right" if road.two_way else "center",
            "shape": " ".join(f"{x:.3f},{y:.3f}" for x, y in shape),
            "disallow": "pedestrian rail rail_urban rail_electric rail_fast tram ship",
        }
        if road.sidewalk:
            attributes["sidewalkWidth"] = f"{road.sidewalk:.2f}"
        if road.bike_lane:
            attributes["bikeLaneWidth"] = f"{road.bike_lane:.2f}"
        text = " ".join(f"{key}={quoteattr(value)}" for key, value in attributes.items())
        if not road.parking:
            return f"<edge {text}/>"
        return f'<edge {text}><lane index="0" disallow="all" width="{PARKING_WIDTH}"/></edge>'


def draw_layout(rng: np.random.Generator) -> Layout:
    """Return a random town: a perturbed and thinned grid, turned by a random angle."""
    across = int(rng.integers(3, 6))
    block = rng.uniform(90, 170, 2)
    columns, rows = np.meshgrid(np.arange(across), np.arange(across), indexing="ij")
    nodes = np.stack([columns, rows], -1).reshape(-1, 2) * block
    nodes = nodes + rng.uniform(-1, 1, nodes.shape) * rng.uniform(0, 0.2) * block
    pairs = [
        (i, i + step)
        for i in range(across * across)
        for step in (1, across)
        if (step == across and i + across < across * across) or (step == 1 and (i + 1) % across)
    ]
    keep = rng.random(len(pairs)) > rng.uniform(0, 0.25)
    pairs = [pair for pair, kept in zip(pairs, keep, strict=True) if kept]
    # A fringe: roads that lead out of the town, so that traffic comes and goes.
    outward = rng.uniform(60, 120)
    fringe: list[np.ndarray] = []
    for i in range(across * across):
        column, row = divmod(i, across)
        for at, axis in ((column, 0), (row, 1)):
            if at in (0, across - 1) and rng.random() < 0.6:
                shift = np.zeros(2)
                shift[axis] = outward if at else -outward
                pairs.append((i, len(nodes) + len(fringe)))
                fringe.append(nodes[i] + shift + rng.uniform(-10, 10, 2))
    if fringe:
        nodes = np.concatenate([nodes, fringe])
    nodes = rotate(nodes - nodes.mean(0), np.full(len(nodes), rng.uniform(-np.pi, np.pi)))
    return finish(rng, nodes, pairs)


def finish(rng: np.random.Generator, nodes: np.ndarray, pairs: list[tuple[int, int]]) -> Layout:
    """Return the layout of these nodes and roads with lanes, speeds, curves and junction types drawn at random."""
    arterial_share = rng.uniform(0.1, 0.6)
    town_speed = rng.uniform(8, 16)
    sidewalk = rng.uniform(1.6, 3.0) if rng.random() < 0.9 else 0.0
    curved = rng.uniform(0, 0.8)
    parking = rng.uniform(0, 0.8)
    roads = []
    for start, end in pairs:
        arterial = rng.random() < arterial_share
        lanes = int(rng.integers(2, 4)) if arterial else int(rng.random() < 0.15) + 1
        speed = town_speed * rng.uniform(0.8, 1.2) * (1.3 if arterial else 1.0)
        roads.append(
            Road(
                start,
                end,
                curve(rng, nodes[start], nodes[end], bend=rng.random() < curved),
                lanes=lanes,
                speed=float(np.clip(speed, 8, 25)),
                parking=bool(rng.random() < parking * (0.4 if arterial else 1.0)),
                sidewalk=sidewalk,
            )
        )
    degree = np.bincount(np.array(pairs).ravel(), minlength=len(nodes))
    shares = rng.dirichlet([2.0, 1.0, 1.0])
    kinds = np.array(["traffic_light", "priority", "allway_stop"])[rng.choice(3, len(nodes), p=shares)]
    junction = tuple(str(kind) if arms > 2 else "priority" for kind, arms in zip(kinds, degree, strict=True))
    return Layout(nodes, junction, tuple(roads), lane_width=rng.uniform(3.0, 3.8), radius=rng.uniform(5, 12))


def curve(rng: np.random.Generator, start: np.ndarray, end: np.ndarray, bend: bool) -> np.ndarray:
    """Return a road's line: straight, or bent as a half sine of up to 6 % of its length."""
    length = float(np.linalg.norm(end - start))
    if not bend or length < 50:
        return np.stack([start, end])
    along = np.linspace(0, 1, max(int(length / 4), 3))
    direction = (end - start) / length
    normal = np.array([-direction[1], direction[0]])
    amplitude = rng.uniform(-0.06, 0.06) * length
    return start + along[:, None] * (end - start) + amplitude * np.sin(np.pi * along)[:, None] * normal
