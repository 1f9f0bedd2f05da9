"""Bad input, as somebody without run-time type checks gives it: always a ValueError that says what would fit."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, math, sys
import numpy as np, torch
from traj_diffusion import diffusion as d
nan, inf = math.nan, math.inf
c, l, f, g = d.make_schedule("cosine"), d.make_schedule("linear_beta"), d.make_schedule("flow"), torch.Generator()
x, e, t, half, zero, one = torch.randn(4, 3), torch.randn(4, 3), torch.full((4,), .5), *map(torch.tensor, (.5, 0., 1.))
grid = d.uniform_grid(c, 3)
ask = lambda x, t: 0.5 * x
for code in json.load(sys.stdin):
    try:
        eval(code)
        print(json.dumps("no error"))
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""
CASES = {
    # t
    "d.add_noise(x, e, 0.5, c)": "torch.tensor(0.5)",
    "d.add_noise(x, e, torch.tensor(1.5), c)": "takes t in [0, 1]",
    "d.add_noise(x, e, torch.tensor(nan), c)": "takes t in [0, 1]",
    "d.add_noise(x, e, torch.tensor(1), c)": "real number in [0, 1]",
    "d.add_noise(x, e, torch.tensor(-1), l)": "takes t in 0..999",
    "d.add_noise(x, e, torch.tensor(0.5), l)": "integer 0..999",
    "d.noise_one_step(x, e, torch.tensor(1000), l)": "takes t in 0..999",
    "d.noise_one_step(x, e, torch.tensor(1), c)": "a DiscreteVP is wanted",
    "d.initial_noise(e, c, 2.0)": "takes t in [0, 1]",
    "d.initial_noise(e, l, 0.5)": "whole times 0..999",
    # shapes that would broadcast
    "d.add_noise(x, e, torch.rand(3), c)": "leading axes of x, [4]",
    "d.add_noise(x, e[:1], t, c)": "same shape",
    "d.target('v', x, e[:, :1], t, t)": "same shape",
    "d.to_x0('v', x, x, torch.rand(3), torch.rand(3))": "leading axes of x, [4]",
    "d.to_x0('v', x, x, torch.rand(4), torch.rand(1))": "alpha has shape [4, 1], sigma has shape [1, 1]",
    "d.convert(x[:1], 'v', 'x0', x, t, t)": "same shape",
    "d.sample(lambda x, t: x[:1], x, c, grid, d.Ddim())": "same shape",
    "d.classifier_free(ask, lambda x, t: x[:1], 2.0)(x, t)": "same shape",
    "d.inpaint(ask, x, c, grid, d.Ddim(), g, x, x[:1] > 0)": "same shape",
    "d.inpaint(ask, x, c, grid, d.Ddim(), g, x, x)": "true or false",
    "d.ring(3).denoiser(c)(x, t)": "last axis must be 2",
    # NaN
    "d.add_noise(x * nan, e, t, c)": "x0 holds 12 values that are NaN or infinite, the first at index [0, 0]",
    "d.add_noise(x, e * inf, t, c)": "eps holds 12 values that are NaN or infinite",
    "d.noise_one_step(x * nan, e, torch.tensor(3), l)": "x_before holds",
    "d.initial_noise(e * nan, c)": "eps holds",
    "d.target('eps', x * nan, e, t, t)": "x0 holds",
    "d.convert(x * nan, 'v', 'v', x, t, t)": "the prediction holds",
    "d.convert(x, 'v', 'eps', x * nan, t, t)": "x_t holds",
    "d.to_x0('v', x, x, t * nan, t)": "alpha holds",
    "d.sample(ask, x * nan, c, grid, d.Ddim())": "x_T holds",
    "d.sample(lambda x, t: x * nan, x, c, grid, d.Ddim())": "the denoiser's x0 holds",
    "d.sample(ask, x, c, grid, d.Ddpm(), lambda draw, shape: torch.full(shape, nan))": "the noise holds",
    "d.sample(ask, x, c, torch.tensor([nan, 0.0]), d.Ddim())": "fall strictly",
    "d.loss_weight('min_snr')(torch.tensor(nan))": "log_snr holds NaN",
    "d.classifier_free(ask, ask, nan)": "scale is a finite number",
    "d.make_schedule('edm', sigma_max=nan)": "sigma_max is a finite number",
    "d.make_schedule('linear_beta', beta_start=nan)": "beta_start is a finite number",
    "d.make_grid('log_snr', c, 3, log_snr_max=inf)": "log_snr_max is a finite number",
    "d.Heun(nan)": "churn is a finite number",
    "d.Ddim(nan)": "eta is a finite number in [0, 1]",
    # levels of no schedule
    "d.to_x0('eps', x, x, -one, one)": "alpha must not be negative",
    "d.to_x0('v', x, x, zero, zero)": "both 0",
    # singular ways
    "d.convert(x, 'eps', 'x0', x, zero, one)": "predict v, u or x0",
    "d.convert(x, 'eps', 'v', x, zero, one)": "predict v, u or x0",
    "d.convert(x, 'eps', 'u', x, zero, one)": "predict v, u or x0",
    "d.convert(x, 'x0', 'eps', x, one, zero)": "predict eps, v or u",
    "d.convert(x, 'x0', 'v', x, one, zero)": "predict eps, v or u",
    "d.convert(x, 'x0', 'u', x, one, zero)": "predict eps, v or u",
    # unknown names, and things of another kind
    "d.make_schedule('cosin')": "did you mean 'cosine'",
    "d.make_schedule(None)": "Known: cosine",
    "d.make_schedule('linear_beta', steps=3)": "steps",
    "d.make_schedule('linear_beta', n='100')": "n is a whole number",
    "d.make_schedule('linear_beta', n=10**10)": "n is a whole number from 2 to 1000000",
    "d.make_schedule('linear_beta', zero_terminal='no')": "true or false",
    "d.make_schedule('cosine_beta', beta_max=2.0)": "beta_max is a finite number in",
    "d.zero_terminal_snr(c)": "a DiscreteVP is wanted",
    "d.TableVP(c)": "a DiscreteVP is wanted",
    "d.DiscreteVP([0.9, 0.5])": "dtype float64",
    "d.DiscreteVP(torch.zeros(0, dtype=torch.float64))": "from 1 to",
    "d.add_noise(x, e, t, 'cosine')": "make_schedule('cosine')",
    "d.add_noise(x.numpy(), e, t, c)": "a torch tensor of real numbers is wanted",
    "d.add_noise(x.long(), e, t, c)": "x0 has dtype torch.int64",
    "d.target('velocity', x, e, t, t)": "Known: x0, eps, v, u",
    "d.as_denoiser(ask, 'noise', c)": "Known: x0, eps, v, u",
    "d.loss_weight('minsnr')": "did you mean 'min_snr'",
    "d.loss_weight('min_snr', gamma=-1.0)": "gamma is a finite number",
    "d.loss_weight('edm', sigma_data=0.0)": "sigma_data is a finite number",
    "d.make_rule('dpmpp')": "Known: ddpm",
    "d.make_rule('dpm', order=3)": "order 1 or 2",
    "d.make_rule('dpm', sde='no')": "sde true or false",
    "d.Heun(1.0, churn_from=5.0, churn_to=1.0)": "churn_to must not be below",
    "d.make_grid('karas', c, 3)": "did you mean 'karras'",
    "d.make_grid('karras', c, 3, rho=0.0)": "rho is a finite number",
    "d.make_grid('uniform', c, 2.5)": "a whole number from 1",
    "d.make_grid('uniform', c, 3, start='a')": "start is a number",
    "d.keyed_normal([1.5], 3)": "integers [n] or one integer",
    "d.keyed_normal([1], 2.5)": "count is a whole number",
    "d.ring(0)": "modes is a whole number",
    "d.GaussianMixture.gaussian(torch.zeros(2), -torch.eye(2))": "positive eigenvalues",
    "d.GaussianMixture(torch.ones(1).double(), torch.zeros(2, 3).double(), torch.ones(1, 1, 1).double())": "[K, D, D]",
    # samplers that do not fit
    "d.sample(ask, x, c, grid, d.Heun())": "it wants an Edm schedule",
    "d.sample(ask, x, c, grid, d.FlowEuler())": "it wants a StraightFlow schedule",
    "d.sample(ask, x, c, grid, 'ddim')": "make_rule('ddim')",
    "d.sample(ask, x, c, grid, d.Ddim)": "make_rule('ddim')",
    "d.sample(ask, x, c, [1.0, 0.0], d.Ddim())": "a grid is a tensor",
    "d.sample(ask, x, l, grid, d.Ddim())": "are integers",
    "d.sample(ask, x, c, grid, d.Ddpm())": "pass noise=",
    "d.sample(ask, x, c, grid, d.Ddpm(), 3)": "a torch.Generator or a function",
    "d.sample(lambda x, t: None, x, c, grid, d.Ddim())": "the denoiser's x0 has type NoneType",
    "d.sample(d.as_denoiser(ask, 'eps', c), x, c, grid, d.Ddim())": "predict v, u or x0",
    "d.RollingWindow(f, d.uniform_grid(f, 4), 0, 2)": "horizon is a whole number",
    "d.RollingWindow(f, d.uniform_grid(f, 4), 4, 2).shift(ask, torch.randn(2, 4), d.FlowHeun(), g)": "FlowEuler fit",
    "d.guided(ask, lambda x0: 3.0, c)(x, t)": "a torch tensor of real numbers is wanted",
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, object]:
    """What each call ends in, in an interpreter of its own: the run-time type checks of the tests would come first."""
    environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", SCRIPT],
        input=json.dumps(list(CASES)),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        timeout=200,
    )
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("code", CASES)
def test_bad_input_is_answered_by_what_would_fit(code: str, outcomes: dict[str, object]) -> None:
    kind, says = outcomes[code] if isinstance(outcomes[code], list) else ("nothing", "no error")  # type: ignore[misc]
    assert kind == "ValueError", says
    assert CASES[code] in says
    assert len(says.splitlines()) == 1
