"""Can this architecture learn at all? A fresh copy must learn 32 small crops of the data by heart."""

from dataclasses import fields, replace

import torch
from torch import Tensor

from traj_diffusion.datasets.conditioning import MapTensors
from traj_diffusion.doctor.case import Case, rounded
from traj_diffusion.doctor.conditioning import focus
from traj_diffusion.doctor.findings import Finding, NotApplicable, Series, judged
from traj_diffusion.training.batch import Batch

EXAMPLES, AGENTS, PIECES = 32, 8, 32
STEPS, SECONDS, RATE = 240, 25.0, 3e-3


def crops(batch: Batch, moving: Tensor) -> Batch:
    """Return at most 32 examples: a moving agent with its 7 nearest and the 32 nearest map pieces."""
    chosen = moving.nonzero()
    kept = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(10))[:EXAMPLES]
    one = focus(batch, chosen[kept], "own")
    c = one.conditioning
    place = c.pose[..., :2]
    far = (place - place[:, :1]).norm(dim=-1).masked_fill(~c.valid, torch.inf)
    agents = far.argsort(-1, stable=True)[:, :AGENTS]
    away = (one.map.pose[..., :2] - place[:, :1]).norm(dim=-1).masked_fill(~one.map.valid, torch.inf)
    pieces = away.argsort(-1, stable=True)[:, :PIECES]
    rows = torch.arange(len(agents))[:, None]
    lights = ("light_pose", "light_state", "light_valid")
    values = {f.name: getattr(c, f.name) if f.name in lights else getattr(c, f.name)[rows, agents] for f in fields(c)}
    route: Tensor = values["route"]
    values["route"] = route.gather(2, pieces[:, None].expand(-1, route.shape[1], -1))
    per_agent = ("action", "action_valid", "position", "heading", "valid", "weight")
    return replace(
        one,
        conditioning=replace(c, **values),
        map=MapTensors(**{name: value[rows, pieces] for name, value in vars(one.map).items()}),
        **{name: getattr(one, name)[rows, agents] for name in per_agent},
    )


def overfit(case: Case) -> Finding:
    """Train a fresh network on the crops for a short while; its loss must fall far below what a filter leaves."""
    subject = case.subject
    if subject.fresh is None:
        raise NotApplicable("the subject offers no fresh network to train")
    if case.seconds_left < 5:
        raise NotApplicable("no time left; give more --seconds")
    small = crops(case.batch, case.moving)
    own = Case(replace(subject, batch=small), min(SECONDS, 0.5 * case.seconds_left))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        parameters, network = subject.fresh()
        curve = _fit(own, parameters, network)
    figure = sum(curve[-_TAIL:]) / len(curve[-_TAIL:])
    every = max(1, len(curve) // 60)
    shown = [sum(part) / len(part) for part in (curve[at : at + every] for at in range(0, len(curve), every))]
    return judged(
        "model.overfit",
        figure,
        0.8,
        0.97,
        f"after {len(curve)} steps on {len(small.action)} crops the loss is {figure:.2f} times what the best linear "
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


_TAIL = 30
_LEVELS = (0.3, 0.6, 1.0, 1.7, 3.0)


def _fit(own: Case, parameters: list[torch.nn.Parameter], network: object) -> list[float]:
    subject, curve = own.subject, []
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        return [float("inf")]
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    generator = torch.Generator().manual_seed(11)
    linear = [own.linear_error(ratio) for ratio in _LEVELS]
    for step in range(STEPS):
        if own.seconds_left < 0 and step >= _TAIL:
            break
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20) * (1 - 0.9 * step / STEPS)
        place = step % len(_LEVELS)
        t = own.level(_LEVELS[place])
        eps = torch.randn(own.x0.shape, generator=generator)
        x_t = subject.add_noise(own.x0, eps, t)
        x0_hat = subject.to_x0(network(own.batch)(x_t, t), x_t, t)  # type: ignore[operator]
        loss = ((x0_hat - own.x0).square() * own.mask).sum() / (own.x0.square() * own.mask).sum() / linear[place]
        optimiser.zero_grad(set_to_none=True)
        if not loss.requires_grad:
            return [float("inf")]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        curve.append(loss.item())
    return curve
