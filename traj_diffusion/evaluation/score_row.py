"""All figures of one scene: WOSAC by our code or by the official package, and every other metric."""

import math
from dataclasses import replace

import numpy as np

from traj_diffusion.errors import BadRollouts, BadScene
from traj_diffusion.evaluation.log_baselines import LOG_NOISE, LOG_REPLAY
from traj_diffusion.evaluation.official import official_report
from traj_diffusion.evaluation.rows import CONFIG, OTHER_YEARS, SECONDS, Protocol, SceneRow
from traj_diffusion.metrics import AgentSet, Matched, SceneScore, displacement, match, rank_histogram, score, wosac
from traj_diffusion.metrics.figures import Absent, Figures, Tally
from traj_diffusion.metrics.multimodality import last_step_ranks
from traj_diffusion.scene import Rollouts, Scene

ENGINES = ("own", "official")
FEW = 6
"""K of the displacement errors that are given beside those of all rollouts: what motion forecasting publishes."""


def score_row(
    scene: Scene,
    rollouts: Rollouts,
    config: str = CONFIG,
    engine: str = "own",
    agents: AgentSet = AgentSet.EVALUATED,
) -> SceneRow:
    """Return all figures of one scene. Raises BadRollouts where the rollouts do not fit it.

    Where WOSAC cannot score the scene (no road edges, not 91 steps) its row says why, and has all other figures.
    Rollouts of scenario generation have WOSAC alone: they make up their own history, which all else begins from.
    A recording that ends before 8 s is scored up to its end. `agents` are those that all figures but WOSAC's count.
    """
    generation = wosac.CONFIGS[config].generation
    seconds = scored_seconds(scene)
    matched = None if generation else match(scene, rollouts, steps=max(1, round(seconds / scene.dt)))
    found: wosac.WosacScore | None = None
    features: wosac.SceneFeatures | None = None
    reason = ""
    try:
        features = wosac.extract(scene, rollouts, generation)
        found = wosac.score_features(features, config)
    except (BadScene, BadRollouts) as error:
        if generation:
            raise
        reason = str(error)
    if found is not None and engine == "official":
        found = _official(found, scene, rollouts)
    every, futures = rollouts.provenance.get("replan_every"), rollouts.provenance.get("futures")
    replayed = rollouts.provenance.get("model") in (LOG_REPLAY, LOG_NOISE)
    return SceneRow(
        metrics=SceneScore(scene.id, {}, {})
        if matched is None
        else _metrics(scene, rollouts, matched, features, reason, agents),
        wosac=found,
        wosac_absent=reason,
        protocol=Protocol(
            rollouts=rollouts.runs,
            futures=futures if isinstance(futures, int) else None,
            replan_hz=0.0 if replayed else round(1 / (every * scene.dt), 3) if isinstance(every, int) else None,
            seconds=seconds,
        ),
        joint_ade=() if matched is None else _joint_ade(matched, agents),
        ranks={} if matched is None else _ranks(matched, agents),
    )


def scored_seconds(scene: Scene) -> float:
    """Return over how many seconds a scene's rollouts are scored: 8, or all that the recording holds after now."""
    recorded = round((scene.steps - 1 - scene.current_index) * scene.dt, 6)
    return min(SECONDS, recorded) if recorded > 0 else SECONDS


def _metrics(
    scene: Scene,
    rollouts: Rollouts,
    matched: Matched,
    features: wosac.SceneFeatures | None,
    reason: str,
    agents: AgentSet,
) -> SceneScore:
    """Return all figures but WOSAC's own; among them displacement at K = 6, and the meta-metric of another year.

    That is of the same features as WOSAC's figures: our code's, whatever the engine.
    """
    found = score(scene, rollouts, scored_seconds(scene), agents=agents)
    more: Figures = {}
    if len(matched.valid) > FEW:
        figures = displacement(matched, FEW, agents=agents)
        more |= {name: figure for name, figure in figures.items() if name.count("/") == 1}  # not of each kind
    for config, name in OTHER_YEARS.items():
        value = math.nan if features is None else wosac.score_features(features, config).metametric
        known = math.isfinite(value)
        more[name] = Tally(value, 1) if known else Absent(reason or "a likelihood that it weighs is missing")
    also = SceneScore.of(scene.id, more)
    return SceneScore(scene.id, {**found.tallies, **also.tallies}, {**found.absent, **also.absent})


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


def _joint_ade(matched: Matched, agents: AgentSet) -> tuple[float, ...]:
    """Return the mean error of each rollout, over counted agents and their valid steps; its least is joint minADE."""
    count = matched.log_valid.sum(-1)
    seen = matched.counted(agents) & (count > 0)
    if not seen.any():
        return ()
    error = np.linalg.norm((matched.position - matched.log_position)[:, seen, :, :2], axis=-1)
    each = (error * matched.log_valid[seen]).sum(-1) / count[seen]
    return tuple(float(value) for value in each.mean(1))


def _ranks(matched: Matched, agents: AgentSet) -> dict[str, tuple[float, ...]]:
    along, across, counted = last_step_ranks(matched, matched.counted(agents))
    if not counted.any():
        return {}
    runs = len(matched.valid)
    axes = {"along": along, "across": across}
    return {
        axis: tuple(float(count) for count in rank_histogram(below[counted], equal[counted], runs))
        for axis, (below, equal) in axes.items()
    }
