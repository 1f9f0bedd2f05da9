"""nuPlan's map, objects and ego in our terms and back: what the hosts nuPlan and NAVSIM share. It imports neither.

nuPlan counts x, y and headings as we do, and an object's pose is its box centre; the ego's velocity is in its own
frame.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from traj_diffusion.datasets.readers.assemble import Features
from traj_diffusion.datasets.readers.ground import drivable_ground, road_edges
from traj_diffusion.errors import HostError
from traj_diffusion.scene import AgentKind, EdgeType, LaneType, LightState, Map, MapKind, Observation, Origin, Step

EGO = 0  # our id of the ego; objects are numbered from 1 in the order in which they appear
KINDS = {"VEHICLE": AgentKind.VEHICLE, "PEDESTRIAN": AgentKind.PEDESTRIAN, "BICYCLE": AgentKind.CYCLIST}
LIGHTS = {"RED": LightState.STOP, "YELLOW": LightState.CAUTION, "GREEN": LightState.GO}
ROADS = ("LANE", "LANE_CONNECTOR")
PAVED = ("ROADBLOCK", "ROADBLOCK_CONNECTOR", "CARPARK_AREA")


class Pose(NamedTuple):
    """Where the ego is: its box centre, and its velocity in the world."""

    x: float
    y: float
    heading: float
    velocity: tuple[float, float]
    size: tuple[float, float, float]


def check_settings(who: str, seconds: float, dt: float, driven: Sequence[str]) -> None:
    """Raise where the traffic model steps otherwise than the simulator, or cannot drive one of those types."""
    unknown = sorted(set(driven) - set(KINDS))
    if unknown:
        raise ValueError(f"objects of type {unknown[0]} cannot be driven; {', '.join(KINDS)} can")
    if abs(seconds - dt) > 1e-6:
        raise HostError(f"{who} steps by {seconds} s and the traffic model by {dt} s; they must be equal")


def map_of(map_api: Any, layers: Any, point: Any, radius: float) -> tuple[Map, dict[str, int]]:
    """Return the map within `radius` m of a point, and the map id of each lane and connector by nuPlan's id.

    `layers` is nuPlan's SemanticMapLayer. Road edges are the outline of the paved polygons.
    """
    names = (*ROADS, "CROSSWALK", *PAVED)
    found = map_api.get_proximal_map_objects(point, radius, [getattr(layers, name) for name in names])
    by_name = {name: found.get(getattr(layers, name), []) for name in names}
    built = Features()
    for name in ROADS:
        for lane in by_name[name]:
            line = np.array([(state.x, state.y) for state in lane.baseline_path.discrete_path])
            limit = lane.speed_limit_mps
            built.add(
                str(lane.id), MapKind.LANE, LaneType.SURFACE_STREET, line, np.nan if limit is None else float(limit)
            )
            for after in lane.outgoing_edges:
                built.link("successors", str(after.id))
            for before in lane.incoming_edges:
                built.link("predecessors", str(before.id))
            for side, beside in zip(("left", "right"), lane.adjacent_edges, strict=True):
                if beside is not None:
                    built.link(side, str(beside.id))
    for crossing in by_name["CROSSWALK"]:
        built.add(None, MapKind.CROSSWALK, 0, np.array(crossing.polygon.exterior.coords)[:-1, :2])
    ground = drivable_ground([area.polygon for name in PAVED for area in by_name[name]])
    for line in road_edges(ground, [], None):
        built.add(None, MapKind.ROAD_EDGE, EdgeType.BOUNDARY, line)
    features = built.build({}, Origin.DERIVED)
    ids = zip(built.names, features.id.tolist(), features.kind.tolist(), strict=True)
    return features, {name: number for name, number, kind in ids if name is not None and kind == MapKind.LANE}


def ego_pose(state: Any) -> Pose:
    """Return where an EgoState has the ego."""
    box, speed = state.car_footprint.oriented_box, state.dynamic_car_state.center_velocity_2d
    heading = box.center.heading
    cos, sin = math.cos(heading), math.sin(heading)
    velocity = cos * speed.x - sin * speed.y, sin * speed.x + cos * speed.y
    return Pose(box.center.x, box.center.y, heading, velocity, (box.length, box.width, box.height))


class Numbers:
    """Our ids of nuPlan's track tokens."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}

    def __getitem__(self, token: str) -> int:
        return self._of.setdefault(token, len(self._of) + 1)


def observe(
    time: float,
    ego: Pose,
    objects: Sequence[Any],
    driven: Iterable[str],
    numbers: Numbers,
    lanes: Mapping[str, int],
    features: Map,
    lights: Iterable[Any] = (),
    **more: Any,
) -> Observation:
    """Return the ego and the objects; those whose types are in `driven` are controlled."""
    wanted = frozenset(driven)
    row_of = {int(lane): row for row, lane in enumerate(features.id)}
    shown = {
        lanes[str(light.lane_connector_id)]: LIGHTS.get(light.status.name, LightState.UNKNOWN)
        for light in lights
        if str(light.lane_connector_id) in lanes
    }
    types = [one.tracked_object_type.name for one in objects]
    # Cones, barriers and signs have no velocity.
    velocities = [getattr(one, "velocity", None) for one in objects]
    return Observation.from_arrays(
        time,
        agent_id=[EGO, *(numbers[one.track_token] for one in objects)],
        kind=[AgentKind.VEHICLE, *(KINDS.get(name, AgentKind.OTHER) for name in types)],
        position=[(ego.x, ego.y), *((one.center.x, one.center.y) for one in objects)],
        heading=[ego.heading, *(one.center.heading for one in objects)],
        velocity=[ego.velocity, *((0.0, 0.0) if pace is None else (pace.x, pace.y) for pace in velocities)],
        size=[ego.size, *((one.box.length, one.box.width, one.box.height) for one in objects)],
        is_controlled=[False, *(name in wanted for name in types)],
        light_lane=list(shown),
        light_stop=np.array([features.polyline(row_of[lane])[0] for lane in shown]).reshape(-1, 3),
        light_state=list(shown.values()),
        **more,
    )


def moved(objects: Sequence[Any], step: Step, numbers: Numbers, timestamp_us: int, api: Any) -> list[Any]:
    """Return the driven objects as nuPlan's Agents at their next places. `api` has nuPlan's classes by their names."""
    places = zip(step.position.tolist(), step.heading.tolist(), step.velocity.tolist(), strict=True)
    place_of = dict(zip(step.agent_id.tolist(), places, strict=True))
    found = []
    for one in objects:
        if numbers[one.track_token] not in place_of:
            continue
        (x, y, _), heading, velocity = place_of[numbers[one.track_token]]
        told = one.metadata
        found.append(
            api.Agent(
                tracked_object_type=one.tracked_object_type,
                oriented_box=api.OrientedBox.from_new_pose(one.box, api.StateSE2(x, y, heading)),
                velocity=api.StateVector2D(*velocity),
                metadata=api.SceneObjectMetadata(timestamp_us, told.token, told.track_id, told.track_token),
            )
        )
    return found
