"""The traffic backend of autoware_carla_scenario: real package, registry and map; the world is a fake."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("autoware_carla_scenario", reason="needs the extra [autoware], in an environment of its own")

import typesafe_carla.carla as carla
from autoware_carla_scenario.traffic import TrafficBackendUnavailable, registry
from autoware_carla_scenario.traffic.base import DrivenEntity, TrafficContext

from traj_diffusion.testing.carla_fake import FakeCarla
from traj_diffusion.testing.foreign_xml import opendrive_xml

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "autoware_traffic.py"
pytestmark = pytest.mark.filterwarnings("ignore")  # of the package's own


class Entity(DrivenEntity):
    """What the backend sees of an NPC."""

    def __init__(self, actor: Any) -> None:
        self.actor, self.role_name = actor, f"npc{actor.id}"


@pytest.fixture
def backend() -> Iterator[Any]:
    registry.load_traffic_backend_plugins()
    made = registry.build_backend("traj_diffusion", {"policy": "idm"})
    yield made
    made.close()


@pytest.fixture
def world() -> FakeCarla:
    fake = FakeCarla(carla, opendrive_xml(), dt=0.05)
    fake.add("vehicle.npc", 10.0, 1.75, 0.0, speed=8.0)
    fake.add("vehicle.npc", 90.0, -1.75, 180.0, speed=6.0)
    fake.add("vehicle.ego", 60.0, 1.75, 0.0, speed=5.0)
    fake.add("walker.pedestrian.0001", 40.0, 6.0, 90.0, speed=1.2)
    return fake


def context(world: FakeCarla, tmp_path: Path) -> TrafficContext:
    return TrafficContext(world=world, fixed_delta_seconds=0.05, random_seed=7, output_dir=tmp_path)


def run(backend: Any, world: FakeCarla, first: int, ticks: int) -> None:
    for tick in range(first, first + ticks):
        world.tick()
        backend.tick(world, 0.05 * (tick + 1))


def test_the_package_finds_the_backend_by_its_entry_point(backend: Any) -> None:
    assert "traj_diffusion" in registry.available_backends()
    assert backend.name == "traj_diffusion"
    assert backend.describe()["policy"] == "idm"
    with pytest.raises(ValueError, match="traj_diffusion knows no option 'polcy'; known: policy, futures"):
        registry.build_backend("traj_diffusion", {"polcy": "idm"})


def test_adopted_vehicles_are_carried_where_the_traffic_says_and_report_their_speed(
    backend: Any, world: FakeCarla, tmp_path: Path
) -> None:
    backend.prepare(context(world, tmp_path))
    npcs = [world.actors[100], world.actors[101]]
    for actor in (*npcs, world.actors[102]):
        backend.adopt(Entity(actor))
    backend.start(world, skip_actor_ids=[102])
    ego_before = world.actors[102].get_transform().location.x
    for tick in range(40):
        world.tick()
        put = backend._traffic._episode.put
        for row, actor in enumerate(npcs):  # after the tick each is where the traffic wanted it
            body = next(body for body in backend._view.bodies() if body.actor is actor)
            assert body.centre[:2] == pytest.approx(put.position[row, :2], abs=0.02)
            assert np.hypot(*body.velocity) == pytest.approx(np.hypot(*put.velocity[row]), abs=0.05)
        backend.tick(world, 0.05 * (tick + 1))
    assert npcs[0].get_transform().location.x > 20
    assert world.actors[102].get_transform().location.x == pytest.approx(ego_before + 40 * 0.05 * 5, abs=1e-3)
    assert not world.actors[102].constant, "the ego is somebody else's"
    backend.close()
    assert not any(actor.constant for actor in npcs)
    assert len(world.actors) == 4, "the scenario's vehicles are the scenario's to destroy"


def test_released_vehicles_are_left_alone_until_they_are_resumed(
    backend: Any, world: FakeCarla, tmp_path: Path
) -> None:
    backend.prepare(context(world, tmp_path))
    entity = Entity(world.actors[100])
    backend.adopt(entity)
    backend.start(world)
    run(backend, world, 0, 3)
    backend.release(entity, world)
    backend.release(entity, world)
    assert not world.actors[100].constant
    run(backend, world, 3, 3)
    assert not world.actors[100].constant
    backend.resume(entity, world)
    run(backend, world, 6, 1)
    assert world.actors[100].constant


def test_background_vehicles_come_are_driven_and_go_with_the_run(
    backend: Any, world: FakeCarla, tmp_path: Path
) -> None:
    backend.prepare(context(world, tmp_path))
    at = world.map.get_waypoint(carla.Location(x=75.0, y=1.75, z=0.0), True, carla.LaneType.Any).transform
    handle = backend.spawn_background(world, at, speed_kmh=30.0)
    assert backend.background_vehicles(world)[handle] == pytest.approx((75.0, 1.75), abs=0.1)
    assert backend.spawn_background(world, at, speed_kmh=30.0) is None, "the spot is taken"
    backend.start(world)
    run(backend, world, 0, 20)
    (actor,) = backend.background_actors(world).values()
    assert actor.constant
    backend.remove_background(world, handle)
    assert actor.id not in world.actors
    assert backend.background_vehicles(world) == {}
    backend.spawn_background(world, at, speed_kmh=30.0)
    backend.close()
    assert len(world.actors) == 4


def test_one_backend_serves_a_queue_and_the_same_seed_drives_the_same(
    backend: Any, tmp_path: Path, world: FakeCarla
) -> None:
    ends = []
    for _ in range(2):
        fake = FakeCarla(carla, opendrive_xml(), dt=0.05)
        fake.add("vehicle.npc", 10.0, 1.75, 0.0, speed=8.0)
        backend.prepare(context(fake, tmp_path))
        backend.adopt(Entity(fake.actors[100]))
        backend.start(fake)
        run(backend, fake, 0, 10)
        ends.append(fake.actors[100].get_transform().location.x)
        backend.close()
        backend.close()
    assert ends[0] == ends[1] > 12


def test_prepare_refuses_loudly_and_a_tick_that_fails_is_a_warning(
    backend: Any, world: FakeCarla, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = registry.build_backend("traj_diffusion", {"policy": "no such model"})
    with pytest.raises(TrafficBackendUnavailable, match="traj_diffusion: no such model: neither a file nor"):
        wrong.prepare(context(world, tmp_path))
    wrong.close()
    backend.prepare(context(world, tmp_path))
    backend.adopt(Entity(world.actors[100]))
    backend.start(world)
    place = world.actors[100].get_transform()
    place.location.x += 60.0  # somebody teleports it
    world.actors[100].set_transform(place)
    backend.tick(world, 0.05)
    assert "no traffic at 0.05 s" in caplog.text
    backend.adopt(SimpleNamespace(actor=None))  # not spawned yet
    world.dead = True
    backend.tick(world, 0.1)
    assert "time-out" in caplog.text
    world.dead = False


def test_the_example_runs_and_is_short(world: FakeCarla) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    actors = [world.actors[number] for number in (100, 101, 102)]
    before = [actor.get_transform().location.x for actor in actors]
    told = runpy.run_path(str(EXAMPLE))["drive"](world, actors, ego_id=102)
    assert told["policy"] == "idm"
    after = [actor.get_transform().location.x for actor in actors]
    assert after[0] - before[0] > 10
    assert after[1] - before[1] < -5
    assert after[2] - before[2] == pytest.approx(2.0 * 5, abs=1e-3), "the ego goes on at its own velocity"
