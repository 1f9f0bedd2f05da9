"""The tracks of a WOMD `Scenario`: ids, kinds and states, into arrays."""

from typing import no_type_check

from traj_diffusion.datasets.wire import (
    FIXED32,
    FIXED64,
    TRUNCATED,
    VARINT,
    WRONG_TYPE,
    bits32,
    bits64,
    compiled,
    read_key,
    read_span,
    read_varint,
    skip_value,
)


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
def read_track(data, at, end, row, state, track_id, track_kind, centre, box, valid):
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
