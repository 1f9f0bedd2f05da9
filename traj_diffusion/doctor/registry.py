"""All checks in the order in which they are read, and the examination that runs them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from traj_diffusion.diffusion.checks import known
from traj_diffusion.doctor import conditioning, install, learned, overfit, process, samples, symmetry
from traj_diffusion.doctor.case import Case
from traj_diffusion.doctor.findings import Finding, NotApplicable, Verdict
from traj_diffusion.doctor.subject import Subject
from traj_diffusion.errors import BadConfig


@dataclass(frozen=True)
class Check:
    """One item of the checklist."""

    name: str
    run: Callable[[Case], Finding]
    needs_model: bool = True


CHECKS = (
    Check("install.shadowing", install.shadowing, needs_model=False),
    Check("schedule.monotone", process.monotone, needs_model=False),
    Check("schedule.terminal_snr", process.terminal_snr, needs_model=False),
    Check("schedule.strength", process.strength, needs_model=False),
    Check("forward.closed_form", process.closed_form, needs_model=False),
    Check("forward.prior", process.prior, needs_model=False),
    Check("parameterisation.round_trip", process.round_trip, needs_model=False),
    Check("shapes.broadcast", process.broadcast, needs_model=False),
    Check("checkpoint.ema", learned.ema),
    Check("data.normalisation", symmetry.normalisation),
    Check("data.validity", symmetry.validity),
    Check("model.timestep", learned.timestep),
    Check("model.noise_scale", learned.noise_scale),
    Check("model.one_step", learned.one_step),
    Check("model.parameterisation", learned.parameterisation),
    Check("model.overfit", overfit.overfit),
    Check("model.equivariance", symmetry.equivariance),
    Check("conditioning.map", conditioning.conditioning_map),
    Check("conditioning.history", conditioning.conditioning_history),
    Check("conditioning.lights", conditioning.conditioning_lights),
    Check("conditioning.route", conditioning.conditioning_route),
    Check("conditioning.agents", conditioning.conditioning_agents),
    Check("samples.speed", samples.speed),
    Check("samples.jerk", samples.jerk),
    Check("samples.overlap", samples.overlap),
    Check("samples.offroad", samples.offroad),
    Check("samples.diversity", samples.diversity),
    Check("samples.determinism", samples.determinism),
    Check("closed_loop.replan", samples.replan),
    Check("training.loss_vs_samples", learned.loss_vs_samples),
)
NAMES = tuple(check.name for check in CHECKS)


@dataclass(frozen=True)
class Report:
    """What came out of one examination."""

    subject: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(finding.verdict is Verdict.FAIL for finding in self.findings)

    def alarms(self) -> tuple[str, ...]:
        """Return the names of the checks that warn or fail."""
        return tuple(finding.check for finding in self.findings if finding.alarm)


@torch.no_grad()
def examine(
    subject: Subject,
    only: Sequence[str] = (),
    seconds: float = 120.0,
    progress: Callable[[Finding], None] = lambda finding: None,
) -> Report:
    """Return the findings of all checks, or of those named in `only`, in reading order.

    A check that has nothing to look at, or no time left, is skipped and says so. A check that breaks on what the
    subject does has failed: its finding is the error. BadConfig for an unknown name.
    """
    for name in only:
        try:
            known(name, NAMES, "check")
        except ValueError as error:
            raise BadConfig(str(error)) from error
    began, case, findings = time.perf_counter(), Case(subject, seconds), []
    for check in CHECKS:
        if only and check.name not in only:
            continue
        findings.append(_run(check, case))
        progress(findings[-1])
    return Report(subject.name, tuple(findings), time.perf_counter() - began)


def _run(check: Check, case: Case) -> Finding:
    if check.needs_model and case.subject.network is None:
        return Finding(check.name, Verdict.SKIPPED, "needs a checkpoint")
    if case.seconds_left <= 0:
        return Finding(check.name, Verdict.SKIPPED, "no time left; give more --seconds")
    try:
        return check.run(case)
    except NotApplicable as reason:
        return Finding(check.name, Verdict.SKIPPED, str(reason))
    except (ArithmeticError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        text = str(error).strip().splitlines() or [""]
        return Finding(
            check.name,
            Verdict.FAIL,
            f"broke off: {type(error).__name__}: {text[0][:300]}",
            "the model or its sampler refuses what training or sampling would ask of it",
        )
