"""SUMO networks and floating car data: paper answers, windows and steps, and what SUMO itself says."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import list_sources, read_file
from traj_diffusion.datasets.readers.steps import resample_track
from traj_diffusion.datasets.readers.sumo_vehicles import VehicleTypes
from traj_diffusion.errors import BadFile, BadRecord
from traj_diffusion.scene import AgentKind, LightState, MapKind, Origin, Scene
from traj_diffusion.testing.foreign_xml import sumo_fcd_xml, sumo_net_xml, sumo_routes_xml


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The network and the vehicle types that the header of the recording names."""
    (tmp_path / "made.net.xml").write_text(sumo_net_xml())
    (tmp_path / "made.rou.xml").write_text(sumo_routes_xml())
    return tmp_path


def recorded(folder: Path, text: str, name: str = "run.fcd.xml") -> list[Scene]:
    (folder / name).write_text(text)
    return list(read_file(folder / name))


def test_a_net_is_a_map_without_agents(folder: Path) -> None:
    (scene,) = read_file(folder / "made.net.xml")
    assert (scene.id, scene.source, scene.steps, len(scene.agents)) == ("made", "sumo", 1, 0)
    lanes = [scene.map.polyline(int(row)) for row in scene.map.rows(MapKind.LANE)]
    assert np.allclose(np.concatenate(lanes)[:, 1], -1.6)
    assert (scene.map.links.origin, scene.map.edge_origin) == (Origin.RECORDED, Origin.DERIVED)
    assert len(scene.map.rows(MapKind.CROSSWALK)) == 1
    # The signal belongs to the connector that begins at its stop line.
    row = int(np.flatnonzero(scene.map.id == scene.lights.lane_id[0])[0])
    assert np.allclose(scene.map.polyline(row)[0], [95, -1.6, 0])
    assert np.allclose(scene.lights.stop_point[0, 0], [95, -1.6, 0])
    assert scene.lights.state.tolist() == [[LightState.UNKNOWN]]


def test_front_bumpers_and_compass_angles_become_centres_and_headings(folder: Path) -> None:
    (scene,) = recorded(folder, sumo_fcd_xml(30))
    agents = scene.agents
    assert agents.source_id == ("0", "b", "p")
    assert agents.kind.tolist() == [AgentKind.VEHICLE, AgentKind.CYCLIST, AgentKind.PEDESTRIAN]
    time = 0.1 * np.arange(30)
    assert np.allclose(agents.position[0], np.stack([16 + 10 * time, np.full(30, -1.6), np.full(30, 1.5)], -1))
    assert np.allclose(agents.position[1, :, 0], 7.2 + 4 * time)
    assert np.allclose(agents.position[2, :, :2], np.stack([np.full(30, 93), time - 4], -1))
    assert np.allclose(agents.heading[:, 0], [0, 0, np.pi / 2])
    assert np.allclose(agents.velocity[:, 5], [[10, 0], [4, 0], [0, 1]], atol=1e-6)
    assert np.allclose(agents.size[:, 0], [[8, 2.5, 3], [1.6, 0.65, 1.7], [0.215, 0.478, 1.719]])
    assert ("agents without a stated size, SUMO's default of their class assumed", 2) in scene.report


def test_the_route_is_the_lanes_that_were_driven(folder: Path) -> None:
    (scene,) = recorded(folder, sumo_fcd_xml(30))
    assert scene.routes.origin.tolist() == [Origin.DERIVED, Origin.ABSENT, Origin.ABSENT]
    first = scene.map.polyline(int(scene.routes.lanes[0][0]))
    assert first[0, 0] <= 20 <= first[-1, 0]


def test_signals_show_what_the_program_says_at_that_time(folder: Path) -> None:
    # Red for 3 s, green for 5 s, delayed by 1 s: red from 1 to 4, and green before that.
    (scene,) = recorded(folder, sumo_fcd_xml(90))
    shown = scene.lights.state[0]
    assert (shown[:10] == LightState.GO).all()
    assert (shown[10:40] == LightState.STOP).all()
    assert (shown[40:90] == LightState.GO).all()


def test_long_recordings_are_cut_into_windows_that_share_no_step(folder: Path) -> None:
    scenes = recorded(folder, sumo_fcd_xml(200, first=5.0))
    assert [scene.id for scene in scenes] == ["run.0", "run.91"]
    assert [(scene.steps, scene.current_index) for scene in scenes] == [(91, 10), (91, 10)]
    assert np.allclose(scenes[1].agents.position[0, 0, 0], 16 + 91)
    assert scenes[1].report[-1] == ("steps at the end, too few for a window, dropped", 18)
    exact = recorded(folder, sumo_fcd_xml(182))
    assert len(exact) == 2
    assert "dropped" not in exact[1].report[-1][0]


