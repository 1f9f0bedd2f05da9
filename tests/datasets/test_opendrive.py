"""OpenDRIVE maps: curves against what is known of them, roads known on paper, and SUMO's own reading."""

import gzip
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely

from traj_diffusion.datasets import read_file, read_scenes
from traj_diffusion.datasets.readers.opendrive_curves import Cubics, ReferenceLine, read_curve
from traj_diffusion.datasets.readers.opendrive_roads import read_roads
from traj_diffusion.datasets.readers.xml_tree import read_tree
from traj_diffusion.errors import BadFile, BadRecord
from traj_diffusion.geometry import arc_length, resample
from traj_diffusion.scene import LaneType, LineType, Map, MapKind, Origin, Scene, load_scene, save_scene
from traj_diffusion.testing.foreign_xml import opendrive_xml


def curve(shape: str, length: float = 30.0, heading: float = 0.0) -> ReferenceLine:
    text = f'<geometry s="0" x="0" y="0" hdg="{heading}" length="{length}"><{shape}/></geometry>'
    return ReferenceLine((read_curve(ElementTree.fromstring(text)),))


def test_an_arc_lies_on_its_circle_and_one_of_no_curvature_is_a_line() -> None:
    s = np.linspace(0, 30, 61)
    xy, heading = curve('arc curvature="0.05"')(s)
    assert np.allclose(np.hypot(xy[:, 0], xy[:, 1] - 20), 20)
    assert np.allclose(heading, 0.05 * s)
    assert np.allclose(xy, np.stack([20 * np.sin(s / 20), 20 * (1 - np.cos(s / 20))], -1))
    assert np.allclose(curve('arc curvature="0"', heading=math.pi / 2)(s)[0], np.stack([np.zeros(61), s], -1))


def test_a_clothoid_is_fresnels_integral() -> None:
    # With curvature s / A² from 0 on, x and y are A sqrt(pi) times Fresnel's C and S at s / (A sqrt(pi)).
    scipy = pytest.importorskip("scipy.special")
    s, scale = np.linspace(0, 60, 241), 15.0
    xy, heading = curve(f'spiral curvStart="0" curvEnd="{60 / scale**2}"', 60)(s)
    sine, cosine = scipy.fresnel(s / (scale * math.sqrt(math.pi)))
    assert np.allclose(xy, scale * math.sqrt(math.pi) * np.stack([cosine, sine], -1), atol=1e-10)
    assert np.allclose(heading, s**2 / (2 * scale**2))


def test_a_clothoid_between_curvatures_agrees_with_small_steps() -> None:
    s = np.linspace(0, 40, 9)
    xy, heading = curve('spiral curvStart="-0.03" curvEnd="0.08"', 40, 1.0)(s)
    fine = np.linspace(0, 40, 400_001)
    turn = 1.0 - 0.03 * fine + 0.11 / 80 * fine**2
    mid = (turn[1:] + turn[:-1]) / 2
    steps = np.cumsum(np.stack([np.cos(mid), np.sin(mid)], -1) * 1e-4, axis=0)
    assert np.allclose(xy[1:], steps[49_999::50_000], atol=1e-6)
    assert np.allclose(heading, turn[::50_000])


@pytest.mark.parametrize("shape", ['poly3 a="0" b="0.1" c="0.02" d="-0.0004"', 'arc curvature="-0.03"'])
def test_s_is_the_length_along_the_curve(shape: str) -> None:
    s = np.linspace(0, 30, 3001)
    xy, heading = curve(shape)(s)
    assert np.allclose(arc_length(xy), s, atol=1e-4)
    step = np.diff(xy, axis=0)
    assert np.allclose(np.arctan2(step[:, 1], step[:, 0]), (heading[1:] + heading[:-1]) / 2, atol=1e-4)


def test_both_ranges_of_a_parametric_cubic_mean_the_same_curve() -> None:
    s = np.linspace(0, 20, 41)
    one, _ = curve('paramPoly3 pRange="arcLength" aU="0" bU="1" cU="0" dU="0" aV="0" bV="0" cV="0.01" dV="0.001"', 20)(
        s
    )
    other, turn = curve('paramPoly3 aU="0" bU="20" cU="0" dU="0" aV="0" bV="0" cV="4" dV="8"', 20)(s)
    assert np.allclose(one, other)
    assert np.allclose(one, np.stack([s, 0.01 * s**2 + 0.001 * s**3], -1))
    assert np.allclose(np.tan(turn), 0.02 * s + 0.003 * s**2)


