"""Who drives, cycles and walks in a simulated town: vehicle types, routes and departure times as SUMO's route file."""

from dataclasses import dataclass, field

import numpy as np

from traj_diffusion.datasets.synthesis.network import Network
from traj_diffusion.scene import AgentKind

TYPES = 24  # drivers' characters per town
FEWEST = 8  # vehicles at a time
MOST = 220  # of cars and of walkers at a time
FILL = 10.0  # s within which the town fills up
TURNS = {"s": 0.4, "l": 0.3, "r": 0.3, "L": 0.3, "R": 0.3}


@dataclass
class Demand:
    """The route file's text and what is known of everyone in it."""

    lines: list[str] = field(default_factory=list)
    kind: dict[str, AgentKind] = field(default_factory=dict)
    size: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    route: dict[str, list[str]] = field(default_factory=dict)  # edges, for vehicles and cyclists

    def xml(self) -> str:
        """Return the text of a .rou.xml file."""
        return "<routes>\n" + "\n".join(self.lines) + "\n</routes>\n"


def draw_demand(rng: np.random.Generator, network: Network, until: float) -> Demand:
    """Return random traffic that fills the town at once and keeps flowing until that time [s]."""
    demand = Demand()
    drivable = [e for e in network.ends if any(network.lanes[lane].cars for lane in network.edges[e])]
    cyclable = [
        e for e in drivable if all(network.lanes[x].bicycles for x in network.edges[e] if network.lanes[x].cars)
    ]
    walkable = [e for e in network.ends if any(network.lanes[lane].pedestrians for lane in network.edges[e])]
    length = {e: network.lanes[network.edges[e][0]].length for e in network.ends}
    km = sum(length[e] for e in drivable) / 1000
    density = np.exp(rng.uniform(np.log(8), np.log(70)))  # vehicles per km of directed road
    cars = int(np.clip(density * km, FEWEST, MOST))
    cyclists = int(cars * (rng.uniform(0.05, 0.4) if rng.random() < 0.6 and cyclable else 0.0))
    walkers = int(min(km * np.exp(rng.uniform(np.log(5), np.log(90))), MOST)) if rng.random() < 0.75 else 0
    _types(rng, demand)
    weight = np.array([length[e] for e in drivable])
    weight /= weight.sum()
    rides = [(AgentKind.VEHICLE, t) for t in _departures(rng, cars, until)]
    rides += [(AgentKind.CYCLIST, t) for t in _departures(rng, cyclists, until)]
    trips: list[tuple[float, str]] = []
    for i, (kind, time) in enumerate(rides):
        edge = drivable[rng.choice(len(drivable), p=weight)]
        if kind == AgentKind.CYCLIST and edge not in cyclable:
            continue
        route = _walk(rng, network, edge, rng.uniform(800, 2500), length)
        name = f"{'v' if kind == AgentKind.VEHICLE else 'b'}{i}"
        style = f"car{rng.integers(TYPES)}" if kind == AgentKind.VEHICLE else f"bike{rng.integers(TYPES // 4)}"
        demand.kind[name], demand.route[name], demand.size[name] = kind, route, demand.size[style]
        trips.append(
            (
                time,
                f'<vehicle id="{name}" type="{style}" depart="{time:.1f}" departPos="random_free" departSpeed="avg"'
                f' departLane="best"><route edges="{" ".join(route)}"/></vehicle>',
            )
        )
    for i, time in enumerate(_departures(rng, walkers if walkable else 0, until)):
        start, end = (walkable[int(k)] for k in rng.integers(len(walkable), size=2))
        name, style = f"p{i}", f"walker{rng.integers(TYPES // 2)}"
        demand.kind[name], demand.size[name] = AgentKind.PEDESTRIAN, demand.size[style]
        at = rng.uniform(0, length[start])
        trips.append(
            (
                time,
                f'<person id="{name}" type="{style}" depart="{time:.1f}" departPos="{at:.1f}">'
                f'<walk from="{start}" to="{end}"/></person>',
            )
        )
    demand.lines += [line for _, line in sorted(trips, key=lambda trip: trip[0])]
    return demand


