"""Means over scenes for a training or evaluation loop of many processes: a `torchmetrics.Metric`, with bounded memory.

Needs the extra [metrics]; nothing else here imports this module.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from traj_diffusion.errors import BadRollouts, BadScene, MissingExtra
from traj_diffusion.metrics import wosac
from traj_diffusion.metrics.score import score
from traj_diffusion.scene import Rollouts, Scene

try:
    from torchmetrics import Metric
except ImportError as error:
    raise MissingExtra("torchmetrics", "metrics") from error

_WOSAC = "wosac/"


class SceneMeans(Metric):
    """Means over scenes of the metrics that are asked for by name, each scene counting the same.

    Names are those of `metrics.score`, or `wosac/` and an official field, `wosac/metametric` for one. State is a sum
    and a count for each name, whatever the number of scenes, and adds up over processes. What a scene lacks does not
    count; what no scene has is not among the results, since it is not 0. Intervals need the scenes one by one:
    `evaluation.evaluate` keeps them.
    """

    full_state_update = False
    total: Tensor
    scenes: Tensor

    def __init__(self, names: Sequence[str], config: str = "sim_agents_2025", seconds: float = 8.0) -> None:
        super().__init__()
        self.names, self.config, self.seconds = tuple(names), config, seconds
        for state, kind in (("total", torch.float64), ("scenes", torch.int64)):
            self.add_state(state, torch.zeros(len(self.names), dtype=kind), dist_reduce_fx="sum")

    def update(self, scene: Scene, rollouts: Rollouts) -> None:
        """Add the metrics of one scene. Raises BadRollouts where the rollouts do not fit it, ValueError for a name."""
        for at, value in enumerate(self._values(scene, rollouts)):
            if value is not None:
                self.total[at] += value
                self.scenes[at] += 1

    def compute(self) -> dict[str, Tensor]:
        """Return the means of all processes by name."""
        return {
            name: total / count
            for name, total, count in zip(self.names, self.total, self.scenes, strict=True)
            if count > 0
        }

    def _values(self, scene: Scene, rollouts: Rollouts) -> list[float | None]:
        found = score(scene, rollouts, self.seconds)
        official: dict[str, float] = {}
        if any(name.startswith(_WOSAC) for name in self.names):
            try:
                official = dict(wosac.score(scene, rollouts, self.config).fields)
            except (BadScene, BadRollouts):  # no road edge, say, while the rollouts fit: this scene has no such score
                official = dict.fromkeys((name.removeprefix(_WOSAC) for name in self.names), math.nan)
        values: list[float | None] = []
        for name in self.names:
            if name.startswith(_WOSAC):
                field = name.removeprefix(_WOSAC)
                if field not in official:
                    raise ValueError(f"WOSAC has no field {field!r}; it has {', '.join(official)}")
                values.append(None if math.isnan(official[field]) else official[field])
            elif name in found or name in found.absent:
                values.append(found.get(name))
            else:
                raise ValueError(f"no metric is called {name!r}; dict(score(scene, rollouts)) shows all")
        return values
