"""Does the model use what it is shown? Each part of its conditioning is taken away, and exchanged, to see what is lost.

Three figures each: how much answers change at all, how the loss at high noise grows when the part is exchanged with
another scene's or agent's, and how the minADE of samples grows when it is taken away.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from traj_diffusion.datasets.conditioning import ABSENT_ROUTE
from traj_diffusion.doctor.case import HIGH, Case, rounded
from traj_diffusion.doctor.findings import Finding, NotApplicable, Series, judged
from traj_diffusion.doctor.symmetry import OF_BATCH, PER_AGENT, PER_LIGHT
from traj_diffusion.training.batch import Batch

DEAF = 1e-4  # relative change of answers below which a part is not heard at all
Change = Callable[[Batch], Batch]


def without_map(batch: Batch) -> Batch:
    """Return the batch without any map."""
    return replace(batch, map=replace(batch.map, valid=torch.zeros_like(batch.map.valid)))


def other_map(batch: Batch) -> Batch:
    """Return the batch with each piece's shape and kind exchanged for another's; poses stay."""
    order = torch.randperm(batch.map.code.shape[1], generator=torch.Generator().manual_seed(7))
    names = ("points", "length", "code", "speed_limit")
    pieces = replace(batch.map, **{name: getattr(batch.map, name)[:, order].roll(1, 0) for name in names})
    turned = pieces.pose[:, order].roll(1, 0)
    return replace(batch, map=replace(pieces, pose=torch.cat([pieces.pose[..., :2], turned[..., 2:]], -1)))


def without_history(batch: Batch) -> Batch:
    """Return the batch with the present step only."""
    history = batch.conditioning.history.clone()
    history[:, :, :-1] = 0
    return replace(batch, conditioning=replace(batch.conditioning, history=history))


def other_history(batch: Batch) -> Batch:
    """Return the batch with each agent's history that of another one."""
    return _among_agents(batch, "history")


def without_lights(batch: Batch) -> Batch:
    """Return the batch with no light seen."""
    c = batch.conditioning
    return replace(batch, conditioning=replace(c, light_valid=torch.zeros_like(c.light_valid)))


def other_lights(batch: Batch) -> Batch:
    """Return the batch with the states of lights exchanged for other ones that occur."""
    c = batch.conditioning
    seen = c.light_state[c.light_valid].unique()
    place = torch.searchsorted(seen, c.light_state.clamp(max=int(seen.max())))
    state = seen[(place + 1) % len(seen)] if len(seen) > 1 else torch.where(c.light_state == 4, 6, 4)
    return replace(batch, conditioning=replace(c, light_state=torch.where(c.light_valid, state, c.light_state)))


def without_route(batch: Batch) -> Batch:
    """Return the batch with no route known."""
    c = batch.conditioning
    absent = {name: torch.full_like(getattr(c, name), ABSENT_ROUTE) for name in ("route", "light_route")}
    return replace(batch, conditioning=replace(c, **absent))


def other_route(batch: Batch) -> Batch:
    """Return the batch with on and off the route exchanged, for those who have one."""
    c = batch.conditioning
    swapped = {name: torch.where(getattr(c, name) > 0, 3 - getattr(c, name), 0) for name in ("route", "light_route")}
    return replace(batch, conditioning=replace(c, **swapped))


def _among_agents(batch: Batch, name: str) -> Batch:
    c = batch.conditioning
    value, rows = getattr(c, name).clone(), c.valid
    value[rows] = value[rows].roll(1, 0)
    return replace(batch, conditioning=replace(c, **{name: value}))


def conditioning_map(case: Case) -> Finding:
    """Is the map used?"""
    if not case.batch.map.valid.any():
        raise NotApplicable("no example of the data has a map")
    return _judge(case, "conditioning.map", "the map", without_map, other_map, case.moving)


def conditioning_history(case: Case) -> Finding:
    """Is the history used, beyond the present state?"""
    return _judge(case, "conditioning.history", "the history", without_history, other_history, case.moving)


def conditioning_lights(case: Case) -> Finding:
    """Are lights used?"""
    lit = case.moving & case.batch.conditioning.light_valid.any(1, keepdim=True)
    if not lit.any():
        raise NotApplicable("no example of the data with a light has a moving agent")
    return _judge(case, "conditioning.lights", "the lights", without_lights, other_lights, lit)


def conditioning_route(case: Case) -> Finding:
    """Are routes used?"""
    routed = case.moving & (case.batch.conditioning.route != ABSENT_ROUTE).any(-1)
    if not routed.any():
        raise NotApplicable("no moving agent of the data has a route")
    return _judge(case, "conditioning.route", "the route", without_route, other_route, routed)


