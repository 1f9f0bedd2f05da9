"""All bugs, the healthy subjects that they are injected into, and the table of what doctor says."""

from collections.abc import Callable
from typing import Any

from traj_diffusion.diffusion import make_schedule
from traj_diffusion.doctor.bench import Trained, bench_subject
from traj_diffusion.doctor.findings import Verdict
from traj_diffusion.doctor.mutations import data, learned, parameterised, process, sampling
from traj_diffusion.doctor.mutations.mutation import Mutation
from traj_diffusion.doctor.registry import NAMES, Report, examine
from traj_diffusion.doctor.subject import Subject, plain_subject
from traj_diffusion.testing.scenes import crossing, straight_road

_BASES = {"model": "tiny model, x0", "schedule": "schedule linear_beta"}


def mutations(trained: Trained) -> tuple[Mutation, ...]:
    """Return all bugs, for subjects of this tiny model."""
    return (*process.BUGS, *learned.bugs(trained), *parameterised.BUGS, *data.BUGS, *sampling.BUGS)


def healthy_subjects(trained: Trained) -> dict[str, Subject]:
    """Return subjects on which no check may raise an alarm: the tiny model as x0, eps and v, and plain schedules."""
    model = bench_subject(trained, (straight_road(), crossing()))
    schedules = ("linear_beta", "cosine_beta", "cosine", "flow", "edm")
    return {
        "tiny model, x0": model,
        "tiny model, eps": parameterised.as_parameterisation(model, "eps"),
        "tiny model, v": parameterised.as_parameterisation(model, "v"),
        **{f"schedule {name}": plain_subject(make_schedule(name)) for name in schedules},
    }


def mutated(mutation: Mutation, healthy: dict[str, Subject]) -> Subject:
    """Return the healthy subject that the bug belongs to, with the bug."""
    return mutation.change(healthy[_BASES[mutation.base]])


def diagnosis(subject: Subject, healthy: Subject | None = None) -> Report:
    """Return the doctor's report by all checks but one: the training of a fresh network is left out where the bug
    touched nothing that it needs, for then it is the healthy subject's own, bit by bit."""
    needs = ("fresh", "batch", "normalise", "add_noise", "to_x0", "schedule")
    same = healthy is not None and all(getattr(subject, name) is getattr(healthy, name) for name in needs)
    return examine(subject, [name for name in NAMES if not (same and name == "model.overfit")], seconds=600.0)


def to_row(mutation: Mutation, healthy: dict[str, Subject]) -> dict[str, Any]:
    """Return, as JSON can hold it, what the doctor says of one bug."""
    report = diagnosis(mutated(mutation, healthy), healthy[_BASES[mutation.base]])
    failed = [finding.check for finding in report.findings if finding.verdict is Verdict.FAIL]
    named = [check for check in mutation.expected if check in failed]
    finding = next((one for one in report.findings if one.check in named), None)
    return {
        "bug": mutation.name,
        "expected": list(mutation.expected),
        "named": named,
        "also": [check for check in report.alarms() if check not in mutation.expected],
        "finding": finding.finding if finding else "",
    }


def run_mutations(trained: Trained, progress: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Return, as JSON can hold it, what the doctor says of all healthy subjects and of each bug."""
    healthy = healthy_subjects(trained)
    found: dict[str, Any] = {"healthy": {}, "mutations": []}
    for name, subject in healthy.items():
        found["healthy"][name] = list(diagnosis(subject).alarms())
        progress(f"{name}: {', '.join(found['healthy'][name]) or 'no alarm'}")
    for mutation in mutations(trained):
        found["mutations"].append(to_row(mutation, healthy))
        progress(f"{mutation.name}: {', '.join(found['mutations'][-1]['named']) or 'MISSED'}")
    return found


def to_table(found: dict[str, Any]) -> str:
    """Return the outcome of `run_mutations` as Markdown."""
    rows = found["mutations"]
    caught = sum(bool(row["named"]) for row in rows)
    quiet = sum(not alarms for alarms in found["healthy"].values())
    lines = ["| bug | named | finding | also |", "| --- | --- | --- | --- |"]
    for row in rows:
        named = ", ".join(f"`{name}`" for name in row["named"]) or "**missed**"
        also = ", ".join(f"`{name}`" for name in row["also"]) or "–"
        lines.append(f"| {row['bug']} | {named} | {row['finding'].replace('|', '/')} | {also} |")
    lines.append("")
    lines.append(
        f"{caught} of {len(rows)} bugs are named by the right check; {quiet} of {len(found['healthy'])} healthy "
        f"subjects raise no alarm ({', '.join(found['healthy'])})."
    )
    return "\n".join(lines) + "\n"
