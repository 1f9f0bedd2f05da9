"""Deliberate bugs, each injected alone into a healthy subject: the doctor must name the check that it belongs to.

They are the silent ones: nothing crashes, the loss may even fall. `expected` holds the checks of which at least one
must fail; others may fail as well, for one bug has many symptoms.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from traj_diffusion.diffusion import (
    Ddim,
    DiscreteVP,
    Schedule,
    TableVP,
    add_noise,
    as_denoiser,
    convert,
    linear_beta,
    make_schedule,
    sample,
    uniform_grid,
)
from traj_diffusion.doctor import conditioning as parts
from traj_diffusion.doctor.adapt import network_of
from traj_diffusion.doctor.bench import Trained, bench_subject
from traj_diffusion.doctor.findings import Verdict
from traj_diffusion.doctor.registry import NAMES, Report, examine
from traj_diffusion.doctor.subject import Bound, Network, Subject, plain_subject
from traj_diffusion.kinematics import Motion
from traj_diffusion.scene import Plan, PlanRequest
from traj_diffusion.testing.scenes import crossing, straight_road
from traj_diffusion.training.batch import Batch

Change = Callable[[Subject], Subject]
_BASES = {"model": "tiny model, x0", "schedule": "schedule linear_beta"}


@dataclass(frozen=True)
class Mutation:
    """One bug: how it gets into a subject, and the checks that may be named for it."""

    name: str
    change: Change
    expected: tuple[str, ...]
    base: str = "model"  # or "schedule": a subject without a model, DDPM's linear schedule


def _network(wrap: Callable[[Bound, Batch], Bound]) -> Change:
    """Change what the trained network is asked or says."""

    def change(subject: Subject) -> Subject:
        network = _of(subject)
        return replace(subject, network=lambda batch: wrap(network(batch), batch))

    return change


def _shown(alter: Callable[[Batch], Batch]) -> Change:
    """Change what the trained network is shown."""

    def change(subject: Subject) -> Subject:
        network = _of(subject)
        return replace(subject, network=lambda batch: network(alter(batch)))

    return change


def _of(subject: Subject) -> Network:
    assert subject.network is not None
    return subject.network


def _told(level: Callable[[Tensor], Tensor]) -> Change:
    return _network(lambda bound, batch: lambda x_t, t: bound(x_t, level(t)))


def _says(alter: Callable[[Tensor], Tensor]) -> Change:
    return _network(lambda bound, batch: lambda x_t, t: alter(bound(x_t, t)))


def as_parameterisation(subject: Subject, name: str) -> Subject:
    """Return a healthy subject whose network says `name`, on DDPM's schedule, which never loses all signal."""
    schedule = TableVP(linear_beta())
    plain, known = plain_subject(schedule, name, steps=16), subject.schedule
    network = _of(subject)

    def bind(batch: Batch) -> Bound:
        bound = network(batch)

        def ask(x_t: Tensor, t: Tensor) -> Tensor:
            # Both schedules preserve variance, so that the same log SNR means the same x_t.
            x0 = bound(x_t, known.t_of_log_snr(schedule.log_snr(t)))
            return convert(x0, subject.parameterisation, name, x_t, schedule.alpha(t), schedule.sigma(t))

        return ask

    return replace(
        subject,
        schedule=schedule,
        parameterisation=name,
        network=bind,
        add_noise=plain.add_noise,
        target=plain.target,
        to_x0=plain.to_x0,
        prior=plain.prior,
        sampler=plain.sampler,
        fresh=None,
        earlier=(),
    )


def _eps_taken_for_x0(subject: Subject) -> Subject:
    return replace(as_parameterisation(subject, "x0"), network=_of(as_parameterisation(subject, "eps")))


def _v_of_other_sign(subject: Subject) -> Subject:
    return _says(lambda said: -said)(as_parameterisation(subject, "v"))


def _v_taken_for_eps(subject: Subject) -> Subject:
    return replace(as_parameterisation(subject, "eps"), network=_of(as_parameterisation(subject, "v")))


def _with_schedule(alpha_bar: Callable[[Tensor], Tensor]) -> Change:
    def change(subject: Subject) -> Subject:
        assert isinstance(subject.schedule, DiscreteVP)
        return plain_subject(DiscreteVP(alpha_bar(subject.schedule.alpha_bar), "mutated"))

    return change


