"""Simulated scenes: the same from the same seed, true to the network, and nothing out of order in them."""

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

pytest.importorskip("libsumo")

from traj_diffusion.datasets.synthesis import SCENES_PER_NETWORK, coverage, synthesize, write_scenes
from traj_diffusion.datasets.synthesis.coverage import distance_off_road, jumps, merges, overlapping, yields
from traj_diffusion.datasets.synthesis.demand import Demand
from traj_diffusion.datasets.synthesis.motion import coloured, retrack, smooth
from traj_diffusion.datasets.synthesis.network import read_network
from traj_diffusion.datasets.synthesis.record import Tracks, record
from traj_diffusion.datasets.synthesis.roadmap import build_map, drivable_area, evenly, offset, road_edges
from traj_diffusion.datasets.synthesis.sensing import add_noise, lose_tracks
from traj_diffusion.datasets.synthesis.tools import netconvert, require_libsumo
from traj_diffusion.datasets.synthesis.windows import find_windows
from traj_diffusion.errors import BadFile
from traj_diffusion.scene import (
    AgentKind,
    Csr,
    LightState,
    MapKind,
    Origin,
    Routes,
    Scene,
    check_scene,
    load_scene,
    save_scene,
)
from traj_diffusion.testing.foreign_xml import opendrive_xml

SEED = 9116  # its first town follows no plan, and its signals have arrows for left turns


RED = (LightState.STOP, LightState.ARROW_STOP)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return list(synthesize(SEED, 0, 2 * SCENES_PER_NETWORK))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A road of 100 m east along y = 0, two lanes of 3.5 m each way, the far one's middle at y = -5.25."""
    folder = tmp_path_factory.mktemp("net")
    (folder / "n.nod.xml").write_text('<nodes><node id="a" x="0" y="0"/><node id="b" x="100" y="0"/></nodes>')
    edge = '<edge id="{}" from="{}" to="{}" numLanes="2" speed="13.5" width="3.5"/>'
    (folder / "e.edg.xml").write_text(f"<edges>{edge.format('e', 'a', 'b')}{edge.format('-e', 'b', 'a')}</edges>")
    netconvert(["-n", str(folder / "n.nod.xml"), "-e", str(folder / "e.edg.xml"), "-o", str(folder / "s.net.xml"),
                "--no-turnarounds"])  # fmt: skip
    return folder / "s.net.xml"


def bits(scene: Scene, folder: Path) -> str:
    return hashlib.sha256(save_scene(scene, folder / "one.npz").read_bytes()).hexdigest()


def test_a_scene_is_the_same_whichever_others_are_made(scenes: list[Scene], tmp_path: Path) -> None:
    (alone,) = synthesize(SEED, SCENES_PER_NETWORK + 3, 1)
    assert alone.id == f"sumo-{SEED}-1-3"
    assert bits(alone, tmp_path) == bits(scenes[SCENES_PER_NETWORK + 3], tmp_path)


def test_scenes_differ(scenes: list[Scene]) -> None:
    first = {scene.agents.position[scene.ego or 0, 0].tobytes() for scene in scenes}
    assert len(first) == len(scenes)


def test_every_scene_keeps_the_invariants_and_the_shape_of_a_womd_record(scenes: list[Scene]) -> None:
    for scene in scenes:
        check_scene(scene)
        assert (scene.steps, scene.current_index, scene.dt, scene.source) == (91, 10, 0.1, "sumo")
        assert scene.ego is not None
        assert scene.agents.valid[scene.ego].all()
        assert len(scene.map.rows(MapKind.LANE)) > 0
        assert len(scene.map.rows(MapKind.ROAD_EDGE)) > 0
        for row in scene.map.rows(MapKind.LANE):
            spacing = np.linalg.norm(np.diff(scene.map.polyline(int(row)), axis=0), axis=1)
            assert spacing.max() <= 0.5 + 2e-3


def test_nothing_is_out_of_order(scenes: list[Scene]) -> None:
    report = coverage(scenes)
    assert report["out_of_order"] == {"overlapping": 0, "jumps": 0, "off_road": 0}
    assert report["scenes"] == len(scenes)
    assert report["agents"] > 10 * len(scenes)


