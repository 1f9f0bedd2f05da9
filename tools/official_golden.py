"""Runs under the official package's own Python: makes a golden, the official score with every feature at every step.

Usage: PYTHON official_golden.py SCENARIO ROLLOUTS sim_agents_2025|scenario_gen_2025 STEM
Writes STEM.json (official fields per configuration) and STEM.npz (features, `log_` and `sim_`), as
tools/wosac_parity.py reads them. Calls the package's public functions and nothing else of it.
`official_wosac.py golden` makes the input, writes the rollouts beside them, and calls this.
"""

import dataclasses
import json
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGE = "waymo-open-dataset-tf-2-12-0"


def main(scenario_file: str, rollouts_file: str, config_name: str, stem: str) -> None:
    """Write both files."""
    import numpy as np
    from google.protobuf import text_format
    from waymo_open_dataset.protos import scenario_pb2, sim_agents_metrics_pb2, sim_agents_submission_pb2
    from waymo_open_dataset.utils.sim_agents.submission_specs import ChallengeType
    from waymo_open_dataset.wdl_limited.sim_agents_metrics import metric_features, metrics

    generation = config_name == "scenario_gen_2025"
    kind = ChallengeType.SCENARIO_GEN if generation else ChallengeType.SIM_AGENTS
    scenario = scenario_pb2.Scenario.FromString(Path(scenario_file).read_bytes())
    rollouts = sim_agents_submission_pb2.ScenarioRollouts.FromString(Path(rollouts_file).read_bytes())
    out = Path(stem).resolve()
    os.chdir(Path(metrics.__file__).parents[3])  # the package looks for its configuration from where it is installed
    configs = {f"challenge_2025_{'scenario_gen' if generation else 'sim_agents'}": metrics.load_metrics_config(kind)}
    if not generation:
        older = sim_agents_metrics_pb2.SimAgentMetricsConfig()
        text_format.Parse(Path(metrics.__file__).with_name("challenge_2024_config.textproto").read_text(), older)
        configs["challenge_2024"] = older
    cpu = time.process_time()
    logged, simulated = metric_features.compute_scenario_rollouts_features(scenario, rollouts, kind)
    cpu = time.process_time() - cpu
    arrays = {"object_id": logged.object_id.numpy()}
    for side, features in (("log_", logged), ("sim_", simulated)):
        names = [field.name for field in dataclasses.fields(features) if field.name != "object_id"]
        arrays |= {side + name: getattr(features, name).numpy() for name in names}
    found = {}
    for name, config in configs.items():
        score = metrics.compute_scenario_metrics_for_features_bundle(config, scenario.scenario_id, logged, simulated)
        found[name] = {
            "metrics": fields(score),
            "bucketed": fields(metrics.aggregate_metrics_to_buckets(config, score)),
        }
    report = {
        "scenario_id": scenario.scenario_id,
        "challenge_type": kind.name,
        "configs": found,
        "seconds": {"features_cpu": round(cpu, 2)},
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "versions": {name: version(name) for name in (PACKAGE, "tensorflow-probability", "numpy")},
    }
    out.with_name(out.name + ".json").write_text(json.dumps(report, indent=1) + "\n")
    np.savez_compressed(out.with_name(out.name + ".npz"), **arrays)


def fields(message: Any) -> dict[str, Any]:
    """Return a message's scalar fields by name."""
    return {descriptor.name: getattr(message, descriptor.name) for descriptor in message.DESCRIPTOR.fields}


if __name__ == "__main__":
    main(*sys.argv[1:])