class _Altered(Schedule):
    """A schedule with its levels exchanged or read at another time."""

    discrete = True
    family = "vp"

    def __init__(self, table: DiscreteVP, swap: bool = False, reverse: bool = False) -> None:
        self.table, self.swap, self.reverse = table, swap, reverse

    @property
    def t_max(self) -> int:
        return self.table.t_max

    @property
    def clean(self) -> int:
        return -1

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return self.table.t_of_log_snr(log_snr)

    def _alpha(self, t: Tensor) -> Tensor:
        at = self.t_max - t if self.reverse else t
        return self.table.sigma(at) if self.swap else self.table.alpha(at)

    def _sigma(self, t: Tensor) -> Tensor:
        at = self.t_max - t if self.reverse else t
        return self.table.alpha(at) if self.swap else self.table.sigma(at)

    def _checked(self, t: Tensor) -> Tensor:
        return t.long()


def _alter_schedule(**how: bool) -> Change:
    def change(subject: Subject) -> Subject:
        assert isinstance(subject.schedule, DiscreteVP)
        return plain_subject(_Altered(subject.schedule, **how))

    return change


def _off_by_one(subject: Subject) -> Subject:
    schedule = subject.schedule
    return replace(subject, add_noise=lambda x0, eps, t: add_noise(x0, eps, (t - 1).clamp(min=0), schedule))


def _trailing_broadcast(subject: Subject) -> Subject:
    schedule = subject.schedule

    def noised(x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        if x0.ndim == 2 and x0.shape[0] != x0.shape[1]:
            alpha, sigma = alpha[:, None], sigma[:, None]
        return alpha * x0 + sigma * eps if alpha.shape[-1] in (1, x0.shape[-1]) else add_noise(x0, eps, t, schedule)

    return replace(subject, add_noise=noised)


def _variance_for_deviation(subject: Subject) -> Subject:
    schedule = subject.schedule

    def noised(x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        sigma = schedule.sigma(t).reshape(-1, *[1] * (x0.ndim - 1))
        return add_noise(x0, torch.zeros_like(eps), t, schedule) + sigma**2 * eps

    return replace(subject, add_noise=noised)


def _prior(alter: Callable[[Callable[[int, tuple[int, ...]], Tensor], int, tuple[int, ...]], Tensor]) -> Change:
    def change(subject: Subject) -> Subject:
        draw = subject.prior
        return replace(subject, prior=lambda seed, shape: alter(draw, seed, shape))

    return change


def _unseeded(subject: Subject) -> Subject:
    draw, calls = subject.prior, count(1000)
    return replace(subject, prior=lambda seed, shape: draw(next(calls), shape))


def _same_futures(draw: Callable[[int, tuple[int, ...]], Tensor], seed: int, shape: tuple[int, ...]) -> Tensor:
    drawn = draw(seed, shape)
    return drawn[:, :, :1].expand(shape).contiguous() if shape[1] > 1 else drawn


def _sampler_on(times: Callable[[Schedule], Tensor]) -> Change:
    """Sample on another grid."""

    def change(subject: Subject) -> Subject:
        def sampler(network: Bound, x_T: Tensor) -> Tensor:
            denoise = as_denoiser(network, subject.parameterisation, subject.schedule)
            return sample(denoise, x_T, subject.schedule, times(subject.schedule), Ddim())

        return replace(subject, sampler=sampler)

    return change


def _sampler_drops_map(subject: Subject) -> Subject:
    # Only sampling is without the map: training and its loss know nothing of it.
    network, dropped = _of(subject), {"asked": None}

    def bind(batch: Batch) -> Bound:
        full, blind = network(batch), network(parts.without_map(batch))

        def ask(x_t: Tensor, t: Tensor) -> Tensor:
            return (blind if dropped["asked"] else full)(x_t, t)

        return ask

    def sampler(bound: Bound, x_T: Tensor) -> Tensor:
        dropped["asked"] = True  # type: ignore[assignment]
        try:
            return subject.sampler(bound, x_T)
        finally:
            dropped["asked"] = None

    return replace(subject, network=bind, sampler=sampler)


def _raw_weights(trained: Trained) -> Change:
    def change(subject: Subject) -> Subject:
        return replace(subject, network=network_of(trained.model), weights=trained.model.state_dict())

    return change


def _never_trained(subject: Subject) -> Subject:
    assert subject.fresh is not None
    _, network = subject.fresh()
    return replace(subject, network=network, weights=subject.initial, average=None)


def _normaliser(there: Callable[[Subject], Callable[[Tensor, Tensor], Tensor]]) -> Change:
    return lambda subject: replace(subject, normalise=there(subject))


def _twice(subject: Subject) -> Callable[[Tensor, Tensor], Tensor]:
    once = subject.normalise
    assert once is not None
    return lambda action, kind: once(once(action, kind), kind)


def _scale_of_others(subject: Subject) -> Subject:
    there, back = subject.normalise, subject.denormalise
    assert there is not None
    assert back is not None
    return replace(
        subject,
        normalise=lambda action, kind: there(action, kind) / 10,
        denormalise=lambda x0, kind: back(x0 * 10, kind),
    )


def _all_valid(batch: Batch) -> Batch:
    c, pieces = batch.conditioning, batch.map
    seen = replace(c, valid=torch.ones_like(c.valid), light_valid=torch.ones_like(c.light_valid))
    return replace(batch, conditioning=seen, map=replace(pieces, valid=torch.ones_like(pieces.valid)))


def _alone(bound: Bound, batch: Batch, network: Network) -> Bound:
    c = batch.conditioning
    size, agents = c.valid.shape
    rows = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(agents), indexing="ij"), -1).reshape(-1, 2)
    each = network(parts.focus(batch, rows, "none"))

    def ask(x_t: Tensor, t: Tensor) -> Tensor:
        said = each(x_t.flatten(0, 1)[:, None], t.repeat_interleave(agents))
        return said[:, 0].unflatten(0, (size, agents))

    return ask