def test_cubic_pieces_hold_from_their_start_on() -> None:
    pieces = Cubics(np.array([0.0, 10.0]), np.array([[1.0, 2.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.001]]))
    assert pieces(np.array([0.0, 5.0, 10.0, 20.0])).tolist() == pytest.approx([1, 11, 5, 6])
    assert Cubics(np.zeros(0), np.zeros((0, 4)))(np.ones(3)).tolist() == [0, 0, 0]


@pytest.fixture
def made(tmp_path: Path) -> Scene:
    path = tmp_path / "town"
    path.write_text(opendrive_xml())
    (scene,) = read_file(path)
    return scene


def lane_at(map_: Map, x: float, y: float) -> int:
    """Return the lane that starts there."""
    starts = [map_.polyline(int(row))[0] for row in map_.rows(MapKind.LANE)]
    return int(np.argmin([math.hypot(start[0] - x, start[1] - y) for start in starts]))


def test_a_map_is_a_scene_of_one_step_without_agents(made: Scene, tmp_path: Path) -> None:
    assert (made.id, made.source, made.steps, len(made.agents), made.ego) == ("town", "opendrive", 1, 0, None)
    again = load_scene(save_scene(made, tmp_path / "x.npz"))
    assert np.array_equal(again.map.points, made.map.points)


def test_lanes_lie_where_the_road_says_and_run_along_traffic(made: Scene) -> None:
    there = made.map.polyline(lane_at(made.map, 0, -1.75))
    assert np.allclose(there[:, 1], -1.75)
    assert np.allclose(there[:, 2], 1 + 0.01 * there[:, 0])
    assert np.allclose(np.diff(there[:, 0]), 0.5)
    back = made.map.polyline(lane_at(made.map, 100, 1.75))
    assert np.allclose(back[[0, -1], 0], [100, 0])
    bend = made.map.polyline(lane_at(made.map, 120, -1.75))
    assert np.allclose(np.hypot(bend[:, 0] - 120, bend[:, 1] - 50), 51.75)


def test_types_and_limits_of_lanes(made: Scene) -> None:
    kinds = made.map.subtype[made.map.rows(MapKind.LANE)]
    assert (kinds == LaneType.BIKE_LANE).sum() == 1
    assert (kinds == LaneType.SURFACE_STREET).sum() == len(kinds) - 1
    assert made.map.speed_limit[lane_at(made.map, 0, -1.75)] == pytest.approx(10)
    assert made.map.speed_limit[lane_at(made.map, 100, 1.75)] == pytest.approx(50 / 3.6)
    assert np.isnan(made.map.speed_limit[lane_at(made.map, 120, -1.75)])


def test_links_go_through_the_junction_both_ways(made: Scene) -> None:
    links, map_ = made.map.links, made.map
    first, over, last = lane_at(map_, 0, -1.75), lane_at(map_, 100, -1.75), lane_at(map_, 120, -1.75)
    assert links.origin == Origin.RECORDED
    assert (links.successors[first].tolist(), links.successors[over].tolist()) == ([over], [last])
    assert (links.predecessors[last].tolist(), links.predecessors[over].tolist()) == ([over], [first])
    home, out = lane_at(map_, 100, 1.75), lane_at(map_, 120, 1.75)
    assert map_.polyline(out)[-1, 0] == pytest.approx(100)
    assert links.successors[out].tolist() == [home]
    bicycle = lane_at(map_, 0, -4.25)
    assert links.right[first].tolist() == [bicycle]
    assert links.left[bicycle].tolist() == [first]


def test_every_link_joins_ends_that_touch(made: Scene) -> None:
    for row in made.map.rows(MapKind.LANE):
        for after in made.map.links.successors[int(row)]:
            assert np.allclose(made.map.polyline(int(row))[-1, :2], made.map.polyline(int(after))[0, :2], atol=0.05)


def test_the_winding_road_drives_on_the_left_and_keeps_its_sections_together(made: Scene) -> None:
    # Lane -1 lies right of the reference line, and with left-hand traffic it is driven against s.
    starts = [made.map.polyline(int(row))[0] for row in made.map.rows(MapKind.LANE)]
    row = next(i for i, start in enumerate(starts) if start[1] > 140)
    after = made.map.links.successors[row].tolist()
    assert len(after) == 1
    assert np.hypot(*(made.map.polyline(after[0])[-1, :2] - [0, 100])) < 2


