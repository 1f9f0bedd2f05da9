"""Checks of what the network learned: weights, time, scale, error at each noise level, parameterisation."""

import math

import torch
from torch import Tensor

from traj_diffusion.diffusion import PARAMETERISATIONS, target
from traj_diffusion.doctor.case import RATIOS, Case, rounded
from traj_diffusion.doctor.findings import Finding, NotApplicable, Series, factor, judged

_JUDGED = 0.6  # sigma / alpha from which on errors count; below, x_t itself is nearly the answer
# Told the true t, a network that learned its levels is at most a few per cent off the best; scrambling the features
# of t costs 15 % even where x_t itself shows how noisy it is.
_REGRET = (1.06, 1.12)
_ORTHOGONAL = (0.3, 0.6, 1.0, 1.7, 3.0)  # levels at which both x0 and noise can be told
_SCALE = (1.15, 1.22)  # factors by which estimates may be off in size
_RESIZED = (0.73, 1.37)  # a variance preserving x_t is up to 1.41 times as large as one on a straight path


def ema(case: Case) -> Finding:
    """The weights must be trained ones: finite, none wiped out or still fresh, and the moving average where known."""
    subject = case.subject
    if subject.weights is None or subject.initial is None:
        raise NotApplicable("the subject shows no weights")
    broken = [name for name, value in subject.weights.items() if not torch.isfinite(value).all()]
    wiped = [
        name for name, value in subject.weights.items() if _constant(value) and not _constant(subject.initial[name])
    ]
    if broken or wiped:
        names, what = (broken, "NaN or infinite values") if broken else (wiped, "one and the same value throughout")
        return judged(
            "checkpoint.ema",
            float(len(names)),
            0.0,
            0.0,
            f"{len(names)} of {len(subject.weights)} tensors hold {what}: {', '.join(names[:3])}"
            + (", ..." if len(names) > 3 else ""),
            "an overflow of half precision, or a diverged training: save in float32, take an earlier state"
            if broken
            else "this part of the network was reset or never loaded: load the checkpoint again, with strict=True",
        )
    constant = [name for name, value in subject.initial.items() if value.is_floating_point() and _constant(value)]
    fresh = [name for name in constant if torch.equal(subject.weights[name], subject.initial[name])]
    share = len(fresh) / max(len(constant), 1)
    if subject.average is None or share > 0.5:
        return judged(
            "checkpoint.ema",
            share,
            0.2,
            0.5,
            f"{len(fresh)} of {len(constant)} tensors that training starts from a constant still hold it"
            + ("" if subject.average is not None else "; no training state beside it to compare the average with"),
            "these weights were never trained: load the moving average into the model before saving or sampling",
        )
    average = subject.average
    off = math.sqrt(sum(float((value - average[name]).square().sum()) for name, value in subject.weights.items()))
    size = math.sqrt(sum(float(value.square().sum()) for value in average.values()))
    return judged(
        "checkpoint.ema",
        off / max(size, 1e-12),
        5e-4,  # rounding to half precision gives 2e-4
        1e-3,
        f"the weights differ from their training's moving average by {off / max(size, 1e-12):.2%}",
        "save and sample with the moving average (EMA): these are the raw weights of some step",
    )


def _constant(value: Tensor) -> bool:
    return value.numel() > 1 and bool((value == value.flatten()[0]).all())


def timestep(case: Case) -> Finding:
    """Told the true level the network must do better than told any other; told others, it must say other things."""
    regret, heard, rows = [], [], []
    for ratio in RATIOS[1:-1]:
        x_t, _, _ = case.noised(ratio)
        said = {other: case.bound(x_t, case.level(other)) for other in RATIOS}
        told = {other: case.error(case.subject.to_x0(said[other], x_t, case.level(other))) for other in RATIOS}
        regret.append(told[ratio] / min(told.values()))
        spread = torch.stack(list(said.values())).std(0)
        heard.append(float((spread * case.mask).norm() / (said[ratio] * case.mask).norm().clamp(min=1e-9)))
        rows.append(told)
    told_lines = {
        f"x_t at sigma / alpha = {ratio:g}": rounded([row[other] for other in RATIOS])
        for ratio, row in zip(RATIOS[1:-1], rows, strict=True)
    }
    series = (Series("error when told another level", "sigma / alpha that the network is told", RATIOS, told_lines),)
    if max(heard) < 0.05:
        return judged(
            "model.timestep",
            math.inf,
            *_REGRET,
            f"the network says nearly the same whatever t it is told (changes by {max(heard):.1g})",
            "the timestep embedding is dead: t does not reach the layers, or their modulation is zero",
            series,
        )
    worst = max(regret)
    return judged(
        "model.timestep",
        worst,
        *_REGRET,
        f"told the true t, the error is up to {worst:.2f} times that of the best other t",
        "the network reads another t than training meant: t scrambled, reversed, scaled, or shifted on its way in",
        series,
    )


