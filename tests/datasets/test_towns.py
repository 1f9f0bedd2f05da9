"""Towns: streets that follow no plan, and signals with phases of their own for left turns."""

import itertools
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely

pytest.importorskip("libsumo")

from traj_diffusion.datasets import read_file
from traj_diffusion.datasets.synthesis import synthesize
from traj_diffusion.datasets.synthesis.coverage import ARROWS
from traj_diffusion.datasets.synthesis.layouts import Layout
from traj_diffusion.datasets.synthesis.mixes import LATEST, MIXES
from traj_diffusion.datasets.synthesis.network import Network, read_network
from traj_diffusion.datasets.synthesis.plans import NEAREST, SHARPEST, irregular
from traj_diffusion.datasets.synthesis.roadmap import build_map, drivable_area
from traj_diffusion.datasets.synthesis.signals import LeftTurns, Signals, arrows, draw_signals, show_arrows
from traj_diffusion.datasets.synthesis.tools import require_libsumo
from traj_diffusion.datasets.synthesis.towns import draw_layout, streets
from traj_diffusion.geometry import wrap_angle
from traj_diffusion.scene import LightState
from traj_diffusion.sim_adapter.hosts.sumo_view import SumoView

build_network = import_module("traj_diffusion.datasets.synthesis.synthesize")._build_network


def turned_left_on_its_own(net: Path) -> list[str]:
    """Return the states, through the cycle, of each left turn from a lane that only turns left."""
    network = read_network(net)
    programs = {
        logic.attrib["id"]: [phase.attrib["state"] for phase in logic.iter("phase")]
        for logic in ElementTree.parse(net).getroot().iter("tlLogic")
    }
    return [
        "".join(phase[connection.signal[1]] for phase in programs[connection.signal[0]])
        for connection in network.connections
        if connection.signal is not None
        and all(other.direction in ("l", "t") for other in network.after[connection.source])
    ]


def cross(signals: Signals, sidewalk: float = 2.0) -> Layout:
    """Return a junction of four streets of 150 m, one lane each way, with a signal."""
    nodes = 150.0 * np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]])
    made = streets(np.random.default_rng(1), nodes, [(0, 1), (0, 2), (0, 3), (0, 4)], signals)
    roads = tuple(
        replace(road, lanes=1, sidewalk=sidewalk, parking=False, bike_lane=0.0, speed=12.0) for road in made.roads
    )
    return replace(made, junction=("traffic_light", *["priority"] * 4), roads=roads, lane_width=3.2, radius=6.0)


# Streets without a plan


@pytest.mark.parametrize("seed", range(12))
def test_irregular_streets_hang_together_and_neither_cross_nor_meet_sharply(seed: int) -> None:
    nodes, pairs = irregular(np.random.default_rng(seed))
    again, same = irregular(np.random.default_rng(seed))
    assert (nodes == again).all()
    assert pairs == same
    lines = [shapely.linestrings(nodes[[start, end]]) for start, end in pairs]
    assert not any(shapely.crosses(one, other) for one, other in itertools.combinations(lines, 2))
    reached = {0}
    for _ in nodes:
        reached |= {node for pair in pairs if reached & set(pair) for node in pair}
    assert reached == set(range(len(nodes)))
    # Those that lead out of town are the last ones, from a town's hull outwards.
    inner = len(nodes) - sum(1 for _, end in pairs if sum(end in pair for pair in pairs) == 1 and end > 0)
    apart = np.linalg.norm(nodes[:inner, None] - nodes[None, :inner], axis=-1)[np.triu_indices(inner, 1)]
    assert (apart > NEAREST).all()
    for node in range(inner):
        ways = [nodes[end if start == node else start] - nodes[node] for start, end in pairs if node in (start, end)]
        ways = [way for way in ways if np.linalg.norm(way) > 0]
        headings = [np.arctan2(way[1], way[0]) for way in ways[:-1]]
        for one, other in itertools.combinations(headings, 2):
            assert abs(wrap_angle(one - other)) > SHARPEST - 1e-9


def test_irregular_towns_have_junctions_of_all_sizes_and_dead_ends() -> None:
    found: set[int] = set()
    for seed in range(12):
        nodes, pairs = irregular(np.random.default_rng(seed))
        assert len(nodes) > 10
        found |= set(np.bincount(np.array(pairs).ravel(), minlength=len(nodes)).tolist())
    assert {1, 2, 3, 4, 5} <= found


# Signals


def test_each_way_of_turning_left_is_in_the_program(tmp_path: Path) -> None:
    seen = {}
    for left in LeftTurns:
        (tmp_path / left).mkdir()
        layout = cross(Signals(left, 90, 10, 5))
        if left != LeftTurns.PROTECTED:  # which brings lanes for left turns along
            layout = replace(layout, roads=tuple(replace(road, turn_lane=60.0) for road in layout.roads))
        seen[left] = turned_left_on_its_own(build_network(layout, tmp_path / left))
        assert len(seen[left]) == 4
    assert all(set(states) == set("gyr") for states in seen[LeftTurns.YIELD])
    assert all(set(states) == set("gGyr") for states in seen[LeftTurns.BOTH])
    assert all(set(states) == set("Gyr") for states in seen[LeftTurns.PROTECTED])
    # With an approach alone in its green they still yield to who walks across, but never two of them go at once.
    together = {
        left: max(sum(state in "gG" for state in now) for now in zip(*seen[left], strict=True)) for left in seen
    }
    assert together == {LeftTurns.YIELD: 2, LeftTurns.BOTH: 2, LeftTurns.PROTECTED: 2, LeftTurns.SPLIT: 1}


