"""Runs under the official package's own Python: reads a Scenario and its ScenarioRollouts, prints the official metrics.

Usage: PYTHON official_worker.py SCENARIO ROLLOUTS sim_agents_2025|scenario_gen_2025
Calls the package's public functions and nothing else of it. `official` makes the environment and calls this; it is
never imported here, where that package is not.
"""

import json
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGE = "waymo-open-dataset-tf-2-12-0"


def fields(message: Any) -> dict[str, Any]:
    """Return a message's scalar fields by name."""
    return {descriptor.name: getattr(message, descriptor.name) for descriptor in message.DESCRIPTOR.fields}


def main(scenario_file: str, rollouts_file: str, config_name: str) -> None:
    """Print one JSON object."""
    from waymo_open_dataset.protos import scenario_pb2, sim_agents_submission_pb2
    from waymo_open_dataset.utils.sim_agents.submission_specs import ChallengeType
    from waymo_open_dataset.wdl_limited.sim_agents_metrics import metrics

    kind = ChallengeType.SCENARIO_GEN if config_name == "scenario_gen_2025" else ChallengeType.SIM_AGENTS
    scenario = scenario_pb2.Scenario.FromString(Path(scenario_file).read_bytes())
    rollouts = sim_agents_submission_pb2.ScenarioRollouts.FromString(Path(rollouts_file).read_bytes())
    os.chdir(Path(metrics.__file__).parents[3])  # the package looks for its configuration from where it is installed
    config = metrics.load_metrics_config(kind)
    wall, cpu = time.perf_counter(), time.process_time()
    result = metrics.compute_scenario_metrics_for_bundle(config, scenario, rollouts, kind)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    report = {
        "fields": fields(result),
        "buckets": fields(metrics.aggregate_metrics_to_buckets(config, result)),
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "versions": {name: version(name) for name in (PACKAGE, "tensorflow-probability", "numpy")},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