def _departures(rng: np.random.Generator, count: int, until: float) -> list[float]:
    """Return departure times: `count` while the town fills, then as many again every 90 s."""
    later = int(count * max(until - FILL, 0) / 90)
    return [*rng.uniform(0, FILL, count).tolist(), *rng.uniform(FILL, max(until, FILL + 1), later).tolist()]


def _walk(rng: np.random.Generator, network: Network, edge: str, metres: float, length: dict[str, float]) -> list[str]:
    """Return a random route from an edge on: at each junction a turn by TURNS, until it is long enough or ends."""
    route, driven = [edge], length[edge]
    while driven < metres:
        choices = network.next_edges.get(route[-1], [])
        if not choices:
            break
        weight = np.array([TURNS.get(direction, 0.1) for _, direction in choices])
        route.append(choices[rng.choice(len(choices), p=weight / weight.sum())][0])
        driven += length[route[-1]]
    return route


def _types(rng: np.random.Generator, demand: Demand) -> None:
    """Add the characters of drivers, cyclists and walkers. docs/synthesis.md names where each range comes from."""
    for i in range(TYPES):
        truck = i == 0
        length = rng.uniform(7, 11) if truck else np.clip(rng.normal(4.7, 0.45), 3.6, 6.5)
        width = rng.uniform(2.3, 2.55) if truck else np.clip(rng.normal(2.0, 0.15), 1.7, 2.3)
        height = rng.uniform(2.8, 3.8) if truck else rng.uniform(1.4, 2.0)
        demand.size[f"car{i}"] = (float(length), float(width), float(height))
        demand.lines.append(
            f'<vType id="car{i}" vClass="{"truck" if truck else "passenger"}" carFollowModel="EIDM"'
            f' length="{length:.3f}" width="{width:.3f}" tau="{rng.uniform(0.8, 2.4):.3f}"'
            f' accel="{rng.uniform(1.0, 2.8):.3f}" decel="{rng.uniform(1.2, 3.0):.3f}" emergencyDecel="8"'
            f' jerkmax="{rng.uniform(1.5, 5):.3f}" sigmagap="{rng.uniform(0.05, 0.2):.3f}"'
            f' sigmaerror="{rng.uniform(0.02, 0.08):.3f}" speedFactor="normc(1.0,0.15,0.5,1.5)"'
            f' minGap="{rng.uniform(1.5, 3.5):.3f}" latAlignment="{rng.uniform(-0.4, 0.4):.3f}"'
            f' maxSpeedLat="{rng.uniform(0.5, 1.2):.3f}" lcSigma="0.1" lcAccelLat="0.8" lcMaxSpeedLatStanding="0"/>'
        )
    for i in range(TYPES // 4):
        length, width = rng.uniform(1.6, 2.0), rng.uniform(0.6, 0.95)
        demand.size[f"bike{i}"] = (float(length), float(width), float(rng.uniform(1.5, 1.9)))
        demand.lines.append(
            f'<vType id="bike{i}" vClass="bicycle" carFollowModel="EIDM" length="{length:.3f}" width="{width:.3f}"'
            f' maxSpeed="{rng.uniform(3, 8.5):.3f}" tau="{rng.uniform(0.8, 1.8):.3f}"'
            f' accel="{rng.uniform(0.6, 1.4):.3f}"'
            f' decel="{rng.uniform(1, 2.5):.3f}" speedFactor="normc(1,0.2,0.5,1.6)" minGap="1"'
            f' latAlignment="right" maxSpeedLat="0.6" lcSigma="0.1"/>'
        )
    for i in range(TYPES // 2):
        length, width = rng.uniform(0.5, 1.1), rng.uniform(0.5, 1.1)
        demand.size[f"walker{i}"] = (float(length), float(width), float(rng.uniform(1.5, 1.9)))
        demand.lines.append(
            f'<vType id="walker{i}" vClass="pedestrian" length="{length:.3f}" width="{width:.3f}"'
            f' maxSpeed="{max(rng.normal(1.34, 0.26), 0.6):.3f}" speedFactor="normc(1,0.1,0.6,1.5)"/>'
        )
