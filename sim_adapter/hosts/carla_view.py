"""What a CARLA world shows, in our terms, and poses of ours in CARLA's.

CARLA counts differently, and this file is the place that knows: it is left-handed (x east, y south, yaw in degrees
clockwise from above), while the OpenDRIVE text of the same world is right-handed; an actor's origin lies on the ground
below its box (a walker's in its middle), and `bounding_box` says where the box is from there, in half sizes.

It works on whatever module has CARLA's names: `carla` itself, or the client of autoware_carla_scenario.
"""

import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from traj_diffusion.datasets.readers.opendrive import read_with_lanes
from traj_diffusion.scene import AgentKind, LightState, Map
from traj_diffusion.scene.kinds import USUAL_SIZE

LIGHTS = {"Red": LightState.STOP, "Yellow": LightState.CAUTION, "Green": LightState.GO}
SLOPE = 2.0  # m ahead at which the height of the road tells how it climbs


class Body(NamedTuple):
    """One vehicle or walker in our terms."""

    actor: Any
    kind: AgentKind
    centre: tuple[float, float, float]
    heading: float
    velocity: tuple[float, float]
    size: tuple[float, float, float]


class CarlaView:
    """A CARLA world and its map as they are seen from here. `api` is the module that the world's objects come from."""

    def __init__(self, world: Any, api: Any) -> None:
        self._world, self._api = world, api
        self._carla_map = world.get_map()
        self.map, self._lanes = map_of(self._carla_map)
        self._lights = self._controlled(world.get_actors().filter("traffic.traffic_light"))

    def bodies(self) -> list[Body]:
        """Return every vehicle and walker of the world by their actor ids, but those that CARLA has put to sleep."""
        actors = self._world.get_actors()
        found = [*actors.filter("vehicle.*"), *actors.filter("walker.pedestrian.*")]
        return [body_of(actor) for actor in sorted(found, key=lambda actor: int(actor.id)) if not actor.is_dormant]

    def signals(self) -> tuple[list[int], list[Float64[np.ndarray, " 3"]], list[LightState]]:
        """Return the controlled lanes by their map ids, where their traffic stops, and what their lights show now."""
        states = [LIGHTS.get(light.get_state().name, LightState.UNKNOWN) for _, _, light in self._lights]
        return [lane for lane, _, _ in self._lights], [stop for _, stop, _ in self._lights], states

    def transform(self, body: Body, x: float, y: float, heading: float) -> Any:
        """Return the transform that puts the centre of a body's box at x, y; it keeps its height over the road."""
        before, offset = body.actor.get_transform().location, body.actor.bounding_box.location
        place = self.location(x, y, before.z, heading, offset)
        place.z = before.z + self.road(place.x, place.y, before.z) - self.road(before.x, before.y, before.z)
        pitch = 0.0
        if body.kind is AgentKind.VEHICLE:
            east, south = place.x + SLOPE * math.cos(heading), place.y - SLOPE * math.sin(heading)
            climb = self.road(east, south, place.z) - self.road(place.x, place.y, place.z)
            pitch = math.degrees(math.atan2(climb, SLOPE))
        return self._api.Transform(place, self._api.Rotation(pitch=pitch, yaw=-math.degrees(heading), roll=0.0))

    def location(self, x: float, y: float, z: float, heading: float, offset: Any) -> Any:
        """Return where in CARLA the origin of an actor lies whose box, `offset` from it, has its centre at x, y."""
        cos, sin = math.cos(heading), math.sin(heading)
        return self._api.Location(
            x=float(x - cos * offset.x - sin * offset.y), y=float(-y + sin * offset.x - cos * offset.y), z=float(z)
        )

    def vector(self, velocity: Iterable[float]) -> Any:
        """Return a velocity of ours as CARLA's."""
        x, y = velocity
        return self._api.Vector3D(x=float(x), y=-float(y), z=0.0)

    def road(self, x: float, y: float, z: float) -> float:
        """Return the height of the nearest lane of any kind at a place of CARLA's; 0 where the map has none."""
        here = self._api.Location(x=float(x), y=float(y), z=float(z))
        nearest = self._carla_map.get_waypoint(here, True, self._api.LaneType.Any)
        return 0.0 if nearest is None else float(nearest.transform.location.z)

    def _controlled(self, lights: Iterable[Any]) -> list[tuple[int, Float64[np.ndarray, " 3"], Any]]:
        """Return lane, stop point and light of every lane that begins behind a stop line; the first light counts.

        CARLA names the lanes on which a light stands: those that lead to the junction, or those in it.
        """
        row_of = {int(lane): row for row, lane in enumerate(self.map.id)}
        found: dict[int, tuple[int, Float64[np.ndarray, " 3"], Any]] = {}
        for light in sorted(lights, key=lambda light: int(light.id)):
            for waypoint in light.get_affected_lane_waypoints():
                lane = self._lanes.get((str(waypoint.road_id), int(waypoint.section_id), int(waypoint.lane_id)))
                if lane is None:
                    continue  # a sidewalk, or another lane that is none of the map's
                onward = self.map.links.successors[row_of[lane]].tolist()
                rows = [row_of[lane]] if waypoint.is_junction or not onward else onward
                for row in rows:
                    name = int(self.map.id[row])
                    found.setdefault(name, (name, self.map.polyline(row)[0], light))
        return list(found.values())


def map_of(carla_map: Any) -> tuple[Map, dict[tuple[str, int, int], int]]:
    """Return the map of a `carla.Map`, and the id of each lane by its road, section and lane in OpenDRIVE.

    It lies in the frame of the OpenDRIVE text, as everything here does: CARLA's x, its y with the other sign.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "world.xodr")
        file.write_text(carla_map.to_opendrive(), encoding="utf-8")
        scene, lanes = read_with_lanes(file)
    return scene.map, lanes


def body_of(actor: Any) -> Body:
    """Return an actor in our terms. Where CARLA gives no extent (some walkers and bicycles) the usual size stands."""
    transform, box, velocity = actor.get_transform(), actor.bounding_box, actor.get_velocity()
    heading = -math.radians(transform.rotation.yaw)
    cos, sin = math.cos(heading), math.sin(heading)
    kind = kind_of(actor)
    # The box is taken to stand upright: its height times the sine of pitch or roll is what that is off.
    x = transform.location.x + cos * box.location.x + sin * box.location.y
    y = -transform.location.y + sin * box.location.x - cos * box.location.y
    length, width, height = (
        2 * float(half) if 0 < half < math.inf else usual
        for half, usual in zip((box.extent.x, box.extent.y, box.extent.z), USUAL_SIZE[kind], strict=True)
    )
    centre = x, y, transform.location.z + box.location.z
    return Body(actor, kind, centre, heading, (velocity.x, -velocity.y), (length, width, height))


def kind_of(actor: Any) -> AgentKind:
    """Return what kind of agent an actor is: a walker, a bicycle by its blueprint's base type, or a vehicle."""
    if str(actor.type_id).startswith("walker."):
        return AgentKind.PEDESTRIAN
    return AgentKind.CYCLIST if actor.attributes.get("base_type", "").lower() == "bicycle" else AgentKind.VEHICLE
