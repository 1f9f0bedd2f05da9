"""WOMD's `Scenario` message to flat arrays: a counting walk, then a filling one, any field order.

Schema: waymo_open_dataset/protos/scenario.proto and map.proto; the numbers below are its field numbers. Later values
of a field replace earlier ones and repeated fields add up, as protobuf has it; fields not named here are skipped.
Doubles and floats are kept as bits until the arrays are done.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np

from traj_diffusion.datasets.wire import (
    FAULTS,
    FIXED32,
    FIXED64,
    SPAN,
    TRUNCATED,
    TWO_KINDS,
    VARINT,
    WRONG_TYPE,
    bits32,
    bits64,
    compiled,
    count_varints,
    read_key,
    read_span,
    read_varint,
    skip_value,
)

# Scenario
TIMESTAMPS, TRACKS, ID, SDC, LIGHT_STEPS, FEATURES, CURRENT, PREDICT = 1, 2, 5, 6, 7, 8, 10, 11
# What the counting walk counts, and what a fault is in: the number of its row names the message.
_TIMES, _TRACK, _STATES, _FEATURE, _POINTS, _LINKS, _LIGHT_STEP, _LIGHTS, _PREDICT, _ODD = range(10)
_PLACES = {_TIMES: "the scenario", _TRACK: "track", _FEATURE: "map feature", _LIGHT_STEP: "dynamic map state"}
# Link relations
SUCCESSOR, PREDECESSOR, LEFT, RIGHT, CONTROLS = range(5)


class WireFault(ValueError):
    """The bytes are no such message."""


@dataclass(frozen=True)
class RawScenario:
    """A Scenario as it stands in the record; nothing is judged or resolved. Shapes: N, T, M, P as in Scene."""

    id: bytes
    current_index: int
    sdc: int  # -1: absent
    timestamps: np.ndarray
    track_id: np.ndarray
    track_kind: np.ndarray
    states: np.ndarray  # per track, how many
    centre: np.ndarray  # [states of all tracks, 3]
    box: np.ndarray  # [., 6]: length, width, height, heading, velocity x, y
    valid: np.ndarray
    predict: np.ndarray
    feature_id: np.ndarray
    feature_kind: np.ndarray
    subtype: np.ndarray
    speed_limit_mph: np.ndarray
    start: np.ndarray
    points: np.ndarray
    links: np.ndarray  # [., 3]: relation, row, map id
    light_start: np.ndarray  # [light steps + 1]
    lights: np.ndarray  # [., 2]: lane, state
    stop_point: np.ndarray
    features_without_kind: int


@compiled
@no_type_check
def _count_field(data, at, end, wanted, wire):
    """Return how often field `wanted` occurs in a message, or the fault found on the way."""
    total = 0
    while at < end:
        field, found, at = read_key(data, at, end)
        if at < 0:
            return at
        if field == wanted:
            if found != wire:
                return WRONG_TYPE
            total += 1
        at = skip_value(data, at, end, found)
        if at < 0:
            return at
    return total


@compiled
@no_type_check
def _points_field(kind):
    """Return which field of a feature's data holds its points."""
    if kind == 3:
        return 8
    if kind == 4 or kind == 5 or kind == 7:
        return 2
    return 1


@compiled
@no_type_check
def _is_kind(field):
    return field == 3 or field == 4 or field == 5 or (7 <= field <= 10)


@compiled
@no_type_check
def _relation(kind, field):
    """Return which relation a field of a feature's data states, -1 for none."""
    if kind == 3:
        if field == 10:
            return 0
        if field == 9:
            return 1
        if field == 11:
            return 2
        if field == 12:
            return 3
    if kind == 7 and field == 1:
        return 4
    return -1


