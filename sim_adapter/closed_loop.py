"""Closed loop on a recorded scene: plan, commit, advance, and again, until the end of the horizon.

Only what was known at the current index reaches the policy. A logged ego and logged lights are controllers that hold
the full scene on the simulator's side.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, UInt8

from traj_diffusion import __version__
from traj_diffusion.errors import BadScene
from traj_diffusion.scene import Plan, PlanRequest, Policy, Rollouts, Scene, WorldState
from traj_diffusion.sim_adapter.commit import Choice, Commit, Following, Ground, chosen_future, commit_rule
from traj_diffusion.sim_adapter.worlds import Worlds, take

HORIZON_SECONDS = 8.0
REPLAN_EVERY = 5  # ticks: 2 Hz at 10 Hz

EgoStep = tuple[Float64[np.ndarray, "R 3"], Float32[np.ndarray, " R"], Float32[np.ndarray, "R 2"]]
# (step from now on, state before it) -> position, heading and velocity of the ego at that step.
EgoController = Callable[[int, WorldState], EgoStep]
# (step from now on, state before it) -> states [R, S] of all lights at that step.
LightController = Callable[[int, WorldState], UInt8[np.ndarray, "R S"]]


def rollout(
    scene: Scene,
    policy: Policy,
    *,
    rollouts: int = 32,
    futures: int = 1,
    replan_every: int = REPLAN_EVERY,
    commit: str | Commit = "sample",
    ego: str | EgoController = "model",
    lights: str | LightController = "hold",
    seed: int = 0,
    seconds: float = HORIZON_SECONDS,
    progress: Callable[[int, int], None] = lambda done, steps: None,
) -> Rollouts:
    """Return R closed-loop runs of a scene, in which `policy` drives every agent that is valid now.

    Every `replan_every` ticks K joint `futures` are sampled from the simulated state of each run, and one of them is
    committed. The ego can be the "model", the "log" (where the log ends it stays), or a function; lights are on
    "hold", as in the "log", or a function. Same arguments give the same rollouts; more rollouts or futures leave the
    first ones as they were.

    Raises BadScene where nobody is valid now, or the ego is asked for and the scene has none.
    """
    _positive(rollouts=rollouts, futures=futures, replan_every=replan_every)
    steps = round(seconds / scene.dt)
    choose = commit_rule(commit)
    drive_ego = _ego_controller(ego, scene, rollouts)
    switch_lights = _light_controller(lights, scene, rollouts)

    known = scene.history_only()
    worlds = Worlds.at_current_index(known, rollouts, policy.history_steps)
    context = policy.encode(known)
    numbers = np.arange(rollouts, dtype=np.int32)
    agents = len(worlds.state.agent_id)
    ego_row = -1
    if drive_ego is not None:
        ego_row = int(np.flatnonzero(worlds.state.agent_id == scene.agents.id[scene.ego])[0])

    driven = np.arange(agents) != ego_row
    position = np.zeros((rollouts, agents, steps, 3))
    heading = np.zeros((rollouts, agents, steps), np.float32)
    everyone: Bool[np.ndarray, "R A"] = np.ones((rollouts, agents), bool)
    ground = Ground(known.map)
    plan: Plan | None = None
    first_plan: Plan | None = None
    following: Following | None = None
    chosen: Int32[np.ndarray, " R"] = np.zeros(rollouts, np.int32)
    planned_at = 0
    spent = 0.0
    for step in range(steps):
        age = step % replan_every
        if plan is None or age == 0 or age >= plan.position.shape[3]:
            began = time.perf_counter()
            if plan is not None:
                following = Following.of(worlds.state.agent_id, plan, chosen, float(step - planned_at))
            followed = None if plan is None else chosen
            plan = policy.plan(PlanRequest(context, worlds.state, futures, step, seed, numbers, plan, followed))
            spent += time.perf_counter() - began
            first_plan = first_plan or plan
            chosen = chosen_future(choose, Choice(plan, worlds.state, driven, ground, following))
            planned_at = step
        place, facing, pace = take(plan, chosen, step - planned_at)
        if drive_ego is not None:
            place[:, ego_row], facing[:, ego_row], pace[:, ego_row] = drive_ego(step + 1, worlds.state)
        state = switch_lights(step + 1, worlds.state)
        worlds.advance(place, facing, pace, everyone, state, worlds.state.light_observed)
        position[:, :, step], heading[:, :, step] = place, facing
        progress(step + 1, steps)

    origin = worlds.state.position[0, :, 0, :2].mean(axis=0)
    planned = first_plan.position[0, ..., :2] if first_plan is not None else np.zeros((futures, agents, 0, 2))
    return Rollouts(
        scene_id=scene.id,
        first_step=scene.current_index + 1,
        dt=scene.dt,
        agent_id=worlds.state.agent_id,
        kind=worlds.state.kind,
        position=position,
        heading=heading,
        valid=np.ones((rollouts, agents, steps), bool),
        size=np.repeat(worlds.state.size[None], rollouts, axis=0),
        futures=(planned - origin).astype(np.float32),
        futures_origin=origin,
        provenance={
            "model": policy.name,
            "seed": seed,
            "replan_every": replan_every,
            "futures": futures,
            "commit": commit if isinstance(commit, str) else "callback",
            "ego": ego if isinstance(ego, str) else "callback",
            "lights": lights if isinstance(lights, str) else "callback",
            "version": __version__,
            "planning_seconds": round(spent, 3),
        },
    )


def _ego_controller(ego: str | EgoController, scene: Scene, worlds: int) -> EgoController | None:
    if ego == "model":
        return None
    if scene.ego is None or not scene.agents.valid[scene.ego, scene.current_index]:
        raise BadScene(f"scene {scene.id}: it has no ego that is valid now, so ego={ego!r} cannot be; use ego='model'")
    if callable(ego):
        return ego
    if ego != "log":
        raise ValueError(f"unknown ego {ego!r}; known: 'model', 'log', or a function (step, state) -> pose")
    agents, row, now = scene.agents, scene.ego, scene.current_index

    def replay(step: int, state: WorldState) -> EgoStep:
        recorded = np.flatnonzero(agents.valid[row, : now + step + 1])[-1]
        moving = recorded == now + step
        pace = agents.velocity[row, recorded] * moving
        return (
            np.repeat(agents.position[row, recorded][None], worlds, 0),
            np.repeat(agents.heading[row, recorded], worlds),
            np.repeat(pace[None], worlds, 0),
        )

    return replay


def _light_controller(lights: str | LightController, scene: Scene, worlds: int) -> LightController:
    if callable(lights):
        return lights
    if lights == "hold":
        return lambda step, state: state.light_state
    if lights != "log":
        raise ValueError(f"unknown lights {lights!r}; known: 'hold', 'log', or a function (step, state) -> states")
    recorded = scene.lights
    row_of: dict[int, int] = {int(lane): row for row, lane in enumerate(recorded.lane_id)}

    def replay(step: int, state: WorldState) -> UInt8[np.ndarray, "R S"]:
        index = scene.current_index + step
        rows = np.array([row_of[int(lane)] for lane in state.light_lane], np.int64)
        if index >= scene.steps or not len(rows):
            return state.light_state
        seen = recorded.observed[rows, index]
        return np.where(seen, recorded.state[rows, index], state.light_state).astype(np.uint8)

    return replay


def _positive(**counts: Any) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {count!r}")