def _deaf_to_agents(subject: Subject) -> Subject:
    network = _of(subject)
    return replace(subject, network=lambda batch: _alone(network(batch), batch, network))


def _swapped_targets(subject: Subject) -> Subject:
    batch = subject.batch
    assert batch is not None
    names = ("action", "action_valid", "position", "heading", "valid")
    return replace(subject, batch=replace(batch, **{name: getattr(batch, name).roll(1, 1) for name in names}))


def _world_frame(bound: Bound, batch: Batch) -> Bound:
    leak = 0.01 * batch.conditioning.pose[..., :2].mean(-1)[:, :, None, None, None]
    return lambda x_t, t: bound(x_t, t) + leak


def _driven(alter: Callable[[Motion], Motion]) -> Change:
    def change(subject: Subject) -> Subject:
        assert subject.drive is not None
        assert subject.batch is not None
        drive = subject.drive
        recorded = subject.batch.action

        def driven(action: Tensor, batch: Batch) -> Motion:
            motion = drive(action, batch)
            return motion if torch.equal(action[:, :, 0], recorded) else alter(motion)

        return replace(subject, drive=driven)

    return change


def _sampled(alter: Callable[[Tensor], Tensor]) -> Change:
    """Spoil samples of the data behind the sampler's back; the closed-form data that it is tried on stay right."""

    def change(subject: Subject) -> Subject:
        def sampler(network: Bound, x_T: Tensor) -> Tensor:
            x0 = subject.sampler(network, x_T)
            return alter(x0) if x0.shape[2] > 2 else x0

        return replace(subject, sampler=sampler)

    return change


def _rough(x0: Tensor) -> Tensor:
    return x0 + 1.5 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))


def _steered(x0: Tensor) -> Tensor:
    return x0 + x0.new_tensor([0.0, 10.0, 0.0])


class _StalePolicy:
    """Plans from where agents were half a second ago."""

    def __init__(self, policy: object) -> None:
        self.policy = policy

    def __getattr__(self, name: str) -> object:
        return getattr(self.policy, name)

    def plan(self, request: PlanRequest) -> Plan:
        state = request.state
        shifted: dict[str, Any] = {
            name: np.concatenate([getattr(state, name)[:, :, :1]] * 5 + [getattr(state, name)[:, :, :-5]], axis=2)
            for name in ("position", "heading", "velocity", "valid")
        }
        return self.policy.plan(replace(request, state=replace(state, **shifted)))  # type: ignore[attr-defined]


def _worse_than_before(subject: Subject) -> Subject:
    earlier = subject.earlier[0]
    return replace(subject, sampler=lambda network, x_T: _rough(earlier.sampler(network, x_T)))


