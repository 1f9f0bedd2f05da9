"""CommonRoad scenarios of both versions: lanelets, lights, shapes, steps and goals known on paper; real ones."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import shapely

from traj_diffusion.datasets import read_file
from traj_diffusion.errors import BadFile, BadRecord
from traj_diffusion.scene import AgentKind, LaneType, LightState, LineType, MapKind, Origin, Scene
from traj_diffusion.testing.foreign_xml import commonroad_xml


def read_text(folder: Path, text: str) -> Scene:
    (folder / "made.xml").write_text(text)
    return next(read_file(folder / "made.xml"))


@pytest.fixture
def made(tmp_path: Path) -> Scene:
    return read_text(tmp_path, commonroad_xml())


@pytest.mark.parametrize("version", ["2018b", "2020a"])
def test_both_versions_hold_the_same_scene(version: str, tmp_path: Path, made: Scene) -> None:
    scene = read_text(tmp_path, commonroad_xml(version))
    assert (scene.id, scene.source, scene.dt, scene.steps) == ("made", "commonroad", 0.1, 31)
    for name in ("position", "heading", "velocity", "size", "valid", "kind", "id"):
        assert np.array_equal(getattr(scene.agents, name), getattr(made.agents, name))
    assert np.allclose(scene.map.speed_limit[0], 13.5)
    assert np.array_equal(scene.map.polyline(0), made.map.polyline(0))


def test_lanelets_become_lanes_with_recorded_links(made: Scene) -> None:
    assert made.map.rows(MapKind.LANE).tolist() == [0, 1, 2, 3]
    assert np.allclose(made.map.polyline(0), [[0, 2, 0], [25, 2, 0], [50, 2, 0]])
    links = made.map.links
    assert links.origin == Origin.RECORDED
    assert [links.successors[row].tolist() for row in range(4)] == [[2], [3], [], []]
    assert [links.predecessors[row].tolist() for row in range(4)] == [[], [], [0], [1]]
    assert (links.left[0].tolist(), links.right[1].tolist(), links.left[1].tolist()) == ([1], [0], [])
    assert made.map.subtype[0] == LaneType.SURFACE_STREET


def test_a_line_that_two_lanelets_share_is_painted_once(made: Scene) -> None:
    rows = made.map.rows(MapKind.ROAD_LINE)
    painted = sorted(made.map.subtype[rows].tolist())
    assert painted == [LineType.BROKEN_SINGLE_WHITE, LineType.SOLID_SINGLE_WHITE]


def test_road_edges_keep_the_road_to_their_left_and_its_ends_open(made: Scene) -> None:
    edges = [made.map.polyline(int(row))[:, :2] for row in made.map.rows(MapKind.ROAD_EDGE)]
    assert len(edges) == 2
    for line in edges:
        assert np.allclose(line[:, 1], 0 if line[-1, 0] > line[0, 0] else 8, atol=1e-6)
    assert made.map.edge_origin == Origin.DERIVED


def test_a_light_runs_through_its_cycle_and_belongs_to_the_lane_behind_its_line(made: Scene) -> None:
    # The cycle of 60 steps starts at step 10: red 20, red and yellow 5, green 30, yellow 5. So step 0 is 50 in: green.
    assert made.lights.lane_id.tolist() == [made.map.id[2]]
    assert np.allclose(made.lights.stop_point[0, 0], [48, 2, 0])
    shown = made.lights.state[0]
    assert (shown[:5] == LightState.GO).all()
    assert (shown[5:10] == LightState.CAUTION).all()
    assert (shown[10:31] == LightState.STOP).all()


def test_shapes_become_boxes_around_them(made: Scene) -> None:
    agents = made.agents
    assert agents.source_id == ("99", "30", "31", "32")
    assert agents.kind.tolist() == [AgentKind.VEHICLE, AgentKind.VEHICLE, AgentKind.OTHER, AgentKind.VEHICLE]
    assert np.allclose(agents.size[1:, 0, :2], [[4.5, 1.8], [1, 1], [8, 2]])
    # The lorry's polygon reaches from -3 to 5 m along it: its box is centred 1 m ahead of its position.
    assert np.allclose(agents.position[3, :, :2], [81, 6])
    assert agents.valid[2:].all()
    assert agents.heading[2, 0] == 0  # the middle of an interval
    time = 0.1 * np.arange(31)
    assert np.allclose(agents.position[1, :, :2], np.stack([10 + 10 * time, np.full(31, 2)], -1))
    assert np.allclose(agents.velocity[1], [10, 0])


def test_the_ego_is_there_at_the_current_step_and_its_route_leads_to_the_goal(made: Scene) -> None:
    assert (made.ego, made.current_index) == (0, 0)
    assert made.agents.valid[0].tolist() == [True] + [False] * 30
    assert made.agents.position[0, 0, :2].tolist() == [5, 6]
    assert made.routes.lanes[0].tolist() == [1, 3]
    assert made.routes.origin.tolist() == [Origin.DERIVED] + [Origin.ABSENT] * 3


def test_a_goal_given_as_an_area_or_over_a_change_of_lanes_is_found(tmp_path: Path) -> None:
    area = "<rectangle><length>4</length><width>1</width><center><x>80</x><y>2</y></center></rectangle>"
    scene = read_text(tmp_path, commonroad_xml().replace('<lanelet ref="4"/>', area))
    assert scene.routes.lanes[0].tolist() == [1, 0, 2]
    nowhere = read_text(tmp_path, commonroad_xml().replace('<lanelet ref="4"/>', '<lanelet ref="77"/>'))
    assert nowhere.routes.origin[0] == Origin.ABSENT


@pytest.mark.parametrize("dt", [0.04, 0.2, 0.25])
def test_any_time_step_is_resampled_to_a_tenth_of_a_second(dt: float, tmp_path: Path) -> None:
    scene = read_text(tmp_path, commonroad_xml(dt=dt))
    time = 0.1 * np.arange(int(30 * dt / 0.1 + 1e-6) + 1)
    assert np.allclose(scene.agents.position[1, :, 0], 10 + 10 * time, atol=1e-5)
    assert scene.agents.valid[1].all()
    step = np.floor(time / dt + 1e-6)
    assert (scene.lights.state[0][(step >= 10) & (step < 30)] == LightState.STOP).all()


def test_without_a_planning_problem_it_is_a_recording(tmp_path: Path) -> None:
    scene = read_text(tmp_path, commonroad_xml(problem=False))
    assert (scene.ego, scene.current_index, scene.steps) == (None, 10, 31)


def test_a_map_alone_is_a_scene(tmp_path: Path) -> None:
    text = commonroad_xml(problem=False)
    first, last = text.index("<dynamicObstacle"), text.index("</commonRoad>")
    scene = read_text(tmp_path, text[:first] + text[last:])
    assert (len(scene.agents), scene.steps, len(scene.map.rows(MapKind.LANE))) == (0, 1, 4)


def test_predictions_as_areas_are_counted_as_lost(tmp_path: Path) -> None:
    text = commonroad_xml()
    first, last = text.index("<trajectory>"), text.index("</trajectory>") + len("</trajectory>")
    scene = read_text(tmp_path, text[:first] + "<occupancySet></occupancySet>" + text[last:])
    assert scene.agents.valid[1].sum() == 1
    assert any("occupied areas" in what for what, _ in scene.report)


def test_bounds_of_unequal_counts_meet_in_the_middle(tmp_path: Path) -> None:
    text = commonroad_xml().replace("<point><x>25.0</x><y>4</y></point>", "", 1)
    scene = read_text(tmp_path, text)
    assert np.allclose(scene.map.polyline(0)[:, 1], 2)


def test_crosswalks_are_outlines_and_pavements_are_dropped(tmp_path: Path) -> None:
    text = commonroad_xml()
    for number, name in ((3, "crosswalk"), (4, "sidewalk")):
        at = text.index(f'<lanelet id="{number}"')
        text = text[:at] + text[at:].replace("urban", name, 1)
    scene = read_text(tmp_path, text)
    (row,) = scene.map.rows(MapKind.CROSSWALK)
    assert shapely.Polygon(scene.map.polyline(int(row))[:, :2]).area == pytest.approx(200)
    assert len(scene.map.rows(MapKind.LANE)) == 2
    assert ("sidewalks, dropped", 1) in scene.report


def test_a_gzip_file_is_read(tmp_path: Path, made: Scene) -> None:
    (tmp_path / "packed").write_bytes(gzip.compress(commonroad_xml().encode()))
    (scene,) = read_file(tmp_path / "packed")
    assert np.array_equal(scene.agents.position, made.agents.position)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2020a", "2017a", "version '2017a'; 2018b and 2020a are read"),
        ('timeStepSize="0.1"', 'timeStepSize="0"', "time step of 0 s"),
        ("<x>25.0</x>", "<x>east</x>", "<x> is 'east'"),
        ("<x>25.0</x>", "<x>1e9</x>", "map point"),
        ('id="2"', 'id="1"', "there twice"),
        ("<exact>30</exact>", "<exact>1e12</exact>", "time step is 1e"),
        ("<exact>30</exact>", "<exact>9999999</exact>", "at most 4,000,000 states"),
        ("<exact>30</exact>", "<exact>-3</exact>", "before time step 0"),
        ("<radius>0.5</radius>", "", "<radius> is absent"),
        ("<duration>20</duration>", "<duration>-99</duration>", "its cycle"),
    ],
)
def test_a_broken_scenario_is_one_error_naming_the_element(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = commonroad_xml(problem=False)
    assert old in text
    with pytest.raises(BadRecord, match=rf"made\.xml, record 0: .*{message}") as caught:
        read_text(tmp_path, text.replace(old, new, 1))
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"made\.xml: not readable XML"):
        read_text(tmp_path, commonroad_xml()[:-30])


@pytest.mark.data
def test_all_recorded_scenarios_are_read_with_agents_on_their_lanes(shared: Path) -> None:
    files = sorted((shared / "data" / "commonroad").glob("*.xml"))
    assert len(files) == 22
    lights, along, moving, near, placed, links, apart = 0, 0, 0, 0, 0, 0, 0
    for file in files:
        for scene in read_file(file):
            agents, map_ = scene.agents, scene.map
            lights += len(scene.lights)
            assert len(map_.rows(MapKind.LANE)) > 0
            for row in map_.rows(MapKind.LANE):
                for after in map_.links.successors[int(row)]:
                    gap = map_.polyline(int(row))[-1] - map_.polyline(int(after))[0]
                    links, apart = links + 1, apart + int(np.hypot(*gap[:2]) > 1.5)
            for lane, stop in zip(scene.lights.lane_id, scene.lights.stop_point[:, 0], strict=True):
                line = map_.polyline(int(np.flatnonzero(map_.id == lane)[0]))
                assert np.hypot(*(line[0] - stop)[:2]) < 6
            step = np.diff(agents.position[..., :2], axis=1)
            fast = agents.valid[:, 1:] & agents.valid[:, :-1] & (np.hypot(step[..., 0], step[..., 1]) > 0.3)
            off = agents.heading[:, 1:][fast] - np.arctan2(step[..., 1], step[..., 0])[fast]
            along, moving = along + int((np.cos(off) > 0.9).sum()), moving + int(fast.sum())
            ground = shapely.union_all([shapely.LineString(map_.polyline(int(row))) for row in map_.rows(MapKind.LANE)])
            here = np.flatnonzero(agents.valid[:, scene.current_index] & (agents.kind == AgentKind.VEHICLE))
            away = shapely.distance(ground, shapely.points(agents.position[here, scene.current_index, :2]))
            near, placed = near + int((away < 2.5).sum()), placed + len(here)
    assert lights == 12 * 2 + 20 + 16
    assert apart < 0.01 * links  # CHN_Merging-1, a test of map checkers, has links over 29 m
    assert along > 0.99 * moving
    assert near > 0.98 * placed
