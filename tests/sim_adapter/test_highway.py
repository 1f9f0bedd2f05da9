"""HighwayEnv as a host, against the real package: mirrored frames, the map, crashes, copies, determinism."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.errors import HostError
from traj_diffusion.policies import ConstantVelocity
from traj_diffusion.scene import LaneType, MapKind, Plan, PlanRequest

pytest.importorskip("highway_env", reason="needs the extra [highway]")
pytest.importorskip("gymnasium", reason="needs the extra [highway]")

import gymnasium
import highway_env
from highway_env.road.road import Road, RoadNetwork
from highway_env.vehicle.kinematics import Vehicle
from highway_env.vehicle.objects import Obstacle

from traj_diffusion.sim_adapter.hosts.highway import DrivenVehicle, road_map

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "highway_traffic.py"


class Steady(DrivenVehicle):
    policy = ConstantVelocity()


class Leftward(ConstantVelocity):
    """Drives everybody as before, and 1 m/s to the left of where they face."""

    def plan(self, request: PlanRequest) -> Plan:
        plan = super().plan(request)
        left = np.stack([-np.sin(plan.heading), np.cos(plan.heading)], -1)
        plan.position[..., :2] += left * np.arange(1, plan.heading.shape[-1] + 1)[:, None] * 0.1
        return plan


class Drifting(DrivenVehicle):
    policy = Leftward()


def road(*vehicles: Any) -> Road:
    found = Road(RoadNetwork.straight_road_network(3, speed_limit=30, length=400), np_random=np.random.RandomState(0))
    for kind, x, lane, speed in vehicles:
        found.vehicles.append(kind(found, [x, 4.0 * lane], 0.0, speed))
    return found


def tick(world: Road, times: int = 1, dt: float = 1 / 15) -> None:
    for _ in range(times):
        world.act()
        world.step(dt)


def test_the_map_is_mirrored_linked_and_edged() -> None:
    features = road_map(road())
    lanes = features.rows(MapKind.LANE).tolist()
    assert [features.polyline(row)[0, 1] for row in lanes] == [0.0, -4.0, -8.0], "the right lane lies to the right"
    assert set(features.subtype[lanes]) == {LaneType.FREEWAY}
    assert features.speed_limit[lanes].tolist() == [30.0] * 3
    assert features.links.right[lanes[0]].tolist() == [lanes[1]]
    assert features.links.left[lanes[2]].tolist() == [lanes[1]]
    edges = {round(float(features.polyline(row)[0, 1]), 3) for row in features.rows(MapKind.ROAD_EDGE).tolist()}
    assert edges == {2.0, -10.0}
    length = np.linalg.norm(np.diff(features.polyline(lanes[0]), axis=0), axis=-1).sum()
    assert length == pytest.approx(400)


def test_driven_vehicles_go_where_the_traffic_says_from_one_common_moment() -> None:
    world = road((Vehicle, 0.0, 0, 20.0), (Steady, 50.0, 1, 15.0), (Steady, 90.0, 2, 12.0))
    tick(world, 15)
    for vehicle, start, speed in zip(world.vehicles, (0, 50, 90), (20, 15, 12), strict=True):
        assert vehicle.position[0] == pytest.approx(start + speed, abs=1e-3)
        assert vehicle.speed == pytest.approx(speed, abs=1e-3)
    model = world.traffic.model
    assert model.metadata["dt"] == pytest.approx(1 / 15)
    seen = model._episode.seen[-1]
    assert seen.position[:, 0] == pytest.approx([20 * 14 / 15, 50 + 14.0, 90 + 12 * 14 / 15], abs=1e-3)
    assert seen.is_controlled.tolist() == [False, True, True]


def test_left_is_left() -> None:
    world = road((Drifting, 50.0, 1, 15.0))
    tick(world, 6)
    # Lane 0 is the leftmost one and has the smallest y in HighwayEnv.
    assert world.vehicles[0].position[1] == pytest.approx(4.0 - 0.4, abs=1e-3)


def test_who_crashes_is_highwayenvs_and_obstacles_are_seen() -> None:
    world = road((Steady, 0.0, 1, 15.0), (Steady, 0.0, 2, 15.0))
    world.objects.append(Obstacle(world, [12.0, 4.0]))
    tick(world, 30)
    assert [vehicle.crashed for vehicle in world.vehicles] == [True, False]
    assert world.vehicles[0].speed < 5
    assert world.vehicles[1].speed == pytest.approx(15.0, abs=1e-3)
    seen = world.traffic.model._episode.seen[-1]
    assert seen.is_controlled.tolist() == [False, True, False]
    assert seen.kind.tolist() == [1, 1, 4]


def test_a_copy_of_the_world_goes_on_by_itself_with_the_same_traffic() -> None:
    world = road((Steady, 0.0, 1, 15.0))
    tick(world, 5)
    other = copy.deepcopy(world)
    tick(other, 10)
    assert world.vehicles[0].position[0] == pytest.approx(5.0, abs=1e-3)
    tick(world, 10)
    assert np.array_equal(world.vehicles[0].position, other.vehicles[0].position)


def test_a_step_that_changes_is_refused() -> None:
    world = road((Steady, 0.0, 1, 15.0))
    tick(world)
    with pytest.raises(HostError, match="its step must not change"):
        tick(world, dt=0.1)


@pytest.mark.parametrize("name", ["highway-fast-v0", "intersection-v2", "merge-v1", "two-way-v0"])
def test_environments_run_with_other_vehicles_type_by_dotted_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gymnasium.register_envs(highway_env)
    monkeypatch.setattr(DrivenVehicle, "policy", ConstantVelocity())
    path = "traj_diffusion.sim_adapter.hosts.highway.DrivenVehicle"
    config = {"other_vehicles_type": path, "vehicles_count": 5, "initial_vehicle_count": 5}
    ends = []
    for _ in range(2):
        env = gymnasium.make(name, config=config)
        env.reset(seed=2)
        for _ in range(3):
            env.step(env.unwrapped.action_space.sample() * 0)
        ends.append(np.array([vehicle.position for vehicle in env.unwrapped.road.vehicles]))
        assert any(isinstance(vehicle, DrivenVehicle) for vehicle in env.unwrapped.road.vehicles)
        env.close()
    assert np.array_equal(*ends)


def test_the_example_runs_and_is_short(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLE)], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("vehicles driven by constant_velocity") == 2
