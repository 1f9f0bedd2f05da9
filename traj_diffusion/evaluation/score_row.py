"""All figures of one scene: WOSAC by our code or by the official package, and every other metric."""

import math
from dataclasses import replace

import numpy as np

from traj_diffusion.errors import BadRollouts, BadScene
from traj_diffusion.evaluation.log_baselines import LOG_NOISE, LOG_REPLAY
from traj_diffusion.evaluation.official import official_report
from traj_diffusion.evaluation.rows import CONFIG, Protocol, SceneRow
from traj_diffusion.metrics import AgentSet, Matched, SceneScore, match, rank_histogram, score, wosac
from traj_diffusion.metrics.multimodality import last_step_ranks
from traj_diffusion.scene import Rollouts, Scene

SECONDS = 8.0
ENGINES = ("own", "official")


def score_row(scene: Scene, rollouts: Rollouts, config: str = CONFIG, engine: str = "own") -> SceneRow:
    """Return all figures of one scene. Raises BadRollouts where the rollouts do not fit it.

    Where WOSAC cannot score the scene (no road edges, not 91 steps) its row says why, and has all other figures.
    Rollouts of scenario generation have WOSAC alone: they make up their own history, which all else begins from.
    """
    generation = wosac.CONFIGS[config].generation
    matched = None if generation else match(scene, rollouts, steps=max(1, round(SECONDS / scene.dt)))
    found: wosac.WosacScore | None = None
    reason = ""
    try:
        found = wosac.score(scene, rollouts, config)
    except (BadScene, BadRollouts) as error:
        if generation:
            raise
        reason = str(error)
    if found is not None and engine == "official":
        found = _official(found, scene, rollouts)
    every, futures = rollouts.provenance.get("replan_every"), rollouts.provenance.get("futures")
    replayed = rollouts.provenance.get("model") in (LOG_REPLAY, LOG_NOISE)
    return SceneRow(
        metrics=SceneScore(scene.id, {}, {}) if matched is None else score(scene, rollouts, SECONDS),
        wosac=found,
        wosac_absent=reason,
        protocol=Protocol(
            rollouts=rollouts.runs,
            futures=futures if isinstance(futures, int) else None,
            replan_hz=0.0 if replayed else round(1 / (every * scene.dt), 3) if isinstance(every, int) else None,
        ),
        joint_ade=() if matched is None else _joint_ade(matched),
        ranks={} if matched is None else _ranks(matched),
    )


def _official(ours: wosac.WosacScore, scene: Scene, rollouts: Rollouts) -> wosac.WosacScore:
    """Return our score with the official package's numbers in the place of ours; it has no ADE of the future alone."""
    report = official_report(scene, rollouts, ours.config)
    return replace(
        ours,
        fields={name: float(report["fields"][name]) for name in ours.fields},
        buckets={name: float(report["buckets"][name]) for name in ours.buckets},
        future_ade=math.nan,
        min_future_ade=math.nan,
    )


def _joint_ade(matched: Matched) -> tuple[float, ...]:
    """Return the mean error of each rollout, over evaluated agents and their valid steps; its least is joint minADE."""
    count = matched.log_valid.sum(-1)
    seen = matched.counted(AgentSet.EVALUATED) & (count > 0)
    if not seen.any():
        return ()
    error = np.linalg.norm((matched.position - matched.log_position)[:, seen, :, :2], axis=-1)
    each = (error * matched.log_valid[seen]).sum(-1) / count[seen]
    return tuple(float(value) for value in each.mean(1))


def _ranks(matched: Matched) -> dict[str, tuple[float, ...]]:
    along, across, counted = last_step_ranks(matched, matched.counted(AgentSet.EVALUATED))
    if not counted.any():
        return {}
    runs = len(matched.valid)
    axes = {"along": along, "across": across}
    return {
        axis: tuple(float(count) for count in rank_histogram(below[counted], equal[counted], runs))
        for axis, (below, equal) in axes.items()
    }