@pytest.mark.slow
def test_ten_towns_hold_no_overlap_no_teleport_and_nobody_off_the_road() -> None:
    more = list(synthesize(4000, 0, 10 * SCENES_PER_NETWORK))
    report = coverage(more)
    assert report["scenes"] == len(more)
    assert report["out_of_order"] == {"overlapping": 0, "jumps": 0, "off_road": 0}
    assert all(report[what] for what in ("stopping", "starting", "merges", "yields", "signalled"))
    assert min(report["turns"].values()) > 10
    assert len({scene.agents.position.tobytes() for scene in more}) == len(more)


def test_windows_at_the_same_time_share_nobody(rng: np.random.Generator) -> None:
    # Cars all over a square of 600 m, each driving to another place of it.
    count, steps = 150, 120
    ends = rng.uniform(0, 600, (2, count, 1, 2))
    share = np.linspace(0, 1, steps)[:, None]
    tracks = Tracks(
        name=tuple(f"v{i}" for i in range(count)),
        kind=np.full(count, AgentKind.VEHICLE, np.uint8),
        size=np.full((count, 3), 2.0),
        centre=ends[0] * (1 - share) + ends[1] * share,
        heading=np.zeros((count, steps)),
        speed=np.ones((count, steps)),
        valid=np.ones((count, steps), bool),
        row=np.zeros((count, steps), np.int64),
        passed=np.zeros((count, steps), np.int64),
        lights=np.zeros((0, steps), np.uint8),
    )
    windows = find_windows(rng, tracks, 5, 4)
    assert len(windows) > 1
    everyone = np.concatenate([window.agents for window in windows])
    assert len(np.unique(everyone)) == len(everyone)
    for window in windows:
        now = tracks.centre[:, 5 + 10]
        near = np.flatnonzero(np.linalg.norm(now - now[window.ego], axis=1) < 80)
        assert window.ego in window.agents
        assert set(near) <= set(window.agents)


def test_vehicles_drive_along_their_headings(scenes: list[Scene]) -> None:
    for scene in scenes:
        agents = scene.agents
        speed = np.linalg.norm(agents.velocity, axis=-1)
        for row in np.flatnonzero(agents.kind == AgentKind.VEHICLE):
            steps = np.flatnonzero(agents.valid[row, 2:] & agents.valid[row, :-2] & (speed[row, 1:-1] > 4)) + 1
            went = agents.position[row, steps + 1, :2] - agents.position[row, steps - 1, :2]
            slip = np.arctan2(went[:, 1], went[:, 0]) - agents.heading[row, steps]
            # In a turn the centre slips by asin(0.3 length / radius), for the rear axle follows the path.
            assert not len(steps) or np.median(np.abs(np.angle(np.exp(1j * slip)))) < 0.2
            # Positions and velocities tell the same speed.
            assert np.allclose(np.linalg.norm(went, axis=1).sum() / 0.2, speed[row, steps].sum(), rtol=0.1, atol=3)


def test_routes_are_linked_and_hold_the_way_driven(scenes: list[Scene]) -> None:
    far = total = unlinked = steps = 0
    for scene in scenes:
        links, agents = scene.map.links, scene.agents
        for row in range(len(agents)):
            lanes = scene.routes.lanes[row].tolist()
            for one, other in itertools.pairwise(lanes):
                steps += 1
                unlinked += not any(other in way[one] for way in (links.successors, links.left, links.right))
            seen = np.flatnonzero(agents.valid[row])
            if not lanes or agents.kind[row] != AgentKind.VEHICLE:
                continue
            way = shapely.union_all([shapely.linestrings(scene.map.polyline(lane)[:, :2]) for lane in lanes])
            start = shapely.distance(way, shapely.points(agents.position[row, seen[0], :2]))
            total += 1
            far += start > 3.5
    assert steps > 100
    assert unlinked == 0
    assert far <= 0.02 * total


