"""Diffusion as pure maths on tensors: schedules, parameterisations, losses, samplers. No driving word in it."""

from traj_diffusion.diffusion.forward import add_noise, noise_one_step
from traj_diffusion.diffusion.gaussian import GaussianMixture, ring
from traj_diffusion.diffusion.grids import (
    GRIDS,
    check_grid,
    karras_grid,
    log_snr_grid,
    make_grid,
    power_grid,
    uniform_grid,
)
from traj_diffusion.diffusion.guidance import classifier_free, guided
from traj_diffusion.diffusion.inpainting import inpaint
from traj_diffusion.diffusion.losses import LOSS_WEIGHTS, loss_weight, target_factor
from traj_diffusion.diffusion.noise import keyed_normal
from traj_diffusion.diffusion.parameterisations import (
    PARAMETERISATIONS,
    Denoiser,
    as_denoiser,
    convert,
    target,
    to_eps,
    to_x0,
)
from traj_diffusion.diffusion.rolling import RollingWindow
from traj_diffusion.diffusion.rules import RULES, Ddim, Ddpm, DpmSolver, FlowEuler, FlowHeun, Heun, Rule, make_rule
from traj_diffusion.diffusion.samplers import Noise, initial_noise, sample
from traj_diffusion.diffusion.schedules import (
    SCHEDULES,
    CosineVP,
    DiscreteVP,
    Edm,
    Schedule,
    StraightFlow,
    TableVP,
    cosine_beta,
    linear_beta,
    make_schedule,
    zero_terminal_snr,
)

__all__ = [
    "GRIDS",
    "LOSS_WEIGHTS",
    "PARAMETERISATIONS",
    "RULES",
    "SCHEDULES",
    "CosineVP",
    "Ddim",
    "Ddpm",
    "Denoiser",
    "DiscreteVP",
    "DpmSolver",
    "Edm",
    "FlowEuler",
    "FlowHeun",
    "GaussianMixture",
    "Heun",
    "Noise",
    "RollingWindow",
    "Rule",
    "Schedule",
    "StraightFlow",
    "TableVP",
    "add_noise",
    "as_denoiser",
    "check_grid",
    "classifier_free",
    "convert",
    "cosine_beta",
    "guided",
    "initial_noise",
    "inpaint",
    "karras_grid",
    "keyed_normal",
    "linear_beta",
    "log_snr_grid",
    "loss_weight",
    "make_grid",
    "make_rule",
    "make_schedule",
    "noise_one_step",
    "power_grid",
    "ring",
    "sample",
    "target",
    "target_factor",
    "to_eps",
    "to_x0",
    "uniform_grid",
    "zero_terminal_snr",
]
