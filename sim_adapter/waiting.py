"""Plans that are waited for until a moment and no longer: what is late by then goes on beside the loop."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from traj_diffusion.geometry import rotate
from traj_diffusion.scene import Observation
from traj_diffusion.sim_adapter.budget import Pace
from traj_diffusion.sim_adapter.episode import Planned

PATIENCE = 2.0  # s of the host's time, after which a plan that was left behind is no longer worth following


@dataclass
class Job:
    """A plan that is being made in a thread of its own."""

    make: Callable[[], Planned]
    work: int
    began: float = field(default_factory=lambda: time.perf_counter())
    took: float | None = None  # s; None while it is being made
    planned: Planned | None = None
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Make the plan."""
        try:
            self.planned = self.make()
        except BaseException as error:  # raised again where the plan is asked for
            self.error = error
        self.took = time.perf_counter() - self.began
        self.done.set()

    def learnt(self, pace: Pace) -> Pace:
        """Return the estimate of what planning costs, after this."""
        return pace if self.took is None else pace.after(self.work, 1e3 * self.took)

    def result(self) -> Planned:
        """Return the plan, or raise what went wrong with it."""
        if self.error is not None:
            raise self.error
        assert self.planned is not None
        return self.planned


class Desk:
    """Where plans of one traffic model are made, one at a time. `job` is one that was left behind."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self._thread: threading.Thread | None = None

    def begin(self, job: Job) -> None:
        """Have a plan made. Nothing else may be under way."""
        self.job = job
        # A daemon: a policy that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=job.run, name="traj_diffusion plan", daemon=True)
        self._thread.start()

    def clear(self) -> None:
        """Wait for what is under way, and forget it."""
        if self._thread is not None:
            self._thread.join()
        self.job = self._thread = None


def wait(done: threading.Event, until: float) -> bool:
    """Return whether it is done by that moment of `time.perf_counter`, as soon as it is."""
    return done.wait(max(until - time.perf_counter(), 0.0))


def caught_up(late: Planned, now: Observation) -> Planned:
    """Return a plan that was made of an earlier moment as one that sets out from where its agents are now.

    What it did up to now is cut off, and the rest is moved and turned for each agent to go on from there. Between two
    of its steps the way is straight.
    """
    plan, state = late.plan, late.state
    age = (now.time - late.time) / plan.dt
    first, share = int(age + 1e-6), max(age - int(age + 1e-6), 0.0)
    share = share if share > 1e-6 else 0.0

    def onwards(start: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return what it does now and after each further step, [1, K, A, 1 + rest, ...]."""
        begin = np.broadcast_to(start[:, None, :, None], (*values.shape[:3], 1, *values.shape[4:]))
        path = np.concatenate([begin, values], axis=3)
        later = np.concatenate([path[:, :, :, 1:], path[:, :, :, -1:]], axis=3)
        moved: np.ndarray = ((1 - share) * path + share * later)[:, :, :, first : path.shape[3] - (share > 0)]
        return moved.astype(values.dtype)

    position = onwards(state.position[:, :, -1], plan.position)
    heading = onwards(state.heading[:, :, -1], plan.heading)
    velocity = onwards(state.velocity[:, :, -1], plan.velocity)
    place, facing, pace = (part[0, 0, :, 0].copy() for part in (position, heading, velocity))
    _, here, there = np.intersect1d(now.agent_id, state.agent_id, assume_unique=True, return_indices=True)
    place[there], facing[there], pace[there] = now.position[here], now.heading[here], now.velocity[here]
    turn = facing.astype(np.float64) - heading[0, :, :, 0]  # [K, A], as below
    gone = position[0, :, :, 1:] - position[0, :, :, :1]
    turns = np.broadcast_to(turn[..., None], gone.shape[:-1])
    gone[..., :2] = rotate(gone[..., :2], turns)
    moved = replace(
        plan,
        position=(place[:, None] + gone)[None],
        heading=(heading[:, :, :, 1:] + turn[None, :, :, None]).astype(np.float32),
        velocity=rotate(velocity[0, :, :, 1:].astype(np.float64), turns)[None].astype(np.float32),
    )

    def ending(past: np.ndarray, last: np.ndarray) -> np.ndarray:
        return np.concatenate([past[:, :, :-1], last[None, :, None].astype(past.dtype)], axis=2)

    shown = replace(
        state,
        position=ending(state.position, place),
        heading=ending(state.heading, facing),
        velocity=ending(state.velocity, pace),
    )
    return replace(late, plan=moved, time=now.time, state=shown)