def test_a_straight_road_becomes_the_map_that_paper_says(straight: Path) -> None:
    network = read_network(straight)
    roads = build_map(network, drivable_area(network))
    lane = np.concatenate([roads.features.polyline(row) for row in roads.rows["e_0"]])
    assert lane[0, 0] == pytest.approx(0, abs=0.01)
    assert lane[-1, 0] == pytest.approx(100, abs=0.01)
    assert np.allclose(lane[:, 1], -5.25, atol=0.01)
    first, second, third = roads.rows["e_0"]
    assert roads.features.links.successors[first].tolist() == [second]
    assert roads.features.links.predecessors[third].tolist() == [second]
    assert roads.features.links.left[first].tolist() == [roads.rows["e_1"][0]]
    assert roads.features.links.right[roads.rows["e_1"][0]].tolist() == [first]
    assert np.allclose(roads.features.speed_limit[first], 13.5)
    kinds = roads.features.kind
    # Two dividers of broken white and one middle line, in three pieces each.
    assert (kinds == MapKind.ROAD_LINE).sum() == 9
    assert roads.row_at("e_0", 0.5) == second


def test_drivable_ground_lies_left_of_road_edges_and_ends_stay_open(straight: Path) -> None:
    network = read_network(straight)
    lines = road_edges(drivable_area(network), network)
    assert len(lines) == 2
    for line in lines:
        east = line[-1, 0] > line[0, 0]
        assert np.allclose(line[:, 1], -7.3 if east else 7.3, atol=0.01)


def test_what_is_recorded_is_what_sumo_says_of_each(straight: Path, tmp_path: Path) -> None:
    network = read_network(straight)
    roads = build_map(network, drivable_area(network))
    demand = Demand(
        lines=[
            '<vType id="car" length="5"/><vType id="long" length="9"/>',
            '<vehicle id="a" type="car" depart="0" departLane="1"><route edges="e"/></vehicle>',
            '<vehicle id="b" type="long" depart="1.5" departSpeed="10"><route edges="-e"/></vehicle>',
            '<person id="p" depart="2"><walk edges="e" departPos="3" arrivalPos="90"/></person>',
        ],
        kind={"a": AgentKind.VEHICLE, "b": AgentKind.VEHICLE, "p": AgentKind.PEDESTRIAN},
        size={"a": (5.0, 2.0, 1.5), "b": (9.0, 2.5, 3.0), "p": (0.6, 0.6, 1.7)},
    )
    routes = tmp_path / "r.rou.xml"
    routes.write_text(demand.xml())
    tracks = record(straight, routes, demand, roads, 1.0, 60, 4)
    assert tracks.name == ("a", "b", "p")
    libsumo = require_libsumo()
    libsumo.start(
        f"sumo -n {straight} -r {routes} --step-length 0.1 --lateral-resolution 0.8 --seed 4 --no-step-log true"
        " --no-warnings true --duration-log.disable true --time-to-teleport -1 --collision.action none".split()
    )
    libsumo.simulationStep(1.0)
    for step in range(60):
        libsumo.simulationStep()
        for row, name in enumerate(tracks.name):
            domain = libsumo.person if name == "p" else libsumo.vehicle
            assert tracks.valid[row, step] == (name in domain.getIDList())
            if not tracks.valid[row, step]:
                assert tracks.row[row, step] == -1
                continue
            heading = np.pi / 2 - np.deg2rad(domain.getAngle(name))
            back = 0.0 if name == "p" else tracks.size[row, 0] / 2
            front = tracks.centre[row, step] + back * np.array([np.cos(heading), np.sin(heading)])
            assert np.allclose(front, domain.getPosition(name), rtol=0, atol=1e-9)
            assert (tracks.heading[row, step], tracks.speed[row, step]) == (heading, domain.getSpeed(name))
            if name != "p":
                lane = domain.getLaneID(name)
                assert tracks.row[row, step] == roads.row_at(lane, domain.getLanePosition(name) / roads.lengths[lane])
                assert tracks.passed[row, step] == domain.getRouteIndex(name)
    libsumo.close()
    assert len(set(tracks.row[0]) - {-1}) == 3
    assert tracks.valid[2].sum() > 35


