"""The first walk over a WOMD `Scenario`: how many of everything there are, so that arrays can be made."""

from typing import no_type_check

from traj_diffusion.datasets.readers.womd_schema import (
    FEATURES,
    LIGHT_STEPS,
    N_FEATURE,
    N_LIGHT_STEP,
    N_LIGHTS,
    N_LINKS,
    N_ODD,
    N_POINTS,
    N_PREDICT,
    N_STATES,
    N_TIMES,
    N_TRACK,
    PREDICT_TRACKS,
    TIMESTAMPS,
    TRACKS,
    is_kind,
    points_field,
    relation_of,
)
from traj_diffusion.datasets.wire import (
    FIXED64,
    SPAN,
    TRUNCATED,
    TWO_KINDS,
    WRONG_TYPE,
    compiled,
    count_varints,
    read_key,
    read_span,
    skip_value,
)


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
def _count_feature(data, at, end, counts):
    """Add a feature's points and links to the counts; return its kind (0: none known) or a fault."""
    kind = 0
    while at < end:
        field, wire, at = read_key(data, at, end)
        if at < 0:
            return at
        if not is_kind(field):
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
        wanted = points_field(kind)
        key = wanted << 3 | SPAN
        while at < stop:
            # Nearly all of a record's bytes are points of less than 128 bytes: no call for those.
            if stop - at > 1 and data[at] == key and data[at + 1] < 128 and data[at + 1] <= stop - at - 2:
                counts[N_POINTS] += 1
                at += 2 + data[at + 1]
                continue
            inner, wire, at = read_key(data, at, stop)
            if at < 0:
                return at
            if inner == wanted and wire == SPAN:
                counts[N_POINTS] += 1
                at = read_span(data, at, stop)[1]
                if at < 0:
                    return at
                continue
            relation = relation_of(kind, inner)
            if relation >= 0:
                if wire == SPAN and (relation < 2 or relation == 4):
                    first, last = read_span(data, at, stop)
                    if last < 0:
                        return last
                    counts[N_LINKS] += count_varints(data, first, last)
                else:
                    counts[N_LINKS] += 1
            at = skip_value(data, at, stop, wire)
            if at < 0:
                return at
    return kind


@compiled
@no_type_check
def count(data, counts, fault):
    """Count what the record holds into `counts`. On a fault: its code, the place and the row there."""
    at, end = 0, len(data)
    place = N_TIMES
    while at < end:
        place = N_TIMES
        field, wire, at = read_key(data, at, end)
        if at < 0:
            break
        if field in (TRACKS, FEATURES, LIGHT_STEPS, PREDICT_TRACKS):
            if wire != SPAN:
                at = WRONG_TYPE
                break
            first, stop = read_span(data, at, end)
            if stop < 0:
                at = stop
                break
            if field == TRACKS:
                place = N_TRACK
                found = _count_field(data, first, stop, 3, SPAN)
                counts[N_STATES] += max(found, 0)
            elif field == LIGHT_STEPS:
                place = N_LIGHT_STEP
                found = _count_field(data, first, stop, 1, SPAN)
                counts[N_LIGHTS] += max(found, 0)
            elif field == FEATURES:
                place = N_FEATURE
                found = _count_feature(data, first, stop, counts)
                if found == 0:
                    place = N_ODD
            else:
                place = N_PREDICT
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
                counts[N_TIMES] += (stop - first) // 8
            elif wire == FIXED64:
                counts[N_TIMES] += 1
            else:
                at = WRONG_TYPE
                break
        at = skip_value(data, at, end, wire)
        if at < 0:
            break
    if at < 0:
        fault[0], fault[1], fault[2] = at, place, counts[place]
        if place == N_FEATURE:
            fault[2] += counts[N_ODD]
