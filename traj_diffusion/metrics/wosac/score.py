"""The score of one scene, term by term and agent by agent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from traj_diffusion.errors import BadConfig
from traj_diffusion.metrics.wosac.configs import BUCKETS, CONFIGS, CURRENT_INDEX, INDICATIONS, ROLLOUTS, Config, Term
from traj_diffusion.metrics.wosac.estimators import log_likelihood, neighbours_valid
from traj_diffusion.metrics.wosac.features import SceneFeatures, extract
from traj_diffusion.scene import AgentKind, Rollouts, Scene


class Loss(NamedTuple):
    """Points of the meta-metric that one agent lost at one step (None: an indication, which has no step)."""

    feature: str
    agent_id: int
    step: int | None
    points: float


@dataclass(frozen=True)
class WosacScore:
    """Official numbers of one scene, and where they come from. All are better when higher, but rates and ADE.

    `fields` and `buckets` use the names of the official messages; NaN stands for a number that does not exist, and
    `warnings` say why. `future_ade` and `min_future_ade` [m] leave out the 11 steps of history that the official
    ones average over with error zero; they are NaN for scenario generation.
    """

    scene_id: str
    config: str
    rollouts: int
    fields: Mapping[str, float]
    buckets: Mapping[str, float]
    future_ade: float
    min_future_ade: float
    agent_id: Int64[np.ndarray, " E"]
    kind: UInt8[np.ndarray, " E"]
    step: Int64[np.ndarray, " T"]
    log_likelihood: Mapping[str, Float64[np.ndarray, "E _"]]  # [E, T], indications [E, 1]; NaN: does not count
    logged_events: Mapping[str, Bool[np.ndarray, "E T"]]  # per indication, where the recording was observed
    simulated_events: Mapping[str, Float64[np.ndarray, "E T"]]  # per indication, share of the rollouts
    warnings: tuple[str, ...]

    @property
    def metametric(self) -> float:
        """The realism meta-metric, 0 to 1."""
        return self.fields["metametric"]

    def lost_points(self, feature: str) -> Float64[np.ndarray, "E _"]:
        """Return how the points that a feature lost fall upon agents and steps, in proportion to -log p.

        They add up to weight x (1 - likelihood); over all features, to what the meta-metric lacks. NaN throughout where
        the feature has no likelihood.
        """
        log_p = self.log_likelihood[feature]
        if np.isnan(log_p).all():
            return log_p
        total = np.nansum(log_p)
        weight = next(term.weight for term in CONFIGS[self.config].terms if term.feature == feature)
        lost = weight * (1 - self.fields[f"{feature}_likelihood"])
        return np.nan_to_num(log_p) * (lost / total if total < 0 else 0.0)

    def worst(self, count: int = 10) -> list[Loss]:
        """Return the agents and steps that cost most points, the costliest first."""
        losses = []
        for feature, log_p in self.log_likelihood.items():
            lost = self.lost_points(feature)
            for agent, sample in zip(*np.unravel_index(np.argsort(-lost, axis=None)[:count], lost.shape), strict=True):
                step = None if feature in INDICATIONS else int(self.step[sample])
                if not np.isnan(log_p[agent, sample]):
                    losses.append(Loss(feature, int(self.agent_id[agent]), step, float(lost[agent, sample])))
        return sorted(losses, key=lambda loss: -loss.points)[:count]


def score(scene: Scene, rollouts: Rollouts, config: str = "sim_agents_2025", threads: int = 1) -> WosacScore:
    """Return the Waymo Open Sim Agents Challenge score of the rollouts, as the official package 1.6.7 computes it.

    `config` is a name in `CONFIGS`, whose notes say what the older years' numbers are good for. Official numbers are
    defined for 32 rollouts; any other count is scored too, with a warning in the result.
    Raises BadScene, BadRollouts, BadConfig.
    """
    settings = _settings(config)
    return score_features(extract(scene, rollouts, settings.generation, threads), config)


def score_features(features: SceneFeatures, config: str = "sim_agents_2025") -> WosacScore:
    """Return the score of features that `extract` made, for when several configurations are wanted."""
    settings = _settings(config)
    if settings.generation != features.generation:
        raise ValueError(f"{config} needs features extracted with generation={settings.generation}")
    runs = len(features.displacement)
    warnings = []
    if runs != ROLLOUTS:
        warnings.append(f"{runs} rollouts; official numbers are defined for {ROLLOUTS}, so these do not compare")
    fields: dict[str, float] = {}
    log_p = {term.feature: _term_log_likelihood(term, features, settings) for term in settings.terms}
    for feature, values in log_p.items():
        if np.isnan(values).all():
            warnings.append(f"{feature}: no agent and step counts, so it has no likelihood")
        fields[f"{feature}_likelihood"] = _float32(np.exp(_mean(values)))
    fields["metametric"] = _weighted(settings.terms, fields, 1.0)
    for feature, stem in INDICATIONS.items():
        happened = (getattr(features.simulated, feature) & features.valid).any(-1)
        fields[f"simulated_{stem}_rate"] = _float32(happened.mean())
    official, future = (0.0, 0.0), (np.nan, np.nan)
    if not settings.generation:
        official = _displacement_errors(features.displacement)
        future = _displacement_errors(features.displacement[..., CURRENT_INDEX + 1 :])
        if np.isnan(future[0]):
            warnings.append("no evaluated agent is observed after the current index, so there is no future ADE")
    fields["average_displacement_error"], fields["min_average_displacement_error"] = official
    return WosacScore(
        scene_id=features.scene_id,
        config=config,
        rollouts=runs,
        fields=fields,
        buckets=_buckets(settings, fields),
        future_ade=future[0],
        min_future_ade=future[1],
        agent_id=features.agent_id,
        kind=features.kind,
        step=features.step,
        log_likelihood=log_p,
        logged_events={name: getattr(features.logged, name)[0] & features.valid for name in INDICATIONS},
        simulated_events={
            name: (getattr(features.simulated, name) & features.valid).mean(0, dtype=np.float64) for name in INDICATIONS
        },
        warnings=tuple(warnings),
    )


def _settings(config: str) -> Config:
    if config not in CONFIGS:
        raise BadConfig(f"unknown WOSAC configuration {config!r}; known: {', '.join(CONFIGS)}")
    return CONFIGS[config]


def _term_log_likelihood(term: Term, features: SceneFeatures, settings: Config) -> Float64[np.ndarray, "E _"]:
    """Return log p of the recording, [E, T], or [E, 1] for an indication; NaN where it does not count."""
    logged, simulated = getattr(features.logged, term.feature)[0], getattr(features.simulated, term.feature)
    vehicle = (features.kind == AgentKind.VEHICLE)[:, None]
    counts = features.valid
    if not term.per_step:
        if term.feature == "traffic_light_violation":
            counts = counts & vehicle  # everyone else adds a sure "no"
        logged = (logged & counts).any(-1, keepdims=True)
        simulated = (simulated & counts).any(-1, keepdims=True)
        return log_likelihood(term, logged.astype(np.float32), simulated.astype(np.float32))
    if term.feature in ("linear_speed", "angular_speed"):
        counts = neighbours_valid(counts)
    elif term.feature in ("linear_acceleration", "angular_acceleration"):
        counts = neighbours_valid(neighbours_valid(counts))
    elif term.feature == "time_to_collision" and not settings.ttc_of_all_kinds:
        counts = counts & vehicle
    return np.where(counts, log_likelihood(term, logged, simulated), np.nan)


def _displacement_errors(displacement: Float64[np.ndarray, "R E T"]) -> tuple[float, float]:
    """Return the mean over runs and agents, and the least run's mean over agents; agents never observed stay out."""
    observed = ~np.isnan(displacement[0])
    agents = observed.any(-1)
    if not agents.any():
        return float("nan"), float("nan")
    error = np.nansum(displacement[:, agents], -1) / observed[agents].sum(-1)
    return _float32(error.mean()), _float32(error.mean(1).min())


def _weighted(terms: tuple[Term, ...], fields: Mapping[str, float], total: float) -> float:
    """Return the weighted sum of the terms' likelihoods over `total`. A term of weight 0 adds nothing, NaN neither."""
    counted = [term for term in terms if term.weight > 0]
    return _float32(sum(term.weight / total * fields[f"{term.feature}_likelihood"] for term in counted))


def _buckets(settings: Config, fields: Mapping[str, float]) -> dict[str, float]:
    buckets = {"realism_meta_metric": fields["metametric"]}
    for name, members in BUCKETS.items():
        terms = tuple(term for term in settings.terms if term.feature in members)
        buckets[name] = _weighted(terms, fields, sum(term.weight for term in terms))
    buckets["min_ade"] = fields["min_average_displacement_error"]
    return buckets | {f"simulated_{stem}_rate": fields[f"simulated_{stem}_rate"] for stem in INDICATIONS.values()}


def _mean(values: np.ndarray) -> float:
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else float("nan")


def _float32(value: float | np.floating) -> float:
    """Return the value as the official messages hold it."""
    return float(np.float32(value))
