"""A stand-in for a CARLA server, which needs a GPU and is on no registry: **a fake**, for tests of the client's side.

Real are `carla.Map` and all values and commands, which need no server; made up are client, world and actors. They
record every command and obey it the way CARLA's documentation says: who has no physics stays where it is put and
reports no velocity, everyone else goes on at its velocity. Nothing is known from here of how a server answers.

`api` is the module `carla`, or another one with its names.
"""

from collections.abc import Sequence
from fnmatch import fnmatch
from types import SimpleNamespace
from typing import Any


class FakeActor:
    """A vehicle or walker. `offset` is where the middle of its box is, seen from its origin."""

    is_dormant, is_alive = False, True

    def __init__(self, server: "FakeCarla", name: int, type_id: str, transform: Any, base_type: str = "car") -> None:
        api = server.api
        walks = type_id.startswith("walker.")
        half = api.Vector3D(x=0.2, y=0.2, z=0.9) if walks else api.Vector3D(x=2.4, y=1.0, z=0.75)
        offset = api.Location(x=0.0, y=0.0, z=0.0) if walks else api.Location(x=0.1, y=0.02, z=0.75)
        self.id, self.type_id, self.attributes = name, type_id, {"base_type": "" if walks else base_type}
        self.bounding_box = SimpleNamespace(location=offset, extent=half)
        self._api, self._transform = api, transform
        self.velocity, self.physics = api.Vector3D(x=0.0, y=0.0, z=0.0), True
        self._server, self.constant = server, False

    def get_transform(self) -> Any:
        """Return a copy, as CARLA does."""
        place, turned = self._transform.location, self._transform.rotation
        return self._api.Transform(
            self._api.Location(x=place.x, y=place.y, z=place.z),
            self._api.Rotation(pitch=turned.pitch, yaw=turned.yaw, roll=turned.roll),
        )

    def set_transform(self, transform: Any) -> None:
        """Be there."""
        self._transform = transform

    def get_velocity(self) -> Any:
        """Return nothing without physics."""
        return self.velocity if self.physics else self._api.Vector3D(x=0.0, y=0.0, z=0.0)

    def set_simulate_physics(self, enabled: bool) -> None:
        """Let go, or hold."""
        self.physics = enabled

    def set_target_velocity(self, velocity: Any) -> None:
        """Go on that way."""
        self.velocity = velocity

    def enable_constant_velocity(self, velocity: Any) -> None:
        """Go on at this velocity, which is in the actor's own frame."""
        self.constant = True
        ahead, right = self._transform.get_forward_vector(), self._transform.get_right_vector()
        x, y = (velocity.x * getattr(ahead, axis) + velocity.y * getattr(right, axis) for axis in "xy")
        self.velocity = self._api.Vector3D(x=x, y=y, z=0.0)

    def disable_constant_velocity(self) -> None:
        """Roll on."""
        self.constant = False

    def destroy(self) -> bool:
        """Leave the world."""
        self.is_alive = False
        return self._server.actors.pop(self.id, None) is not None

    def advance(self, dt: float) -> None:
        """Go on for `dt` seconds."""
        if self.physics:
            self._transform.location.x += self.velocity.x * dt
            self._transform.location.y += self.velocity.y * dt


class FakeLight:
    """A traffic light; the lanes on which it stands are those of its landmarks in the real map."""

    type_id = "traffic.traffic_light"

    def __init__(self, server: "FakeCarla", name: int, sign: str) -> None:
        self.id, self.state = name, server.api.TrafficLightState.Red
        self._map, self._sign = server.map, sign

    def get_state(self) -> Any:
        """Return what it shows."""
        return self.state

    def get_affected_lane_waypoints(self) -> list[Any]:
        """Return a waypoint for each valid lane of each landmark of its OpenDRIVE id."""
        found = []
        for landmark in self._map.get_all_landmarks_from_id(self._sign):
            for first, last in landmark.get_lane_validities():
                for lane in range(min(first, last), max(first, last) + 1):
                    point = self._map.get_waypoint_xodr(landmark.road_id, lane, landmark.s) if lane else None
                    found += [point] if point is not None else []
        return found


