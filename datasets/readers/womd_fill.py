"""The second walk over a WOMD `Scenario`: into the arrays that the first one sized."""

from typing import no_type_check

import numpy as np

from traj_diffusion.datasets.readers.womd_features import read_feature, read_integer, read_point
from traj_diffusion.datasets.readers.womd_schema import (
    CURRENT,
    FEATURES,
    ID,
    LIGHT_STEPS,
    N_FEATURE,
    N_LIGHT_STEP,
    N_TIMES,
    N_TRACK,
    PREDICT_TRACKS,
    SDC,
    TIMESTAMPS,
    TRACKS,
)
from traj_diffusion.datasets.readers.womd_tracks import read_track
from traj_diffusion.datasets.wire import (
    SPAN,
    TRUNCATED,
    VARINT,
    WRONG_TYPE,
    bits64,
    compiled,
    read_key,
    read_span,
    read_varint,
    skip_value,
)


@compiled
@no_type_check
def _read_lights(data, at, end, light, lights, stop_point):
    """Fill the lights of one step; return the number behind the last one, or a fault."""
    while at < end:
        field, wire, at = read_key(data, at, end)
        if at < 0:
            return at
        if field != 1:
            at = skip_value(data, at, end, wire)
            if at < 0:
                return at
            continue
        at, stop = read_span(data, at, end)
        if stop < 0:
            return stop
        while at < stop:
            inner, wire, at = read_key(data, at, stop)
            if at < 0:
                return at
            if inner == 1 or inner == 2:
                if wire != VARINT:
                    return WRONG_TYPE
                lights[light, inner - 1], at = read_varint(data, at, stop)
            elif inner == 3:
                if wire != SPAN:
                    return WRONG_TYPE
                first, last = read_span(data, at, stop)
                if last < 0:
                    return last
                at = read_point(data, first, last, stop_point, light)
            else:
                at = skip_value(data, at, stop, wire)
            if at < 0:
                return at
        light += 1
    return light


@compiled
@no_type_check
def fill(
    data,
    scalars,
    times,
    track_id,
    track_kind,
    state_start,
    centre,
    box,
    valid,
    predict,
    ids,
    kinds,
    subtype,
    speed,
    start,
    points,
    links,
    light_start,
    lights,
    stop_point,
    fault,
):
    """Fill arrays that `_count` sized. Scalars: where the id starts and stops, current index, ego."""
    at, end = 0, len(data)
    time = track = state = feature = point = link = step = light = wanted = 0
    place, row = N_TIMES, 0
    while at < end:
        place, row = N_TIMES, 0
        field, wire, at = read_key(data, at, end)
        if at < 0:
            break
        if field in (TRACKS, FEATURES, LIGHT_STEPS, PREDICT_TRACKS):
            first, stop = read_span(data, at, end)
            at = stop
            if field == TRACKS:
                place, row = N_TRACK, track
                found = read_track(data, first, stop, track, state, track_id, track_kind, centre, box, valid)
                state = found
                track += 1
                state_start[track] = state
            elif field == LIGHT_STEPS:
                place, row = N_LIGHT_STEP, step
                found = _read_lights(data, first, stop, light, lights, stop_point)
                light = found
                step += 1
                light_start[step] = light
            elif field == FEATURES:
                place, row = N_FEATURE, feature
                ids[feature] = 0
                found, link = read_feature(
                    data, first, stop, feature, point, link, ids, kinds, subtype, speed, points, links
                )
                point = found
                if kinds[feature] != 0:
                    feature += 1
                    start[feature] = point
            else:
                predict[wanted], found = read_integer(data, first, stop, 1, np.int64(0))
                wanted += 1
            if found < 0:
                at = found
                break
            continue
        if field == TIMESTAMPS:
            first, stop = at, at + 8
            if wire == SPAN:
                first, stop = read_span(data, at, end)
            if stop > end:
                at = TRUNCATED
                break
            while first < stop:
                times[time] = bits64(data, first)
                time += 1
                first += 8
            at = stop
        elif field == ID:
            if wire != SPAN:
                at = WRONG_TYPE
                break
            scalars[0], at = read_span(data, at, end)
            scalars[1] = at
        elif field in (CURRENT, SDC):
            if wire != VARINT:
                at = WRONG_TYPE
                break
            scalars[2 if field == CURRENT else 3], at = read_varint(data, at, end)
        else:
            at = skip_value(data, at, end, wire)
        if at < 0:
            break
    if at < 0:
        fault[0], fault[1], fault[2] = at, place, row