@pytest.mark.parametrize("dt", [0.05, 0.25, 0.5, 1.0])
def test_other_steps_are_resampled_to_a_tenth_of_a_second(dt: float, folder: Path) -> None:
    scene = recorded(folder, sumo_fcd_xml(int(10 / dt) + 1, dt))[0]
    assert (scene.steps, scene.dt) == (91, 0.1)
    assert scene.agents.valid.all()
    assert np.allclose(scene.agents.position[0, :, 0], 16 + np.arange(91), atol=2e-3)


def test_steps_too_far_apart_are_not_bridged(folder: Path) -> None:
    with pytest.raises(BadRecord, match="timesteps are 5 s apart"):
        recorded(folder, sumo_fcd_xml(4, 5.0))


def test_nobody_is_where_nobody_was_recorded(folder: Path) -> None:
    text = (
        sumo_fcd_xml(30)
        .replace('<vehicle id="b"', '<vehicle id="late"', 10)
        .replace('id="late" x="8', 'id="b" x="8', 1)
    )
    (scene,) = recorded(folder, text)
    row = scene.agents.source_id.index("late")  # type: ignore[union-attr]
    assert scene.agents.valid[row].tolist() == [1 <= step <= 9 for step in range(30)]
    assert not scene.agents.position[row][~scene.agents.valid[row]].any()


def test_without_its_net_a_recording_is_a_scene_that_says_so(tmp_path: Path) -> None:
    (scene,) = recorded(tmp_path, sumo_fcd_xml(30))
    assert len(scene.map) == 0
    assert ("no network beside the recording, read without a map", 1) in scene.report
    assert np.allclose(scene.agents.size[0, 0], [5.0, 1.8, 1.5])  # its lorry is a type that nobody states


def test_of_several_nets_none_is_guessed(folder: Path) -> None:
    (folder / "other.net.xml").write_text(sumo_net_xml())
    (scene,) = recorded(folder, sumo_fcd_xml(30, net="gone.net.xml"))
    assert len(scene.map) == 0
    assert any("of which none is named for it" in what for what, _ in scene.report)
    (folder / "run.net.xml").write_text(sumo_net_xml())
    assert len(recorded(folder, sumo_fcd_xml(30, net="gone.net.xml"))[0].map) > 0


def test_gzip_in_two_members_as_sumo_writes_it_is_recognised(folder: Path) -> None:
    text = sumo_fcd_xml(30)
    cut = text.index("<fcd-export>")
    (folder / "packed").write_bytes(gzip.compress(text[:cut].encode()) + gzip.compress(text[cut:].encode()))
    (scene,) = read_file(folder / "packed")
    assert len(scene.agents) == 3


def test_a_folder_holds_the_recording_and_the_net_but_no_routes(folder: Path) -> None:
    (folder / "run.fcd.xml").write_text(sumo_fcd_xml(30))
    assert [entry.file.name for entry in list_sources(folder)] == ["made.net.xml", "run.fcd.xml"]


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ('x="20.000"', 'x="nan"', BadRecord, "position is"),
        ('x="20.000"', 'x="east"', BadFile, "could not convert"),
        (' angle="90"', "", BadFile, "without x, y or angle"),
        ('time="0.10"', 'time="9.00"', BadFile, "timestep 0.2 s follows 9.0 s"),
        ('time="0.10"', 'time="1e300"', BadFile, "no number of seconds"),
        ('<vehicle id="b"', '<vehicle id="0"', BadRecord, "is twice in one timestep"),
        ("<!-- ", '<!-- <fcd-output.geo value="true"/>', BadFile, "longitude and latitude"),
        ("</fcd-export>", "", BadFile, "not readable XML"),
    ],
)
def test_a_broken_recording_is_one_error(old: str, new: str, error: type[BadFile], message: str, folder: Path) -> None:
    with pytest.raises(error, match=rf"run\.fcd\.xml.*{message}"):
        recorded(folder, sumo_fcd_xml(30).replace(old, new, 1))


def test_a_broken_net_beside_a_recording_is_an_error_that_names_both(folder: Path) -> None:
    (folder / "made.net.xml").write_text("<net>")
    with pytest.raises(BadFile, match=r"run\.fcd\.xml: .*made\.net\.xml"):
        recorded(folder, sumo_fcd_xml(30))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('length="95"', 'length="-1"', "long"),
        ('shape="0,-1.6 95,-1.6"', 'shape="0,0 1e9,0"', "reaches beyond"),
        ('shape="0,-1.6 95,-1.6"', 'shape="0,0 9e6,0"', "too much for one scene"),
        ('speed="13.9"', 'speed="nan"', "m/s"),
        ('speed="13.9"', "", "speed"),
    ],
)
def test_a_broken_net_is_one_error(old: str, new: str, message: str, folder: Path) -> None:
    path = folder / "made.net.xml"
    path.write_text(sumo_net_xml().replace(old, new))
    with pytest.raises(BadRecord, match=rf"made\.net\.xml, record 0: .*{message}"):
        next(read_file(path))


