"""Can this architecture learn at all? A fresh copy must learn 32 small crops of the data by heart."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from traj_diffusion.datasets.conditioning import MapTensors
from traj_diffusion.doctor.case import Case, rounded
from traj_diffusion.doctor.conditioning import chosen_agents, focus
from traj_diffusion.doctor.findings import Finding, NotApplicable, Series, judged
from traj_diffusion.doctor.subject import Network
from traj_diffusion.training.batch import Batch

EXAMPLES, AGENTS, PIECES = 32, 8, 32
STEPS, SECONDS, RATE = 280, 45.0, 3e-3
_SHARE = 8  # examples in one step
_LEARNED = 0.8  # loss over that of the linear filter at which nobody need go on


def crops(batch: Batch, rows: Tensor) -> Batch:
    """Return an example for each (example, agent) of `rows`: that agent, its 7 nearest, the 32 nearest map pieces."""
    one = focus(batch, rows, "own", AGENTS - 1)
    c = one.conditioning
    away = (one.map.pose[..., :2] - c.pose[:, :1, :2]).norm(dim=-1).masked_fill(~one.map.valid, torch.inf)
    pieces = away.argsort(dim=-1, stable=True)[:, :PIECES]
    there = torch.arange(len(rows))[:, None]
    route = c.route.gather(2, pieces[:, None].expand(-1, c.route.shape[1], -1))
    return replace(
        one,
        conditioning=replace(c, route=route),
        map=MapTensors(**{name: value[there, pieces] for name, value in vars(one.map).items()}),
    )


def overfit(case: Case) -> Finding:
    """Train a fresh network on the crops for a short while; its loss must fall far below what a filter leaves."""
    subject = case.subject
    if subject.fresh is None:
        raise NotApplicable("the subject offers no fresh network to train")
    if case.seconds_left < 5:
        raise NotApplicable("no time left; give more --seconds")
    rows = chosen_agents(case, EXAMPLES)
    seconds = min(SECONDS, 0.5 * case.seconds_left)
    shares = [
        Case(replace(subject, batch=crops(case.batch, rows[at : at + _SHARE])), seconds)
        for at in range(0, len(rows), _SHARE)
    ]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        parameters, network = subject.fresh()
        curve = _fit(shares, parameters, network)
    figure = _tail(curve)
    if len(curve) < STEPS and figure > _WARN and math.isfinite(curve[-1]):
        # How much fits the time depends on the machine, and a verdict must not.
        raise NotApplicable(f"only {len(curve)} of {STEPS} training steps fit the time; give more --seconds")
    every = max(1, len(curve) // 60)
    shown = [sum(part) / len(part) for part in (curve[at : at + every] for at in range(0, len(curve), every))]
    return judged(
        "model.overfit",
        figure,
        _WARN,
        1.2,
        f"after {len(curve)} steps on {len(rows)} crops the loss is {figure:.2f} times what the best linear "
        "filter leaves",
        "this architecture does not learn even a few examples: gradients cut, parameters frozen, targets shuffled, or "
        "the learning rate far off",
        (
            Series(
                "loss over that of the linear filter",
                "step",
                tuple(float(at) for at in range(0, len(curve), every)),
                {"loss": rounded(shown)},
            ),
        ),
    )


_TAIL, _WARN = 48, 0.95
_LEVELS = (0.6, 1.0, 1.7, 3.0)


def _fit(shares: list[Case], parameters: list[torch.nn.Parameter], network: Network) -> list[float]:
    subject, curve = shares[0].subject, list[float]()
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        return [float("inf")]
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    generator = torch.Generator().manual_seed(11)
    linear = [[own.linear_error(ratio) for ratio in _LEVELS] for own in shares]
    for step in range(STEPS):
        turn, place = step % len(shares), step // len(shares) % len(_LEVELS)
        own = shares[turn]
        if own.seconds_left < 0 and step >= _TAIL:
            break
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20) * (1 - 0.9 * step / STEPS)
        t = own.level(_LEVELS[place])
        eps = torch.randn(own.x0.shape, generator=generator)
        x_t = subject.add_noise(own.x0, eps, t)
        x0_hat = subject.to_x0(network(own.batch)(x_t, t), x_t, t)
        loss = ((x0_hat - own.x0).square() * own.mask).sum() / (own.x0.square() * own.mask).sum() / linear[turn][place]
        optimiser.zero_grad(set_to_none=True)
        if not loss.requires_grad:
            return [float("inf")]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        curve.append(loss.item())
        if len(curve) >= 2 * _TAIL and _tail(curve) < _LEARNED:
            break
    return curve


def _tail(curve: list[float]) -> float:
    return sum(curve[-_TAIL:]) / len(curve[-_TAIL:])
