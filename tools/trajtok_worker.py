"""Runs under a Python that has TrajTok's needs: reads a Scenario and its ScenarioRollouts, prints what their port says.

Usage: PYTHON trajtok_worker.py CHECKOUT SCENARIO ROLLOUTS THREADS REPEATS
CHECKOUT is somebody's own copy of Thinklab-SJTU/TrajTok; nothing of it is part of this repository. That Python needs
torch, numpy, scikit-learn, protobuf 4 and the package waymo-open-dataset-tf-2-12-0 without its dependencies. Called by
`bench_wosac.py --trajtok`, which imports nothing from here.
"""

import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

TOOL = "wosac_fast_eval_tool"


def main(checkout: str, scenario_file: str, rollouts_file: str, threads: int, repeats: int) -> None:
    """Print one JSON object; times are the best of `repeats` calls behind a first one that warms up."""
    sys.path.insert(0, str(Path(checkout).resolve() / TOOL))
    import torch
    from fast_sim_agents_metrics import metrics
    from google.protobuf import text_format
    from scenario_gt_converter import extract_gt_scenario
    from waymo_open_dataset.protos import scenario_pb2, sim_agents_metrics_pb2, sim_agents_submission_pb2

    torch.set_num_threads(threads)
    config = sim_agents_metrics_pb2.SimAgentMetricsConfig()
    file = Path(metrics.__file__).with_name("challenge_2025_sim_agents_config.textproto")
    text_format.Parse(file.read_text(), config)
    scenario = scenario_pb2.Scenario.FromString(Path(scenario_file).read_bytes())
    converted = time.process_time()
    scene = extract_gt_scenario(scenario)
    converted = time.process_time() - converted
    message = sim_agents_submission_pb2.ScenarioRollouts.FromString(Path(rollouts_file).read_bytes())
    rollouts = as_tensors(message)
    walls, cpus = [], []
    for _ in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        fields = metrics.compute_scenario_metrics_for_bundle(config, scene, rollouts, "2025")
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    report = {
        "fields": {name: float(value) for name, value in fields.items()},
        "wall_s": round(min(walls[1:]), 3),
        "cpu_s": round(min(cpus[1:]), 3),
        "scene_conversion_cpu_s": round(converted, 3),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "versions": {name: version(name) for name in ("torch", "numpy")},
    }
    print(json.dumps(report))


def as_tensors(message: Any) -> dict[str, Any]:
    """Return the rollouts in the form that the port takes: [R, A, 80, 4] and the agents' ids."""
    import torch

    agents = [one.object_id for one in message.joint_scenes[0].simulated_trajectories]
    states = []
    for joint in message.joint_scenes:
        by_id = {one.object_id: one for one in joint.simulated_trajectories}
        found = [by_id[agent] for agent in agents]
        states.append(
            [[list(one.center_x), list(one.center_y), list(one.center_z), list(one.heading)] for one in found]
        )
    simulated = torch.tensor(states, dtype=torch.float32).transpose(2, 3).contiguous()
    return {"simulated_states": simulated, "agent_id": torch.tensor(agents, dtype=torch.int32)}


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]))