def test_cars_turn_left_on_an_arrow_while_others_wait(scenes: list[Scene]) -> None:
    waits = turns = 0
    for scene in scenes[:SCENES_PER_NETWORK]:
        lights, agents = scene.lights, scene.agents
        lane_row = {int(number): row for row, number in enumerate(scene.map.id)}
        for row, lane_id in enumerate(lights.lane_id):
            if not np.isin(lights.state[row], (LightState.ARROW_STOP, LightState.ARROW_GO)).any():
                continue
            same = np.linalg.norm(lights.stop_point[:, 0, :2] - lights.stop_point[row, 0, :2], axis=1) < 15
            stopped = lights.state[row] == LightState.ARROW_STOP
            waits += int((stopped & (lights.state[same] == LightState.GO).any(0)).any())
            for agent in np.flatnonzero(agents.kind == AgentKind.VEHICLE):
                if lane_row[int(lane_id)] not in scene.routes.lanes[int(agent)]:
                    continue
                seen = agents.valid[agent] & (lights.state[row] == LightState.ARROW_GO)
                lane = shapely.linestrings(scene.map.polyline(lane_row[int(lane_id)])[:, :2])
                on = shapely.distance(lane, shapely.points(agents.position[agent, :, :2])) < 1.0
                turns += bool((seen & on).any())
    assert waits > 2
    assert turns > 0
    assert coverage(scenes[:SCENES_PER_NETWORK])["arrows"] > 2


def test_cars_stop_at_red_lights(scenes: list[Scene]) -> None:
    crossed = stopped = 0
    for scene in scenes:
        agents, lights = scene.agents, scene.lights
        vehicles = np.flatnonzero(agents.kind == AgentKind.VEHICLE)
        front = agents.position[..., :2] + 0.5 * agents.size[..., :1] * np.stack(
            [np.cos(agents.heading), np.sin(agents.heading)], -1
        )
        for row, lane_id in enumerate(lights.lane_id):
            lane = scene.map.polyline(int(np.flatnonzero(scene.map.id == lane_id)[0]))[:, :2]
            along = (lane[1] - lane[0]) / np.linalg.norm(lane[1] - lane[0])
            offset_xy = front[vehicles] - lane[0]
            ahead = offset_xy @ along
            aside = np.abs(offset_xy @ np.array([-along[1], along[0]]))
            red = np.isin(lights.state[row], RED)
            valid = agents.valid[vehicles]
            aligned = np.cos(agents.heading[vehicles] - np.arctan2(along[1], along[0])) > 0.9
            on_lane = valid & aligned & (aside < 1.0)
            passes = on_lane[:, :-1] & on_lane[:, 1:] & (ahead[:, :-1] < 0) & (ahead[:, 1:] >= 0)
            # Red for a second already, on every connector that starts here.
            same = np.linalg.norm(lights.stop_point[:, 0, :2] - lane[0], axis=1) < 0.5
            all_red = np.isin(lights.state[same], RED).all(0)
            long_red = np.array([step >= 10 and all_red[step - 10 : step + 2].all() for step in range(scene.steps - 1)])
            crossed += int((passes & long_red).sum())
            speed = np.linalg.norm(agents.velocity[vehicles], axis=-1)
            waits = on_lane & (ahead < 0) & (ahead > -6) & (speed < 0.2) & red
            stopped += int(waits.any(1).sum())
    assert stopped > 5
    assert crossed == 0


def test_a_light_stands_where_its_lane_begins(scenes: list[Scene]) -> None:
    count = 0
    for scene in scenes:
        for row, lane_id in enumerate(scene.lights.lane_id):
            lane = scene.map.polyline(int(np.flatnonzero(scene.map.id == lane_id)[0]))
            assert np.allclose(lane[0], scene.lights.stop_point[row, 0], atol=2e-3)
            count += 1
    assert count


