"""NAVSIM v2: the traffic that a planned ego path is scored in reacts to it, as an AbstractTrafficAgentsPolicy.

```
policy = DrivenTrafficAgents(TrajectorySampling(num_poses=40, interval_length=0.1), TrafficModel(model))
```

No registry has navsim, so this file is **tested against a fake** that holds to its published signatures, never against
NAVSIM itself.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from traj_diffusion.errors import MissingSource
from traj_diffusion.scene import GivenFuture
from traj_diffusion.sim_adapter.hosts import nuplan_view as view
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

try:
    from navsim.traffic_agents_policies.abstract_traffic_agents_policy import AbstractTrafficAgentsPolicy
    from nuplan.common.actor_state.tracked_objects_types import TrackedObjectType
    from nuplan.common.maps.nuplan_map.map_factory import get_maps_api
except ImportError:
    raise MissingSource("navsim", "github.com/autonomousvision/navsim") from None

from traj_diffusion.sim_adapter.hosts.nuplan import DetectionsTracks, Nuplan, SemanticMapLayer, TrackedObjects

RADIUS = 150.0  # m of map around where the ego starts
X, Y, HEADING, VELOCITY_X, VELOCITY_Y = range(5)  # of a row of `simulated_ego_states`: rear axle, velocity in its frame


class DrivenTrafficAgents(AbstractTrafficAgentsPolicy):
    """Drives objects of the given types beside an ego whose path is settled; each call is an episode of its own.

    The whole path is given to the traffic beforehand (`GivenFuture`), so the others are sampled to fit it, and the ego
    is shown on it at every tick. The same path and scene give the same traffic. NAVSIM merges all other objects itself.
    """

    def __init__(
        self,
        future_trajectory_sampling: Any,
        traffic: TrafficModel,
        driven: Sequence[str] = ("VEHICLE", "PEDESTRIAN", "BICYCLE"),
        radius: float = RADIUS,
    ) -> None:
        view.check_settings("NAVSIM", future_trajectory_sampling.interval_length, traffic.dt, driven)
        self.future_trajectory_sampling = future_trajectory_sampling
        self._traffic, self._driven, self._radius = traffic, tuple(driven), radius

    def get_list_of_simulated_object_types(self) -> list[Any]:
        """Return the types that are driven."""
        return [TrackedObjectType[name] for name in self._driven]

    def simulate_traffic_agents(self, simulated_ego_states: np.ndarray, metric_cache: Any) -> list[Any]:
        """Return the driven objects at each step after the first of the ego's states [steps + 1, 11]."""
        told = metric_cache.map_parameters
        start = metric_cache.ego_state.car_footprint
        map_api = get_maps_api(told.map_root, told.map_version, told.map_name)
        features, lanes = view.map_of(map_api, SemanticMapLayer, start.oriented_box.center.point, self._radius)
        box, ahead = start.oriented_box, start.vehicle_parameters.rear_axle_to_center
        path = [_pose(row, ahead, (box.length, box.width, box.height)) for row in simulated_ego_states]
        dt, began = self._traffic.dt, metric_cache.ego_state.time_point.time_us
        given = GivenFuture.from_arrays(
            view.EGO,
            time=np.arange(1, len(path)) * dt,
            position=[(pose.x, pose.y) for pose in path[1:]],
            heading=[pose.heading for pose in path[1:]],
        )
        first = list(metric_cache.current_tracked_objects[0].tracked_objects)
        objects = [one for one in first if one.tracked_object_type.name in self._driven]
        others = [one for one in first if one.tracked_object_type.name not in (*self._driven, "EGO")]
        numbers, traffic = view.Numbers(), self._traffic.fork()
        found = []
        for tick, pose in enumerate(path[:-1]):
            everyone = [*objects, *others]
            more = {"given": [given]}
            seen = view.observe(tick * dt, pose, everyone, self._driven, numbers, lanes, features, **more)
            if tick == 0:
                traffic.reset(features, seen)
            step = traffic.step(seen)
            objects = view.moved(objects, step, numbers, began + round((tick + 1) * dt * 1e6), Nuplan)
            found.append(DetectionsTracks(TrackedObjects(list(objects))))
        return found


def _pose(row: np.ndarray, ahead: float, size: tuple[float, float, float]) -> view.Pose:
    """Return a row of NAVSIM's ego states as the pose of the box, whose centre lies ahead of the rear axle."""
    heading = float(row[HEADING])
    cos, sin = math.cos(heading), math.sin(heading)
    velocity = cos * row[VELOCITY_X] - sin * row[VELOCITY_Y], sin * row[VELOCITY_X] + cos * row[VELOCITY_Y]
    return view.Pose(
        float(row[X] + ahead * cos),
        float(row[Y] + ahead * sin),
        heading,
        (float(velocity[0]), float(velocity[1])),
        size,
    )
