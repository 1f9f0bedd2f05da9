"""nuPlan: the agents of a closed-loop simulation are driven by a TrafficModel, as an AbstractObservation.

```
observations = DrivenAgents(scenario, TrafficModel(policy))    # in the place of IDMAgents in a SimulationSetup
```

No registry has nuplan-devkit, so this file is **tested against a fake** that holds to the signatures of version 1.2,
never against nuPlan itself.
"""

from collections.abc import Sequence
from typing import Any

from traj_diffusion.errors import MissingSource
from traj_diffusion.sim_adapter.hosts import nuplan_view as view
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

try:
    from nuplan.common.actor_state.agent import Agent
    from nuplan.common.actor_state.oriented_box import OrientedBox
    from nuplan.common.actor_state.scene_object import SceneObjectMetadata
    from nuplan.common.actor_state.state_representation import StateSE2, StateVector2D
    from nuplan.common.actor_state.tracked_objects import TrackedObjects
    from nuplan.common.maps.maps_datatypes import SemanticMapLayer
    from nuplan.planning.simulation.observation.abstract_observation import AbstractObservation
    from nuplan.planning.simulation.observation.observation_type import DetectionsTracks
except ImportError:
    raise MissingSource("nuplan-devkit", "github.com/motional/nuplan-devkit") from None

RADIUS = 300.0  # m of map around where the ego starts


class Nuplan:
    """nuPlan's classes that objects are built of."""

    Agent, OrientedBox, SceneObjectMetadata = Agent, OrientedBox, SceneObjectMetadata
    StateSE2, StateVector2D = StateSE2, StateVector2D


class DrivenAgents(AbstractObservation):
    """Drives the objects of the given types that are there when the simulation begins; all others stay logged.

    The ego is the planner's. Each iteration is one tick of the traffic, whatever the log's time stamps say, so
    `traffic.dt` must be the scenario's `database_interval`. Lights are the log's.
    """

    def __init__(
        self,
        scenario: Any,
        traffic: TrafficModel,
        driven: Sequence[str] = ("VEHICLE", "PEDESTRIAN", "BICYCLE"),
        radius: float = RADIUS,
    ) -> None:
        view.check_settings("nuPlan", scenario.database_interval, traffic.dt, driven)
        self._scenario, self._traffic = scenario, traffic
        self._driven, self._radius = tuple(driven), radius
        self.reset()

    def reset(self) -> None:
        """Go back to the beginning."""
        self._index = 0
        self._numbers = view.Numbers()
        self._features: Any = None
        self._lanes: dict[str, int] = {}
        self._objects = self._logged(0, self._driven)

    def initialize(self) -> None:
        """Need nothing: the map is read at the first update."""

    def observation_type(self) -> Any:
        """Return tracked objects."""
        return DetectionsTracks

    def get_observation(self) -> Any:
        """Return the driven objects where the traffic has them, and the logged ones of the other types."""
        others = self._logged(self._index, None)
        return DetectionsTracks(TrackedObjects([*self._objects, *others]))

    def update_observation(self, iteration: Any, next_iteration: Any, history: Any) -> None:
        """Drive on from one iteration to the next one, given where the ego is in the first."""
        state, _ = history.current_state
        ego = view.ego_pose(state)
        if self._features is None:
            point = state.car_footprint.oriented_box.center.point
            self._features, self._lanes = view.map_of(self._scenario.map_api, SemanticMapLayer, point, self._radius)
        objects = [*self._objects, *self._logged(iteration.index, None)]
        seen = view.observe(
            iteration.index * self._traffic.dt,
            ego,
            objects,
            self._driven,
            self._numbers,
            self._lanes,
            self._features,
            self._scenario.get_traffic_light_status_at_iteration(iteration.index),
        )
        if iteration.index == 0:
            self._traffic.reset(self._features, seen)
        step = self._traffic.step(seen)
        self._objects = view.moved(self._objects, step, self._numbers, next_iteration.time_us, Nuplan)
        self._index = next_iteration.index

    def _logged(self, index: int, types: Sequence[str] | None) -> list[Any]:
        """Return the log's objects of those types; None for all that are not driven."""
        found = self._scenario.get_tracked_objects_at_iteration(index).tracked_objects
        if types is None:
            return [one for one in found if one.tracked_object_type.name not in (*self._driven, "EGO")]
        return [one for one in found if one.tracked_object_type.name in types]
