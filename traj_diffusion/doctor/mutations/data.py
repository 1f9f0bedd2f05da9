"""Bugs of what the network is shown and compared with: normalisers, validity, targets, conditioning."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from traj_diffusion.doctor import conditioning as parts
from traj_diffusion.doctor.mutations.mutation import Change, Mutation, network, of, shown
from traj_diffusion.doctor.subject import Bound, Network, Subject
from traj_diffusion.training.batch import Batch

Scaling = Callable[[Tensor, Tensor], Tensor]


def _normaliser(there: Callable[[Scaling, Scaling], tuple[Scaling, Scaling]]) -> Change:
    def change(subject: Subject) -> Subject:
        assert subject.normalise is not None
        assert subject.denormalise is not None
        normalise, denormalise = there(subject.normalise, subject.denormalise)
        return replace(subject, normalise=normalise, denormalise=denormalise)

    return change


def _scaled(by: float | Tensor) -> Change:
    """The normaliser of other data: it undoes itself, and fits nothing that the network knows."""
    return _normaliser(
        lambda there, back: (lambda action, kind: there(action, kind) / by, lambda x0, kind: back(x0 * by, kind))
    )


def _all_valid(batch: Batch) -> Batch:
    c, pieces = batch.conditioning, batch.map
    seen = replace(c, valid=torch.ones_like(c.valid), light_valid=torch.ones_like(c.light_valid))
    return replace(batch, conditioning=seen, map=replace(pieces, valid=torch.ones_like(pieces.valid)))


def _swapped_targets(subject: Subject) -> Subject:
    batch = subject.batch
    assert batch is not None
    names = ("action", "action_valid", "position", "heading", "valid")
    return replace(subject, batch=replace(batch, **{name: getattr(batch, name).roll(1, 1) for name in names}))


def _alone(batch: Batch, ask_each: Network) -> Bound:
    size, agents = batch.conditioning.valid.shape
    rows = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(agents), indexing="ij"), -1).reshape(-1, 2)
    each = ask_each(parts.focus(batch, rows, "none"))

    def ask(x_t: Tensor, t: Tensor) -> Tensor:
        said = each(x_t.flatten(0, 1)[:, None], t.repeat_interleave(agents))
        return said[:, 0].unflatten(0, (size, agents))

    return ask


def _deaf_to_agents(subject: Subject) -> Subject:
    trained = of(subject)
    return replace(subject, network=lambda batch: _alone(batch, trained))


def _world_frame(bound: Bound, batch: Batch) -> Bound:
    leak = 0.01 * batch.conditioning.pose[..., :2].mean(-1)[:, :, None, None, None]
    return lambda x_t, t: bound(x_t, t) + leak


BUGS = (
    Mutation(
        "normalisation applied twice",
        _normaliser(lambda there, back: (lambda action, kind: there(there(action, kind), kind), back)),
        ("data.normalisation",),
    ),
    Mutation(
        "normalisation missing",
        _normaliser(lambda there, back: (lambda action, kind: action, back)),
        ("data.normalisation",),
    ),
    Mutation("normaliser of other data", _scaled(10.0), ("data.normalisation",)),
    Mutation("normaliser turns a sign", _scaled(torch.tensor([1.0, -1.0, 1.0])), ("data.normalisation",)),
    Mutation("validity ignored", shown(_all_valid), ("data.validity",)),
    Mutation("targets of the neighbouring row", _swapped_targets, ("data.validity",)),
    Mutation("world coordinates leak in", network(_world_frame), ("model.equivariance",)),
    Mutation("map detached", shown(parts.without_map), ("conditioning.map",)),
    Mutation("maps of other examples", shown(parts.other_map), ("conditioning.map",)),
    Mutation("history detached", shown(parts.without_history), ("conditioning.history",)),
    Mutation("histories of other agents", shown(parts.other_history), ("conditioning.history",)),
    Mutation("lights detached", shown(parts.without_lights), ("conditioning.lights",)),
    Mutation("lights of another phase", shown(parts.other_lights), ("conditioning.lights",)),
    Mutation("route detached", shown(parts.without_route), ("conditioning.route",)),
    Mutation("on and off the route exchanged", shown(parts.other_route), ("conditioning.route",)),
    Mutation("other agents detached", _deaf_to_agents, ("conditioning.agents",)),
)
