"""Bugs of the diffusion process itself: schedule, forward process, conversions, the noise that sampling starts from."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor

from traj_diffusion.diffusion import DiscreteVP, Schedule, add_noise, linear_beta
from traj_diffusion.doctor.mutations.mutation import Change, Draw, Mutation, prior
from traj_diffusion.doctor.subject import Subject, plain_subject


def _with_schedule(alpha_bar: Callable[[Tensor], Tensor]) -> Change:
    def change(subject: Subject) -> Subject:
        assert isinstance(subject.schedule, DiscreteVP)
        return plain_subject(DiscreteVP(alpha_bar(subject.schedule.alpha_bar), "mutated"))

    return change


def _bent(alpha_bar: Tensor) -> Tensor:
    beta = 1 - alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    return (1 - 10 * beta).cumprod(0)


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


def _other_sign(subject: Subject) -> Subject:
    right = subject.to_x0
    return replace(subject, to_x0=lambda said, x_t, t: right(-said, x_t, t))


def _copied(axis: int) -> Callable[[Draw, int, tuple[int, ...]], Tensor]:
    """Draw one entry along an axis of [B, A, K, k, 3] and copy it along the axis."""
    return lambda draw, seed, shape: draw(seed, shape).narrow(axis, 0, 1).expand(shape).contiguous()


def _unseeded(subject: Subject) -> Subject:
    draw, calls = subject.prior, count(1000)
    return replace(subject, prior=lambda seed, shape: draw(next(calls), shape))


BUGS = (
    Mutation(
        "100 steps with betas meant for 1000",
        lambda s: plain_subject(linear_beta(100)),
        ("schedule.terminal_snr", "schedule.strength"),
        "schedule",
    ),
    Mutation("beta scaled by 10", _with_schedule(_bent), ("schedule.strength",), "schedule"),
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
    Mutation("v converted with the other sign", _other_sign, ("parameterisation.round_trip",), "schedule"),
    Mutation(
        "starting noise of half the scale",
        prior(lambda draw, seed, shape: 0.5 * draw(seed, shape)),
        ("forward.prior",),
    ),
    Mutation("one noise for all agents", prior(_copied(1)), ("forward.prior",)),
    Mutation("futures share their noise", prior(_copied(2)), ("samples.diversity",)),
    Mutation("noise without a seed", _unseeded, ("samples.determinism",)),
    Mutation("seed not used", prior(lambda draw, seed, shape: draw(0, shape)), ("samples.determinism",)),
)
