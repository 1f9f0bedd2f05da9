"""Make the pictures of hosts whose traffic the bundled model drives: the last three seconds and the futures ahead.

Usage: python -P tools/make_host_figures.py sumo|metadrive|commonroad [--policy small] [--seconds 8]
[--out docs/figures]
MetaDrive and CommonRoad need environments with the extras [metadrive] and [commonroad].
"""

import argparse
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import traj_diffusion as td
from traj_diffusion.scene import Agents, Lights, Map, Observation, Rollouts, Routes, Scene, Step

ROOT = Path(__file__).resolve().parents[1]


class Filmed(td.TrafficModel):
    """Traffic that keeps what it was shown."""

    def reset(self, scene_or_map: Any, observation: Observation) -> None:
        """Begin to film."""
        self.map: Map = scene_or_map
        self.seen: list[Observation] = []
        super().reset(scene_or_map, observation)

    def step(self, observation: Observation) -> Step:
        """Film."""
        self.seen.append(observation)
        self.last = super().step(observation)
        return self.last

    def save(self, path: Path, name: str) -> Path:
        """Draw who was driven, where they came from, and the futures of the last plan."""
        now = self.seen[-1]
        film = self.seen[-31:]
        shape = (len(now), len(film))
        position, heading, velocity = (
            np.zeros((*shape, 3)),
            np.zeros(shape, np.float32),
            np.zeros((*shape, 2), np.float32),
        )
        valid = np.zeros(shape, bool)
        for tick, seen in enumerate(film):
            _, rows, at = np.intersect1d(now.agent_id, seen.agent_id, return_indices=True)
            position[rows, tick], heading[rows, tick], velocity[rows, tick] = (
                seen.position[at],
                seen.heading[at],
                seen.velocity[at],
            )
            valid[rows, tick] = True
        lights = len(now.light_lane)
        scene = Scene(
            id=name,
            source="host",
            dt=self.dt,
            current_index=len(film) - 1,
            ego=None,
            agents=Agents(
                id=now.agent_id,
                kind=now.kind,
                position=position,
                heading=heading,
                velocity=velocity,
                size=np.repeat(now.size[:, None], len(film), 1),
                valid=valid,
                to_predict=now.is_controlled,
            ),
            map=self.map,
            lights=Lights(
                lane_id=now.light_lane,
                stop_point=np.repeat(now.light_stop[:, None], len(film), 1),
                state=np.repeat(now.light_state[:, None], len(film), 1),
                observed=np.ones((lights, len(film)), bool),
            ),
            routes=Routes.absent(len(now)),
        )
        plan = self.last.futures
        assert plan is not None
        driven = np.flatnonzero(np.isin(self.last.futures_id, now.agent_id[now.is_controlled]))
        path_ahead = plan.position[:1, self.last.chosen][:, driven]
        origin = now.position[:, :2].mean(0)
        rollouts = Rollouts(
            scene_id=name,
            first_step=scene.current_index + 1,
            dt=plan.dt,
            agent_id=self.last.futures_id[driven],
            kind=np.array([now.kind[now.agent_id == agent][0] for agent in self.last.futures_id[driven]], np.uint8),
            position=path_ahead,
            heading=plan.heading[:1, self.last.chosen][:, driven],
            valid=np.ones(path_ahead.shape[:3], bool),
            futures=(plan.position[0][:, driven][..., :2] - origin).astype(np.float32),
            futures_origin=origin,
            provenance={"model": self.metadata["policy"]},
        )
        return td.save_picture(path, scene, rollouts, size=(1600, 1000))


def sumo(traffic: Filmed, seconds: float) -> str:
    """Drive every second vehicle of a small town."""
    import subprocess

    from traj_diffusion.datasets.synthesis.tools import require_libsumo, sumo_home
    from traj_diffusion.sim_adapter.hosts.sumo import SumoTraffic

    libsumo = require_libsumo()
    with tempfile.TemporaryDirectory() as folder:
        net = Path(folder) / "town.net.xml"
        grid = "--grid --grid.number 2 --grid.length 80 --grid.attach-length 60 --default-junction-type traffic_light"
        program = str(sumo_home() / "bin" / "netgenerate")
        subprocess.run(
            [program, *grid.split(), "--default.lanenumber", "2", "-o", str(net)], check=True, capture_output=True
        )
        libsumo.start(
            ["sumo", "-n", str(net), "--step-length", "0.1", "--time-to-teleport", "-1", "--no-step-log", "true"]
        )
        ways = ["left0A0 A0B0 B0right0", "bottom0A0 A0A1 A1top0", "right1B1 B1A1 A1left1", "top1B1 B1B0 B0bottom1"]
        for number in range(16):
            libsumo.route.add(f"r{number}", ways[number % 4].split())
            libsumo.vehicle.add(
                f"car{number}", f"r{number}", depart=str(number // 4 * 2.5), departSpeed="8", departLane="best"
            )
        with SumoTraffic(traffic, libsumo, net, lambda name: int(name[3:]) // 4 % 2 == 0) as town:
            for _ in range(round(seconds / traffic.dt)):
                town.step()
        libsumo.close()
    return "SUMO, every second vehicle driven"


def metadrive(traffic: Filmed, seconds: float) -> str:
    """Drive everyone but the ego of a bundled scene."""
    from metadrive.envs.scenario_env import ScenarioEnv

    from traj_diffusion.sim_adapter.hosts.metadrive import DrivenScenarioTraffic, without_assets
    from traj_diffusion.testing.foreign import scenarionet_document

    without_assets()
    document = scenarionet_document(next(td.read_scenes("bundled")))
    summary = {"dataset_summary": {"0.pkl": document["metadata"]}, "dataset_mapping": {"0.pkl": ""}, "0": document}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in summary.items():
            Path(folder, f"{name}.pkl").write_bytes(pickle.dumps(content))
        env = ScenarioEnv({"log_level": 50, "data_directory": folder, "num_scenarios": 1})
        env.lazy_init()
        env.engine.update_manager("traffic_manager", DrivenScenarioTraffic(traffic))
        env.reset(seed=0)
        for _ in range(round(seconds / traffic.dt)):
            env.step([0.0, 0.0])
        env.close()
    return "MetaDrive, all but the ego driven"


def commonroad(traffic: Filmed, seconds: float) -> str:
    """Drive all obstacles of a bundled scene; they are recorded in the first second."""
    from commonroad.common.file_reader import CommonRoadFileReader

    from traj_diffusion.sim_adapter.hosts.commonroad import CommonRoadTraffic
    from traj_diffusion.testing.foreign_commonroad import commonroad_document

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "made.xml")
        path.write_text(commonroad_document(list(td.read_scenes("bundled"))[2]), encoding="utf-8")
        scenario, _ = CommonRoadFileReader(str(path)).open()
    host = CommonRoadTraffic(traffic, scenario, log_steps=10)
    for _ in range(round(seconds / traffic.dt)):
        host.step()
    return "CommonRoad, all obstacles driven"


def main() -> None:
    """Run a host and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", choices=tuple(HOSTS))
    parser.add_argument("--policy", default="small")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures")
    options = parser.parse_args()
    traffic = Filmed(td.load_policy(options.policy), futures=8, seed=0)
    name = HOSTS[options.host](traffic, options.seconds)
    print(traffic.save(options.out / f"host_{options.host}.png", name))


HOSTS = {"sumo": sumo, "metadrive": metadrive, "commonroad": commonroad}

if __name__ == "__main__":
    main()
