"""Rollouts and the recording side by side: same agents in the same order, same steps, one local frame."""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from traj_diffusion.errors import BadRollouts
from traj_diffusion.scene import AgentKind, Rollouts, Scene


class AgentSet(StrEnum):
    """Whom a metric counts. Everyone simulated still takes part, as somebody to collide with for instance."""

    EVALUATED = "to_predict + ego"  # the evaluated agents of WOMD's Sim Agents challenge
    TO_PREDICT = "to predict"  # without the ego, as in motion forecasting
    SIMULATED = "all simulated"  # everyone valid at the current index, as in its scenario-generation track


@dataclass(frozen=True)
class Matched:
    """A scene's simulated agents A, in recorded order, in R rollouts and in the log.

    Positions are in the scene's frame less `origin`. Where `valid` is False a position or heading repeats the last
    valid one, so that an agent that left early is where it was last seen; the log is treated alike.
    """

    scene: Scene
    rows: Int64[np.ndarray, " A"]  # of scene.agents
    origin: Float64[np.ndarray, " 3"]
    dt: float
    kind: UInt8[np.ndarray, " A"]
    position: Float64[np.ndarray, "R A F 3"]
    heading: Float32[np.ndarray, "R A F"]
    valid: Bool[np.ndarray, "R A F"]
    size: Float64[np.ndarray, "R A 3"]
    weights: Float64[np.ndarray, " R"] | None
    log_position: Float64[np.ndarray, "A F 3"]
    log_heading: Float32[np.ndarray, "A F"]
    log_valid: Bool[np.ndarray, "A F"]
    now_position: Float64[np.ndarray, "A 3"]
    now_heading: Float32[np.ndarray, " A"]
    now_size: Float64[np.ndarray, "A 3"]

    @property
    def has_future(self) -> bool:
        """Whether the recording goes on after the current index."""
        return bool(self.log_valid.any())

    @property
    def past(self) -> tuple[Float64[np.ndarray, "A H 3"], Float32[np.ndarray, "A H"], Bool[np.ndarray, "A H"]]:
        """Position, heading and validity of the history, the present step last."""
        agents, now = self.scene.agents, self.scene.current_index + 1
        rows = self.rows
        return agents.position[rows, :now] - self.origin, agents.heading[rows, :now], agents.valid[rows, :now]

    def counted(self, which: AgentSet) -> Bool[np.ndarray, " A"]:
        """Return who belongs to the set, among the simulated agents."""
        if which is AgentSet.SIMULATED:
            return np.ones(len(self.rows), bool)
        chosen = self.scene.agents.to_predict.copy()
        if which is AgentSet.EVALUATED and self.scene.ego is not None:
            chosen[self.scene.ego] = True
        return chosen[self.rows]

    def log_as_rollout(self) -> "Matched":
        """Return the recording in the place of the rollouts: one run, with the boxes of the current index."""
        return replace(
            self,
            position=self.log_position[None],
            heading=self.log_heading[None],
            valid=self.log_valid[None],
            size=self.now_size[None],
            weights=None,
        )


