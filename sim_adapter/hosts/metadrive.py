"""MetaDrive: the traffic of procedural and of ScenarioNet scenes is driven by a TrafficModel.

```
class DrivenEnv(MetaDriveEnv):
    def setup_engine(self):
        super().setup_engine()
        self.engine.update_manager("traffic_manager", DrivenTraffic(TrafficModel(policy)))
```

MetaDrive counts as we do: x, y and headings counter-clockwise, positions are box centres; maps come in ScenarioNet's
words. MetaDrive spawns and removes as ever, and the ego is its own.
"""

from collections.abc import Mapping
from typing import Any

from traj_diffusion.datasets.readers.scenarionet import map_features
from traj_diffusion.errors import HostError, MissingExtra
from traj_diffusion.scene import AgentKind, LightState, Map, Observation, Origin
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

try:
    from metadrive.component.traffic_participants.cyclist import Cyclist, CyclistBoundingBox
    from metadrive.component.traffic_participants.pedestrian import Pedestrian, PedestrianBoundingBox
    from metadrive.component.vehicle.base_vehicle import BaseVehicle
    from metadrive.engine.base_engine import BaseEngine
    from metadrive.manager.scenario_traffic_manager import ScenarioTrafficManager
    from metadrive.manager.traffic_manager import PGTrafficManager
    from metadrive.policy.base_policy import BasePolicy
    from metadrive.policy.replay_policy import ReplayTrafficParticipantPolicy
    from metadrive.type import MetaDriveType
except ImportError:
    raise MissingExtra("metadrive-simulator", "metadrive") from None

KINDS = (
    (BaseVehicle, AgentKind.VEHICLE),
    ((Cyclist, CyclistBoundingBox), AgentKind.CYCLIST),
    ((Pedestrian, PedestrianBoundingBox), AgentKind.PEDESTRIAN),
)
LIGHTS = {
    MetaDriveType.LIGHT_GREEN: LightState.GO,
    MetaDriveType.LIGHT_YELLOW: LightState.CAUTION,
    MetaDriveType.LIGHT_RED: LightState.STOP,
}
HEIGHT = 1.6  # m, of who has none


class Bridge:
    """What both managers share: an engine as our traffic sees it, and where its agents are after the step."""

    def __init__(self, traffic: TrafficModel) -> None:
        self.traffic = traffic
        self._lanes: dict[str, int] = {}
        self._ids: dict[str, int] = {}
        self._began = False
        self._places: dict[str, tuple[Any, ...]] = {}

    def begin(self) -> None:
        """Forget the episode before."""
        self._ids, self._began, self._places = {}, False, {}

    def look(self, engine: Any, driven: set[str]) -> None:
        """Show the traffic the engine as it is before the step, in which it drives those of these names."""
        step = float(engine.global_config["physics_world_step_size"] * engine.global_config["decision_repeat"])
        if abs(step - self.traffic.dt) > 1e-9:
            raise HostError(f"MetaDrive steps by {step} s and the traffic model by {self.traffic.dt} s; use dt={step}")
        seen = self._observe(engine, driven, (engine.episode_step - 1) * step)
        if not self._began:
            self.traffic.reset(self._map(engine), self._observe(engine, driven, seen.time))
            seen = self._observe(engine, driven, seen.time)  # now that the lanes of lights are known
            self._began = True
        done = self.traffic.step(seen)
        name_of = {number: name for name, number in self._ids.items()}
        rows = zip(done.agent_id.tolist(), done.position, done.heading.tolist(), done.velocity, strict=True)
        self._places = {name_of[agent]: tuple(place) for agent, *place in rows}

    def place(self, body: Any) -> bool:
        """Put a body where the traffic said; False where it said nothing of it."""
        if body.name not in self._places:
            return False
        position, heading, velocity = self._places[body.name]
        body.set_position(position[:2])
        body.set_heading_theta(heading)
        body.set_velocity(velocity)
        body.set_angular_velocity(0.0)
        return True

    def _observe(self, engine: Any, driven: set[str], time: float) -> Observation:
        bodies = [(body, kind) for body in engine.get_objects().values() if (kind := kind_of(body)) is not None]
        lights = getattr(engine, "light_manager", None)
        signals = [] if lights is None else list(lights.spawned_objects.values())
        signals = [light for light in signals if str(light.lane.index) in self._lanes]
        return Observation.from_arrays(
            time,
            agent_id=[self._ids.setdefault(body.name, len(self._ids) + 1) for body, _ in bodies],
            kind=[kind for _, kind in bodies],
            position=[body.position for body, _ in bodies],
            heading=[body.heading_theta for body, _ in bodies],
            velocity=[body.velocity for body, _ in bodies],
            size=[(body.LENGTH, body.WIDTH, getattr(body, "HEIGHT", None) or HEIGHT) for body, _ in bodies],
            is_controlled=[body.name in driven for body, _ in bodies],
            light_lane=[self._lanes[str(light.lane.index)] for light in signals],
            light_stop=[(*light.position, 0.0) for light in signals],
            light_state=[LIGHTS.get(light.status, LightState.UNKNOWN) for light in signals],
        )

    def _map(self, engine: Any) -> Map:
        data = getattr(engine, "data_manager", None)
        recorded: Mapping[str, Any] | None = data.current_scenario["map_features"] if data else None
        waymo = data is not None and data.current_scenario["metadata"].get("dataset") == "waymo"
        built, _ = map_features(recorded or engine.current_map.get_map_features(), waymo, False, {})
        features = built.build({}, Origin.RECORDED)
        self._lanes = {str(name): int(number) for name, number in zip(built.names, features.id, strict=True)}
        return features