@pytest.mark.parametrize(
    ("type_id", "element", "kind", "length"),
    [
        ("DEFAULT_VEHTYPE", "vehicle", AgentKind.VEHICLE, 5.0),
        ("truck_truck", "vehicle", AgentKind.VEHICLE, 7.1),
        ("bike_bicycle@flow.3", "vehicle", AgentKind.CYCLIST, 1.6),
        ("anything", "person", AgentKind.PEDESTRIAN, 0.215),
        ("anything", "container", AgentKind.OTHER, 6.096),
    ],
)
def test_types_that_no_file_states_have_sumos_defaults(
    type_id: str, element: str, kind: AgentKind, length: float
) -> None:
    found, size, stated = VehicleTypes().look_up(type_id, element)
    assert (found, size[0], stated) == (kind, length, False)


def test_resampling_keeps_recorded_states_bit_for_bit_and_turns_the_short_way(rng: np.random.Generator) -> None:
    time = np.round(0.1 * np.arange(40), 6)
    values, heading = rng.normal(0, 1e4, (40, 3)), rng.uniform(-9, 9, 40)
    same = resample_track(time, values, heading, time, 0.15)
    assert np.array_equal(same.values, values)
    assert np.array_equal(same.heading, heading)
    assert same.between == 0
    pair = resample_track(np.array([0.0, 1.0]), np.zeros((2, 1)), np.array([3.0, -3.0]), np.array([0.5, 1.5]), 1.5)
    assert pair.heading[0] == pytest.approx(np.pi)
    assert pair.valid.tolist() == [True, False]


# --- against SUMO itself -------------------------------------------------------------------------------------------


@pytest.mark.data
def test_a_simulation_is_read_as_sumo_tells_it(shared: Path, tmp_path: Path) -> None:
    sumo: Any = pytest.importorskip("libsumo")
    pytest.importorskip("sumo")
    from traj_diffusion.datasets.synthesis.tools import require_libsumo

    require_libsumo()
    for ending in ("net.xml", "rou.xml"):
        source = shared / "data" / "sumo" / f"multi_intersections.{ending}"
        (tmp_path / source.name).write_bytes(source.read_bytes())
    run = tmp_path / "run.fcd.xml.gz"
    net, routes = (tmp_path / f"multi_intersections.{ending}" for ending in ("net.xml", "rou.xml"))
    sumo.start(f"sumo -n {net} -r {routes} --step-length 0.1 --fcd-output {run} --no-step-log --no-warnings".split())
    lights, where = [], []
    for _ in range(400):
        sumo.simulationStep()
        lights.append({name: sumo.trafficlight.getRedYellowGreenState(name) for name in sumo.trafficlight.getIDList()})
        where.append({name: sumo.vehicle.getPosition(name) for name in sumo.vehicle.getIDList()})
    sumo.close()
    scenes = list(read_file(run))
    assert [scene.id for scene in scenes] == ["run.0", "run.91", "run.182", "run.273"]
    from traj_diffusion.datasets.synthesis.network import read_network
    from traj_diffusion.datasets.synthesis.record import STATES
    from traj_diffusion.datasets.synthesis.roadmap import build_map, drivable_area

    network = read_network(net)
    signals = build_map(network, drivable_area(network)).signals
    inside = total = 0
    for number, scene in enumerate(scenes):
        agents = scene.agents
        lanes = np.concatenate([scene.map.polyline(int(row))[:, :2] for row in scene.map.rows(MapKind.LANE)])
        ahead = np.stack([np.cos(agents.heading), np.sin(agents.heading)], -1)
        front = agents.position[..., :2] + ahead * agents.size[..., :1] / 2
        for step in range(0, scene.steps, 10):
            truth, states = where[number * 91 + step], lights[number * 91 + step]
            assert scene.lights.state[:, step].tolist() == [STATES[states[s.program][s.index]] for s in signals]
            for row in np.flatnonzero(agents.valid[:, step]):
                assert agents.source_id is not None
                assert np.allclose(front[row, step], truth[agents.source_id[row]], atol=0.011)  # written in cm
                inside += np.hypot(*(lanes - agents.position[row, step, :2]).T).min() < 1.0
                total += 1
    assert total > 1000
    assert inside > 0.99 * total