@compiled
@no_type_check
def _count_feature(data, at, end, counts):
    """Add a feature's points and links to the counts; return its kind (0: none known) or a fault."""
    kind = 0
    while at < end:
        field, wire, at = read_key(data, at, end)
        if at < 0:
            return at
        if not _is_kind(field):
            at = skip_value(data, at, end, wire)
            if at < 0:
                return at
            continue
        if wire != SPAN:
            return WRONG_TYPE
        if kind != 0 and kind != field:
            return TWO_KINDS
        kind = field
        at, stop = read_span(data, at, end)
        if stop < 0:
            return stop
        wanted = _points_field(kind)
        key = wanted << 3 | SPAN
        while at < stop:
            # Nearly all of a record's bytes are points of less than 128 bytes: no call for those.
            if stop - at > 1 and data[at] == key and data[at + 1] < 128 and data[at + 1] <= stop - at - 2:
                counts[_POINTS] += 1
                at += 2 + data[at + 1]
                continue
            inner, wire, at = read_key(data, at, stop)
            if at < 0:
                return at
            if inner == wanted and wire == SPAN:
                counts[_POINTS] += 1
                at = read_span(data, at, stop)[1]
                if at < 0:
                    return at
                continue
            relation = _relation(kind, inner)
            if relation >= 0:
                if wire == SPAN and (relation < 2 or relation == 4):
                    first, last = read_span(data, at, stop)
                    if last < 0:
                        return last
                    counts[_LINKS] += count_varints(data, first, last)
                else:
                    counts[_LINKS] += 1
            at = skip_value(data, at, stop, wire)
            if at < 0:
                return at
    return kind


@compiled
@no_type_check
def _count(data, counts, fault):
    """Count what the record holds into `counts`. On a fault: its code, the place and the row there."""
    at, end = 0, len(data)
    place = _TIMES
    while at < end:
        place = _TIMES
        field, wire, at = read_key(data, at, end)
        if at < 0:
            break
        if field in (TRACKS, FEATURES, LIGHT_STEPS, PREDICT):
            if wire != SPAN:
                at = WRONG_TYPE
                break
            first, stop = read_span(data, at, end)
            if stop < 0:
                at = stop
                break
            if field == TRACKS:
                place = _TRACK
                found = _count_field(data, first, stop, 3, SPAN)
                counts[_STATES] += max(found, 0)
            elif field == LIGHT_STEPS:
                place = _LIGHT_STEP
                found = _count_field(data, first, stop, 1, SPAN)
                counts[_LIGHTS] += max(found, 0)
            elif field == FEATURES:
                place = _FEATURE
                found = _count_feature(data, first, stop, counts)
                if found == 0:
                    place = _ODD
            else:
                place = _PREDICT
                found = 0
            if found < 0:
                at = found
                break
            counts[place] += 1
            at = stop
            continue
        if field == TIMESTAMPS:
            if wire == SPAN:
                first, stop = read_span(data, at, end)
                if stop < 0 or (stop - first) % 8:
                    at = stop if stop < 0 else TRUNCATED
                    break
                counts[_TIMES] += (stop - first) // 8
            elif wire == FIXED64:
                counts[_TIMES] += 1
            else:
                at = WRONG_TYPE
                break
        at = skip_value(data, at, end, wire)
        if at < 0:
            break
    if at < 0:
        fault[0], fault[1], fault[2] = at, place, counts[place]
        if place == _FEATURE:
            fault[2] += counts[_ODD]


@compiled
@no_type_check
def _read_point(data, at, end, out, row):
    """Fill out[row] with the bits of a MapPoint; return the position behind it."""
    # The layout that nearly every point has: x, y, z in order and nothing else.
    if end - at == 27 and data[at] == 0x09 and data[at + 9] == 0x11 and data[at + 18] == 0x19:
        out[row, 0], out[row, 1], out[row, 2] = bits64(data, at + 1), bits64(data, at + 10), bits64(data, at + 19)
        return end
    while at < end:
        field, wire, at = read_key(data, at, end)
        if at < 0:
            return at
        if 1 <= field <= 3:
            if wire != FIXED64:
                return WRONG_TYPE
            if end - at < 8:
                return TRUNCATED
            out[row, field - 1] = bits64(data, at)
            at += 8
        else:
            at = skip_value(data, at, end, wire)
            if at < 0:
                return at
    return at


@compiled
@no_type_check
def _is_plain_state(data, at, end):
    """Return whether a state has all its ten fields in order and nothing else, as most have."""
    if end - at != 59 or data[at + 57] != 0x58 or data[at + 58] > 1:
        return False
    for index in range(3):
        if data[at + 9 * index] != 0x11 + 8 * index:
            return False
    for index in range(6):  # noqa: SIM110, numba has no all()
        if data[at + 27 + 5 * index] != 0x2D + 8 * index:
            return False
    return True