def conditioning_agents(case: Case) -> Finding:
    """Are the other agents used? Each agent is asked alone, and among the agents of another example."""
    c = case.batch.conditioning
    if (c.valid.sum(1) < 2).all():
        raise NotApplicable("no example of the data has two agents")
    rows = chosen_agents(case, _FOCUS)
    before, alone, strangers = (focus(case.batch, rows, others) for others in ("own", "none", "strangers"))
    cases = [Case(replace(case.subject, batch=batch), case.seconds_left) for batch in (before, alone, strangers)]

    def estimate(one: Case, ratio: float) -> Tensor:
        t = case.level(ratio, len(rows))
        eps = torch.randn(cases[0].x0.shape, generator=torch.Generator().manual_seed(9))[:, : one.x0.shape[1]]
        x_t = case.subject.add_noise(one.x0, eps, t)
        return case.subject.to_x0(one.bound(x_t, t), x_t, t)[:, :1]

    changes, ratios = [], []
    truth, mask = cases[0].x0[:, :1], cases[0].mask[:, :1]
    for ratio in HIGH:
        own, lone, among = (estimate(one, ratio) for one in cases)
        changes.append(float(((own - lone) * mask).norm() / (own * mask).norm().clamp(min=1e-9)))
        ratios.append(float(((among - truth) * mask).norm() / ((own - truth) * mask).norm()) ** 2)
    ade = [float(one.per_agent_ade(one.sampled.position)[:, 0].amin(-1).mean()) for one in cases[:2]]
    return _finding("conditioning.agents", "the other agents", changes, ratios, ade[1] / ade[0], None)


_FOCUS = 32
_COMPANY = 12


def chosen_agents(case: Case, count: int) -> Tensor:
    """Return (example, agent) [n, 2] of at most `count` moving agents, drawn at random, in order."""
    moving = case.moving.nonzero()
    kept = torch.randperm(len(moving), generator=torch.Generator().manual_seed(8))[:count].sort().values
    return moving[kept]


def focus(batch: Batch, rows: Tensor, others: str, company: int = _COMPANY) -> Batch:
    """Return one example for each (example, agent) of `rows`: that agent first, then its nearest `company`.

    `others` is "own", "none" (the agent is alone), or "strangers": the company that stands in its place in the next
    example, as seen from there.
    """
    example, agent = rows[:, 0], rows[:, 1]
    c, count = batch.conditioning, batch.action.shape[1]
    place = c.pose[..., :2]
    source = (example + 1) % len(batch.action) if others == "strangers" else example
    if others == "none":
        order = agent[:, None]
    else:
        distance = (
            (place[source] - place[example, agent][:, None]).norm(dim=-1).masked_fill(~c.valid[source], torch.inf)
        )
        if others == "own":
            distance[torch.arange(len(rows)), agent] = -1
        order = distance.argsort(dim=-1, stable=True)[:, : min(company + 1, count)]

    def picked(value: Tensor) -> Tensor:
        value = value.expand(len(batch.action), *value.shape[1:])
        own = value[example[:, None], agent[:, None]]
        return torch.cat([own, value[source[:, None], order[:, 1:]]], 1)

    values = {name: picked(getattr(c, name)) for name in PER_AGENT}
    values |= {name: getattr(c, name)[example] for name in PER_LIGHT}
    return replace(
        batch,
        conditioning=replace(c, **values),
        map=replace(batch.map, **{name: value[example] for name, value in vars(batch.map).items()}),
        **{name: picked(getattr(batch, name)) for name in OF_BATCH},
    )


def _judge(case: Case, check: str, what: str, without: Change, other: Change, concerned: Tensor) -> Finding:
    gone, exchanged = without(case.batch), other(case.batch)
    no_part, other_part = case.network(gone), case.network(exchanged)
    changes, ratios = [], []
    for ratio in HIGH:
        own = case.estimate(case.bound, ratio)
        missing = case.estimate(no_part, ratio)
        ratios.append(case.error(case.estimate(other_part, ratio), concerned) / case.error(own, concerned))
        changes.append(float(((missing - own) * case.mask).norm() / (own * case.mask).norm().clamp(min=1e-9)))
    before = case.min_ade(case.sampled.position)
    drawn = case.draw(gone)
    change = float(((drawn - case.samples) * case.mask).norm() / (case.samples * case.mask).norm().clamp(min=1e-9))
    after = case.min_ade(case.motion(drawn).position)
    return _finding(check, what, changes, ratios, after / before, change)


def _finding(
    check: str, what: str, changes: list[float], ratios: list[float], ade: float, drawn: float | None
) -> Finding:
    series = (Series(f"loss with {what} exchanged, over that with it", "sigma / alpha", HIGH, {what: rounded(ratios)}),)
    heard = max(changes)
    mean = sum(ratios) / len(ratios)
    if heard < DEAF or (drawn is not None and drawn < DEAF):
        where = "the network" if heard < DEAF else "the sampler"
        return judged(
            check,
            0.0,
            1.0,
            DEAF,
            f"{where} does not hear {what}: without, answers change by {min(heard, drawn or heard):.1g} of their size",
            f"{what} are detached: not passed on, masked everywhere, multiplied by zero, or dropped in sampling",
            series,
        )
    return judged(
        check,
        mean,
        1.0,
        0.9,
        f"with {what} exchanged the loss is {mean:.3f} times as high, without minADE {ade:.3f} times; answers change "
        f"by {heard:.2g}",
        f"{what} are heard but do not help: do they belong to their examples? Else train longer, weigh high noise more",
        series,
    )
