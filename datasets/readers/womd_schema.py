"""Which numbers the fields of WOMD's `Scenario` and `MapFeature` have, and what is counted of them.

Schema: waymo_open_dataset/protos/scenario.proto and map.proto. A map feature's kind is the number of the field that
holds it: 3 lane, 4 road line, 5 road edge, 7 stop sign, 8 crosswalk, 9 speed bump, 10 driveway.
"""

from typing import no_type_check

from traj_diffusion.datasets.wire import compiled

# Fields of Scenario
TIMESTAMPS, TRACKS, ID, SDC, LIGHT_STEPS, FEATURES, CURRENT, PREDICT_TRACKS = 1, 2, 5, 6, 7, 8, 10, 11
# What is counted, and what a fault is in: the number of its row names the message.
N_TIMES, N_TRACK, N_STATES, N_FEATURE, N_POINTS, N_LINKS, N_LIGHT_STEP, N_LIGHTS, N_PREDICT, N_ODD = range(10)
# Link relations
SUCCESSOR, PREDECESSOR, LEFT, RIGHT, CONTROLS = range(5)


@compiled
@no_type_check
def points_field(kind):
    """Return which field of a feature's data holds its points."""
    if kind == 3:
        return 8
    if kind == 4 or kind == 5 or kind == 7:
        return 2
    return 1


@compiled
@no_type_check
def is_kind(field):
    """Return whether a field of a feature holds the data of a kind."""
    return field == 3 or field == 4 or field == 5 or (7 <= field <= 10)


@compiled
@no_type_check
def relation_of(kind, field):
    """Return which relation a field of a feature's data states, -1 for none."""
    if kind == 3:
        if field == 10:
            return SUCCESSOR
        if field == 9:
            return PREDECESSOR
        if field == 11:
            return LEFT
        if field == 12:
            return RIGHT
    if kind == 7 and field == 1:
        return CONTROLS
    return -1
