"""Does the model use what it is shown? Each part of its conditioning is taken away, and exchanged, to see what is lost.

Three figures each: how much answers change at all, how the loss at high noise grows when the part is exchanged with
another scene's or agent's, and how the minADE of samples grows when it is taken away.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from traj_diffusion.datasets.conditioning import ABSENT_ROUTE, KIND_OF_CODE, PLAIN_CODE
from traj_diffusion.doctor.case import HIGH, Case, rounded
from traj_diffusion.doctor.findings import Finding, NotApplicable, Series, judged
from traj_diffusion.doctor.symmetry import OF_BATCH, PER_AGENT, PER_LIGHT
from traj_diffusion.doctor.violations import reds_run, routes_left
from traj_diffusion.geometry import wrap_angle
from traj_diffusion.kinematics import Motion
from traj_diffusion.scene import MapKind
from traj_diffusion.training.batch import Batch

_FEW_PIECES = 16  # of the map; no configured size shows an agent fewer
DEAF = 1e-4  # relative change of answers below which a part is not heard at all
Change = Callable[[Batch], Batch]


def without_map(batch: Batch) -> Batch:
    """Return the batch without any map."""
    return replace(batch, map=replace(batch.map, valid=torch.zeros_like(batch.map.valid)))


def other_shapes(batch: Batch) -> Batch:
    """Return the batch with each map piece's points exchanged for another's; it lies where it lay."""
    return replace(batch, map=replace(batch.map, points=_exchanged(batch.map.points)))


def other_codes(batch: Batch) -> Batch:
    """Return the batch with lanes called road edges, and road edges lanes.

    The two count as equally near, so that what is shown stays the same but for what it is called.
    """
    code = batch.map.code
    lane, edge = (KIND_OF_CODE.index(kind) for kind in (MapKind.LANE, MapKind.ROAD_EDGE))
    plain = torch.tensor(PLAIN_CODE, device=code.device)[code]
    called = torch.where(plain == lane, edge, torch.where(plain == edge, lane, code))
    return replace(batch, map=replace(batch.map, code=called))


def other_directions(batch: Batch) -> Batch:
    """Return the batch with each map piece turned in its place as another one lies."""
    return replace(batch, map=replace(batch.map, pose=_turned(batch.map.pose)))


def other_map(batch: Batch) -> Batch:
    """Return the batch with each map piece's shape, kind and direction exchanged for another's."""
    names = ("points", "length", "code", "speed_limit")
    exchanged = {name: _exchanged(getattr(batch.map, name)) for name in names}
    return replace(batch, map=replace(batch.map, pose=_turned(batch.map.pose), **exchanged))


def _turned(pose: Tensor) -> Tensor:
    return torch.cat([pose[..., :2], _exchanged(pose)[..., 2:]], -1)


def _exchanged(value: Tensor) -> Tensor:
    order = torch.randperm(value.shape[1], generator=torch.Generator().manual_seed(7))
    return value[:, order].roll(1, 0)


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
    if not c.light_valid.any():
        return batch
    seen = c.light_state[c.light_valid].unique()
    place = torch.searchsorted(seen, c.light_state.clamp(max=int(seen.max())))
    state = seen[(place + 1) % len(seen)] if len(seen) > 1 else torch.where(c.light_state == 4, 6, 4)
    return replace(batch, conditioning=replace(c, light_state=torch.where(c.light_valid, state, c.light_state)))


def turned_lights(batch: Batch) -> Batch:
    """Return the batch with each light turned in its place."""
    c = batch.conditioning
    turned = torch.cat([c.light_pose[..., :2], wrap_angle(c.light_pose[..., 2:] + 2.0)], -1)
    return replace(batch, conditioning=replace(c, light_pose=turned))


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


def few_pieces(batch: Batch) -> Batch:
    """Return the batch with the pieces nearest to agents, so few that everybody is shown them all, and no lights.

    Networks may choose by the route whom they show what. Here they cannot, and what they tell apart by it is its marks.
    """
    c, pieces = batch.conditioning, batch.map
    apart = torch.cdist(pieces.pose[..., :2], c.pose[..., :2]).masked_fill(~c.valid[:, None], torch.inf).amin(-1)
    apart = apart.masked_fill(~pieces.valid, torch.inf)
    nearest = apart.topk(min(_FEW_PIECES, apart.shape[1]), -1, largest=False).indices
    kept = torch.zeros_like(pieces.valid).scatter(1, nearest, value=True)
    return replace(
        batch,
        map=replace(pieces, valid=pieces.valid & kept),
        conditioning=replace(c, light_valid=torch.zeros_like(c.light_valid)),
    )


def _among_agents(batch: Batch, name: str) -> Batch:
    c = batch.conditioning
    value, rows = getattr(c, name).clone(), c.valid
    value[rows] = value[rows].roll(1, 0)
    return replace(batch, conditioning=replace(c, **{name: value}))


def conditioning_map(case: Case) -> Finding:
    """Is the map used?"""
    if not case.batch.map.valid.any():
        raise NotApplicable("no example of the data has a map")
    parts = {"shapes": other_shapes, "kinds": other_codes, "directions": other_directions}
    return _judge(case, "conditioning.map", "the map", without_map, other_map, case.moving, parts)


def conditioning_history(case: Case) -> Finding:
    """Is the history used, beyond the present state?"""
    return _judge(case, "conditioning.history", "the history", without_history, other_history, case.moving, {})


def conditioning_lights(case: Case) -> Finding:
    """Are lights used?"""
    lit = case.moving & case.batch.conditioning.light_valid.any(1, keepdim=True)
    if not lit.any():
        raise NotApplicable("no example of the data with a light has a moving agent")
    parts = {"directions": turned_lights}

    def told(sampled: Motion, deaf: Motion) -> str:
        return reds_run(case, sampled, deaf).say("vehicles facing a red light", "pass it within 3 s")

    return _judge(case, "conditioning.lights", "the light", without_lights, other_lights, lit, parts, told)


def conditioning_route(case: Case) -> Finding:
    """Are routes used?"""
    routed = case.moving & (case.batch.conditioning.route != ABSENT_ROUTE).any(-1)
    if not routed.any():
        raise NotApplicable("no moving agent of the data has a route")

    def told(sampled: Motion, deaf: Motion) -> str:
        return routes_left(case, sampled, deaf).say("vehicles that keep to their route", "leave it")

    marks = {"marks": without_route}
    return _judge(case, "conditioning.route", "the route", without_route, other_route, routed, marks, told, few_pieces)


def conditioning_agents(case: Case) -> Finding:
    """Are the other agents used? Each agent is asked alone, among the agents of another example, and among its own
    ones when these plan something else: futures are only joint where plans are heard."""
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

    def with_other_plans(ratio: float) -> Tensor:
        t = case.level(ratio, len(rows))
        eps = torch.randn(cases[0].x0.shape, generator=torch.Generator().manual_seed(9))
        own = case.subject.add_noise(cases[0].x0, eps, t)
        x_t = torch.cat([own[:, :1], own[:, 1:].roll(1, 0)], 1)
        return case.subject.to_x0(cases[0].bound(x_t, t), x_t, t)[:, :1]

    alone_changes, strange_changes, plan_changes, ratios = [], [], [], []
    truth, mask = cases[0].x0[:, :1], cases[0].mask[:, :1]
    for ratio in HIGH:
        own, lone, among = (estimate(one, ratio) for one in cases)
        alone_changes.append(_change(own, lone, mask))
        strange_changes.append(_change(own, among, mask))
        plan_changes.append(_change(own, with_other_plans(ratio), mask))
        ratios.append(float(((among - truth) * mask).norm() / ((own - truth) * mask).norm()) ** 2)
    ade = [float(one.per_agent_ade(one.sampled.position)[:, 0].amin(-1).mean()) for one in cases[:2]]
    heard = {
        "the network, asked about one agent alone": max(alone_changes),
        "the network, asked about an agent among strangers": max(strange_changes),
        "the network, asked about an agent whose company plans something else": max(plan_changes),
    }
    return _finding("conditioning.agents", "the company", heard, ratios, ade[1] / ade[0])


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


def _judge(
    case: Case,
    check: str,
    what: str,
    without: Change,
    other: Change,
    concerned: Tensor,
    parts: Mapping[str, Change],
    violations: Callable[[Motion, Motion], str] | None = None,
    within: Change | None = None,
) -> Finding:
    """`parts` are exchanged one by one, to see that each of them is heard; those that are all alike tell nothing.

    They are exchanged in what `within` makes of the batch. `violations` says what samples do with and without it that
    they must not do.
    """
    gone, exchanged = without(case.batch), other(case.batch)
    no_part, other_part = case.network(gone), case.network(exchanged)
    without_it, with_other, ratios = [], [], []
    for ratio in HIGH:
        own, missing, among = (case.estimate(bound, ratio) for bound in (case.bound, no_part, other_part))
        ratios.append(case.error(among, concerned) / case.error(own, concerned))
        without_it.append(_change(own, missing, case.mask))
        with_other.append(_change(own, among, case.mask))
    before = case.min_ade(case.sampled.position)
    drawn = case.draw(gone)
    deaf = case.motion(drawn)
    after = case.min_ade(deaf.position)
    told = "" if violations is None else f"; {violations(case.sampled, deaf)}"
    heard = {
        f"the network, asked without {what}": max(without_it),
        f"the network, with {what} exchanged": max(with_other),
        f"the sampler, without {what}": _change(case.samples, drawn, case.mask),
    }
    whole = case.batch if within is None else within(case.batch)
    bound = case.bound if within is None else case.network(whole)
    for name, part in parts.items():
        altered = part(whole)
        if same_shown(altered, whole):
            continue
        other_bound = case.network(altered)
        changes = [_change(case.estimate(bound, ratio), case.estimate(other_bound, ratio), case.mask) for ratio in HIGH]
        heard[f"the network, with {name} of {what} exchanged"] = max(changes)
    return _finding(check, what, heard, ratios, after / before, told)


def same_shown(one: Batch, other: Batch) -> bool:
    """Return whether a network would be shown the same."""
    pairs = ((one.conditioning, other.conditioning), (one.map, other.map))
    return all(torch.equal(value, vars(b)[name]) for a, b in pairs for name, value in vars(a).items())


def _change(before: Tensor, after: Tensor, mask: Tensor) -> float:
    return float(((after - before) * mask).norm() / (before * mask).norm().clamp(min=1e-9))


def _finding(
    check: str, what: str, heard: dict[str, float], ratios: list[float], ade: float, told: str = ""
) -> Finding:
    series = (Series(f"loss with {what} exchanged, over that with it", "sigma / alpha", HIGH, {what: rounded(ratios)}),)
    mean = sum(ratios) / len(ratios)
    shown = f"the loss is {mean:.3f} times as high with {what} exchanged, minADE {ade:.3f} times without{told}"
    deaf = min(heard, key=lambda name: heard[name])
    if heard[deaf] < DEAF:
        return judged(
            check,
            heard[deaf],
            2 * DEAF,
            DEAF,
            f"{deaf}, changes its answers by only {heard[deaf]:.1g} of their size; {shown}",
            f"{what} is not heard: not passed on, masked everywhere, multiplied by zero, or dropped in sampling",
            series,
        )
    return judged(
        check,
        mean,
        1.0,
        0.97,
        f"{shown}; answers change by {max(heard.values()):.2g}",
        f"{what} is heard but does not help: does it belong to its examples? Else train longer, weigh high noise more",
        series,
    )
