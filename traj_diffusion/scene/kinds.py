"""What agents, map features and lights can be. Numbers are those of WOMD's protos where WOMD has the thing.

Sources: waymo_open_dataset/protos/scenario.proto and map.proto.
"""

from enum import IntEnum


class AgentKind(IntEnum):
    """`Track.ObjectType`; WOMD's TYPE_UNSET (0) is read as OTHER."""

    VEHICLE = 1
    PEDESTRIAN = 2
    CYCLIST = 3
    OTHER = 4


# Length, width, height [m] where a source has none: a car, a walking adult, a cyclist, an object.
USUAL_SIZE: dict[AgentKind, tuple[float, float, float]] = {
    AgentKind.VEHICLE: (4.5, 2.0, 1.6),
    AgentKind.PEDESTRIAN: (0.8, 0.8, 1.7),
    AgentKind.CYCLIST: (1.8, 0.8, 1.7),
    AgentKind.OTHER: (1.0, 1.0, 1.0),
}


class MapKind(IntEnum):
    """Which field of WOMD's `MapFeature.feature_data` is set, by its field number."""

    LANE = 3
    ROAD_LINE = 4
    ROAD_EDGE = 5
    STOP_SIGN = 7
    CROSSWALK = 8
    SPEED_BUMP = 9
    DRIVEWAY = 10


class LaneType(IntEnum):
    """`LaneCenter.LaneType`: the subtype of a LANE."""

    UNDEFINED = 0
    FREEWAY = 1
    SURFACE_STREET = 2
    BIKE_LANE = 3


class LineType(IntEnum):
    """`RoadLine.RoadLineType`: the subtype of a ROAD_LINE."""

    UNKNOWN = 0
    BROKEN_SINGLE_WHITE = 1
    SOLID_SINGLE_WHITE = 2
    SOLID_DOUBLE_WHITE = 3
    BROKEN_SINGLE_YELLOW = 4
    BROKEN_DOUBLE_YELLOW = 5
    SOLID_SINGLE_YELLOW = 6
    SOLID_DOUBLE_YELLOW = 7
    PASSING_DOUBLE_YELLOW = 8


class EdgeType(IntEnum):
    """`RoadEdge.RoadEdgeType`: the subtype of a ROAD_EDGE."""

    UNKNOWN = 0
    BOUNDARY = 1
    MEDIAN = 2


class LightState(IntEnum):
    """`TrafficSignalLaneState.State`."""

    UNKNOWN = 0
    ARROW_STOP = 1
    ARROW_CAUTION = 2
    ARROW_GO = 3
    STOP = 4
    CAUTION = 5
    GO = 6
    FLASHING_STOP = 7
    FLASHING_CAUTION = 8


class Origin(IntEnum):
    """Where a route, the lane links or the road edges of a scene come from."""

    ABSENT = 0
    RECORDED = 1
    DERIVED = 2
