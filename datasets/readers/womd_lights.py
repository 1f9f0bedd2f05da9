"""The lights of WOMD's records, `Scenario` and tf.Example alike: entries of a lane and a step each, to signals."""

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from traj_diffusion.datasets.readers.assemble import Report, add
from traj_diffusion.scene import Lights, LightState


def lights_of_entries(
    lane: Int64[np.ndarray, " n"],
    step: Int64[np.ndarray, " n"],
    value: Shaped[np.ndarray, " n"],
    place: Float64[np.ndarray, "n 3"],
    steps: int,
    report: Report,
) -> Lights:
    """Return one signal per lane that has a state at any step, in the order in which lanes first have one."""
    if not len(lane):
        return Lights.none(steps)
    ids, first, signal = np.unique(lane, return_index=True, return_inverse=True)
    order = np.argsort(first)
    row_of = np.empty(len(order), np.int64)
    row_of[order] = np.arange(len(order))
    row = row_of[signal]
    odd = ~np.isin(value, [int(state) for state in LightState])
    add(report, "light states of unknown number, read as UNKNOWN", int(odd.sum()))
    state, observed = np.zeros((len(ids), steps), np.uint8), np.zeros((len(ids), steps), bool)
    stop_point = np.zeros((len(ids), steps, 3))
    state[row, step] = np.where(odd, 0, value)
    stop_point[row, step] = place
    observed[row, step] = True
    add(report, "light states given twice for a lane and step, the later kept", len(row) - int(observed.sum()))
    return Lights(lane_id=ids[order], stop_point=stop_point, state=state, observed=observed)
