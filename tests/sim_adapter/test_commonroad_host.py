"""CommonRoad as a host, against the real package: states, predictions, handover, frames, ends, both ways."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import read_scenes
from traj_diffusion.errors import BadInput, HostError
from traj_diffusion.policies import ConstantVelocity, IdmFollower
from traj_diffusion.scene import AgentKind, LightState, MapKind, Observation, Plan, PlanRequest
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.testing import WitnessedTraffic, host_findings
from traj_diffusion.testing.foreign_commonroad import commonroad_document
from traj_diffusion.testing.foreign_xml import commonroad_xml

pytest.importorskip("commonroad.scenario", reason="needs the extra [commonroad], in an environment of its own")

from commonroad.common.file_reader import CommonRoadFileReader
from commonroad.geometry.obstacle_shapes.rect_obstacle_shape import RectObstacleShape
from commonroad.scenario.obstacle import DynamicObstacle, ObstacleType
from commonroad.scenario.state import CustomState, InitialState, PMState
from commonroad.scenario.trajectory import Trajectory

from traj_diffusion.sim_adapter.hosts.commonroad import EGO, CommonRoadTraffic

pytestmark = pytest.mark.filterwarnings("ignore")  # of CommonRoad's and its packages' own
EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "commonroad_traffic.py"
RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data" / "commonroad"
CAR, TREE, LORRY = 30, 31, 32


def opened(path: Path) -> Any:
    return CommonRoadFileReader(str(path)).open()[0]


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Any]:
    """Two lanes east; a car at 10 m/s from (10, 2), a tree, and a lorry whose box lies 1 m ahead of its position."""

    def write(dt: float = 0.1) -> Any:
        text = commonroad_xml(dt=dt, problem=False).replace("</commonRoad>", "<scenarioTags/></commonRoad>")
        (tmp_path / "made.xml").write_text(text, encoding="utf-8")
        return opened(tmp_path / "made.xml")

    return write


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """The file of the first bundled scene."""
    (tmp_path / "town.xml").write_text(commonroad_document(next(iter(read_scenes("bundled")))), encoding="utf-8")
    return tmp_path / "town.xml"


def row(seen: Observation, number: int) -> int:
    return seen.agent_id.tolist().index(number)


def test_the_scenario_is_seen_in_our_terms(made: Callable[..., Any]) -> None:
    traffic = CommonRoadTraffic(TrafficModel(ConstantVelocity()), made())
    seen = traffic.observe(InitialState(time_step=0, position=np.array([5.0, 6.0]), orientation=0.0, velocity=8.0))
    assert seen.agent_id.tolist() == [TREE, LORRY, CAR, EGO]
    assert seen.kind.tolist() == [AgentKind.OTHER, AgentKind.VEHICLE, AgentKind.VEHICLE, AgentKind.VEHICLE]
    assert seen.is_controlled.tolist() == [False, False, True, False]
    assert seen.position[:, :2] == pytest.approx(np.array([[70, -3], [81, 6], [10, 2], [5, 6]]))
    assert seen.size[row(seen, LORRY), :2] == pytest.approx([8, 2])
    assert seen.velocity == pytest.approx(np.array([[0, 0], [0, 0], [10, 0], [8, 0]]))
    lights = traffic._roads.map
    assert len(lights.rows(MapKind.LANE)) == 4
    # The cycle of 60 steps begins at step 10, so that at step 0 it is 50 steps old: green from 25 to 55.
    assert seen.light_state.tolist() == [LightState.GO]
    assert seen.light_stop[0, :2] == pytest.approx([48, 2])


@pytest.mark.parametrize("dt", [0.04, 0.1, 0.2])
def test_driven_obstacles_get_states_history_and_the_prediction_that_is_followed(
    made: Callable[..., Any], dt: float
) -> None:
    scenario = made(dt)
    with CommonRoadTraffic(TrafficModel(ConstantVelocity(), futures=3, dt=dt), scenario, [CAR], log_steps=5) as traffic:
        car = scenario.obstacle_by_id(CAR)
        for step in range(1, 13):
            promised = car.state_at_time(step)
            found = traffic.step()
            assert traffic.time_step == step
            state = car.state_at_time(step)
            assert state.position == pytest.approx(promised.position, abs=1e-4)
            assert state.position == pytest.approx([10 + 10 * dt * step, 2], abs=1e-4)
            if step <= 5:
                assert car.initial_state.time_step == 0, "recorded until it is driven"
                continue
            assert found.agent_id.tolist() == [CAR]
            assert car.initial_state.time_step == step
            assert car.initial_state.velocity == pytest.approx(10, abs=1e-4)
            assert [one.time_step for one in car.history] == list(range(step))
            futures = traffic.futures(CAR)
            assert len(futures) == 3
            assert futures[found.chosen] == car.prediction
            end = futures[0].trajectory.final_state
            assert end.time_step * dt == pytest.approx(found.futures_time + 8.0, abs=dt)
            assert end.position == pytest.approx([10 + 10 * dt * end.time_step, 2], abs=1e-3)
        assert traffic.futures(TREE) != ()
        assert traffic.futures(999) == ()


class Turning(ConstantVelocity):
    """Everybody turns left at 0.3 rad/s and slides to the right at 1 m/s."""

    def plan(self, request: PlanRequest) -> Plan:
        plan = super().plan(request)
        ahead = 0.1 * np.arange(1, plan.position.shape[3] + 1)
        heading = request.state.heading[:, None, :, -1, None] + (0.3 * ahead).astype(np.float32)
        heading = np.broadcast_to(heading, plan.heading.shape).astype(np.float32)
        pace = np.stack([8 * np.cos(heading) + np.sin(heading), 8 * np.sin(heading) - np.cos(heading)], -1)
        position = plan.position.copy()
        position[..., :2] = request.state.position[:, None, :, -1, None, :2] + 0.1 * np.cumsum(pace, 3)
        return Plan(position, heading, pace.astype(np.float32), plan.log_weight, plan.dt)


def test_offsets_and_slip_come_back_as_they_were_put(made: Callable[..., Any]) -> None:
    scenario = made()
    corners = RectObstacleShape(length=6.0, width=2.0, origin_x_shift=-1.5)  # counted from near the rear axle
    start = InitialState(time_step=0, position=np.array([40.0, 2.0]), orientation=1.0, velocity=8.0)
    scenario.add_objects(DynamicObstacle(77, ObstacleType.TRUCK, corners, start))
    traffic = WitnessedTraffic(Turning())
    with CommonRoadTraffic(traffic, scenario, [77]) as host:
        seen = host.observe()
        box = scenario.obstacle_by_id(77).occupancy_at_time(0).shapely_object.centroid
        assert seen.position[row(seen, 77), :2] == pytest.approx([box.x, box.y])
        for _ in range(20):
            step = host.step()
            box = scenario.obstacle_by_id(77).occupancy_at_time(host.time_step).shapely_object.centroid
            assert [box.x, box.y] == pytest.approx(step.position[0, :2], abs=1e-6)
    assert traffic.findings() == ()


def test_states_of_other_classes_and_missing_velocities_are_understood(made: Callable[..., Any]) -> None:
    scenario = made()
    shape = RectObstacleShape(length=4.0, width=2.0)
    start = InitialState(time_step=0, position=np.array([0.0, 6.0]), orientation=np.pi / 2, velocity=0.0)
    moves = [PMState(time_step=i, position=np.array([0.0, 6 + 0.5 * i]), velocity=0.0, velocity_y=5.0) for i in (1, 2)]
    bare = [CustomState(time_step=i, position=np.array([0.0, 0.7 * i]), orientation=np.pi / 2) for i in (1, 2)]
    from commonroad.prediction.prediction import TrajectoryPrediction

    for number, states in ((77, moves), (78, bare)):
        logged = TrajectoryPrediction(Trajectory(1, states), shape)
        scenario.add_objects(DynamicObstacle(number, ObstacleType.PEDESTRIAN, shape, start, logged))
    host = CommonRoadTraffic(TrafficModel(ConstantVelocity()), scenario, [])
    host.step()
    seen = host.observe()
    assert seen.velocity[row(seen, 77)] == pytest.approx([0, 5], abs=1e-5)
    assert seen.velocity[row(seen, 78)] == pytest.approx([0, 7], abs=1e-5)
    assert seen.kind[row(seen, 77)] == AgentKind.PEDESTRIAN
    host.step()
    host.step()
    assert not {77, 78} & set(host.observe().agent_id.tolist()), "gone where their trajectories end"


def test_the_ego_and_its_plan_reach_the_traffic(made: Callable[..., Any]) -> None:
    host = CommonRoadTraffic(TrafficModel(ConstantVelocity()), made())
    ego = InitialState(time_step=0, position=np.array([5.0, 6.0]), orientation=0.0, velocity=8.0)
    way = [CustomState(time_step=i, position=np.array([5 + i, 6.0]), orientation=0.0) for i in range(1, 11)]
    step = host.step(ego, Trajectory(1, way))
    assert step.futures is not None
    assert step.futures.position[0, 0, step.futures_id.tolist().index(EGO), 9, 0] == pytest.approx(15)


def test_who_drives_off_the_map_leaves_the_scenario(made: Callable[..., Any]) -> None:
    scenario = made()
    farthest = 0.0
    with CommonRoadTraffic(TrafficModel(ConstantVelocity()), scenario) as host:
        for _ in range(130):
            host.step()
            if scenario.obstacle_by_id(CAR) is not None:
                farthest = scenario.obstacle_by_id(CAR).initial_state.position[0]
    assert scenario.obstacle_by_id(CAR) is None
    assert farthest == pytest.approx(130, abs=1.1)
    assert host.futures(CAR) == ()


def test_another_dt_and_states_that_are_not_finite_are_refused_and_change_nothing(made: Callable[..., Any]) -> None:
    with pytest.raises(HostError, match=r"CommonRoad steps by 0\.04 s and the traffic model by 0\.1 s; use dt=0\.04"):
        CommonRoadTraffic(TrafficModel(ConstantVelocity()), made(0.04))
    scenario = made()
    host = CommonRoadTraffic(TrafficModel(ConstantVelocity()), scenario)
    host.step()
    before = scenario.obstacle_by_id(CAR).initial_state
    with pytest.raises(BadInput, match="agent -1: position is"):
        host.step(InitialState(time_step=1, position=np.array([np.nan, 6.0]), orientation=0.0, velocity=8.0))
    assert host.time_step == 1
    assert scenario.obstacle_by_id(CAR).initial_state == before
    host.step()
    assert scenario.obstacle_by_id(CAR).initial_state.time_step == 2


def test_a_bundled_scene_is_driven_within_the_contract(town: Path) -> None:
    def run(traffic: WitnessedTraffic) -> None:
        with CommonRoadTraffic(traffic, opened(town), log_steps=10) as host:
            for _ in range(40):
                step = host.step()
        assert len(step.agent_id) > 15

    assert host_findings(run, lambda: WitnessedTraffic(IdmFollower(), futures=2)) == ()


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    ["ZAM_Tutorial-1_2_T-1", "DEU_TrafficLightTest-1", "USA_Lanker-1_3_T-1", "ZAM_Zip-2_1_T-1", "DEU_A9-3_1_T-1"],
)
def test_recorded_scenarios_are_driven_within_the_contract(name: str) -> None:
    if not (RECORDED / f"{name}.xml").exists():
        pytest.skip(f"{RECORDED / name}.xml is not here")
    scenario = opened(RECORDED / f"{name}.xml")
    traffic = WitnessedTraffic(IdmFollower(), dt=scenario.dt)
    with CommonRoadTraffic(traffic, scenario) as host:
        for _ in range(round(6.0 / scenario.dt)):
            host.step()
    assert [one for one in traffic.findings() if one.split(":")[0] not in ("motion", "facing", "map", "spawn")] == []


def test_the_example_runs_and_is_short(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLE)], capture_output=True, text=True, cwd=tmp_path, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "obstacles driven by idm" in done.stdout