class Coasting(BasePolicy):
    """Stands in for the policy of a vehicle that the traffic drives."""

    def __init__(self, control_object: Any, random_seed: int) -> None:
        super().__init__(control_object=control_object, random_seed=random_seed)

    def act(self, *args: Any, **kwargs: Any) -> list[float]:
        """Return neither steering nor throttle."""
        return [0.0, 0.0]


class DrivenTraffic(PGTrafficManager):
    """Traffic of procedural scenes (MetaDriveEnv): vehicles that MetaDrive has set going, in any of its modes."""

    def __init__(self, traffic: TrafficModel) -> None:
        super().__init__()
        self.bridge = Bridge(traffic)

    def add_policy(self, object_id: str, policy_class: Any, *args: Any, **kwargs: Any) -> Any:
        """Add a policy that does nothing instead of MetaDrive's drivers."""
        return super().add_policy(object_id, Coasting, *args, **kwargs)

    def reset(self) -> None:
        """Spawn, in a new episode."""
        self.bridge.begin()
        super().reset()

    def before_step(self) -> dict[str, Any]:
        """Ask the traffic."""
        found: dict[str, Any] = super().before_step()
        self.bridge.look(self.engine, {vehicle.name for vehicle in self._traffic_vehicles})
        return found

    def after_step(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Place its vehicles; MetaDrive removes and respawns."""
        for vehicle in self._traffic_vehicles:
            self.bridge.place(vehicle)
        found: dict[str, Any] = super().after_step(*args, **kwargs)
        return found


class Driven(ReplayTrafficParticipantPolicy):
    """Replays the log until the traffic drives, then obeys it; whoever it drives stays until the log ends."""

    @property
    def is_current_step_valid(self) -> bool:
        """Whether the agent is there."""
        bridge: Bridge = self.engine.traffic_manager.bridge
        return self.control_object.name in bridge._places or bool(super().is_current_step_valid)

    def act(self, *args: Any, **kwargs: Any) -> None:
        """Place the agent."""
        if not self.engine.traffic_manager.bridge.place(self.control_object):
            super().act(*args, **kwargs)


class DrivenScenarioTraffic(ScenarioTrafficManager):
    """Traffic of ScenarioNet scenes (ScenarioEnv): it enters where the log has it, follows the log in the first
    `log_seconds` so that the traffic has seen it move, and is driven from then on. Cones and barriers stay logged.
    """

    def __init__(self, traffic: TrafficModel, log_seconds: float = 1.0) -> None:
        super().__init__()
        self.bridge = Bridge(traffic)
        self._log_steps = round(log_seconds / traffic.dt)

    def add_policy(self, object_id: str, policy_class: Any, *args: Any, **kwargs: Any) -> Any:
        """Add a policy that obeys the traffic instead of replay and of MetaDrive's drivers."""
        body = self.engine.get_objects([object_id])[object_id]
        if kind_of(body) is None:
            return super().add_policy(object_id, policy_class, *args, **kwargs)
        number = self.current_traffic_data[self._log_name(body)]
        return super().add_policy(object_id, Driven, body, number)

    def after_reset(self) -> None:
        """Spawn, in a new episode."""
        self.bridge.begin()
        super().after_reset()

    def before_step(self, *args: Any, **kwargs: Any) -> None:
        """Ask the traffic."""
        super().before_step(*args, **kwargs)
        driven: set[str] = set()
        if self.episode_step > self._log_steps:
            names = self._scenario_id_to_obj_id.values()
            driven = {name for name in names if self.engine.has_policy(name, Driven)}
        self.bridge.look(self.engine, driven)

    def _log_name(self, body: Any) -> str:
        return str(self._obj_id_to_scenario_id[body.name])


def kind_of(body: Any) -> AgentKind | None:
    """Return what kind of agent an object of MetaDrive's is; None for signals, cones and the like."""
    return next((kind for classes, kind in KINDS if isinstance(body, classes)), None)


def without_assets() -> None:
    """Let MetaDrive run headless without downloading its 3D models. Call it before an environment is made."""
    BaseEngine.try_pull_asset = staticmethod(lambda: None)