class FakeMap:
    """The real map, with the places for vehicles that only a server knows: the start of each lane on a road."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_spawn_points(self) -> list[Any]:
        """Return the start of each lane outside of junctions."""
        starts = [start for start, _ in self._real.get_topology()]
        return [start.transform for start in starts if not start.is_junction]


class FakeActors(list[Any]):
    """What `get_actors` returns."""

    def filter(self, pattern: str) -> "FakeActors":
        """Return those whose type matches."""
        return FakeActors(actor for actor in self if fnmatch(actor.type_id, pattern))


class FakeCarla:
    """Client and world in one: `FakeCarla(carla, xodr_text)` takes the place of `carla.Client(...)`.

    `commands` are all that were sent, in order; `refused` maps actors to the error with which their moves are
    answered; with `dead` every call to the server fails as after a crash.
    """

    def __init__(self, api: Any, opendrive: str, dt: float | None = 0.1, synchronous: bool = True) -> None:
        self.api, self.map = api, FakeMap(api.Map("fake", opendrive))
        self.settings = SimpleNamespace(synchronous_mode=synchronous, fixed_delta_seconds=dt)
        self.actors: dict[int, Any] = {}
        self.commands: list[Any] = []
        self.refused: dict[int, str] = {}
        self.time, self.dead, self._count = 0.0, False, 99

    def add(
        self, type_id: str, x: float, y: float, yaw: float, speed: float = 0.0, base_type: str = "car"
    ) -> FakeActor:
        """Return a new actor, its place and yaw as CARLA counts them, going where it faces."""
        here = self.api.Location(x=float(x), y=float(y), z=0.0)
        road = self.map.get_waypoint(here, True, self.api.LaneType.Any)
        here.z = road.transform.location.z
        transform = self.api.Transform(here, self.api.Rotation(pitch=0.0, yaw=float(yaw), roll=0.0))
        actor = FakeActor(self, self._next(), type_id, transform, base_type)
        ahead = transform.get_forward_vector()
        actor.velocity = self.api.Vector3D(x=ahead.x * speed, y=ahead.y * speed, z=0.0)
        self.actors[actor.id] = actor
        return actor

    def add_light(self, sign: str) -> FakeLight:
        """Return a new light that is the signal of that id in OpenDRIVE."""
        light = FakeLight(self, self._next(), sign)
        self.actors[light.id] = light
        return light

    # What a client offers.

    def get_world(self) -> "FakeCarla":
        """Return the world."""
        return self

    def set_timeout(self, seconds: float) -> None:
        """Wait for nothing."""

    def apply_batch_sync(self, commands: Sequence[Any], do_tick: bool = False) -> list[Any]:
        """Record and obey; return an answer to each."""
        self._alive()
        return [self._obey(command) for command in commands]

    # What a world offers.

    def get_map(self) -> Any:
        """Return the map."""
        return self.map

    def get_settings(self) -> Any:
        """Return the settings."""
        return self.settings

    def apply_settings(self, settings: Any) -> None:
        """Take them over."""
        self.settings = settings

    def get_actors(self) -> FakeActors:
        """Return everyone."""
        self._alive()
        return FakeActors(self.actors.values())

    def get_snapshot(self) -> Any:
        """Return the time."""
        return SimpleNamespace(timestamp=SimpleNamespace(elapsed_seconds=self.time))

    def get_blueprint_library(self) -> Any:
        """Return blueprints by their names; a pattern finds one car."""
        car = SimpleNamespace(id="vehicle.fake")
        return SimpleNamespace(find=lambda name: SimpleNamespace(id=name), filter=lambda pattern: [car])

    def try_spawn_actor(self, blueprint: Any, transform: Any) -> FakeActor | None:
        """Return a new actor, None where another one is within 2 m."""
        place = transform.location
        if any(actor.get_transform().location.distance(place) < 2.0 for actor in self.get_actors().filter("vehicle.*")):
            return None
        return self.add(blueprint.id, place.x, place.y, transform.rotation.yaw)

    def tick(self) -> int:
        """Advance by one step."""
        self._alive()
        self.time += self.settings.fixed_delta_seconds or 0.05
        for actor in self.actors.values():
            if isinstance(actor, FakeActor):
                actor.advance(self.settings.fixed_delta_seconds or 0.05)
        return round(self.time * 1000)

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _alive(self) -> None:
        if self.dead:
            raise RuntimeError("time-out of 5000ms while waiting for the simulator,\n make sure it is ready")

    def _obey(self, command: Any) -> Any:
        self.commands.append(command)
        kind, name = type(command).__name__, command.actor_id
        error = self.refused.get(name, "") or ("" if name in self.actors else f"actor {name} not found")
        if not error:
            actor = self.actors[name]
            if kind == "DestroyActor":
                actor.destroy()
            elif kind == "ApplyTransform":
                actor.set_transform(command.transform)
            elif kind == "ApplyTargetVelocity":
                actor.set_target_velocity(command.velocity)
            elif kind == "SetSimulatePhysics":
                actor.set_simulate_physics(command.enabled)
            else:
                error = f"the fake knows no command {kind}"
        return SimpleNamespace(actor_id=name, error=error, has_error=lambda: bool(error))
