"""Bugs of the network and of the weights that were loaded into it."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from traj_diffusion.doctor.adapt import network_of
from traj_diffusion.doctor.bench import Trained
from traj_diffusion.doctor.mutations.mutation import Change, Mutation, says, told, weights
from traj_diffusion.doctor.subject import Bound, Network, Subject
from traj_diffusion.training.batch import Batch

Weights = dict[str, Tensor]


def _raw_weights(trained: Trained) -> Change:
    return lambda subject: replace(subject, network=network_of(trained.model), weights=trained.model.state_dict())


def _never_trained(subject: Subject) -> Subject:
    assert subject.fresh is not None
    _, network = subject.fresh()
    return replace(subject, network=network, weights=subject.initial, average=None)


def _frozen(subject: Subject) -> Subject:
    assert subject.fresh is not None
    fresh = subject.fresh

    def cut() -> tuple[list[nn.Parameter], Network]:
        parameters, network = fresh()

        def bind(batch: Batch) -> Bound:
            bound = network(batch)
            return lambda x_t, t: bound(x_t, t).detach()

        return parameters, bind

    return replace(subject, fresh=cut)


def _wiped(*starts: str) -> Callable[[Weights], None]:
    def alter(state: Weights) -> None:
        for name in state:
            if any(start in name for start in starts):
                state[name].zero_()

    return alter


def _level_features_scrambled(state: Weights) -> None:
    weight = state["denoiser.level.0.weight"]
    weight.copy_(weight[:, torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(0))])


def _layers_swapped(state: Weights) -> None:
    for name in [name for name in state if name.startswith("denoiser.layers.0.")]:
        first, second = state[name], state[name.replace("layers.0.", "layers.1.")]
        kept = first.clone()
        first.copy_(second)
        second.copy_(kept)


def _noisy(state: Weights) -> None:
    generator = torch.Generator().manual_seed(0)
    for value in state.values():
        value.add_(0.5 * value.std(correction=0) * torch.randn(value.shape, generator=generator))


def _overflown(state: Weights) -> None:
    state["denoiser.layers.0.feed_forward.up.weight"][0, 0] = torch.inf


def bugs(trained: Trained) -> tuple[Mutation, ...]:
    """Return the bugs for subjects of this model."""
    scrambled = torch.randperm(64, generator=torch.Generator().manual_seed(3)) / 63
    return (
        Mutation("moving average never loaded", _raw_weights(trained), ("checkpoint.ema",)),
        Mutation("weights never loaded", _never_trained, ("checkpoint.ema",)),
        Mutation("overflow of half precision", weights(trained, _overflown), ("checkpoint.ema",)),
        Mutation("half as much noise on the weights", weights(trained, _noisy), ("checkpoint.ema", "model.one_step")),
        Mutation("layers in another order", weights(trained, _layers_swapped), ("checkpoint.ema", "model.one_step")),
        Mutation("attention over time wiped out", weights(trained, _wiped(".time.")), ("checkpoint.ema",)),
        Mutation("map wiped out", weights(trained, _wiped("encoder.map.", "encoder.see_map.")), ("conditioning.map",)),
        Mutation("plans of others wiped out", weights(trained, _wiped(".others.")), ("conditioning.agents",)),
        Mutation("dead timestep embedding", told(lambda t: torch.full_like(t, 0.5)), ("model.timestep",)),
        Mutation("scrambled timestep embedding", told(lambda t: scrambled[(t * 63).long()]), ("model.timestep",)),
        Mutation("features of t scrambled", weights(trained, _level_features_scrambled), ("model.timestep",)),
        Mutation("network told 1 - t", told(lambda t: 1 - t), ("model.timestep",)),
        Mutation("network told t / 1000", told(lambda t: t / 1000), ("model.timestep",)),
        Mutation("output of half the scale", says(lambda said: 0.5 * said), ("model.noise_scale",)),
        Mutation(
            "output of the neighbouring row",
            says(lambda said: said.roll(1, 1)),
            ("model.equivariance", "model.one_step"),
        ),
        Mutation("gradients cut", _frozen, ("model.overfit",)),
    )
