"""WOMD's `Scenario` message to flat arrays: a counting walk, then a filling one, any field order.

The walks are compiled. Later values of a field replace earlier ones and repeated fields add up, as protobuf has it;
fields that `womd_schema` does not name are skipped. Doubles and floats are kept as bits until the arrays are done.
"""

from dataclasses import dataclass

import numpy as np

from traj_diffusion.datasets.readers.womd_count import count
from traj_diffusion.datasets.readers.womd_fill import fill
from traj_diffusion.datasets.readers.womd_schema import (
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
)
from traj_diffusion.datasets.wire import FAULTS

_PLACES = {N_TIMES: "the scenario", N_TRACK: "track", N_FEATURE: "map feature", N_LIGHT_STEP: "dynamic map state"}


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


def decode_scenario(record: bytes) -> RawScenario:
    """Return what a serialised Scenario holds. Raises WireFault; memory is bounded by a small multiple of its bytes."""
    data = np.frombuffer(record, np.uint8)
    counts, fault = np.zeros(10, np.int64), np.zeros(3, np.int64)
    count(data, counts, fault)
    _raise(fault)
    states, tracks, features, steps = (int(counts[i]) for i in (N_STATES, N_TRACK, N_FEATURE, N_LIGHT_STEP))
    scalars = np.array([0, 0, 0, -1], np.int64)
    times = np.zeros(counts[N_TIMES], np.uint64)
    track_id, track_kind = np.zeros(tracks, np.int64), np.zeros(tracks, np.int64)
    state_start = np.zeros(tracks + 1, np.int64)
    centre, box = np.zeros((states, 3), np.uint64), np.zeros((states, 6), np.uint32)
    valid = np.zeros(states, bool)
    predict = np.zeros(counts[N_PREDICT], np.int64)
    # One row more than there are features: one of no known kind may be looked at last.
    ids, kinds, subtype = (np.zeros(features + 1, np.int64) for _ in range(3))
    speed = np.full(features + 1, np.nan).view(np.uint64)
    start = np.zeros(features + 1, np.int64)
    points = np.zeros((counts[N_POINTS], 3), np.uint64)
    links = np.zeros((counts[N_LINKS], 3), np.int64)
    light_start = np.zeros(steps + 1, np.int64)
    lights, stop_point = np.zeros((counts[N_LIGHTS], 2), np.int64), np.zeros((counts[N_LIGHTS], 3), np.uint64)
    fill(
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
        features_without_kind=int(counts[N_ODD]),
    )


def _raise(fault: np.ndarray) -> None:
    code, place, row = fault.tolist()
    if code:
        where = _PLACES.get(place, "the scenario")
        raise WireFault(f"{where}{'' if place not in _PLACES or place == N_TIMES else f' {row}'}: {FAULTS[code]}")
