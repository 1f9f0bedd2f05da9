"""What a bug is, and the ways in which bugs get into a subject."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

from torch import Tensor

from traj_diffusion.doctor.adapt import network_of
from traj_diffusion.doctor.bench import Trained
from traj_diffusion.doctor.subject import Bound, Network, Subject
from traj_diffusion.training.batch import Batch

Change = Callable[[Subject], Subject]
Draw = Callable[[int, tuple[int, ...]], Tensor]


@dataclass(frozen=True)
class Mutation:
    """One bug: how it gets into a subject, and the checks of which at least one must fail for it.

    Others may fail as well, for one bug has many symptoms.
    """

    name: str
    change: Change
    expected: tuple[str, ...]
    base: str = "model"  # or "schedule": a subject without a model, DDPM's linear schedule


def of(subject: Subject) -> Network:
    """Return the subject's network, which subjects with a model have."""
    assert subject.network is not None
    return subject.network


def network(wrap: Callable[[Bound, Batch], Bound]) -> Change:
    """Change what the trained network is asked or says."""
    return lambda subject: replace(subject, network=lambda batch: wrap(of(subject)(batch), batch))


def shown(alter: Callable[[Batch], Batch]) -> Change:
    """Change what the trained network is shown."""
    return lambda subject: replace(subject, network=lambda batch: of(subject)(alter(batch)))


def told(level: Callable[[Tensor], Tensor]) -> Change:
    """Change which t the network is told."""
    return network(lambda bound, batch: lambda x_t, t: bound(x_t, level(t)))


def says(alter: Callable[[Tensor], Tensor]) -> Change:
    """Change what the network answers."""
    return network(lambda bound, batch: lambda x_t, t: alter(bound(x_t, t)))


def prior(alter: Callable[[Draw, int, tuple[int, ...]], Tensor]) -> Change:
    """Change the noise that sampling starts from."""

    def change(subject: Subject) -> Subject:
        draw = subject.prior
        return replace(subject, prior=lambda seed, shape: alter(draw, seed, shape))

    return change


def weights(trained: Trained, alter: Callable[[dict[str, Tensor]], None]) -> Change:
    """Change weights in place, as a checkpoint that was written or read wrongly has them."""

    def change(subject: Subject) -> Subject:
        model = deepcopy(trained.average)
        alter(model.state_dict())
        return replace(subject, network=network_of(model), weights=model.state_dict())

    return change