@compiled
@no_type_check
def _read_state(data, at, end, row, centre, box, valid):
    """Fill one state; return the position behind it."""
    if _is_plain_state(data, at, end):
        for index in range(3):
            centre[row, index] = bits64(data, at + 9 * index + 1)
        for index in range(6):
            box[row, index] = bits32(data, at + 27 + 5 * index + 1)
        valid[row] = data[at + 58] == 1
        return end
    while at < end:
        field, wire, at = read_key(data, at, end)
        if at < 0:
            return at
        if 2 <= field <= 4:
            if wire != FIXED64:
                return WRONG_TYPE
            if end - at < 8:
                return TRUNCATED
            centre[row, field - 2] = bits64(data, at)
            at += 8
        elif 5 <= field <= 10:
            if wire != FIXED32:
                return WRONG_TYPE
            if end - at < 4:
                return TRUNCATED
            box[row, field - 5] = bits32(data, at)
            at += 4
        elif field == 11:
            if wire != VARINT:
                return WRONG_TYPE
            value, at = read_varint(data, at, end)
            if at < 0:
                return at
            valid[row] = value != 0
        else:
            at = skip_value(data, at, end, wire)
            if at < 0:
                return at
    return at


@compiled
@no_type_check
def _read_track(data, at, end, row, state, track_id, track_kind, centre, box, valid):
    """Fill one track; return the number behind its last state, or a fault."""
    while at < end:
        field, wire, at = read_key(data, at, end)
        if at < 0:
            return at
        if field == 3:
            first, stop = read_span(data, at, end)
            if stop < 0:
                return stop
            at = _read_state(data, first, stop, state, centre, box, valid)
            state += 1
        elif field == 1 or field == 2:
            if wire != VARINT:
                return WRONG_TYPE
            value, at = read_varint(data, at, end)
            if field == 1:
                track_id[row] = value
            else:
                track_kind[row] = value
        else:
            at = skip_value(data, at, end, wire)
        if at < 0:
            return at
    return state


@compiled
@no_type_check
def _read_integer(data, at, end, wanted, default):
    """Return the last value of one varint field of a message, and the position behind the message."""
    value = default
    while at < end:
        field, wire, at = read_key(data, at, end)
        if at < 0:
            return value, at
        if field == wanted:
            if wire != VARINT:
                return value, WRONG_TYPE
            value, at = read_varint(data, at, end)
        else:
            at = skip_value(data, at, end, wire)
        if at < 0:
            return value, at
    return value, at


@compiled
@no_type_check
def _read_feature(data, at, end, row, point, link, ids, kinds, subtype, speed, points, links):
    """Fill one feature; return the numbers behind its last point and its last link, the first negative on a fault."""
    while at < end:
        field, wire, at = read_key(data, at, end)
        if at < 0:
            return at, link
        if field == 1:
            if wire != VARINT:
                return WRONG_TYPE, link
            ids[row], at = read_varint(data, at, end)
            if at < 0:
                return at, link
            continue
        if not _is_kind(field):
            at = skip_value(data, at, end, wire)
            if at < 0:
                return at, link
            continue
        kind = field
        kinds[row] = kind
        at, stop = read_span(data, at, end)
        if stop < 0:
            return stop, link
        wanted = _points_field(kind)
        key = wanted << 3 | SPAN
        while at < stop:
            if stop - at > 1 and data[at] == key and data[at + 1] < 128 and data[at + 1] <= stop - at - 2:
                first = at + 2
                at = _read_point(data, first, first + data[at + 1], points, point)
                if at < 0:
                    return at, link
                point += 1
                continue
            inner, wire, at = read_key(data, at, stop)
            if at < 0:
                return at, link
            if inner == wanted:
                if wire != SPAN:
                    return WRONG_TYPE, link
                first, last = read_span(data, at, stop)
                if last < 0:
                    return last, link
                at = _read_point(data, first, last, points, point)
                if at < 0:
                    return at, link
                point += 1
                continue
            relation = _relation(kind, inner)
            if relation == 2 or relation == 3:
                if wire != SPAN:
                    return WRONG_TYPE, link
                first, last = read_span(data, at, stop)
                if last < 0:
                    return last, link
                links[link, 0], links[link, 1] = relation, row
                links[link, 2], at = _read_integer(data, first, last, 1, np.int64(0))
                link += 1
            elif relation >= 0:
                first, last = at, stop
                if wire == SPAN:
                    first, last = read_span(data, at, stop)
                    if last < 0:
                        return last, link
                elif wire != VARINT:
                    return WRONG_TYPE, link
                while first < last:
                    value, first = read_varint(data, first, last)
                    if first < 0:
                        return first, link
                    links[link, 0], links[link, 1], links[link, 2] = relation, row, value
                    link += 1
                    if wire == VARINT:
                        break
                at = first
            elif kind == 3 and inner == 1:
                if wire != FIXED64:
                    return WRONG_TYPE, link
                if stop - at < 8:
                    return TRUNCATED, link
                speed[row] = bits64(data, at)
                at += 8
            elif (kind == 3 and inner == 2) or ((kind == 4 or kind == 5) and inner == 1):
                if wire != VARINT:
                    return WRONG_TYPE, link
                subtype[row], at = read_varint(data, at, stop)
            else:
                at = skip_value(data, at, stop, wire)
            if at < 0:
                return at, link
    return point, link


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
                at = _read_point(data, first, last, stop_point, light)
            else:
                at = skip_value(data, at, stop, wire)
            if at < 0:
                return at
        light += 1
    return light


