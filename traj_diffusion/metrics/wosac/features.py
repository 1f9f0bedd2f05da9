"""All features of one scene's recording and rollouts, per evaluated agent and scored step."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from traj_diffusion.metrics.wosac import kinematics
from traj_diffusion.metrics.wosac.boxes import nearest_object
from traj_diffusion.metrics.wosac.configs import CURRENT_INDEX, STEPS
from traj_diffusion.metrics.wosac.lights import Signals, index_signals, red_lights_run
from traj_diffusion.metrics.wosac.road_edges import EdgeIndex, distance_to_road_edge, edge_polylines, index_edges
from traj_diffusion.metrics.wosac.states import (
    States,
    check_scene_fits,
    evaluated_rows,
    logged_states,
    simulated_states,
)
from traj_diffusion.metrics.wosac.ttc import time_to_collision
from traj_diffusion.scene import Rollouts, Scene


@dataclass(frozen=True)
class Features:
    """R runs of E evaluated agents over T scored steps. The recording is one run."""

    linear_speed: Float32[np.ndarray, "R E T"]
    linear_acceleration: Float32[np.ndarray, "R E T"]
    angular_speed: Float32[np.ndarray, "R E T"]
    angular_acceleration: Float32[np.ndarray, "R E T"]
    distance_to_nearest_object: Float32[np.ndarray, "R E T"]
    time_to_collision: Float32[np.ndarray, "R E T"]
    distance_to_road_edge: Float32[np.ndarray, "R E T"]
    traffic_light_violation: Bool[np.ndarray, "R E T"]

    @property
    def collision_indication(self) -> Bool[np.ndarray, "R E T"]:
        """Where boxes overlap."""
        return self.distance_to_nearest_object < 0

    @property
    def offroad_indication(self) -> Bool[np.ndarray, "R E T"]:
        """Where a corner of the box lies beyond the road edge."""
        return self.distance_to_road_edge > 0


@dataclass(frozen=True)
class SceneFeatures:
    """Recording and simulation side by side, and how far apart they are."""

    scene_id: str
    generation: bool
    agent_id: Int64[np.ndarray, " E"]
    kind: UInt8[np.ndarray, " E"]
    step: Int64[np.ndarray, " T"]
    valid: Bool[np.ndarray, "E T"]  # of the recording
    logged: Features
    simulated: Features
    displacement: Float64[np.ndarray, "R E all_steps"]  # m, NaN where the recording is not valid


def extract(scene: Scene, rollouts: Rollouts, generation: bool = False, threads: int = 1) -> SceneFeatures:
    """Return the features of rollouts and recording; `generation` asks for those of scenario generation.

    `threads` share the runs among them and change no digit. Raises BadScene and BadRollouts.
    """
    check_scene_fits(scene, generation)
    rows = evaluated_rows(scene, generation)
    simulated, logged = simulated_states(scene, rollouts, generation), logged_states(scene, generation)
    edges, signals = index_edges(edge_polylines(scene.map)), index_signals(scene)
    first = 0 if generation else CURRENT_INDEX + 1
    evaluated = scene.sim_agents[rows]
    valid = scene.agents.valid[evaluated]
    return SceneFeatures(
        scene_id=scene.id,
        generation=generation,
        agent_id=scene.agents.id[evaluated],
        kind=scene.agents.kind[evaluated],
        step=np.arange(first, STEPS),
        valid=valid[:, first:],
        logged=_features(logged, rows, first, edges, signals, 1),
        simulated=_features(simulated, rows, first, edges, signals, threads),
        displacement=_displacement(logged, simulated, rows, valid),
    )


def _displacement(
    logged: States, simulated: States, rows: Int64[np.ndarray, " E"], valid: Bool[np.ndarray, "E T"]
) -> Float64[np.ndarray, "R E T"]:
    square = np.zeros((len(simulated.x), len(rows), valid.shape[1]))
    for axis in ("x", "y", "z"):
        apart = getattr(simulated, axis)[..., rows] - getattr(logged, axis)[..., rows]
        square += np.swapaxes(apart, 1, 2).astype(np.float64) ** 2
    return np.where(valid, np.sqrt(square), np.nan)


def _features(
    states: States,
    rows: Int64[np.ndarray, " E"],
    first: int,
    edges: EdgeIndex,
    signals: Signals | None,
    threads: int,
) -> Features:
    runs, steps, _ = states.x.shape
    shape = (runs, len(rows), steps - first)
    # In float32, like the official code: a cosine rounded from float64 moves more corners across their grid.
    cos, sin = np.cos(states.heading), np.sin(states.heading)
    x, y = np.swapaxes(states.x, 1, 2), np.swapaxes(states.y, 1, 2)
    planar = np.ascontiguousarray(np.swapaxes(kinematics.linear_speed(x, y), 1, 2))
    nearest, ttc, edge = (np.empty(shape, np.float32) for _ in range(3))
    red = np.zeros(shape, bool)

    def run_kernels(part: slice) -> None:
        where = [array[part] for array in (states.x, states.y)]
        turned, box, valid = [cos[part], sin[part]], [states.length[part], states.width[part]], states.valid[part]
        nearest_object(*where, *turned, *box, valid, rows, first, nearest[part])
        time_to_collision(*where, states.heading[part], *turned, planar[part], *box, valid, rows, first, ttc[part])
        distance_to_road_edge(
            *where,
            states.z[part],
            *turned,
            *box,
            states.height[part],
            valid,
            rows,
            first,
            edges.start,
            edges.along,
            edges.before,
            edges.after,
            edges.first,
            edges.box,
            edge[part],
        )
        if signals is not None:
            red_lights_run(
                *where,
                valid,
                rows,
                first,
                signals.start,
                signals.along,
                signals.first,
                signals.lane,
                signals.line,
                signals.stop,
                signals.red,
                red[part],
            )

    _over_runs(run_kernels, runs, threads)

    def evaluated(values: np.ndarray) -> np.ndarray:
        return np.swapaxes(values[..., rows], 1, 2)

    speed = kinematics.linear_speed(evaluated(states.x), evaluated(states.y), evaluated(states.z))
    yaw_rate, yaw_acceleration = kinematics.angular_motion(evaluated(states.heading))
    return Features(
        linear_speed=speed[..., first:],
        linear_acceleration=kinematics.linear_acceleration(speed)[..., first:],
        angular_speed=yaw_rate[..., first:],
        angular_acceleration=yaw_acceleration[..., first:],
        distance_to_nearest_object=nearest,
        time_to_collision=ttc,
        distance_to_road_edge=edge,
        traffic_light_violation=red,
    )


def _over_runs(work: Callable[[slice], None], runs: int, threads: int) -> None:
    """Call `work` on slices that cover the runs; the kernels let go of the interpreter's lock."""
    if threads < 1:
        raise ValueError(f"threads is {threads}; wanted is at least 1")
    if threads == 1 or runs == 1:
        work(slice(0, runs))
        return
    cuts = np.linspace(0, runs, min(threads, runs) + 1).astype(int).tolist()
    with ThreadPoolExecutor(len(cuts) - 1) as pool:
        list(pool.map(work, [slice(low, high) for low, high in pairwise(cuts)]))
