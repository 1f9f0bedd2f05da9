"""CARLA as a host: maps against the real `carla.Map`, the loop against a fake server that records commands."""

import math
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from traj_diffusion.errors import HostError
from traj_diffusion.policies import ConstantVelocity, DiffusionPolicy, IdmFollower
from traj_diffusion.scene import AgentKind, LightState, MapKind
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.testing import WitnessedTraffic
from traj_diffusion.testing.foreign_xml import opendrive_xml

pytest.importorskip("carla", reason="needs the extra [carla], in an environment of its own")

import carla

from traj_diffusion.sim_adapter.hosts.carla import CarlaTraffic
from traj_diffusion.sim_adapter.hosts.carla_view import CarlaView, map_of
from traj_diffusion.testing.carla_fake import FakeCarla

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "carla_traffic.py"
AGREE = 0.01  # m between a waypoint of CARLA's and the centre of our lane of that name
TURN = 0.05  # rad: our lanes are lines through points half a metre apart


def compare(carla_map: Any) -> tuple[int, float, float, float, set[tuple[str, int, int]]]:
    """Return how many waypoints there are, how far off we are at most (m, rad, m up), and which lanes were met."""
    features, lanes = map_of(carla_map)
    row_of = {int(lane): row for row, lane in enumerate(features.id)}
    off, turned, above, met = [], [], [], set()
    waypoints = carla_map.generate_waypoints(2.0)
    for waypoint in waypoints:
        key = (str(waypoint.road_id), waypoint.section_id, waypoint.lane_id)
        line = features.polyline(row_of[lanes[key]])
        met.add(key)
        place, yaw = waypoint.transform.location, waypoint.transform.rotation.yaw
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line[:, :2], axis=0), axis=1))])
        path, point = shapely.LineString(line[:, :2]), shapely.Point(place.x, -place.y)
        at = path.project(point)
        end = min(max(int(np.searchsorted(along, at)), 1), len(line) - 1)
        ahead = line[end] - line[end - 1]
        off.append(path.distance(point))
        turned.append(abs(math.remainder(-math.radians(yaw) - math.atan2(ahead[1], ahead[0]), math.tau)))
        above.append(abs(place.z - np.interp(at, along, line[:, 2])))
    return len(waypoints), max(off), max(turned), max(above), met


@pytest.mark.data
def test_every_waypoint_of_carla_lies_on_our_lane_of_its_name(shared: Path) -> None:
    files = sorted((shared / "data" / "opendrive").glob("*.xodr"))
    assert len(files) == 8
    for file in files:
        carla_map = carla.Map(file.stem, file.read_text(encoding="utf-8"))
        count, off, turned, above, met = compare(carla_map)
        _, lanes = map_of(carla_map)
        assert count >= 500, file.name
        assert off < AGREE, f"{file.name}: {off}"
        assert turned < TURN, f"{file.name}: {turned}"
        assert above < AGREE, f"{file.name}: {above}"
        assert met == set(lanes), f"{file.name}: lanes without a waypoint: {sorted(set(lanes) - met)[:3]}"


def test_waypoints_of_a_made_map_agree_too_in_height_as_well() -> None:
    text = opendrive_xml()
    # CARLA reads no <border>, and lays lanes of a banked road flat.
    text = text[: text.index('<road id="5"')] + text[text.index("<junction ") :]
    count, off, turned, above, _ = compare(carla.Map("made", text))
    assert count > 75
    assert (off < AGREE, turned < TURN, above < AGREE) == (True, True, True), (off, turned, above)


@pytest.fixture
def server() -> FakeCarla:
    """A world of two roads, the first rising by 1 %, with a signal, two cars, a bicycle, a walker and an ego."""
    return world()


def world() -> FakeCarla:
    fake = FakeCarla(carla, opendrive_xml())
    fake.add("vehicle.a", 10.0, 1.75, 0.0, speed=8.0)
    fake.add("vehicle.b", 90.0, -1.75, 180.0, speed=6.0)
    fake.add("vehicle.bike", 20.0, 4.25, 0.0, speed=3.0, base_type="bicycle")
    fake.add("walker.pedestrian.0001", 40.0, 6.0, 90.0, speed=1.2)
    fake.add("vehicle.ego", 60.0, 1.75, 0.0, speed=5.0)
    fake.add_light("s1")
    return fake


