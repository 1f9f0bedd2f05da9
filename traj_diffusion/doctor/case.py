"""A subject under examination, with the measurements that several checks share, each made once."""

import time
from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from traj_diffusion.doctor.findings import NotApplicable
from traj_diffusion.doctor.subject import Bound, Network, Subject
from traj_diffusion.kinematics import Motion
from traj_diffusion.training.batch import STANDING, Batch

# Noise over signal, sigma / alpha, at which networks are asked: from nearly clean to nearly pure noise.
RATIOS = (0.15, 0.3, 0.6, 1.0, 1.7, 3.0, 8.0)
HIGH = (1.0, 3.0, 8.0)  # where x_t tells little, so that conditioning must
FUTURES = 6


class Case:
    """Shared measurements of one subject. `seconds` are left for all of its checks together."""

    def __init__(self, subject: Subject, seconds: float = 120.0) -> None:
        self.subject = subject
        self._end = time.perf_counter() + seconds

    @property
    def seconds_left(self) -> float:
        """What is left of the time for all checks."""
        return self._end - time.perf_counter()

    @property
    def network(self) -> Network:
        """The subject's network."""
        if self.subject.network is None:
            raise NotApplicable("no checkpoint was given")
        return self.subject.network

    @property
    def batch(self) -> Batch:
        """The data."""
        if self.subject.batch is None:
            raise NotApplicable("no data was given")
        return self.subject.batch

    @cached_property
    def x0(self) -> Float[Tensor, "B A 1 k 3"]:
        """Clean actions as the network is trained on them."""
        if self.subject.normalise is None:
            raise NotApplicable("the subject has no normaliser")
        return self.subject.normalise(self.batch.action[:, :, None], self.batch.conditioning.kind)

    @cached_property
    def moving(self) -> Bool[Tensor, "B A"]:
        """Agents that go anywhere in the record; parked cars would hide every difference."""
        went = (self.batch.position.norm(dim=-1) * self.batch.valid).amax(-1) > STANDING
        return went & self.batch.conditioning.valid

    @cached_property
    def mask(self) -> Float[Tensor, "B A 1 k 1"]:
        """1 where an action of a moving agent is supported by the record."""
        mask = (self.batch.action_valid & self.moving[..., None]).float()[:, :, None, :, None]
        if not mask.any():
            raise NotApplicable("no agent of the data moves")
        return mask

    @cached_property
    def bound(self) -> Bound:
        """The network with the data's conditioning."""
        return self.network(self.batch)

    def level(self, ratio: float, count: int | None = None) -> Tensor:
        """Return the t [B] at which sigma / alpha is `ratio`, or the end of the schedule."""
        schedule = self.subject.schedule
        at = schedule.t_of_log_snr(torch.tensor([-2.0]).double() * torch.tensor(ratio).double().log())
        at = at.clamp(max=schedule.t_max)
        at = at if schedule.discrete else at.float()
        return at.expand(len(self.batch.action) if count is None else count)

    def noised(self, ratio: float, draw: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Return x_t, t and eps of the data at a level; same arguments, same noise."""
        generator = torch.Generator().manual_seed(1000 * RATIOS.index(ratio) + draw)
        eps = torch.randn(self.x0.shape, generator=generator)
        t = self.level(ratio)
        return self.subject.add_noise(self.x0, eps, t), t, eps

    def estimate(self, bound: Bound, ratio: float, told: Tensor | None = None) -> Tensor:
        """Return the network's x0 at a level, which may be `told` another one."""
        x_t, t, _ = self.noised(ratio)
        told = t if told is None else told
        return self.subject.to_x0(bound(x_t, told), x_t, told)

    def error(self, x0_hat: Tensor, concerned: Bool[Tensor, "B A"] | None = None) -> float:
        """Return the squared error over the squared data, of some agents: 1 is what the answer 0 scores."""
        mask = self.mask if concerned is None else self.mask * concerned[:, :, None, None, None]
        return float(((x0_hat - self.x0).square() * mask).sum() / (self.x0.square() * mask).sum().clamp(min=1e-9))

    @cached_property
    def errors(self) -> list[float]:
        """The relative error at each level of RATIOS."""
        return [self.error(self.estimate(self.bound, ratio)) for ratio in RATIOS]

    def linear_error(self, ratio: float) -> float:
        """Return the error of the best linear answer, coordinate by coordinate (Wiener 1949): s² / (var + s²) var."""
        weight = self.mask.sum((0, 1, 2)).clamp(min=1)
        power = (self.x0.square() * self.mask).sum((0, 1, 2)) / weight
        left = power * ratio**2 / (power + ratio**2)
        return float((left * weight).sum() / (power * weight).sum())

    def draw(self, batch: Batch, seed: int = 0, futures: int = FUTURES, network: Network | None = None) -> Tensor:
        """Return samples x0 [B A K k 3] of a batch."""
        size, agents, knots, width = batch.action.shape
        x_T = self.subject.prior(seed, (size, agents, futures, knots, width))
        return self.subject.sampler((network or self.network)(batch), x_T)

    @cached_property
    def samples(self) -> Tensor:
        """Samples of the data's examples."""
        return self.draw(self.batch)

    def motion(self, x0: Tensor) -> Motion:
        """Return where normalised actions lead."""
        if self.subject.denormalise is None or self.subject.drive is None:
            raise NotApplicable("the subject has no denormaliser or no kinematics")
        return self.subject.drive(self.subject.denormalise(x0, self.batch.conditioning.kind), self.batch)

    @cached_property
    def sampled(self) -> Motion:
        """Where the samples lead."""
        return self.motion(self.samples)

    @cached_property
    def recorded(self) -> Motion:
        """Where the record's own actions lead: the reference without the noise of its positions."""
        if self.subject.drive is None:
            raise NotApplicable("the subject has no kinematics")
        return self.subject.drive(self.batch.action[:, :, None], self.batch)

    @cached_property
    def handed_round(self) -> Motion:
        """Where FUTURES rounds of recorded actions lead when each agent drives that of another one of its kind."""
        if self.subject.drive is None:
            raise NotApplicable("the subject has no kinematics")
        action, kind = self.batch.action, self.batch.conditioning.kind
        handed = action[:, :, None].repeat(1, 1, FUTURES, 1, 1)
        for row in range(len(action)):
            for which in kind[row].unique():
                who = (self.moving[row] & (kind[row] == which)).nonzero()[:, 0]
                for future in range(FUTURES if len(who) > 1 else 0):
                    handed[row, who, future] = action[row, who.roll(1 + future % (len(who) - 1))]
        return self.subject.drive(handed, self.batch)

    def in_world(self, motion: Motion) -> tuple[Float[Tensor, "B A K T 2"], Float[Tensor, "B A K T"]]:
        """Return positions and headings of a motion in the frame in which agents, map and lights lie."""
        pose = self.batch.conditioning.pose[:, :, None, None]
        cos, sin = pose[..., 2].cos(), pose[..., 2].sin()
        x, y = motion.position[..., 0], motion.position[..., 1]
        place = torch.stack([cos * x - sin * y, sin * x + cos * y], -1) + pose[..., :2]
        return place, motion.heading + pose[..., 2]

    def min_ade(self, position: Float[Tensor, "B A K F 2"]) -> float:
        """Return the mean over moving agents of the smallest mean distance [m] of K futures to the record."""
        return float(self.per_agent_ade(position).amin(-1)[self.moving].mean())

    def per_agent_ade(self, position: Float[Tensor, "B A K F 2"]) -> Float[Tensor, "B A K"]:
        """Return the mean distance [m] of each future to the record; 0 for those that do not move."""
        known = (self.batch.valid & self.moving[..., None])[:, :, None]
        distance = (position - self.batch.position[:, :, None]).norm(dim=-1) * known
        return distance.sum(-1) / known.sum(-1).clamp(min=1)

    def ade(self, position: Float[Tensor, "B A K F 2"]) -> float:
        """Return the mean over futures and moving agents of the mean distance [m] to the record."""
        return float(self.per_agent_ade(position)[self.moving].mean())


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Return numbers short enough to read."""
    return tuple(float(f"{value:.5g}") for value in values)
