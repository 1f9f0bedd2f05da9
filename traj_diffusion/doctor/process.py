"""Checks of the diffusion process itself: schedule, forward process, conversions, shapes. They need no model."""

import math

import torch
from torch import Tensor

from traj_diffusion.diffusion.schedules import DiscreteVP
from traj_diffusion.doctor.case import Case, rounded
from traj_diffusion.doctor.findings import Finding, NotApplicable, Series, judged

USEFUL = 6.0  # |log SNR| beyond which a level is as good as clean, or as pure noise
_POINTS = 200
_COUNT = 20_000


def times(case: Case, count: int = _POINTS) -> Tensor:
    """Return times from the first noisy one to the last, rising."""
    schedule = case.subject.schedule
    if schedule.discrete:
        return torch.linspace(0, schedule.t_max, min(count, int(schedule.t_max) + 1)).round().long().unique()
    return torch.linspace(0, 1, count + 1)[1:]


def monotone(case: Case) -> Finding:
    """The log SNR must fall at every step: more t, more noise."""
    schedule, t = case.subject.schedule, times(case)
    alpha, sigma = schedule.alpha(t).double(), schedule.sigma(t).double()
    log_snr = 2 * (alpha.clamp(min=1e-40).log() - sigma.clamp(min=1e-40).log())
    wrong = ((log_snr.diff() >= 0) | (log_snr.diff().isnan())).double().mean().item()
    return judged(
        "schedule.monotone",
        wrong,
        0.0,
        0.0,
        f"log SNR runs from {log_snr[0]:.3g} to {log_snr[-1]:.3g} and fails to fall in {wrong:.0%} of its steps",
        "alpha must fall and sigma rise with t: look for alpha and sigma swapped, or t counted from the noisy end",
        (
            Series(
                "signal and noise",
                "t",
                rounded(t.double().tolist()),
                {"alpha": rounded(alpha.tolist()), "sigma": rounded(sigma.tolist())},
            ),
        ),
    )


def terminal_snr(case: Case) -> Finding:
    """At t_max the signal must be gone, for sampling starts from pure noise (Lin et al. 2024)."""
    schedule = case.subject.schedule
    end = torch.tensor(schedule.t_max)
    alpha, sigma = float(schedule.alpha(end)), float(schedule.sigma(end))
    left = alpha / sigma if sigma > 0 else math.inf
    return judged(
        "schedule.terminal_snr",
        left,
        0.05,
        0.2,
        f"at the last t, signal over noise is {left:.3g} (alpha_bar = {alpha**2:.3g})"
        + ("" if left <= 0.05 else ": samples start from noise that training never saw"),
        "add steps or raise beta_end until alpha_bar ends below 0.002, or rescale the schedule with zero_terminal=true",
    )


def strength(case: Case) -> Finding:
    """Most t should lie where denoising is a task: neither clean already nor pure noise."""
    schedule, t = case.subject.schedule, times(case)
    log_snr = schedule.log_snr(t).double()
    noise, clean = (log_snr < -USEFUL).double().mean().item(), (log_snr > USEFUL).double().mean().item()
    reach = min(1.0, max(0.0, -log_snr.min().item() / USEFUL))
    useful = min(1 - noise - clean, reach)
    shape = f"{noise:.0%} of t are pure noise, {clean:.0%} as good as clean"
    if reach < 1:
        shape += f", and the noise gets only {reach:.0%} of the way to log SNR -{USEFUL:g}"
    remedy = (
        "too aggressive: lower beta_end, or the number of steps"
        if noise > max(clean, 1 - reach)
        else "too weak: add steps, raise beta_end, or take the cosine schedule"
    )
    return judged(
        "schedule.strength",
        useful,
        0.4,
        0.3,
        shape,
        remedy,
    )