def all_but_the_ego(actor: Any) -> bool:
    return actor.type_id != "vehicle.ego"


def test_actors_are_seen_right_handed_with_the_middle_of_their_boxes(server: FakeCarla) -> None:
    with CarlaTraffic(TrafficModel(ConstantVelocity()), server, all_but_the_ego) as traffic:
        seen = traffic.observe()
    assert seen.kind.tolist() == [AgentKind.VEHICLE] * 2 + [AgentKind.CYCLIST, AgentKind.PEDESTRIAN, AgentKind.VEHICLE]
    # Boxes lie 0.1 m ahead of the origin and 0.02 m to its right, 0.75 m above: south of an eastbound car.
    assert seen.position[0, :2] == pytest.approx([10.1, -1.77], abs=1e-5)
    assert seen.position[1, :2] == pytest.approx([89.9, 1.77], abs=1e-5)
    assert seen.position[0, 2] == pytest.approx(1.1 + 0.75, abs=0.01)
    assert np.exp(1j * seen.heading) == pytest.approx(np.exp(1j * np.array([0, np.pi, 0, -np.pi / 2, 0])), abs=1e-5)
    assert seen.velocity[[0, 1, 3]] == pytest.approx(np.array([[8, 0], [-6, 0], [0, -1.2]]), abs=1e-5)
    assert seen.size[0] == pytest.approx([4.8, 2.0, 1.5])
    assert seen.is_controlled.tolist() == [True] * 4 + [False]


def test_the_driven_are_put_where_the_traffic_says_and_the_host_keeps_the_contract(server: FakeCarla) -> None:
    witness = WitnessedTraffic(IdmFollower())
    with CarlaTraffic(witness, server, all_but_the_ego) as traffic:
        assert not server.commands
        for tick in range(40):
            sent = len(server.commands)
            step = traffic.step()
            names = [type(command).__name__ for command in server.commands[sent:]]
            assert (
                names
                == ["SetSimulatePhysics"] * (4 if tick == 0 else 0) + ["ApplyTransform", "ApplyTargetVelocity"] * 4
            )
            assert step.warnings == ()
            again = traffic.observe()
            shown = again.position[:4, :2]
            assert shown == pytest.approx(step.position[:, :2], abs=1e-4)
            assert np.exp(1j * again.heading[:4]) == pytest.approx(np.exp(1j * step.heading), abs=1e-5)
        assert witness.findings() == ()
        car = server.actors[100]
        assert car.get_transform().location.x > 25
        assert not car.physics
        # The first road rises by 1 % eastwards: who drives west on it sinks, with his nose down.
        place = server.actors[101].get_transform()
        assert place.location.z == pytest.approx(1 + 0.01 * place.location.x, abs=0.02)
        assert place.rotation.pitch == pytest.approx(-math.degrees(0.01), abs=0.05)
    assert car.physics, "closing gives it back"


def test_released_actors_go_on_at_their_velocity_and_stay_free(server: FakeCarla) -> None:
    with CarlaTraffic(TrafficModel(ConstantVelocity()), server, all_but_the_ego) as traffic:
        traffic.step()
        traffic.release(100)
        car = server.actors[100]
        assert (car.physics, car.velocity.x) == (True, pytest.approx(8.0, abs=1e-4))
        before = car.get_transform().location.x
        step = traffic.step()
        assert len(step.agent_id) == 3
        assert car.get_transform().location.x == pytest.approx(before + 0.8, abs=1e-4)
        assert 100 not in traffic.driven
        with pytest.raises(ValueError, match="actor 100 is not driven"):
            traffic.release(100)