def noise_scale(case: Case) -> Finding:
    """Estimates must have the right size, and x_t the one that serves best.

    Regressing the truth on an estimate gives slope 1, where it is the mean.
    """
    x0_slope, eps_slope, eps_scale = [], [], []
    for ratio in _ORTHOGONAL:
        x_t, t, eps = case.noised(ratio)
        x0_hat = case.estimate(case.bound, ratio)
        alpha, sigma = _level(case, t)
        eps_hat = (x_t - alpha * x0_hat) / sigma
        x0_slope.append(_slope(case.x0, x0_hat, case.mask))
        eps_slope.append(_slope(eps, eps_hat, case.mask))
        eps_scale.append(math.sqrt(float((eps_hat**2 * case.mask).sum() / (eps**2 * case.mask).sum())))
    # Where there is little noise, the estimate of eps divides a small error of x0 by a smaller sigma.
    told = [slope for ratio, slope in zip(_ORTHOGONAL, eps_slope, strict=True) if ratio >= 1]
    worst = max(factor(slope) for slope in (*x0_slope, *told))
    regret = max(_regret_of_size(case, ratio) for ratio in _ORTHOGONAL)
    series = Series(
        "truth regressed on the estimate (1 is right), and size of the predicted noise",
        "sigma / alpha",
        _ORTHOGONAL,
        {"x0": rounded(x0_slope), "eps": rounded(eps_slope), "size of eps": rounded(eps_scale)},
    )
    if worst <= _SCALE[0] and regret > _REGRET[0]:
        return judged(
            "model.noise_scale",
            regret,
            *_REGRET,
            f"shown the data as noised here, the error is up to {regret:.2f} times that where all is another size",
            "the schedule's alpha and sigma are not those of the training: a straight path taken for a variance "
            "preserving one, or the other way round",
            (series,),
        )
    return judged(
        "model.noise_scale",
        worst,
        *_SCALE,
        f"estimates of data and noise are off in size by up to a factor of {worst:.2f}",
        "the network's output is scaled wrongly: output not denormalised, a wrong alpha or sigma, or noise of another "
        "scale in training",
        (series,),
    )


def _regret_of_size(case: Case, ratio: float) -> float:
    """Return how the error compares with that at alpha and sigma of another size, x_t with them, or 1 if it is less."""
    x_t, t, _ = case.noised(ratio)
    resized = []
    for size in _RESIZED:
        said = case.bound(size * x_t, t)
        if case.subject.parameterisation == "v":
            said = said / size  # v alone is as large as alpha and sigma
        resized.append(case.error(case.subject.to_x0(said, x_t, t)))
    true = case.errors[RATIOS.index(ratio)]
    return true / max(min(true, *resized), 1e-12)


def _slope(truth: Tensor, estimate: Tensor, mask: Tensor) -> float:
    power = float((estimate.square() * mask).sum())
    return float((truth * estimate * mask).sum()) / power if power > 0 else math.inf


def _level(case: Case, t: Tensor) -> tuple[Tensor, Tensor]:
    schedule = case.subject.schedule
    return schedule.alpha(t)[:, None, None, None, None], schedule.sigma(t)[:, None, None, None, None]


def one_step(case: Case) -> Finding:
    """At every noise level the error must be below that of the best linear answer; a mean hides the noisy ones."""
    linear = [case.linear_error(ratio) for ratio in RATIOS]
    ratios = [error / best for error, best in zip(case.errors, linear, strict=True)]
    judged_at = [place for place, ratio in enumerate(RATIOS) if ratio >= _JUDGED]
    worst = max(judged_at, key=lambda place: ratios[place] if math.isfinite(ratios[place]) else math.inf)
    return judged(
        "model.one_step",
        ratios[worst],
        1.1,
        1.5,
        f"worst at sigma / alpha = {RATIOS[worst]:g}: {case.errors[worst]:.3g} of the data's power, "
        f"{ratios[worst]:.2f} times what the best linear filter leaves",
        "weigh that noise level more in the loss, train longer, or look for a conditioning that contradicts the data",
        (
            Series(
                "error of one step, relative to the data",
                "sigma / alpha",
                RATIOS,
                {"network": rounded(case.errors), "best linear filter": rounded(linear)},
            ),
        ),
    )


