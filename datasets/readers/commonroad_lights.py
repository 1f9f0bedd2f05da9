"""CommonRoad's traffic lights: the cycle of each as states over time, tied to the lanes that begin at its stop line."""

from xml.etree.ElementTree import Element

import numpy as np
from jaxtyping import Float64

from traj_diffusion.datasets.readers.assemble import Report, add
from traj_diffusion.datasets.readers.commonroad_map import Lanelet, beginning_at
from traj_diffusion.datasets.readers.xml_tree import place, text_number
from traj_diffusion.scene import Lights, LightState, Map

_COLOURS = {
    "red": LightState.STOP,
    "redYellow": LightState.STOP,
    "yellow": LightState.CAUTION,
    "green": LightState.GO,
}
_ARROWS = {
    LightState.STOP: LightState.ARROW_STOP,
    LightState.CAUTION: LightState.ARROW_CAUTION,
    LightState.GO: LightState.ARROW_GO,
}
_TURNS = {
    "right": {"Right"},
    "straight": {"Straight"},
    "left": {"Left"},
    "leftStraight": {"Left", "Straight"},
    "straightRight": {"Straight", "Right"},
    "leftRight": {"Left", "Right"},
}


def read_lights(
    root: Element,
    lanelets: dict[str, Lanelet],
    map_: Map,
    rows: dict[str, int],
    times: Float64[np.ndarray, " T"],
    dt: float,
    report: Report,
) -> Lights:
    """Return the signals of a scenario at times [s] after its step 0. Raises ValueError."""
    lights = {element.get("id", ""): element for element in root.iterfind("trafficLight")}
    turns = _turns(root)
    step = np.floor(times / dt + 1e-6)
    found: dict[str, tuple[Element, np.ndarray]] = {}
    for lanelet in lanelets.values():
        for name in lanelet.lights:
            if name not in lights or not lanelet.drivable:
                add(report, "references to traffic lights that are not there, dropped", int(name not in lights))
                continue
            stop = lanelet.centre[-1] if lanelet.stop_line is None else lanelet.stop_line
            wanted = _TURNS.get((lights[name].findtext("direction") or "all").strip())
            for lane in beginning_at(lanelet, lanelets):
                if wanted is not None and turns.get((lanelet.id, lane), wanted) not in (wanted, *wanted):
                    continue
                add(report, "further lights of one lane, dropped", int(lane in found))
                found.setdefault(lane, (lights[name], stop))
    count = len(found)
    state = np.zeros((count, len(times)), np.uint8)
    for row, (light, _) in enumerate(found.values()):
        state[row] = _states(light, step)
    stops = np.array([stop for _, stop in found.values()]).reshape(count, 1, 3)
    return Lights(
        lane_id=np.array([map_.id[rows[lane]] for lane in found], np.int64),
        stop_point=np.repeat(stops, len(times), 1),
        state=state,
        observed=np.ones(state.shape, bool),
    )


def _turns(root: Element) -> dict[tuple[str, str], str]:
    """Return which way each lanelet after one that comes into an intersection turns."""
    found = {}
    for incoming in root.iterfind("intersection/incoming"):
        names = [child.get("ref", "") for child in incoming.iterfind("incomingLanelet")]
        for turn in ("Right", "Straight", "Left"):
            for tag in (f"successors{turn}", f"outgoing{turn}"):
                for child in incoming.iterfind(tag):
                    found.update({(name, child.get("ref", "")): turn for name in names})
    return found


def _states(light: Element, step: np.ndarray) -> np.ndarray:
    """Return the state at each time step of the scenario: a cycle begins at its offset and repeats both ways."""
    active = (light.findtext("active") or "true").strip() != "false"
    cycle = light.find("cycle")
    parts = [] if cycle is None else cycle.findall("cycleElement")
    if cycle is None or not parts or not active:
        return np.full(len(step), LightState.UNKNOWN, np.uint8)
    ends = np.cumsum([text_number(part, "duration") for part in parts])
    if (np.diff(ends, prepend=0) < 0).any() or not 0 < ends[-1] < 1e9:
        raise ValueError(f"{place(light)}: its cycle lasts {ends[-1]} steps")
    offset = text_number(cycle, "timeOffset") if cycle.find("timeOffset") is not None else 0.0
    which = np.searchsorted(ends, np.mod(step - offset, ends[-1]), side="right")
    shown = [_COLOURS.get((part.findtext("color") or "").strip(), LightState.UNKNOWN) for part in parts]
    if (light.findtext("direction") or "all").strip() in ("left", "right"):
        shown = [_ARROWS.get(state, state) for state in shown]
    return np.array(shown, np.uint8)[np.minimum(which, len(parts) - 1)]