def closed_form(case: Case) -> Finding:
    """x_t must be alpha x0 + sigma eps with the schedule's own alpha and sigma, as the step by step walk gives it."""
    subject, t = case.subject, times(case)
    one, none = torch.ones(len(t), 1), torch.zeros(len(t), 1)
    signal, noise = subject.add_noise(one, none, t)[:, 0].double(), subject.add_noise(none, one, t)[:, 0].double()
    alpha, sigma = subject.schedule.alpha(t).double(), subject.schedule.sigma(t).double()
    off = max((signal - alpha).abs().max().item(), (noise / _scale(sigma) - sigma / _scale(sigma)).abs().max().item())
    if isinstance(subject.schedule, DiscreteVP):
        table = torch.cat([torch.ones(1, dtype=torch.float64), subject.schedule.alpha_bar])
        keep = table[1:] / table[:-1]
        walked = keep.cumprod(0)[t]  # x_t by t + 1 steps of q(x_t | x_{t-1}): the mean's factor, squared
        off = max(off, (signal.square() - walked).abs().max().item(), (noise.square() - 1 + walked).abs().max().item())
    family = {"vp": signal**2 + noise**2, "flow": signal + noise, "edm": signal}[subject.schedule.family]
    off = max(off, (family - 1).abs().max().item())
    return judged(
        "forward.closed_form",
        off,
        1e-4,
        1e-3,
        f"x_t is off from alpha x0 + sigma eps by at most {off:.2g}",
        "the forward process reads another t than the schedule: alpha_bar off by one, sigma without its square root, "
        "or alpha and sigma swapped",
    )


def _scale(sigma: Tensor) -> Tensor:
    return sigma.max().clamp(min=1.0)


def prior(case: Case) -> Finding:
    """x_T of data, and what sampling starts from, must both be unit normal noise times the last sigma."""
    subject = case.subject
    last = subject.schedule.t_max
    sigma = float(subject.schedule.sigma(torch.tensor(last)))
    generator = torch.Generator().manual_seed(0)
    # Two points at -1 and 1: unit variance, and as far from normal as data can be.
    x0 = torch.randint(0, 2, (_COUNT, 1), generator=generator).float() * 2 - 1
    t = torch.full((_COUNT,), last) if subject.schedule.discrete else torch.full((_COUNT,), float(last))
    x_T = subject.add_noise(x0, torch.randn(x0.shape, generator=generator), t).flatten()
    drawn = subject.prior(0, _SHAPE)
    copied, axis = dependence(drawn / sigma)
    if copied < 1e-5:
        return judged(
            "forward.prior",
            copied,
            1e-3,
            1e-5,
            f"the noise that sampling starts from is correlated along its axis of {axis}, p = {copied:.2g}",
            "each number needs its own draw: noise is copied, or broadcast, along that axis",
        )
    started = drawn.flatten()
    reached = kolmogorov_smirnov(x_T / sigma), kolmogorov_smirnov(started / sigma)
    worst = min(reached, key=lambda test: test[1])
    which = "noised data at the last t" if worst is reached[0] else "the noise that sampling starts from"
    return judged(
        "forward.prior",
        worst[1],
        1e-3,
        1e-5,
        f"{which}: distance to N(0, 1) is {worst[0]:.3g}, standard deviation "
        f"{(x_T if worst is reached[0] else started).std() / sigma:.3g}, p = {worst[1]:.2g}",
        "sampling must start from sigma(t_max) times unit normal noise, and the schedule must end in it",
    )


_SHAPE = (24, 6, 6, 8, 3)
_AXIS_NAMES = ("examples", "agents", "futures", "knots", "coordinates")


def dependence(x: Tensor) -> tuple[float, str]:
    """Return the smallest p-value, over the axes of x, of neighbours along one being uncorrelated; and that axis."""
    found = []
    for axis, name in enumerate(_AXIS_NAMES):
        size = x.shape[axis]
        product = x.narrow(axis, 0, size - 1).double() * x.narrow(axis, 1, size - 1).double()
        score = product.mean() * math.sqrt(product.numel())  # of unit variance where all are independent
        found.append((min(1.0, len(_AXIS_NAMES) * math.erfc(abs(score.item()) / math.sqrt(2))), name))
    return min(found)