def mutations(trained: Trained) -> tuple[Mutation, ...]:
    """Return all bugs, for subjects of this tiny model."""
    generator = torch.Generator().manual_seed(3)
    scrambled = torch.randperm(64, generator=generator) / 63

    def scramble(t: Tensor) -> Tensor:
        return scrambled[(t * 63).long()]

    def cut(schedule: Schedule) -> Tensor:
        return torch.linspace(1.0, 0.4, 9, dtype=torch.float64)

    bent = _with_schedule(lambda bar: (1 - 10 * (1 - bar / torch.cat([bar.new_ones(1), bar[:-1]]))).cumprod(0))
    return (
        Mutation(
            "100 steps with betas meant for 1000",
            lambda s: plain_subject(linear_beta(100)),
            ("schedule.terminal_snr", "schedule.strength"),
            "schedule",
        ),
        Mutation("beta scaled by 10", bent, ("schedule.strength",), "schedule"),
        Mutation(
            "beta divided by 10",
            lambda s: plain_subject(linear_beta(1000, 1e-5, 2e-3)),
            ("schedule.terminal_snr", "schedule.strength"),
            "schedule",
        ),
        Mutation("alpha_bar off by one", _off_by_one, ("forward.closed_form",), "schedule"),
        Mutation("alpha and sigma swapped", _alter_schedule(swap=True), ("schedule.monotone",), "schedule"),
        Mutation("t counted from the noisy end", _alter_schedule(reverse=True), ("schedule.monotone",), "schedule"),
        Mutation("sigma squared in the forward process", _variance_for_deviation, ("forward.closed_form",), "schedule"),
        Mutation("level [B] on the last axis", _trailing_broadcast, ("shapes.broadcast",), "schedule"),
        Mutation(
            "v converted with the other sign",
            lambda s: replace(s, to_x0=lambda said, x_t, t: plain_subject(s.schedule).to_x0(-said, x_t, t)),
            ("parameterisation.round_trip",),
            "schedule",
        ),
        Mutation(
            "starting noise of half the scale",
            _prior(lambda draw, seed, shape: 0.5 * draw(seed, shape)),
            ("forward.prior",),
        ),
        Mutation("moving average never loaded", _raw_weights(trained), ("checkpoint.ema",)),
        Mutation("weights never loaded", _never_trained, ("checkpoint.ema",)),
        Mutation("normalisation applied twice", _normaliser(_twice), ("data.normalisation",)),
        Mutation("normalisation missing", _normaliser(lambda s: lambda action, kind: action), ("data.normalisation",)),
        Mutation("normaliser of other data", _scale_of_others, ("data.normalisation",)),
        Mutation("validity ignored", _shown(_all_valid), ("data.validity",)),
        Mutation("targets of the neighbouring row", _swapped_targets, ("data.validity",)),
        Mutation("dead timestep embedding", _told(lambda t: torch.full_like(t, 0.5)), ("model.timestep",)),
        Mutation("scrambled timestep embedding", _told(scramble), ("model.timestep",)),
        Mutation("network told 1 - t", _told(lambda t: 1 - t), ("model.timestep",)),
        Mutation("network told t / 1000", _told(lambda t: t / 1000), ("model.timestep",)),
        Mutation("output of half the scale", _says(lambda said: 0.5 * said), ("model.noise_scale",)),
        Mutation(
            "output of the neighbouring row",
            _says(lambda said: said.roll(1, 1)),
            ("model.equivariance", "model.one_step"),
        ),
        Mutation("eps trained, x0 sampled", _eps_taken_for_x0, ("model.parameterisation",)),
        Mutation("v trained with the other sign", _v_of_other_sign, ("model.parameterisation",)),
        Mutation(
            "v trained, eps sampled",
            _v_taken_for_eps,
            ("model.parameterisation",),
        ),
        Mutation("sampler stops early", _sampler_on(cut), ("model.parameterisation",)),
        Mutation("sampler takes one step", _sampler_on(lambda s: uniform_grid(s, 1)), ("model.parameterisation",)),
        Mutation(
            "sampler's grid reversed", _sampler_on(lambda s: uniform_grid(s, 8).flip(0)), ("model.parameterisation",)
        ),
        Mutation("gradients cut", lambda s: replace(s, fresh=lambda: _frozen(s)), ("model.overfit",)),
        Mutation("world coordinates leak in", _network(_world_frame), ("model.equivariance",)),
        Mutation("map detached", _shown(parts.without_map), ("conditioning.map",)),
        Mutation("map dropped in sampling only", _sampler_drops_map, ("conditioning.map",)),
        Mutation("maps of other examples", _shown(parts.other_map), ("conditioning.map",)),
        Mutation("history detached", _shown(parts.without_history), ("conditioning.history",)),
        Mutation("lights detached", _shown(parts.without_lights), ("conditioning.lights",)),
        Mutation("route detached", _shown(parts.without_route), ("conditioning.route",)),
        Mutation("other agents detached", _deaf_to_agents, ("conditioning.agents",)),
        Mutation(
            "speeds doubled on the way out",
            _driven(lambda m: Motion(2 * m.position, m.heading, 2 * m.velocity)),
            ("samples.speed",),
        ),
        Mutation("noise left in the samples", _sampled(_rough), ("samples.jerk",)),
        Mutation(
            "all agents in one place",
            _driven(lambda m: Motion(m.position - m.position[..., :1, :] * 0 - 30.0, m.heading, m.velocity)),
            ("samples.overlap", "samples.offroad"),
        ),
        Mutation("samples steer to one side", _sampled(_steered), ("samples.offroad",)),
        Mutation("futures share their noise", _prior(_same_futures), ("samples.diversity",)),
        Mutation("noise without a seed", _unseeded, ("samples.determinism",)),
        Mutation("seed not used", _prior(lambda draw, seed, shape: draw(0, shape)), ("samples.determinism",)),
        Mutation(
            "plans from a stale state",
            lambda s: replace(s, policy=_StalePolicy(s.policy)),  # type: ignore[arg-type]
            ("closed_loop.replan",),
        ),
        Mutation("the last checkpoint samples worse", _worse_than_before, ("training.loss_vs_samples",)),
    )