def test_signals_stand_where_the_lane_behind_them_begins(made: Scene) -> None:
    over = lane_at(made.map, 100, -1.75)
    assert made.lights.lane_id.tolist() == [made.map.id[over]]
    assert np.allclose(made.lights.stop_point[0, 0, :2], [100, -1.75])
    (sign,) = made.map.rows(MapKind.STOP_SIGN)
    assert np.allclose(made.map.polyline(int(sign))[0, :2], [2, 5])
    assert made.map.links.controls[int(sign)].tolist() == [lane_at(made.map, 100, 1.75)]
    assert ("signals that are neither lights for cars nor stop signs, dropped", 1) in made.report


def test_paint_crosswalks_and_road_edges(made: Scene) -> None:
    rows = made.map.rows(MapKind.ROAD_LINE)
    assert sorted(made.map.subtype[rows].tolist()) == [LineType.SOLID_SINGLE_WHITE, LineType.BROKEN_SINGLE_YELLOW]
    (crossing,) = made.map.rows(MapKind.CROSSWALK)
    assert shapely.Polygon(made.map.polyline(int(crossing))[:, :2]).equals(shapely.box(48, -3.5, 52, 3.5))
    assert made.map.edge_origin == Origin.DERIVED
    edges = [made.map.polyline(int(row)) for row in made.map.rows(MapKind.ROAD_EDGE)]
    south = next(line for line in edges if np.allclose(line[0, 1], -5, atol=0.1) and line[0, 0] < 2)
    assert south[0, 0] < south[5, 0]  # eastwards: the road lies to its left
    assert south[0, 2] == pytest.approx(1, abs=0.1)
    lines = shapely.union_all([shapely.LineString(line) for line in edges])
    assert lines.distance(shapely.Point(0, 0)) > 3  # the open end of the road has no edge