def kolmogorov_smirnov(x: Tensor) -> tuple[float, float]:
    """Return the distance of a sample's distribution to N(0, 1), and its p-value (Kolmogorov's limit law)."""
    values = x.double().sort().values
    n = len(values)
    normal = 0.5 * (1 + torch.erf(values / math.sqrt(2)))
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    distance = torch.maximum((steps[1:] - normal).abs().max(), (normal - steps[:-1]).abs().max()).item()
    scaled = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    if scaled < 0.2:
        return distance, 1.0
    terms = (2 * (-1) ** (i - 1) * math.exp(-2 * (i * scaled) ** 2) for i in range(1, 101))
    return distance, min(1.0, max(0.0, sum(terms)))


def round_trip(case: Case) -> Finding:
    """x0 -> target -> x0 must come back at every level."""
    subject, t = case.subject, times(case, 50)
    t = t[subject.schedule.alpha(t) > 1e-3]  # x0 cannot be had from eps in float32 beyond
    if not len(t):
        raise NotApplicable("at no t is there enough signal to tell")
    generator = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(len(t), 32, generator=generator), torch.randn(len(t), 32, generator=generator)
    x_t = subject.add_noise(x0, eps, t)
    back = subject.to_x0(subject.target(x0, eps, t), x_t, t)
    per_level = (back - x0).abs().amax(-1) * subject.schedule.alpha(t) / subject.schedule.sigma(t).clamp(min=1)
    off = per_level.max().item()
    return judged(
        "parameterisation.round_trip",
        off,
        1e-3,
        1e-2,
        f"from x0 to {subject.parameterisation} and back loses at most {off:.2g}",
        "the conversion to x0 does not undo the training target: look at the sign of v (alpha eps - sigma x0) and at "
        "which of alpha and sigma divides",
    )


def broadcast(case: Case) -> Finding:
    """A level [B] must fall on the first axis, also where other axes happen to have B entries."""
    subject = case.subject
    generator = torch.Generator().manual_seed(2)
    all_times = times(case)
    all_times = all_times[subject.schedule.alpha(all_times) > 1e-3]  # as above
    if not len(all_times):
        raise NotApplicable("at no t is there enough signal to tell")
    worst, where = 0.0, ""
    for shape in ((5, 5), (5, 5, 5), (3, 2, 3, 4, 3), (4, 1, 1, 4, 3), (1, 5, 5)):
        t = all_times[torch.linspace(0, len(all_times) - 1, shape[0]).long()]
        x0, eps = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
        try:
            together = subject.add_noise(x0, eps, t)
            said = subject.target(x0, eps, t)
            back = subject.to_x0(said, together, t)
        except (RuntimeError, ValueError) as error:
            return judged(
                "shapes.broadcast",
                math.nan,
                0.0,
                1e-3,
                f"x0 of shape {list(shape)} with t [{shape[0]}]: {error}",
                _AXES,
            )
        for row in range(shape[0]):
            one = slice(row, row + 1)
            alone = subject.add_noise(x0[one], eps[one], t[one])
            alone_said = subject.target(x0[one], eps[one], t[one])
            alone_back = subject.to_x0(said[one], together[one], t[one])
            pairs = ((together, alone), (said, alone_said), (back, alone_back))
            for whole, part in pairs:
                off = _off(whole[one], part) if whole.shape == torch.Size(shape) else math.inf
                if off > worst:
                    worst, where = off, f" (shape {list(shape)})"
    return judged(
        "shapes.broadcast",
        worst,
        1e-5,
        1e-3,
        f"rows noised together and alone differ by at most {worst:.2g}{where}",
        _AXES,
    )


_AXES = "t [B] falls on another axis than the first: give it axes of size 1 behind, t.view(-1, *[1] * (x.ndim - 1))"


def _off(whole: Tensor, part: Tensor) -> float:
    return float((whole - part).abs().max() / part.abs().max().clamp(min=1)) if whole.shape == part.shape else math.inf
