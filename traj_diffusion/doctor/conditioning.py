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
from traj_diffusion.doctor.symmetry import PER_AGENT
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
    return _judge(case, "conditioning.map", "the map", without_map, other_map)


def conditioning_history(case: Case) -> Finding:
    """Is the history used, beyond the present state?"""
    return _judge(case, "conditioning.history", "the history", without_history, other_history)


def conditioning_lights(case: Case) -> Finding:
    """Are lights used?"""
    if not case.batch.conditioning.light_valid.any():
        raise NotApplicable("no example of the data has a light")
    return _judge(case, "conditioning.lights", "the lights", without_lights, other_lights)


def conditioning_route(case: Case) -> Finding:
    """Are routes used?"""
    if not (case.batch.conditioning.route != ABSENT_ROUTE).any():
        raise NotApplicable("no agent of the data has a route")
    return _judge(case, "conditioning.route", "the route", without_route, other_route)


def conditioning_agents(case: Case) -> Finding:
    """Are the other agents used? Each agent is asked alone, and among the agents of another example."""
    chosen = case.moving.nonzero()
    if (case.batch.conditioning.valid.sum(1) < 2).all():
        raise NotApplicable("no example of the data has two agents")
    kept = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(8))[:_FOCUS].sort().values
    rows = chosen[kept]
    before, alone, strangers = (focus(case.batch, rows, others) for others in ("own", "none", "strangers"))
    cases = [Case(replace(case.subject, batch=batch), case.seconds_left) for batch in (before, alone, strangers)]
    mask = cases[0].mask.clone()
    mask[:, 1:] = 0

    def error(one: Case, ratio: float) -> tuple[Tensor, float]:
        t = case.level(ratio, len(rows))
        eps = torch.randn(cases[0].x0.shape, generator=torch.Generator().manual_seed(9))
        x_t = case.subject.add_noise(one.x0, eps, t)
        x0_hat = case.subject.to_x0(one.bound(x_t, t), x_t, t)
        return x0_hat, float(((x0_hat - cases[0].x0).square() * mask).sum())

    changes, ratios = [], []
    for ratio in HIGH:
        (own, plain), (lone, _), (_, among) = (error(one, ratio) for one in cases)
        changes.append(float(((own - lone) * mask).norm() / (own * mask).norm().clamp(min=1e-9)))
        ratios.append(among / plain)
    ade = []
    for one in cases[:2]:
        with_first_only = replace(
            one.batch, valid=one.batch.valid & (torch.arange(one.batch.valid.shape[1]) == 0)[:, None]
        )
        scored = Case(replace(case.subject, batch=with_first_only), case.seconds_left)
        ade.append(scored.min_ade(scored.sampled.position))
    return _finding("conditioning.agents", "the other agents", changes, ratios, ade[1] / ade[0], None)


_FOCUS = 24


def focus(batch: Batch, rows: Tensor, others: str) -> Batch:
    """Return one example for each (example, agent) of `rows`: that agent first, with its own company, none, or that
    of the next example."""
    example, agent = rows[:, 0], rows[:, 1]
    count = batch.action.shape[1]
    # Each row lists its example's agents, the chosen one first.
    order = torch.arange(count).expand(len(rows), -1).clone()
    order[:, 0], order[torch.arange(len(rows)), agent] = agent, 0

    def per_agent(value: Tensor, source: Tensor) -> Tensor:
        value = value.expand(len(batch.action), *value.shape[1:])
        return value[source[:, None], order]

    company = (example + 1) % len(batch.action) if others == "strangers" else example

    def picked(value: Tensor) -> Tensor:
        own, strange = per_agent(value, example), per_agent(value, company)
        return torch.cat([own[:, :1], strange[:, 1:]], 1)

    c = batch.conditioning
    values = {name: picked(getattr(c, name)) for name in PER_AGENT}
    if others == "none":
        values["valid"] = values["valid"] & (torch.arange(count) == 0)
    values |= {name: getattr(c, name)[example] for name in ("light_pose", "light_state", "light_valid")}
    return replace(
        batch,
        conditioning=replace(c, **values),
        map=replace(batch.map, **{name: value[example] for name, value in vars(batch.map).items()}),
        **{
            name: picked(getattr(batch, name))
            for name in ("action", "action_valid", "position", "heading", "valid", "weight")
        },
    )


def _judge(case: Case, check: str, what: str, without: Change, other: Change) -> Finding:
    gone, exchanged = without(case.batch), other(case.batch)
    no_part, other_part = case.network(gone), case.network(exchanged)
    changes, ratios, plain = [], [], []
    for ratio in HIGH:
        own = case.estimate(case.bound, ratio)
        missing = case.estimate(no_part, ratio)
        plain.append(case.error(own))
        ratios.append(case.error(case.estimate(other_part, ratio)) / plain[-1])
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
    worst = max(ratios)
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
        worst,
        1.0,
        0.9,
        f"with {what} exchanged the loss is {worst:.3f} times as high, without minADE {ade:.3f} times; answers change "
        f"by {heard:.2g}",
        f"{what} are heard but do not help: train longer, check that they belong to their examples, weigh high noise more",
        series,
    )