def test_a_protected_turn_has_an_arrow_and_is_green_only_while_oncoming_traffic_waits(tmp_path: Path) -> None:
    net = build_network(cross(Signals(LeftTurns.PROTECTED, 90, 10, 5)), tmp_path)
    network = read_network(net)
    roads = build_map(network, drivable_area(network))
    arrow = arrows(ElementTree.parse(net).getroot(), network, roads)
    direction = {c.signal: c.direction for c in network.connections if c.signal is not None}
    assert [direction[signal.program, signal.index] for signal in roads.signals] == [
        "l" if one else direction[signal.program, signal.index]
        for signal, one in zip(roads.signals, arrow, strict=True)
    ]
    assert arrow.sum() == 4
    straight = [signal.index for signal in roads.signals if direction[signal.program, signal.index] == "s"]
    left = [signal.index for signal, one in zip(roads.signals, arrow, strict=True) if one]
    phases = [phase.attrib["state"] for phase in ElementTree.parse(net).getroot().iter("phase")]
    green = [phase for phase in phases if any(phase[i] == "G" for i in left)]
    assert green
    assert all(phase[i] == "r" for phase in green for i in straight)


def test_a_running_simulation_and_its_recording_show_the_same_arrows(tmp_path: Path) -> None:
    net = build_network(cross(Signals(LeftTurns.PROTECTED, 90, 10, 5)), tmp_path)
    way = next(
        (c.source.rpartition("_")[0], c.target.rpartition("_")[0])
        for c in read_network(net).connections
        if c.signal is not None and c.direction == "s"
    )
    run, libsumo = tmp_path / "run.fcd.xml", require_libsumo()
    libsumo.start(f"sumo -n {net} --step-length 0.1 --fcd-output {run} --no-step-log --no-warnings".split())
    try:
        libsumo.route.add("way", list(way))
        libsumo.vehicle.add("car", "way")
        view, told = SumoView(libsumo, net), []
        for _ in range(91):
            libsumo.simulationStep()
            told.append(view.light_states())
    finally:
        libsumo.close()
    shown = np.stack(told, 1)
    assert np.isin(shown, ARROWS).any(1).sum() == 4
    assert LightState.GO in shown
    (scene,) = read_file(run)
    assert np.array_equal(scene.lights.lane_id, view.light_lane)
    assert np.array_equal(scene.lights.state, shown)


def test_arrows_are_shown_where_signals_are_arrows() -> None:
    lights = np.array([[LightState.STOP, LightState.GO, LightState.CAUTION, LightState.UNKNOWN]] * 2, np.uint8)
    shown = show_arrows(lights, np.array([False, True]))
    assert shown[0].tolist() == lights[0].tolist()
    assert shown[1].tolist() == [
        LightState.ARROW_STOP,
        LightState.ARROW_GO,
        LightState.ARROW_CAUTION,
        LightState.UNKNOWN,
    ]


def test_signals_of_a_town_begin_at_moments_of_their_own(tmp_path: Path) -> None:
    layout = draw_layout(np.random.default_rng(3), replace(MIXES[LATEST], kinds={"grid": 1.0}))
    layout = replace(layout, junction=("traffic_light",) * len(layout.junction))
    net = build_network(layout, tmp_path)
    offsets = [logic.attrib["offset"] for logic in ElementTree.parse(net).getroot().iter("tlLogic")]
    assert len(offsets) > 4
    assert len(set(offsets)) > 3
    build_network(replace(layout, signals=replace(layout.signals, spread=None)), tmp_path)
    assert {logic.attrib["offset"] for logic in ElementTree.parse(net).getroot().iter("tlLogic")} == {"0"}


def test_signals_are_drawn_from_all_kinds() -> None:
    drawn = [draw_signals(np.random.default_rng(seed)) for seed in range(60)]
    assert {signals.left for signals in drawn} == set(LeftTurns)
    assert len({signals.cycle for signals in drawn}) > 20


def lanes_for_cars(network: Network) -> dict[str, int]:
    return {edge: sum(network.lanes[lane].cars for lane in network.edges[edge]) for edge in network.ends}


def test_a_turn_lane_comes_on_top_of_the_others_beside_sidewalks_too(tmp_path: Path) -> None:
    for sidewalk in (0.0, 2.0):
        layout = cross(Signals(LeftTurns.PROTECTED), sidewalk)
        lanes = lanes_for_cars(read_network(build_network(layout, tmp_path)))
        assert sorted(lanes.values()) == [1] * 8 + [2] * 8
    lanes = lanes_for_cars(read_network(build_network(replace(layout, narrowed=True), tmp_path)))
    assert 0 in lanes.values()  # what the scenes of the first mix are known with


def test_an_unknown_mix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown mix 9; known are 1, 2"):
        next(synthesize(1, mix=9))