def test_a_gzip_file_is_read_and_recognised_by_content(tmp_path: Path, made: Scene) -> None:
    path = tmp_path / "packed.bin"
    path.write_bytes(gzip.compress(opendrive_xml().encode()))
    (scene,) = read_file(path)
    assert np.array_equal(scene.map.points, made.map.points)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('length="100"', 'length="1e12"', "make no road"),
        ('length="100"', 'length="nan"', "length is 'nan'"),
        ('id="2" length', 'id="1" length', "there twice"),
        ("<line/>", "<bezier/>", "has no shape"),
        ('curvEnd="0.02"', 'curvEnd="1e9"', "turns by"),
        ('curvEnd="0.02"', 'curvEnd="70"', "a spiral turns by"),
        ('<arc curvature="0.02"/>', '<arc curvature="7"/>', "an arc turns by"),
        ('curvature="0.02"', 'curvature="x"', "curvature is 'x'"),
        ('id="-1" type', 'id="one" type', "id is 'one'"),
        ('x="120" y="0"', 'x="1e9" y="0"', "map point"),
    ],
)
def test_a_broken_road_is_one_error_naming_the_element(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.xodr"
    path.write_text(opendrive_xml().replace(old, new, 1))
    with pytest.raises(BadRecord, match=rf"bad\.xodr, record 0: .*{message}") as caught:
        next(read_file(path))
    assert "\n" not in str(caught.value)


def test_entities_bombs_and_endless_tags_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.xodr"
    entities = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    for encoding in ("utf-8", "utf-16"):
        path.write_text(f"{entities}<OpenDRIVE>&b;</OpenDRIVE>", encoding)
        with pytest.raises(BadFile, match=r"not in a format|document type"):
            next(read_file(path))
        with pytest.raises(BadFile, match="document type"):
            read_tree(path, "OpenDRIVE")
    path.write_bytes(gzip.compress(b"<OpenDRIVE>" + b" " * 50_000_000 + b"</OpenDRIVE>"))
    with pytest.raises(BadFile, match="unpacks to over 200 times"):
        next(read_file(path))
    path.write_bytes(b'<OpenDRIVE a="' + b"x" * 6_000_000 + b'"/>')
    with pytest.raises(BadFile, match="longer than"):
        read_tree(path, "OpenDRIVE")
    path.write_bytes(b"<OpenDRIVE>" + b"<a>" * 500)
    with pytest.raises(BadFile, match="nested deeper"):
        next(read_file(path))


# --- real maps ---------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_all_recorded_maps_are_read_and_their_lanes_hang_together(shared: Path) -> None:
    files = sorted((shared / "data" / "opendrive").glob("*.xodr"))
    assert len(files) == 8
    for file in files:
        (scene,) = read_scenes(file)
        links = scene.map.links
        assert len(scene.map.rows(MapKind.LANE)) >= 2
        assert len(scene.map.rows(MapKind.ROAD_EDGE)) >= 2
        for row in scene.map.rows(MapKind.LANE):
            line = scene.map.polyline(int(row))
            assert np.linalg.norm(np.diff(line[:, :2], axis=0), axis=1).max() < 0.7
            for after in links.successors[int(row)]:
                assert np.allclose(line[-1, :2], scene.map.polyline(int(after))[0, :2], atol=0.1), file.name


def car_lanes(net: Path) -> list[np.ndarray]:
    """Return the lanes of a net outside of junctions that OpenDRIVE calls `driving`."""
    lines = []
    for edge in ElementTree.parse(net).getroot().iter("edge"):
        if edge.get("function") == "internal":
            continue
        lanes = edge.findall("lane")
        types = edge.get("type", "").split("|")
        types = types if len(types) == len(lanes) else types[:1] * len(lanes)
        for lane, kind in zip(lanes, types, strict=True):
            if kind == "driving":
                points = [[float(value) for value in point.split(",")[:2]] for point in lane.attrib["shape"].split()]
                lines.append(np.array(points))
    return lines


def tapers(file: Path) -> shapely.Geometry:
    """Return the ground of sections in which the widths of lanes change along the way."""
    found = []
    for road in read_roads(read_tree(file, "OpenDRIVE")).values():
        for section in road.sections:
            if any(np.abs(lane.width.abcd[:, 1:]).max(initial=0) > 1e-9 for lane in section.lanes.values()):
                line = road.line(np.linspace(section.s, section.end, 50))[0]
                found.append(shapely.LineString(line).buffer(20, cap_style="flat"))
    return shapely.union_all(found)


@pytest.mark.data
def test_a_map_and_the_net_that_sumo_makes_of_it_agree_within_20_cm(shared: Path, tmp_path: Path) -> None:
    # Inside junctions netconvert draws connections of its own, and lanes of a net have one width from end to end: both
    # are left out. Such tapers are 13 % of the lanes of the roundabout; no other map has any. The largest distance is
    # then 2.5 cm, the middle one below 5 mm.
    pytest.importorskip("sumo")
    from traj_diffusion.datasets.synthesis.tools import netconvert

    for file in sorted((shared / "data" / "opendrive").glob("*.xodr")):
        net = tmp_path / f"{file.stem}.net.xml"
        options = ["--offset.disable-normalization", "--precision", "4"]
        netconvert(["--opendrive-files", str(file), "-o", str(net), *options])
        (scene,) = read_file(file)
        ours = [scene.map.polyline(int(row))[:, :2] for row in scene.map.rows(MapKind.LANE)]
        theirs = car_lanes(net)
        along = [resample(line, np.arange(0, arc_length(line)[-1], 0.5)) for line in theirs]
        points = shapely.points(np.concatenate(along))
        points = points[~shapely.intersects(points, tapers(file))]
        away = shapely.distance(points, shapely.union_all([shapely.LineString(line) for line in ours]))
        assert len(points) > 0.85 * sum(len(line) for line in along)
        assert away.max() < 0.2, f"{file.name}: {np.quantile(away, [0.5, 0.9, 0.99, 1])}"
        # And back: all of our lanes that lie on the net's edges are there, none is made up.
        edges = shapely.union_all([shapely.LineString(line).buffer(1.0, cap_style="flat") for line in theirs])
        points = shapely.points(np.concatenate(ours))
        points = points[shapely.intersects(points, edges) & ~shapely.intersects(points, tapers(file))]
        away = shapely.distance(points, shapely.union_all([shapely.LineString(line) for line in theirs]))
        assert len(points) > 0.3 * sum(len(line) for line in ours)
        assert np.quantile(away, 0.95) < 0.2