def test_spawned_actors_are_driven_and_destroyed_with_the_host_and_lost_ones_are_forgotten(server: FakeCarla) -> None:
    mine: set[int] = set()
    blueprint = server.get_blueprint_library().find("vehicle.new")
    with CarlaTraffic(TrafficModel(ConstantVelocity()), server, lambda actor: actor.id in mine) as traffic:
        mine.add(traffic.spawn(blueprint, 75.0, -1.75, 0.0).id)
        place = server.actors[max(mine)].get_transform()
        assert (place.location.x, place.location.y, place.rotation.yaw) == pytest.approx((75.0, 1.75, 0.0))
        traffic.step()
        assert traffic.driven == mine
        with pytest.raises(HostError, match=r"no room for vehicle\.new at x 75\.0, y -1\.8"):
            traffic.spawn(blueprint, 75.0, -1.75, 0.0)
        other = traffic.spawn(blueprint, 30.0, 1.75, math.pi)
        assert other.get_transform().rotation.yaw == pytest.approx(-180.0)
        traffic.destroy(other.id)
        assert other.id not in server.actors
        del server.actors[101]  # somebody else destroys it
        step = traffic.step()
        assert len(step.agent_id) == 1
        assert step.warnings == ()
    assert not mine & server.actors.keys()


def test_signals_reach_the_lanes_behind_their_stop_lines(server: FakeCarla) -> None:
    view = CarlaView(server, carla)
    lanes, stops, states = view.signals()
    (lane,) = lanes
    row = int(np.flatnonzero(view.map.id == lane)[0])
    assert view.map.kind[row] == MapKind.LANE
    assert view.map.polyline(row)[0, :2] == pytest.approx([100, -1.75], abs=1e-6)
    assert stops[0] == pytest.approx(view.map.polyline(row)[0])
    assert states == [LightState.STOP]
    light = next(actor for actor in server.actors.values() if actor.type_id == "traffic.traffic_light")
    for shown, wanted in (("Green", LightState.GO), ("Yellow", LightState.CAUTION), ("Off", LightState.UNKNOWN)):
        light.state = getattr(carla.TrafficLightState, shown)
        assert view.signals()[2] == [wanted]


def test_two_runs_are_equal_bit_for_bit_though_actor_ids_differ(
    server: FakeCarla, random_policy: DiffusionPolicy
) -> None:
    other = world()
    for actor in other.actors.values():
        actor.id += 1000
    other.actors = {actor.id: actor for actor in other.actors.values()}
    ends = []
    for fake in (server, other):
        with CarlaTraffic(TrafficModel(random_policy, seed=3), fake, all_but_the_ego) as traffic:
            ends.append([traffic.step() for _ in range(5)][-1])
    assert np.array_equal(ends[0].position, ends[1].position)


def test_refused_moves_are_warnings_and_the_actor_stays_where_carla_has_it(server: FakeCarla) -> None:
    with CarlaTraffic(TrafficModel(ConstantVelocity()), server, all_but_the_ego) as traffic:
        traffic.step()
        server.refused[101] = "actor is dormant"
        step = traffic.step()
        assert step.warnings == ("CARLA refused to move actor 101: actor is dormant",)


def test_settings_that_cannot_work_and_a_server_that_dies_are_one_line(server: FakeCarla) -> None:
    for fake, message in (
        (FakeCarla(carla, opendrive_xml(), synchronous=False), "synchronous_mode"),
        (FakeCarla(carla, opendrive_xml(), dt=0.05), r"CARLA steps by 0\.05 s and the traffic model by 0\.1 s"),
        (FakeCarla(carla, opendrive_xml(), dt=None), "CARLA steps by None s"),
    ):
        with pytest.raises(HostError, match=message) as caught:
            CarlaTraffic(TrafficModel(ConstantVelocity()), fake, [])
        assert "\n" not in str(caught.value)
    traffic = CarlaTraffic(TrafficModel(ConstantVelocity()), server, all_but_the_ego)
    traffic.step()
    server.dead = True
    with pytest.raises(HostError, match="CARLA refused or stopped: time-out of 5000ms") as caught:
        traffic.step()
    assert "\n" not in str(caught.value)
    traffic.close()
    traffic.close()
    assert not traffic.driven


def test_the_example_runs_against_the_fake_and_is_short(
    server: FakeCarla, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    server.actors.clear()
    monkeypatch.setattr(carla, "Client", lambda host, port: server)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    said = capsys.readouterr().out
    assert "5 of 5 vehicles driven by idm" in said
    assert not server.actors, "what was spawned is gone"
