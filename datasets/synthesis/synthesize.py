"""From a seed to scenes: a town is laid out, filled with traffic, simulated, and recorded by vehicles in it."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from traj_diffusion.datasets.readers.xml_tree import read_tree, root_of
from traj_diffusion.datasets.sources import read_head
from traj_diffusion.datasets.synthesis.demand import draw_demand
from traj_diffusion.datasets.synthesis.layouts import Layout
from traj_diffusion.datasets.synthesis.mixes import LATEST, MIXES
from traj_diffusion.datasets.synthesis.motion import humanise
from traj_diffusion.datasets.synthesis.network import read_network
from traj_diffusion.datasets.synthesis.parking import draw_parked
from traj_diffusion.datasets.synthesis.record import DT, record, with_parked
from traj_diffusion.datasets.synthesis.roadmap import build_map, drivable_area, with_lots
from traj_diffusion.datasets.synthesis.signals import arrows, show_arrows
from traj_diffusion.datasets.synthesis.tools import netconvert
from traj_diffusion.datasets.synthesis.towns import draw_layout
from traj_diffusion.datasets.synthesis.windows import STEPS, cut_scene, find_windows
from traj_diffusion.errors import BadFile, HostError
from traj_diffusion.scene import Scene

SCENES_PER_NETWORK = 12
WARM_UP = 25.0  # s
ROUNDS = 5  # windows in time per run
PAUSE = 5  # steps between windows in time
ATTEMPTS = 5
_OPENDRIVE_OPTIONS = ("--offset.disable-normalization", "--no-turnarounds.except-deadend", "--precision", "3")


def scene_name(seed: int, network: int, window: int) -> str:
    """Return the id of a scene."""
    return f"sumo-{seed}-{network}-{window}"


def synthesize(
    seed: int, first: int = 0, count: int = SCENES_PER_NETWORK, net_file: Path | None = None, mix: int = LATEST
) -> Iterator[Scene]:
    """Yield the simulated scenes numbered `first` to `first + count - 1` of a seed.

    Scene i is window i % SCENES_PER_NETWORK of network i // SCENES_PER_NETWORK, named `sumo-<seed>-<network>-<window>`.
    A network depends on (seed, its number) and the mix of towns alone, so split training from validation by networks:
    windows of one network share its streets and drivers. No agent at one time is in two scenes. One simulation runs
    per process. With `net_file`, a SUMO network or OpenDRIVE map of one's own, all traffic drives there, not on random
    streets.
    Raises MissingExtra without SUMO, BadFile for a network file that cannot be read.
    """
    if seed < 0 or first < 0 or count < 0:
        raise ValueError(f"seed, first and count must not be negative: {seed}, {first}, {count}")
    if mix not in MIXES:
        raise ValueError(f"unknown mix {mix}; known are {', '.join(map(str, MIXES))}")
    last = first + count
    for network in range(first // SCENES_PER_NETWORK, -(-last // SCENES_PER_NETWORK)):
        base = network * SCENES_PER_NETWORK
        wanted = range(max(first - base, 0), min(last - base, SCENES_PER_NETWORK))
        yield from network_scenes(seed, network, wanted, net_file, mix)


def network_scenes(
    seed: int, number: int, wanted: Sequence[int], net_file: Path | None = None, mix: int = LATEST
) -> list[Scene]:
    """Return those windows of one network."""
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, number, attempt])
        try:
            found = _attempt(rng, [seed, number, attempt], wanted, net_file, mix)
        except HostError:
            if attempt + 1 == ATTEMPTS:
                raise
            continue
        if found is not None:
            return found
    raise HostError(f"network {number} of seed {seed}: no {SCENES_PER_NETWORK} windows in {ATTEMPTS} attempts")


def _attempt(
    rng: np.random.Generator, key: list[int], wanted: Sequence[int], net_file: Path | None, mix: int
) -> list[Scene] | None:
    """Return the wanted windows of one simulation, or None if it is too quiet to hold SCENES_PER_NETWORK."""
    # A network of one's own may have room for one ego at a time.
    rounds = ROUNDS if net_file is None else SCENES_PER_NETWORK
    steps = rounds * (STEPS + PAUSE)
    with tempfile.TemporaryDirectory(prefix="traj-diffusion-") as folder:
        if net_file:
            net = _own_network(net_file, Path(folder))
        else:
            net = _build_network(draw_layout(rng, MIXES[mix]), Path(folder))
        network = read_network(net)
        drivable = drivable_area(network)
        parked = draw_parked(rng, network, drivable)
        roads = build_map(network, with_lots(drivable, parked.lots), parked.driveways)
        demand = draw_demand(rng, network, WARM_UP + steps * DT)
        route_file = Path(folder) / "r.rou.xml"
        route_file.write_text(demand.xml(), encoding="utf-8")
        tracks = record(net, route_file, demand, roads, WARM_UP, steps, int(rng.integers(2**31)))
        if MIXES[mix].signals:
            tracks = replace(tracks, lights=show_arrows(tracks.lights, arrows(read_tree(net, "net"), network, roads)))
    tracks = with_parked(humanise(rng, tracks), parked)
    windows = []
    for turn in range(rounds):
        windows += find_windows(rng, tracks, turn * (STEPS + PAUSE), -(-SCENES_PER_NETWORK // ROUNDS) + 1)
    if len(windows) < SCENES_PER_NETWORK:
        return None
    seed, number, _ = key
    return [
        cut_scene(
            # Each window has randomness of its own, so that it is the same whichever others are wanted.
            np.random.default_rng([*key, i]),
            scene_name(seed, number, i),
            windows[i],
            tracks,
            network,
            roads,
            demand.route,
        )
        for i in wanted
    ]


def _own_network(file: Path, folder: Path) -> Path:
    """Return a network file of one's own, or what netconvert makes of an OpenDRIVE map. Raises BadFile.

    Traffic that keeps to the left is refused: netconvert reads rule="LHT" as if it kept to the right.
    """
    opendrive = root_of(read_head(file)) == "OpenDRIVE"
    root = read_tree(file, "OpenDRIVE" if opendrive else "net")
    if root.get("lefthand") in ("true", "1") or any(road.get("rule") == "LHT" for road in root.iter("road")):
        raise BadFile(f"{file}: its traffic keeps to the left; simulated scenes know right-hand traffic only")
    if not opendrive:
        return file
    net = folder / "n.net.xml"
    netconvert(["--opendrive-files", str(file), "-o", str(net), *_OPENDRIVE_OPTIONS])
    return net


def _build_network(layout: Layout, folder: Path) -> Path:
    nodes, edges, joints, net = (folder / name for name in ("n.nod.xml", "e.edg.xml", "c.con.xml", "n.net.xml"))
    nodes.write_text(layout.node_xml(), encoding="utf-8")
    edges.write_text(layout.edge_xml(), encoding="utf-8")
    joints.write_text(layout.connection_xml(), encoding="utf-8")
    netconvert(
        f"-n {nodes} -e {edges} -x {joints} -o {net} --precision 3 --offset.disable-normalization --crossings.guess"
        " --no-turnarounds.except-deadend --junctions.limit-turn-speed 2.2 --junctions.internal-link-detail 20"
        f" --junctions.corner-detail 20 --default.junctions.radius {layout.radius:.2f}".split()
        + layout.signals.options()
    )
    layout.signals.stagger(net)
    return net
