"""Checks of a trained model: a healthy one raises no alarm, and each deliberate bug is named by the right check."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from traj_diffusion.doctor import NAMES, Verdict, examine
from traj_diffusion.doctor.bench import CONFIG, Trained, made_batch
from traj_diffusion.doctor.case import Case
from traj_diffusion.doctor.mutations import (
    Mutation,
    as_parameterisation,
    diagnosis,
    healthy_subjects,
    mutated,
    mutations,
    to_row,
    to_table,
)
from traj_diffusion.doctor.subject import Subject
from traj_diffusion.model import TrafficDiffusion

ROOT = Path(__file__).resolve().parents[2]
UNTRAINED = TrafficDiffusion(CONFIG)
# Names and expectations can be listed without a training.
MISSED = {
    "histories of other agents": "exchanged once more they are no worse; it is seen by model.timestep and "
    "model.equivariance, which do not say where to look"
}
CATALOGUE = mutations(Trained(UNTRAINED, UNTRAINED, UNTRAINED))


def test_a_healthy_model_raises_no_alarm_and_nothing_is_skipped(healthy: Subject) -> None:
    report = examine(healthy, seconds=600.0)
    assert [(f.check, f.finding) for f in report.findings if f.verdict is not Verdict.OK] == []
    assert tuple(f.check for f in report.findings) == NAMES


@pytest.mark.parametrize("name", ["eps", "v"])
def test_a_healthy_model_of_another_parameterisation_raises_no_alarm(healthy: Subject, name: str) -> None:
    assert examine(as_parameterisation(healthy, name), seconds=600.0).alarms() == ()


def test_there_are_enough_bugs_and_each_model_check_has_one() -> None:
    assert len(CATALOGUE) >= 25
    assert len({mutation.name for mutation in CATALOGUE}) == len(CATALOGUE)
    named = {check for mutation in CATALOGUE for check in mutation.expected}
    assert set(NAMES) - named == {"install.shadowing"}


@pytest.mark.parametrize("place", range(len(CATALOGUE)), ids=[mutation.name for mutation in CATALOGUE])
def test_the_whole_doctor_names_the_check_that_a_bug_belongs_to(place: int, trained: Trained) -> None:
    mutation: Mutation = mutations(trained)[place]
    if mutation.name in MISSED:
        pytest.xfail(MISSED[mutation.name])
    healthy = healthy_subjects(trained)
    if not to_row(mutation, healthy)["named"]:
        report = diagnosis(mutated(mutation, healthy))
        pytest.fail(str([(f.check, f.verdict, f.figure, f.finding) for f in report.findings if f.alarm]))


def test_the_table_in_the_docs_is_that_of_the_json() -> None:
    found = json.loads((ROOT / "docs" / "figures" / "doctor_mutations.json").read_text(encoding="utf-8"))
    assert to_table(found) in (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert [row["bug"] for row in found["mutations"]] == [mutation.name for mutation in CATALOGUE]


def test_the_page_names_every_check() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    for name in NAMES:
        room, _, rest = name.partition(".")
        assert f"`{name}`" in page or f"`{room}.*`" in page or f"`.{rest}`" in page, name


def test_a_network_that_answers_nan_fails_and_does_not_crash(healthy: Subject) -> None:
    nan = replace(healthy, network=lambda batch: lambda x_t, t: torch.full_like(x_t, torch.nan))
    report = examine(nan, ["model.noise_scale", "model.one_step", "model.parameterisation", "samples.speed"])
    assert {finding.verdict for finding in report.findings} == {Verdict.FAIL}


def test_a_network_that_raises_becomes_a_finding(healthy: Subject) -> None:
    def refuse(batch: object) -> object:
        raise RuntimeError("no such key")

    report = examine(replace(healthy, network=refuse), ["model.timestep"])  # type: ignore[arg-type]
    assert "no such key" in report.findings[0].finding
    assert report.failed


def test_a_subject_with_parts_missing_is_skipped_with_reasons(healthy: Subject) -> None:
    bare = replace(
        healthy, normalise=None, denormalise=None, drive=None, policy=None, fresh=None, weights=None, earlier=()
    )
    report = examine(bare)
    assert not [finding for finding in report.findings if finding.verdict is Verdict.FAIL]
    reasons = {finding.check: finding.finding for finding in report.findings if finding.verdict is Verdict.SKIPPED}
    assert "normaliser" in reasons["data.normalisation"]
    assert "policy" in reasons["closed_loop.replan"]
    assert "one checkpoint only" in reasons["training.loss_vs_samples"]


@pytest.mark.parametrize("part", ["map", "lights", "route"])
def test_data_without_a_part_skips_its_check(healthy: Subject, part: str) -> None:
    from traj_diffusion.doctor import conditioning

    batch = {
        "map": conditioning.without_map,
        "lights": conditioning.without_lights,
        "route": conditioning.without_route,
    }
    assert healthy.batch is not None
    report = examine(replace(healthy, batch=batch[part](healthy.batch)), [f"conditioning.{part}"])
    assert report.findings[0].verdict is Verdict.SKIPPED


def test_data_in_which_nobody_moves_are_said_to_be_so(healthy: Subject) -> None:
    batch = healthy.batch
    assert batch is not None
    still = replace(batch, position=torch.zeros_like(batch.position))
    report = examine(replace(healthy, batch=still), ["model.one_step", "samples.speed"])
    assert not report.failed


def test_made_batches_are_reproducible_and_consistent() -> None:
    one, same, other = made_batch(4, 1), made_batch(4, 1), made_batch(4, 2)
    assert torch.equal(one.action, same.action)
    assert not torch.equal(one.action, other.action)
    assert one.position.shape == (4, 6, 20, 2)


def test_levels_have_the_ratio_that_is_asked_for(healthy: Subject) -> None:
    case = Case(healthy)
    for ratio in (0.3, 1.0, 3.0):
        t = case.level(ratio)
        assert torch.allclose(healthy.schedule.sigma(t) / healthy.schedule.alpha(t), torch.tensor(ratio), rtol=1e-3)


def test_diagnosis_leaves_the_training_out_only_where_it_cannot_differ(healthy: Subject) -> None:
    changed = replace(healthy, prior=lambda seed, shape: torch.zeros(shape))
    assert "model.overfit" not in [f.check for f in diagnosis(replace(changed, network=None), healthy).findings]
    other = replace(changed, network=None, normalise=lambda action, kind: action)
    assert "model.overfit" in [f.check for f in diagnosis(other, healthy).findings]
