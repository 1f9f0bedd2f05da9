"""MetaDrive as a host, against the real package: placement, spawning, lights, handover, both kinds of scenes."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import read_scenes
from traj_diffusion.policies import ConstantVelocity, IdmFollower
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.testing import WitnessedTraffic, host_findings
from traj_diffusion.testing.foreign import scenarionet_document

pytest.importorskip("metadrive", reason="needs the extra [metadrive], in an environment of its own")

from metadrive import MetaDriveEnv
from metadrive.envs.scenario_env import ScenarioEnv

from traj_diffusion.sim_adapter.hosts.metadrive import DrivenScenarioTraffic, DrivenTraffic, without_assets

pytestmark = pytest.mark.filterwarnings("ignore")  # of MetaDrive's and its packages' own
EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "metadrive_traffic.py"


@pytest.fixture
def start() -> Iterator[Any]:
    """Start an environment under a traffic manager; MetaDrive has one engine per process."""
    running: list[Any] = []

    def begin(base: Any, manager: Any, **options: Any) -> Any:
        without_assets()
        env = base({"log_level": 50, "horizon": 200, **options})
        running.append(env)
        env.lazy_init()
        env.engine.update_manager("traffic_manager", manager())
        env.reset(seed=0)
        return env

    yield begin
    for env in running:
        env.close()


def bundled(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Write the first bundled scene where ScenarioEnv finds it; return the scene and the settings."""
    scene = next(iter(read_scenes("bundled")))
    document = scenarionet_document(scene)
    summary = {"dataset_summary": {"0.pkl": document["metadata"]}, "dataset_mapping": {"0.pkl": ""}, "0": document}
    for name, content in summary.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(content))
    return scene, {"data_directory": str(folder), "num_scenarios": 1}


def test_procedural_vehicles_go_where_the_traffic_says(start: Any) -> None:
    env = start(
        MetaDriveEnv,
        lambda: DrivenTraffic(TrafficModel(IdmFollower())),
        map="SX",
        traffic_density=0.1,
        traffic_mode="respawn",
    )
    manager = env.engine.traffic_manager
    vehicles = list(manager._traffic_vehicles)
    begin = {vehicle.name: np.array(vehicle.position) for vehicle in vehicles}
    assert len(vehicles) > 5
    for _ in range(40):
        env.step([0.0, 0.0])
        for name, (position, heading, velocity) in manager.bridge._places.items():
            vehicle = manager.spawned_objects.get(name)
            if vehicle is not None:
                assert np.array(vehicle.position) == pytest.approx(position[:2], abs=1e-4)
                assert np.exp(1j * vehicle.heading_theta) == pytest.approx(np.exp(1j * heading), abs=1e-4)
                assert np.array(vehicle.velocity) == pytest.approx(velocity, abs=1e-3)
    went = [np.linalg.norm(np.array(v.position) - begin[v.name]) for v in vehicles if v.name in manager.spawned_objects]
    assert max(went) > 5
    episode = manager.bridge.traffic._episode
    assert len(episode.ground.map) > 50
    ego = episode.seen[-1].agent_id[~episode.seen[-1].is_controlled]
    assert len(ego) == 1
    first = manager.bridge
    env.reset(seed=0)
    env.step([0.0, 0.0])
    assert first.traffic._episode.steps == 1, "a new episode begins with a reset"


def test_recorded_agents_are_replayed_for_a_second_and_then_driven_without_a_jump(start: Any, tmp_path: Path) -> None:
    scene, options = bundled(tmp_path)
    env = start(ScenarioEnv, lambda: DrivenScenarioTraffic(TrafficModel(ConstantVelocity())), **options)
    manager = env.engine.traffic_manager
    shift = env.engine.data_manager.current_scenario["metadata"].get("old_origin_in_current_coordinate", np.zeros(2))
    assert np.isfinite(np.asarray(shift)).all()
    for step in range(1, 40):
        env.step([0.0, 0.0])
        seen = manager.bridge.traffic._episode.seen[-1]
        assert seen.is_controlled.any() == (step > 10)
        assert (~seen.is_controlled).sum() == (1 if step > 10 else len(seen)), "only the ego is its own"
        assert len(seen.light_lane) == len(scene.lights)
        if step == 20:
            log = env.engine.data_manager.current_scenario["tracks"]
            for name, (position, _, _) in manager.bridge._places.items():
                state = log[manager._obj_id_to_scenario_id[name]]["state"]
                if state["valid"][:12].all():
                    pace = np.linalg.norm(state["velocity"][10])
                    assert np.linalg.norm(position[:2] - state["position"][11, :2]) < 1.0 * pace + 0.5
    ids = seen.agent_id.tolist()
    assert len(ids) > 5


@pytest.mark.parametrize("recorded", [False, True], ids=["procedural", "recorded"])
def test_the_host_keeps_the_contract(recorded: bool, tmp_path: Path) -> None:
    _, options = bundled(tmp_path)
    base, manager = (ScenarioEnv, DrivenScenarioTraffic) if recorded else (MetaDriveEnv, DrivenTraffic)
    more = options if recorded else {"map": "SX", "traffic_density": 0.1, "traffic_mode": "respawn"}

    def run(traffic: WitnessedTraffic) -> None:
        without_assets()
        env = base({"log_level": 50, "horizon": 200, **more})
        try:
            env.lazy_init()
            env.engine.update_manager("traffic_manager", manager(traffic))
            env.reset(seed=0)
            for _ in range(30):
                env.step([0.0, 0.1])
        finally:
            env.close()

    # MetaDrive's physics engine repeats the ego's own motion to some 1e-7 m only, not to the bit.
    assert host_findings(run, lambda: WitnessedTraffic(IdmFollower()), within=1e-4) == ()


def test_two_runs_of_one_scene_are_equal_as_far_as_metadrive_is(start: Any, tmp_path: Path) -> None:
    _, options = bundled(tmp_path)
    env = start(ScenarioEnv, lambda: DrivenScenarioTraffic(TrafficModel(IdmFollower())), **options)
    ends = []
    for _ in range(2):
        env.reset(seed=0)
        for _ in range(25):
            env.step([0.0, 0.1])
        ends.append(env.engine.traffic_manager.bridge.traffic._episode.seen[-1].position)
    # MetaDrive's physics engine repeats the ego's own motion to some 1e-7 m only, not to the bit.
    assert ends[0] == pytest.approx(ends[1], abs=1e-5)


def test_the_example_runs_and_is_short(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLE)], capture_output=True, text=True, cwd=tmp_path, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "agents driven by idm" in done.stdout
