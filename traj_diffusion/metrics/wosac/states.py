"""What the scores are taken from: who is simulated, who is evaluated, and their states as officially read."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from traj_diffusion.errors import BadRollouts, BadScene
from traj_diffusion.metrics.wosac.configs import CURRENT_INDEX, DT, STEPS
from traj_diffusion.scene import MapKind, Rollouts, Scene
from traj_diffusion.scene.invariants import MAX_COORDINATE


@dataclass(frozen=True)
class States:
    """All N simulated agents over all T steps of R runs, in float32; the agent axis is last, as the kernels walk it."""

    x: Float32[np.ndarray, "R T N"]
    y: Float32[np.ndarray, "R T N"]
    z: Float32[np.ndarray, "R T N"]
    heading: Float32[np.ndarray, "R T N"]
    length: Float32[np.ndarray, "R T N"]
    width: Float32[np.ndarray, "R T N"]
    height: Float32[np.ndarray, "R T N"]
    valid: Bool[np.ndarray, "R T N"]


def check_scene_fits(scene: Scene, generation: bool) -> None:
    """Raise BadScene unless the scene can be scored at all."""

    def require(condition: bool, otherwise: str) -> None:
        if not condition:
            raise BadScene(f"scene {scene.id}: {otherwise}")

    require(
        scene.steps == STEPS and scene.current_index == CURRENT_INDEX,
        f"{scene.steps} steps with current index {scene.current_index}; WOSAC scores {STEPS} steps with current index "
        f"{CURRENT_INDEX} (1.1 s of history, 8 s of future)",
    )
    require(abs(scene.dt - DT) < 0.005, f"steps of {scene.dt} s; WOSAC scores steps of {DT} s")
    require(len(scene.sim_agents) > 0, "no agent is valid at the current index, so nobody is simulated")
    edges = scene.map.rows(MapKind.ROAD_EDGE)
    points = np.diff(scene.map.start)[edges]
    require(bool((points >= 2).any()), "the map holds no road edge; the off-road terms of WOSAC need at least one")
    if not generation:
        require(scene.ego is not None, "no ego; WOSAC evaluates it together with the agents to predict")


def evaluated_rows(scene: Scene, generation: bool) -> Int64[np.ndarray, " E"]:
    """Return which of `scene.sim_agents` are evaluated, as positions in it.

    Sim agents: the ego and all to predict, by ascending id. Scenario generation: everyone, in recorded order.
    Raises BadScene where one of them is not valid at the current index.
    """
    simulated = scene.sim_agents
    if generation:
        return np.arange(len(simulated), dtype=np.int64)
    wanted = scene.agents.to_predict.copy()
    wanted[scene.ego] = True
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(scene.agents.id[rows])]
    absent = rows[~np.isin(rows, simulated)]
    if len(absent):
        raise BadScene(
            f"scene {scene.id}: agents {scene.agents.id[absent].tolist()} are to be evaluated, but not valid at the "
            f"current index {scene.current_index}"
        )
    place = np.full(len(scene.agents), -1, np.int64)
    place[simulated] = np.arange(len(simulated))
    return place[rows]


def logged_states(scene: Scene, generation: bool) -> States:
    """Return the recording as one run.

    Sim agents: boxes keep the size of the current index from then on. Scenario generation: everyone counts as valid
    at all steps, whatever the recording holds there.
    """
    rows, agents = scene.sim_agents, scene.agents
    size = agents.size[rows].copy()
    valid = agents.valid[rows]
    if generation:
        valid = np.ones_like(valid)
    else:
        size[:, CURRENT_INDEX + 1 :] = size[:, CURRENT_INDEX, None]
    return _states(agents.position[rows][None], agents.heading[rows][None], size[None], valid[None])


def simulated_states(scene: Scene, rollouts: Rollouts, generation: bool) -> States:
    """Return the rollouts, for sim agents behind the recorded history. Raises BadRollouts where they do not fit."""
    order = _match(scene, rollouts, generation)
    position, heading = rollouts.position[:, order], rollouts.heading[:, order]
    runs = rollouts.runs
    if generation:
        if rollouts.size is None:
            raise BadRollouts(f"scene {scene.id}: no sizes; scenario generation is scored on the rollout's own boxes")
        sizes = (runs, len(order), 3)
        if rollouts.size.shape != sizes or not (np.isfinite(rollouts.size).all() and (rollouts.size >= 0).all()):
            raise BadRollouts(f"scene {scene.id}: sizes are to be [R, A, 3] = {list(sizes)}, finite and not negative")
        size = np.repeat(rollouts.size[:, order, None], STEPS, 2)
        return _states(position, heading, size, np.ones(heading.shape, bool))
    log, history = logged_states(scene, generation), CURRENT_INDEX + 1
    rows = scene.sim_agents

    def prefixed(logged: np.ndarray, future: np.ndarray) -> np.ndarray:
        return np.concatenate([np.repeat(logged[None, :, :history], runs, 0), future], 2)

    valid = prefixed(scene.agents.valid[rows], np.ones(heading.shape, bool))
    size = np.stack([log.length[0].T, log.width[0].T, log.height[0].T], -1)
    return _states(
        prefixed(scene.agents.position[rows], position),
        prefixed(scene.agents.heading[rows], heading),
        np.broadcast_to(size, (runs, *size.shape)),
        valid,
    )


def _states(position: np.ndarray, heading: np.ndarray, size: np.ndarray, valid: np.ndarray) -> States:
    """Return arrays [R, N, T, ...] with the agent axis last."""

    def last(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.swapaxes(values, 1, 2).astype(np.float32))

    x, y, z = (last(position[..., axis]) for axis in range(3))
    length, width, height = (last(size[..., axis]) for axis in range(3))
    return States(x, y, z, last(heading), length, width, height, np.ascontiguousarray(np.swapaxes(valid, 1, 2)))


def _match(scene: Scene, rollouts: Rollouts, generation: bool) -> Int64[np.ndarray, " N"]:
    """Return the order of the rollouts' agents that is the scene's. Raises BadRollouts."""

    def require(condition: bool, otherwise: str) -> None:
        if not condition:
            raise BadRollouts(f"scene {scene.id}: {otherwise}")

    rollouts.check(f"scene {scene.id}")
    require(rollouts.scene_id == scene.id, f"these are rollouts of scene {rollouts.scene_id}")
    require(rollouts.runs > 0, "no run in the rollouts")
    wanted, found = scene.agents.id[scene.sim_agents], rollouts.agent_id
    missing, foreign = np.setdiff1d(wanted, found).tolist(), np.setdiff1d(found, wanted).tolist()
    require(
        not missing and not foreign,
        f"agents {missing} are missing and {foreign} are foreign; wanted are exactly the {len(wanted)} agents that are "
        "valid at the current index",
    )
    first, steps = (0, STEPS) if generation else (CURRENT_INDEX + 1, STEPS - CURRENT_INDEX - 1)
    require(
        rollouts.first_step == first and rollouts.valid.shape[2] == steps,
        f"{rollouts.valid.shape[2]} steps from step {rollouts.first_step} on; wanted are {steps} from {first} on",
    )
    require(abs(rollouts.dt - DT) < 0.005, f"steps of {rollouts.dt} s; wanted are {DT} s")
    if not rollouts.valid.all():
        run, agent, step = np.argwhere(~rollouts.valid)[0]
        raise BadRollouts(
            f"scene {scene.id}: run {run}, agent {found[agent]} is not there at step {first + step}; WOSAC wants every "
            "agent at all steps (hold the last state of one that leaves)"
        )
    if (np.abs(rollouts.position) > MAX_COORDINATE).any():
        raise BadRollouts(f"scene {scene.id}: a position lies beyond {MAX_COORDINATE:.0e} m")
    by_id = np.argsort(found)
    return by_id[np.searchsorted(found, wanted, sorter=by_id)]
