"""What each year's challenge counts: features, histogram ranges, weights.

The numbers are those of the challenge's own configuration files. Bin edges are float32, because samples that lie
exactly on an edge (a stopped car, a time to collision of 5 s) are common and must fall on the official side of it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32

KINEMATIC = ("linear_speed", "linear_acceleration", "angular_speed", "angular_acceleration")
INTERACTIVE = ("distance_to_nearest_object", "collision_indication", "time_to_collision")
MAP_BASED = ("distance_to_road_edge", "offroad_indication", "traffic_light_violation")
BUCKETS = {"kinematic_metrics": KINEMATIC, "interactive_metrics": INTERACTIVE, "map_based_metrics": MAP_BASED}
INDICATIONS = {
    "collision_indication": "collision",
    "offroad_indication": "offroad",
    "traffic_light_violation": "traffic_light_violation",
}
"""Features that are one yes or no per agent and run, and the stem of the official name of their rate."""

STEPS = 91
CURRENT_INDEX = 10
DT = 0.1
ROLLOUTS = 32


@dataclass(frozen=True)
class Term:
    """One feature of the meta-metric: its histogram over [low, high], its weight, and whether agents share one."""

    feature: str
    low: float
    high: float
    bins: int
    pseudocount: float
    weight: float
    pooled: bool = False

    @cached_property
    def edges(self) -> Float32[np.ndarray, " edges"]:
        """The bins' float32 borders: bin k is [edge k, edge k + 1), the last one is closed."""
        low, high = np.float32(self.low), np.float32(self.high)
        edges = low + np.arange(self.bins + 1, dtype=np.float32) * ((high - low) / np.float32(self.bins))
        edges[-1] = high
        return edges

    @property
    def per_step(self) -> bool:
        """Whether the feature has a value at every step, rather than one per agent."""
        return self.feature not in INDICATIONS


@dataclass(frozen=True)
class Config:
    """One challenge. `generation` marks scenario generation: all agents, all 91 steps, boxes from the rollout.

    `ttc_of_all_kinds` counts the time to collision of pedestrians and cyclists too, as the code of 2024 did.
    """

    name: str
    generation: bool
    terms: tuple[Term, ...]
    ttc_of_all_kinds: bool = False


_RANGES = {
    "linear_speed": (0.0, 25.0, 10),
    "linear_acceleration": (-12.0, 12.0, 11),
    "angular_speed": (-0.628, 0.628, 11),
    "angular_acceleration": (-3.14, 3.14, 11),
    "distance_to_nearest_object": (-5.0, 40.0, 10),
    "time_to_collision": (0.0, 5.0, 10),
    "distance_to_road_edge": (-20.0, 40.0, 10),
}
_RANGES_2023 = _RANGES | {
    "linear_speed": (0.0, 35.0, 10),
    "linear_acceleration": (-15.0, 15.0, 10),
    "angular_speed": (-31.5, 31.5, 10),
    "angular_acceleration": (-31.5, 31.5, 10),
}
_WEIGHTS_2025 = {
    "linear_speed": 0.05,
    "linear_acceleration": 0.05,
    "angular_speed": 0.05,
    "angular_acceleration": 0.05,
    "distance_to_nearest_object": 0.10,
    "collision_indication": 0.25,
    "time_to_collision": 0.10,
    "distance_to_road_edge": 0.05,
    "offroad_indication": 0.25,
    "traffic_light_violation": 0.05,
}
_WEIGHTS_2024 = _WEIGHTS_2025 | {"distance_to_road_edge": 0.10, "traffic_light_violation": 0.0}
_WEIGHTS_2023 = dict.fromkeys(_WEIGHTS_2025, 0.09) | {
    "collision_indication": 0.18,
    "offroad_indication": 0.18,
    "traffic_light_violation": 0.0,
}


def _config(
    name: str,
    ranges: dict[str, tuple[float, float, int]],
    weights: dict[str, float],
    generation: bool = False,
    ttc_of_all_kinds: bool = False,
) -> Config:
    terms = []
    for feature, weight in weights.items():
        low, high, bins = ranges.get(feature, (-0.5, 1.5, 2))
        pseudocount = 0.001 if feature in INDICATIONS else 0.1
        pooled = generation and feature != "traffic_light_violation"
        terms.append(Term(feature, low, high, bins, pseudocount, weight, pooled))
    return Config(name, generation, tuple(terms), ttc_of_all_kinds)


CONFIGS = {
    config.name: config
    for config in (
        _config("sim_agents_2025", _RANGES, _WEIGHTS_2025),
        _config("scenario_gen_2025", _RANGES, _WEIGHTS_2025, generation=True),
        _config("sim_agents_2024", _RANGES, _WEIGHTS_2024),
        _config("sim_agents_2024_leaderboard", _RANGES, _WEIGHTS_2024, ttc_of_all_kinds=True),
        _config("sim_agents_2023", _RANGES_2023, _WEIGHTS_2023),
    )
}
"""By name. `sim_agents_2024` is the 2024 configuration as the 1.6.7 package computes it: time to collision counts for
vehicles only, so it is not the number of the 2024 leaderboard. `sim_agents_2024_leaderboard` follows the package 1.6.4
of 2024 in this; it was compared with that package on one scene. `sim_agents_2023` is the 2023 configuration computed
with today's rules and an added traffic-light term of weight 0; it was never compared with a run of 2023."""