@compiled
@no_type_check
def _fill(
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
    place, row = _TIMES, 0
    while at < end:
        place, row = _TIMES, 0
        field, wire, at = read_key(data, at, end)
        if at < 0:
            break
        if field in (TRACKS, FEATURES, LIGHT_STEPS, PREDICT):
            first, stop = read_span(data, at, end)
            at = stop
            if field == TRACKS:
                place, row = _TRACK, track
                found = _read_track(data, first, stop, track, state, track_id, track_kind, centre, box, valid)
                state = found
                track += 1
                state_start[track] = state
            elif field == LIGHT_STEPS:
                place, row = _LIGHT_STEP, step
                found = _read_lights(data, first, stop, light, lights, stop_point)
                light = found
                step += 1
                light_start[step] = light
            elif field == FEATURES:
                place, row = _FEATURE, feature
                ids[feature] = 0
                found, link = _read_feature(
                    data, first, stop, feature, point, link, ids, kinds, subtype, speed, points, links
                )
                point = found
                if kinds[feature] != 0:
                    feature += 1
                    start[feature] = point
            else:
                predict[wanted], found = _read_integer(data, first, stop, 1, np.int64(0))
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


def decode_scenario(record: bytes) -> RawScenario:
    """Return what a serialised Scenario holds. Raises WireFault; memory is bounded by a small multiple of its bytes."""
    data = np.frombuffer(record, np.uint8)
    counts, fault = np.zeros(10, np.int64), np.zeros(3, np.int64)
    _count(data, counts, fault)
    _raise(fault)
    states, tracks, features, steps = (int(counts[i]) for i in (_STATES, _TRACK, _FEATURE, _LIGHT_STEP))
    scalars = np.array([0, 0, 0, -1], np.int64)
    times = np.zeros(counts[_TIMES], np.uint64)
    track_id, track_kind = np.zeros(tracks, np.int64), np.zeros(tracks, np.int64)
    state_start = np.zeros(tracks + 1, np.int64)
    centre, box = np.zeros((states, 3), np.uint64), np.zeros((states, 6), np.uint32)
    valid = np.zeros(states, bool)
    predict = np.zeros(counts[_PREDICT], np.int64)
    # One row more than there are features: one of no known kind may be looked at last.
    ids, kinds, subtype = (np.zeros(features + 1, np.int64) for _ in range(3))
    speed = np.full(features + 1, np.nan).view(np.uint64)
    start = np.zeros(features + 1, np.int64)
    points = np.zeros((counts[_POINTS], 3), np.uint64)
    links = np.zeros((counts[_LINKS], 3), np.int64)
    light_start = np.zeros(steps + 1, np.int64)
    lights, stop_point = np.zeros((counts[_LIGHTS], 2), np.int64), np.zeros((counts[_LIGHTS], 3), np.uint64)
    _fill(
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
    )
    _raise(fault)
    return RawScenario(
        id=record[scalars[0] : scalars[1]],
        current_index=int(scalars[2]),
        sdc=int(scalars[3]),
        timestamps=times.view(np.float64),
        track_id=track_id,
        track_kind=track_kind,
        states=np.diff(state_start),
        centre=centre.view(np.float64),
        box=box.view(np.float32),
        valid=valid,
        predict=predict,
        feature_id=ids[:features],
        feature_kind=kinds[:features],
        subtype=subtype[:features],
        speed_limit_mph=speed.view(np.float64)[:features],
        start=start,
        points=points.view(np.float64),
        links=links,
        light_start=light_start,
        lights=lights,
        stop_point=stop_point.view(np.float64),
        features_without_kind=int(counts[_ODD]),
    )


def _raise(fault: np.ndarray) -> None:
    code, place, row = fault.tolist()
    if code:
        where = _PLACES.get(place, "the scenario")
        raise WireFault(f"{where}{'' if place not in _PLACES or place == _TIMES else f' {row}'}: {FAULTS[code]}")
