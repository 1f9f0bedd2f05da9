"""The map of a WOMD `Scenario`: points, kinds, limits and links of its features, into arrays."""

from typing import no_type_check

import numpy as np

from traj_diffusion.datasets.readers.womd_schema import is_kind, points_field, relation_of
from traj_diffusion.datasets.wire import (
    FIXED64,
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
def read_point(data, at, end, out, row):
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
def read_integer(data, at, end, wanted, default):
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
def read_feature(data, at, end, row, point, link, ids, kinds, subtype, speed, points, links):
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
        if not is_kind(field):
            at = skip_value(data, at, end, wire)
            if at < 0:
                return at, link
            continue
        kind = field
        kinds[row] = kind
        at, stop = read_span(data, at, end)
        if stop < 0:
            return stop, link
        wanted = points_field(kind)
        key = wanted << 3 | SPAN
        while at < stop:
            if stop - at > 1 and data[at] == key and data[at + 1] < 128 and data[at + 1] <= stop - at - 2:
                first = at + 2
                at = read_point(data, first, first + data[at + 1], points, point)
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
                at = read_point(data, first, last, points, point)
                if at < 0:
                    return at, link
                point += 1
                continue
            relation = relation_of(kind, inner)
            if relation == 2 or relation == 3:
                if wire != SPAN:
                    return WRONG_TYPE, link
                first, last = read_span(data, at, stop)
                if last < 0:
                    return last, link
                links[link, 0], links[link, 1] = relation, row
                links[link, 2], at = read_integer(data, first, last, 1, np.int64(0))
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