def parameterisation(case: Case) -> Finding:
    """The network must say what the sampler takes it for, and the sampler must turn perfect answers into the data."""
    subject = case.subject
    scores: dict[str, float] = {}
    for ratio in (1.0, 1.7, 3.0):  # with less noise v is nearly eps
        x_t, t, eps = case.noised(ratio)
        said = case.bound(x_t, t)
        alpha, sigma = subject.schedule.alpha(t), subject.schedule.sigma(t)
        for name in PARAMETERISATIONS:
            truth = target(name, case.x0, eps, alpha, sigma)
            power = float((truth.square() * case.mask).sum())
            for sign, label in ((1, name), (-1, f"-{name}")):
                off = float(((sign * said - truth).square() * case.mask).sum()) / power
                scores[label] = scores.get(label, 0.0) + off / 3
    best = min(scores, key=lambda name: scores[name])
    regret = scores[subject.parameterisation] / max(scores[best], 1e-12)
    if not regret <= 1.2:
        return judged(
            "model.parameterisation",
            regret,
            1.2,
            1.35,
            f"the sampler takes the output for {subject.parameterisation}, it looks like {best}: "
            f"{scores[subject.parameterisation]:.2f} against {scores[best]:.2f} of the target's power",
            f"sample with the parameterisation that was trained ({best.lstrip('-')}"
            + (", its sign turned)" if best.startswith("-") else ")"),
        )
    return judged_sampler(case)


def judged_sampler(case: Case) -> Finding:
    """Return the finding of `try_sampler`, by whichever of its figures is bad."""
    check, declared = "model.parameterisation", f"the output is {case.subject.parameterisation} as declared"
    left, missed, spread = try_sampler(case)
    if not left <= 0.2:
        return judged(
            check,
            left,
            0.05,
            0.2,
            f"{declared}; the sampler first asks at a level where signal over noise is {left:.2g}",
            "the sampler starts late: what it starts from is pure noise, so its first t must be the last one",
        )
    if not missed <= 0.02:
        return judged(
            check,
            missed,
            0.02,
            0.1,
            f"{declared}; with perfect answers the sampler misses a known point by {missed:.2g}",
            "the sampler stops before clean data, or converts the output by another rule",
        )
    return judged(
        check,
        spread,
        0.6,
        1.0,
        f"{declared}; with perfect answers the sampler finds a known point, and the spread of a Gaussian "
        f"within a factor of {1 + spread:.2f}",
        "the sampler takes too few steps, or scales its noise wrongly",
    )


def try_sampler(case: Case) -> tuple[float, float, float]:
    """Return how the sampler does on data whose perfect network is known.

    Signal over noise at the first level that it asks for; the largest error where the data are one point; and how many
    times, less 1, the spread of a Gaussian with standard deviation 0.5 comes out too large or too small.
    """
    subject = case.subject
    shape = (8, 4, 2, 4, 3)
    x_T = subject.prior(5, shape)
    x0 = torch.randn(shape, generator=torch.Generator().manual_seed(6))
    asked: list[Tensor] = []

    def answer(x_t: Tensor, t: Tensor, clean: Tensor) -> Tensor:
        alpha, sigma = (
            level.reshape(-1, 1, 1, 1, 1) for level in (subject.schedule.alpha(t), subject.schedule.sigma(t))
        )
        eps = (x_t - alpha * clean) / sigma.clamp(min=1e-6)
        return target(subject.parameterisation, clean, eps, alpha.flatten(), sigma.flatten())

    def gaussian(x_t: Tensor, t: Tensor) -> Tensor:
        asked.append(t)
        alpha, sigma = (
            level.reshape(-1, 1, 1, 1, 1) for level in (subject.schedule.alpha(t), subject.schedule.sigma(t))
        )
        return answer(x_t, t, alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * x_t)

    point = subject.sampler(lambda x_t, t: answer(x_t, t, x0), x_T)
    spread = subject.sampler(gaussian, x_T).std().item()
    first = asked[0].flatten()[:1]
    left = float(subject.schedule.alpha(first) / subject.schedule.sigma(first).clamp(min=1e-9))
    return left, (point - x0).abs().max().item(), factor(spread / 0.5) - 1


def loss_vs_samples(case: Case) -> Finding:
    """Over a training's checkpoints the lowest loss should go with good samples; often it does not."""
    if not case.subject.earlier:
        raise NotApplicable("one checkpoint only: put others of the same training beside it")
    cases = [*(Case(subject, case.seconds_left) for subject in case.subject.earlier), case]
    loss = [sum(one.errors) / len(one.errors) for one in cases]
    quality = [one.min_ade(one.sampled.position) for one in cases]
    regret = quality[-1] / min(quality)
    by_loss = quality[min(range(len(loss)), key=lambda place: loss[place])] / min(quality)
    return judged(
        "training.loss_vs_samples",
        regret,
        1.1,
        1.3,
        f"over {len(cases)} checkpoints: this one's minADE is {regret:.2f} times the best, that of the lowest loss "
        f"{by_loss:.2f} times",
        "choose checkpoints by their samples, not by the loss: an earlier one is better",
        (
            Series(
                "checkpoints in the order of their training",
                "checkpoint",
                tuple(float(i) for i in range(len(cases))),
                {"loss": rounded(loss), "minADE, m": rounded(quality)},
            ),
        ),
    )