def match(scene: Scene, rollouts: Rollouts, steps: int | None = None) -> Matched:
    """Return the rollouts beside their scene, cut to the first `steps` steps (all of them by default).

    Raises BadRollouts, saying what fits, where they belong to another scene, another rate, another first step, another
    set of agents, hold fewer than `steps` steps, or hold values that are not finite where valid.
    """
    where = f"rollouts of scene {rollouts.scene_id}"
    rollouts.check(where)
    agents, now = scene.agents, scene.current_index
    _require(rollouts.scene_id == scene.id, f"{where}: the scene at hand is {scene.id}")
    _require(bool(np.isclose(rollouts.dt, scene.dt)), f"{where}: dt is {rollouts.dt} s, that of the scene {scene.dt} s")
    _require(
        rollouts.first_step == now + 1,
        f"{where}: first_step is {rollouts.first_step}; {now + 1} fits, the step after the current index",
    )
    _require(rollouts.runs > 0, f"{where}: there is no run in them")
    held = rollouts.valid.shape[2]
    steps = held if steps is None else steps
    _require(0 < steps <= held, f"{where}: {held} steps per run; {max(steps, 1)} or more fit")
    rows = scene.sim_agents
    order = _order(where, agents.id[rows], rollouts.agent_id)
    kind = agents.kind[rows]
    # Submissions to the challenge name no kinds, so that OTHER may be anything.
    foreign = np.flatnonzero((rollouts.kind[order] != kind) & (rollouts.kind[order] != AgentKind.OTHER))
    if len(foreign):
        at = int(foreign[0])
        raise BadRollouts(
            f"{where}: agent {agents.id[rows[at]]} is of kind {rollouts.kind[order][at]}; the scene says {kind[at]}"
        )
    weights = None if rollouts.weights is None else rollouts.weights.astype(np.float64)
    if weights is not None:
        fits = weights.shape == (rollouts.runs,) and bool((np.isfinite(weights) & (weights >= 0)).all())
        _require(fits and weights.sum() > 0, f"{where}: weights are {weights}; R finite values >= 0, not all 0, fit")
    now_position, now_heading = agents.position[rows, now], agents.heading[rows, now]
    origin = np.round(now_position.mean(0)) if len(rows) else np.zeros(3)
    now_size = agents.size[rows, now].astype(np.float64)
    size = np.repeat(now_size[None], rollouts.runs, 0)
    if rollouts.size is not None:
        fits = rollouts.size.shape == size.shape and bool((np.isfinite(rollouts.size) & (rollouts.size >= 0)).all())
        _require(fits, f"{where}: size has shape {rollouts.size.shape}; finite values >= 0 of shape {size.shape} fit")
        size = rollouts.size[:, order].astype(np.float64)
    valid = rollouts.valid[:, order, :steps]
    position = _held(rollouts.position[:, order, :steps], valid, now_position[None])
    heading = _held(rollouts.heading[:, order, :steps, None], valid, now_heading[None, :, None])[..., 0]
    log_valid, log_position, log_heading = _log(scene, rows, steps)
    return Matched(
        scene=scene,
        rows=rows,
        origin=origin,
        dt=scene.dt,
        kind=kind,
        position=position - origin,
        heading=heading,
        valid=valid,
        size=size,
        weights=weights,
        log_position=_held(log_position, log_valid, now_position) - origin,
        log_heading=_held(log_heading[..., None], log_valid, now_heading[:, None])[..., 0],
        log_valid=log_valid,
        now_position=now_position - origin,
        now_heading=now_heading,
        now_size=now_size,
    )


def is_vehicle(kind: UInt8[np.ndarray, " A"]) -> Bool[np.ndarray, " A"]:
    """Return who is a motor vehicle."""
    return kind == AgentKind.VEHICLE


def _require(condition: bool | np.bool_, otherwise: str) -> None:
    if not condition:
        raise BadRollouts(otherwise)


def _order(where: str, wanted: Int64[np.ndarray, " A"], given: Int64[np.ndarray, " G"]) -> Int64[np.ndarray, " A"]:
    """Return where each wanted id stands among the given ones, which must be the same set."""
    missing, extra = np.setdiff1d(wanted, given), np.setdiff1d(given, wanted)
    if len(missing) or len(extra):
        raise BadRollouts(
            f"{where}: {len(missing)} agents are missing (ids {missing[:5].tolist()}), {len(extra)} do not belong "
            f"(ids {extra[:5].tolist()}); the {len(wanted)} agents that are valid at the current index fit"
        )
    order = np.argsort(given)
    return order[np.searchsorted(given[order], wanted)].astype(np.int64)


def _log(
    scene: Scene, rows: Int64[np.ndarray, " A"], steps: int
) -> tuple[Bool[np.ndarray, "A F"], Float64[np.ndarray, "A F 3"], Float32[np.ndarray, "A F"]]:
    """Return the recorded future of `steps` steps; what the recording does not reach is invalid."""
    first = scene.current_index + 1
    reached = max(0, min(steps, scene.steps - first))
    valid = np.zeros((len(rows), steps), bool)
    position = np.zeros((len(rows), steps, 3))
    heading = np.zeros((len(rows), steps), np.float32)
    window = slice(first, first + reached)
    valid[:, :reached] = scene.agents.valid[rows, window]
    position[:, :reached] = scene.agents.position[rows, window]
    heading[:, :reached] = scene.agents.heading[rows, window]
    return valid, position, heading


def _held(values: np.ndarray, valid: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return values [..., F, D] with each invalid step replaced by the last valid one before it, or by `first`."""
    steps = valid.shape[-1]
    last = np.maximum.accumulate(np.where(valid, np.arange(steps), -1), axis=-1)
    held = np.take_along_axis(values, np.maximum(last, 0)[..., None], axis=-2)
    return np.where((last >= 0)[..., None], held, first[..., None, :]).astype(values.dtype)