def test_files_are_the_same_for_any_number_of_workers_and_runs_resume(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    one = write_scenes(tmp_path / "one", 10, SEED + 1, workers=1, progress=lambda done, of: told.append((done, of)))
    assert told[0] == (0, 10)
    assert told[-1] == (10, 10)
    two = write_scenes(tmp_path / "two", 4, SEED + 1, workers=1, first=6)
    before = [path.stat().st_mtime_ns for path in two]
    two = write_scenes(tmp_path / "two", 10, SEED + 1, workers=2)
    assert [path.stat().st_mtime_ns for path in two[6:]] == before
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert load_scene(one[0]).id == f"sumo-{SEED + 1}-0-0"


def test_a_map_of_left_hand_traffic_is_refused(straight: Path, tmp_path: Path) -> None:
    net = tmp_path / "left.net.xml"
    net.write_text(straight.read_text().replace("<net ", '<net lefthand="true" ', 1))
    road = tmp_path / "left.xodr"
    road.write_text(opendrive_xml())  # one of its roads has rule="LHT"
    for path in (net, road):
        with pytest.raises(BadFile, match="keeps to the left") as caught:
            list(synthesize(1, 0, 1, net_file=path))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.data
@pytest.mark.slow
def test_traffic_drives_on_every_map_of_ones_own(shared: Path) -> None:
    maps = sorted([*(shared / "data").rglob("*.net.xml"), *(shared / "data").rglob("*.xodr")])
    assert len(maps) == 12
    for path in maps:
        if path.name == "e6mini-lht.xodr":
            continue
        report = coverage(synthesize(1, 0, 2, net_file=path))
        assert report["scenes"] == 2, path
        assert report["agents"] > 2, path
        assert report["out_of_order"] == {"overlapping": 0, "jumps": 0, "off_road": 0}, path


@pytest.mark.data
def test_traffic_drives_on_a_map_of_ones_own(shared: Path) -> None:
    (scene,) = synthesize(1, 0, 1, net_file=shared / "data" / "opendrive" / "fabriksgatan.xodr")
    assert len(scene.sim_agents) > 0


@pytest.mark.parametrize("text", ["", "<net", "<other/>", '<!DOCTYPE a [<!ENTITY b "c">]><net/>'])
def test_a_broken_network_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.net.xml").write_text(text)
    with pytest.raises(BadFile, match=r"bad\.net\.xml") as caught:
        read_network(tmp_path / "bad.net.xml")
    assert "\n" not in str(caught.value)


def test_smoothing_keeps_straight_lines_and_coloured_noise_has_unit_variance(rng: np.random.Generator) -> None:
    line = 3.0 + 0.7 * np.arange(50.0)
    assert np.allclose(smooth(line, 4.0), line)
    noise = coloured(rng, 200_000, 3.0)
    assert noise.std() == pytest.approx(1, abs=0.02)
    # A Gaussian window of sd s has the autocorrelation exp(-d^2 / 4 s^2).
    assert np.mean(noise[3:] * noise[:-3]) == pytest.approx(np.exp(-0.25), abs=0.02)


def test_a_car_driven_again_keeps_to_its_road(rng: np.random.Generator) -> None:
    # A quarter circle of 20 m at 6 m/s: yaw rate 0.3 rad/s.
    angle = 0.3 * 0.1 * np.arange(50)
    centre = 20 * np.stack([np.cos(angle), np.sin(angle)], -1)
    done = retrack(rng, AgentKind.VEHICLE, 4.5, centre, angle + np.pi / 2)
    assert done is not None
    moved, heading, speed = done
    assert np.abs(np.linalg.norm(moved, axis=1) - 20).max() < 1.5
    assert np.diff(heading[5:-5]).mean() / 0.1 == pytest.approx(0.3, rel=0.15)
    assert speed.mean() == pytest.approx(6, rel=0.1)


def test_what_stands_is_frozen_and_the_ego_is_nearly_exact(rng: np.random.Generator) -> None:
    kind = np.array([AgentKind.VEHICLE] * 3, np.uint8)
    centre, heading = np.zeros((3, 91, 2)), np.zeros((3, 91))
    measured, turned = add_noise(rng, kind, centre, heading, np.full((3, 91), 5.0), np.array([False, True, False]), 0)
    assert np.abs(measured[0]).max() < 0.01
    assert not measured[1].any()
    assert not turned[1].any()
    assert measured[2].std() > 0.002


def test_the_ego_is_never_lost_and_far_agents_are_lost_first(rng: np.random.Generator) -> None:
    distance = np.repeat(np.array([0.0] + [10.0] * 300 + [80.0] * 300)[:, None], 91, 1)
    seen = lose_tracks(rng, np.ones((601, 91), bool), distance, 0.1, 0, 10)
    assert seen[0].all()
    assert seen[1:301, 90].mean() > seen[301:, 90].mean() + 0.1


def test_checks_notice_what_they_look_for() -> None:
    from traj_diffusion.testing.scenes import straight_road

    road = straight_road(speeds=(10.0, 10.0), gap=3.0)
    assert overlapping(road, 10).tolist() == [True, True]
    assert not overlapping(straight_road(gap=30.0), 10).any()
    assert distance_off_road(road, np.array([0, 1]), 10) == pytest.approx([-4, -4])
    road.agents.position[0, 50:, 1] += 6
    assert np.flatnonzero(jumps(road)[0]).tolist() == [49]
    assert distance_off_road(road, np.array([0]), 60)[0] == pytest.approx(2)


def test_merges_and_yields_on_paper() -> None:
    # Two lanes of 50 m meet at the origin. The first two cars come from one each, 2 s apart; the third, 6 s later, from
    # the first. The second one stops on its way.
    time = np.arange(91) * 0.1
    even = -20 + 8 * (time - 0.0)
    waits = np.cumsum(np.where((time > 1) & (time < 3), 0.2, 6.0)) * 0.1 - 20
    tracks = [
        np.stack([even, 0 * time], -1),
        np.stack([0.8 * waits, 0.6 * np.minimum(waits, 0)], -1),
        np.stack([even - 55, 0 * time], -1),
    ]
    made = Scene.from_arrays(
        tracks,
        dt=0.1,
        ego=0,
        map_lines=[[[-50, 0], [0, 0]], [[-40, -30], [0, 0]], [[0, 0], [100, 0]]],
        lane_links=[(0, 2), (1, 2)],
        light_lanes=[2],
        light_stops=[[0, 0]],
        light_states=[["go"] * 91],
    )
    routes = Routes(Csr.from_lists([[0, 2], [1, 2], [0, 2]]), np.full(3, Origin.RECORDED, np.uint8))
    made = replace(made, routes=routes)
    everyone = np.arange(3)
    assert merges(made, everyone) == 2
    assert merges(made, np.array([0, 2])) == 0
    assert yields(made, everyone).tolist() == [False, True, False]
    made.lights.state[:] = LightState.STOP
    assert not yields(made, everyone).any()


def test_offset_and_evenly_on_paper() -> None:
    line = evenly(np.array([[0.0, 0.0], [10.2, 0.0]]))
    assert len(line) == 22
    assert np.allclose(offset(line, 2.0)[:, 1], 2.0)


def test_the_bundled_scenes_are_small_varied_and_in_order() -> None:
    from importlib.resources import files

    paths = sorted(Path(str(files("traj_diffusion.datasets"))).joinpath("bundled").glob("*.scene.npz"))
    assert len(paths) == 6
    assert sum(path.stat().st_size for path in paths) < 600_000
    bundled = [load_scene(path) for path in paths]
    report = coverage(bundled)
    assert report["out_of_order"] == {"overlapping": 0, "jumps": 0, "off_road": 0}
    assert all(14 <= len(scene.sim_agents) <= 42 for scene in bundled)
    assert report["signalled"] >= 2
    assert report["kinds"]["pedestrian"] >= 5
    assert report["kinds"]["cyclist"] >= 2
    assert report["turns"]["left"] + report["turns"]["right"] >= 3


def test_a_town_where_nobody_parks_is_no_error() -> None:
    from traj_diffusion.datasets.synthesis.parking import _keep_apart

    parked = _keep_apart(np.random.default_rng(0), [], [], [])
    assert len(parked.centre) == 0
