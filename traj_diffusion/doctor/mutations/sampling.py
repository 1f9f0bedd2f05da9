"""Bugs between a good network and what comes out: the sampler's grid and rule, kinematics, replanning."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from traj_diffusion.diffusion import Ddim, Schedule, as_denoiser, sample, uniform_grid
from traj_diffusion.doctor import conditioning as parts
from traj_diffusion.doctor.mutations.mutation import Change, Mutation, of
from traj_diffusion.doctor.subject import Bound, Subject
from traj_diffusion.geometry import to_local
from traj_diffusion.kinematics import Motion
from traj_diffusion.scene import Plan, PlanRequest, Policy
from traj_diffusion.training.batch import Batch


def _sampler_on(times: Callable[[Schedule], Tensor], clip: float = torch.inf) -> Change:
    """Sample on another grid, or with x0 clipped."""

    def change(subject: Subject) -> Subject:
        def sampler(network: Bound, x_T: Tensor) -> Tensor:
            denoise = as_denoiser(network, subject.parameterisation, subject.schedule)

            def clipped(x_t: Tensor, t: Tensor) -> Tensor:
                return denoise(x_t, t).clamp(-clip, clip)

            return sample(clipped, x_T, subject.schedule, times(subject.schedule), Ddim())

        return replace(subject, sampler=sampler)

    return change


def _uniform(steps: int) -> Callable[[Schedule], Tensor]:
    return lambda schedule: uniform_grid(schedule, steps)


def _between(first: float, last: float) -> Callable[[Schedule], Tensor]:
    return lambda schedule: torch.linspace(first, last, 9, dtype=torch.float64)


def _sampler_drops_map(subject: Subject) -> Subject:
    # Only sampling is without the map: training and its loss know nothing of it.
    network, sampling = of(subject), [False]

    def bind(batch: Batch) -> Bound:
        full, blind = network(batch), network(parts.without_map(batch))

        def ask(x_t: Tensor, t: Tensor) -> Tensor:
            return (blind if sampling[0] else full)(x_t, t)

        return ask

    def sampler(bound: Bound, x_T: Tensor) -> Tensor:
        sampling[0] = True
        try:
            return subject.sampler(bound, x_T)
        finally:
            sampling[0] = False

    return replace(subject, network=bind, sampler=sampler)


def _driven(alter: Callable[[Motion, Batch], Motion]) -> Change:
    """Spoil where actions lead, but not where recorded ones do, with which samples are compared."""

    def change(subject: Subject) -> Subject:
        assert subject.drive is not None
        assert subject.batch is not None
        drive, recorded = subject.drive, subject.batch.action

        def driven(action: Tensor, batch: Batch) -> Motion:
            motion = drive(action, batch)
            known = action.shape[1] == recorded.shape[1] and set(action.flatten().tolist()) <= values
            return motion if known else alter(motion, batch)

        values = set(recorded.flatten().tolist())
        return replace(subject, drive=driven)

    return change


def _in_own_frame(motion: Motion, batch: Batch) -> Motion:
    """Each agent's future as if its own frame were the world: all start at the origin."""
    pose = batch.conditioning.pose[:, :, None, None]
    place = to_local(motion.position, pose[..., :2], pose[..., 2])
    return Motion(place, motion.heading - pose[..., 2], motion.velocity)


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


def _noisy_end(subject: Subject) -> Subject:
    sampler = subject.sampler
    generator = torch.Generator().manual_seed(0)
    return replace(
        subject, sampler=lambda net, x_T: sampler(net, x_T) + 0.1 * torch.randn(x_T.shape, generator=generator)
    )


class _StalePolicy:
    """Plans from where agents were half a second ago."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.name, self.history_steps, self.encode = policy.name, policy.history_steps, policy.encode

    def plan(self, request: PlanRequest) -> Plan:
        state = request.state
        shifted: dict[str, Any] = {
            name: np.concatenate([getattr(state, name)[:, :, :1]] * 5 + [getattr(state, name)[:, :, :-5]], axis=2)
            for name in ("position", "heading", "velocity", "valid")
        }
        return self.policy.plan(replace(request, state=replace(state, **shifted)))


def _worse_than_before(subject: Subject) -> Subject:
    earlier = subject.earlier[0]
    return replace(subject, sampler=lambda network, x_T: _rough(earlier.sampler(network, x_T)))


BUGS = (
    Mutation("sampler stops early", _sampler_on(_between(1.0, 0.4)), ("model.parameterisation",)),
    Mutation("sampler starts late", _sampler_on(_between(0.6, 0.0)), ("model.parameterisation",)),
    Mutation("sampler takes one step", _sampler_on(_uniform(1)), ("model.parameterisation",)),
    Mutation("sampler clips x0 to [-1, 1]", _sampler_on(_uniform(8), clip=1.0), ("model.parameterisation",)),
    Mutation("sampler adds noise at the end", _noisy_end, ("model.parameterisation",)),
    Mutation("sampler's grid reversed", _sampler_on(lambda s: uniform_grid(s, 8).flip(0)), ("model.parameterisation",)),
    Mutation("map dropped in sampling only", _sampler_drops_map, ("conditioning.map",)),
    Mutation(
        "speeds doubled on the way out",
        _driven(lambda motion, batch: Motion(2 * motion.position, motion.heading, 2 * motion.velocity)),
        ("samples.speed",),
    ),
    Mutation("noise left in the samples", _sampled(_rough), ("samples.jerk",)),
    Mutation("futures left in each agent's frame", _driven(_in_own_frame), ("samples.overlap",)),
    Mutation(
        "samples steer to one side", _sampled(lambda x0: x0 + x0.new_tensor([0.0, 10.0, 0.0])), ("samples.offroad",)
    ),
    Mutation(
        "plans from a stale state",
        lambda s: replace(s, policy=_StalePolicy(s.policy)),  # type: ignore[arg-type]
        ("closed_loop.replan",),
    ),
    Mutation("the last checkpoint samples worse", _worse_than_before, ("training.loss_vs_samples",)),
)