def _frozen(subject: Subject) -> tuple[list[torch.nn.Parameter], Network]:
    assert subject.fresh is not None
    parameters, network = subject.fresh()

    def bind(batch: Batch) -> Bound:
        bound = network(batch)
        return lambda x_t, t: bound(x_t, t).detach()

    return parameters, bind


def healthy_subjects(trained: Trained) -> dict[str, Subject]:
    """Return subjects on which no check may raise an alarm: the tiny model as x0, eps and v, and plain schedules."""
    model = bench_subject(trained, (straight_road(), crossing()))
    schedules = ("linear_beta", "cosine_beta", "cosine", "flow", "edm")
    return {
        "tiny model, x0": model,
        "tiny model, eps": as_parameterisation(model, "eps"),
        "tiny model, v": as_parameterisation(model, "v"),
        **{f"schedule {name}": plain_subject(make_schedule(name)) for name in schedules},
    }


def mutated(mutation: Mutation, healthy: dict[str, Subject]) -> Subject:
    """Return the healthy subject that the bug belongs to, with the bug."""
    return mutation.change(healthy[_BASES[mutation.base]])


def diagnosis(subject: Subject, healthy: Subject | None = None) -> Report:
    """Return the doctor's report. Training a fresh network is left out where the bug touched nothing that it needs."""
    needs = ("fresh", "batch", "normalise", "add_noise", "to_x0", "schedule")
    same = healthy is not None and all(getattr(subject, name) is getattr(healthy, name) for name in needs)
    return examine(subject, [name for name in NAMES if not (same and name == "model.overfit")], seconds=600.0)


def run_mutations(trained: Trained, progress: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Return, as JSON can hold it, what the doctor says of all healthy subjects and of each bug."""
    healthy = healthy_subjects(trained)
    found: dict[str, Any] = {"healthy": {}, "mutations": []}
    for name, subject in healthy.items():
        found["healthy"][name] = list(diagnosis(subject).alarms())
        progress(name)
    for mutation in mutations(trained):
        base = healthy[_BASES[mutation.base]]
        report = diagnosis(mutated(mutation, healthy), base)
        failed = [finding.check for finding in report.findings if finding.verdict is Verdict.FAIL]
        named = [check for check in mutation.expected if check in failed]
        finding = next((one for one in report.findings if one.check in named), None)
        found["mutations"].append(
            {
                "bug": mutation.name,
                "expected": list(mutation.expected),
                "named": named,
                "also": [check for check in report.alarms() if check not in mutation.expected],
                "finding": finding.finding if finding else "",
            }
        )
        progress(mutation.name)
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
