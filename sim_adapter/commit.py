"""Which of the K futures of a plan the world follows until the next one."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int32

from traj_diffusion.scene import Plan

Commit = Callable[[Plan], Int32[np.ndarray, " R"]]


def sample(plan: Plan) -> Int32[np.ndarray, " R"]:
    """Return the first future of each world: the K futures are independent draws, so it is a draw as good as any.

    Asking for more futures therefore does not change what the world does.
    """
    return np.zeros(len(plan.log_weight), np.int32)


def likeliest(plan: Plan) -> Int32[np.ndarray, " R"]:
    """Return the future of the largest weight; the first of equals."""
    return plan.log_weight.argmax(axis=1).astype(np.int32)


COMMITS: Mapping[str, Commit] = {"sample": sample, "likeliest": likeliest}


def commit_rule(rule: str | Commit) -> Commit:
    """Return the rule of that name, or the caller's own."""
    if callable(rule):
        return rule
    if rule not in COMMITS:
        raise ValueError(f"unknown commit rule {rule!r}; known: {', '.join(COMMITS)}, or a function of a Plan")
    return COMMITS[rule]
