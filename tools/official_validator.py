"""Runs under the official package's own Python: does its validator take a submission? Prints JSON.

Usage: PYTHON official_validator.py SUBMISSION.tar.gz SCENARIO_FOLDER sim_agents_2025|scenario_gen_2025
SCENARIO_FOLDER holds one `<scene id>` file per scene, a Scenario message. Calls the package's public functions and
nothing else of it. `official_wosac.py validate` makes the input and calls this.
"""

import json
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

PACKAGE = "waymo-open-dataset-tf-2-12-0"


def main(submission: str, folder: str, config_name: str) -> None:
    """Print what was found; a scene that the validator refuses is named with its words."""
    from waymo_open_dataset.protos import scenario_pb2, sim_agents_submission_pb2
    from waymo_open_dataset.utils.sim_agents import submission_specs

    generation = config_name == "scenario_gen_2025"
    kind = submission_specs.ChallengeType.SCENARIO_GEN if generation else submission_specs.ChallengeType.SIM_AGENTS
    refused, taken, shards, unset = {}, [], [], set()
    with tarfile.open(submission) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            assert stream is not None
            message = sim_agents_submission_pb2.SimAgentsChallengeSubmission.FromString(stream.read())
            shards.append(member.name)
            unset |= {field.name for field in message.DESCRIPTOR.fields} - {
                field.name for field, _ in message.ListFields()
            }
            for rollouts in message.scenario_rollouts:
                scenario = scenario_pb2.Scenario.FromString((Path(folder) / rollouts.scenario_id).read_bytes())
                try:
                    submission_specs.validate_scenario_rollouts(rollouts, scenario, kind)
                    taken.append(rollouts.scenario_id)
                except ValueError as error:
                    refused[rollouts.scenario_id] = str(error)
    report = {"taken": taken, "refused": refused, "shards": shards, "fields_not_set": sorted(unset)}
    print(json.dumps({**report, "version": version(PACKAGE)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
