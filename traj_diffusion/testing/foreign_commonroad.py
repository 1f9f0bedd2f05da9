"""Any scene as a CommonRoad file, for hosts and tests where no CommonRoad scenario is at hand."""

from collections.abc import Iterator
from itertools import groupby

import numpy as np

from traj_diffusion.scene import AgentKind, LightState, MapKind, Scene

LANE_WIDTH = 3.2  # m; a scene's lanes are centre lines
_TYPES = {AgentKind.VEHICLE: "car", AgentKind.PEDESTRIAN: "pedestrian", AgentKind.CYCLIST: "bicycle"}
_COLOURS = {
    LightState.STOP: "red",
    LightState.ARROW_STOP: "red",
    LightState.CAUTION: "yellow",
    LightState.ARROW_CAUTION: "yellow",
    LightState.GO: "green",
    LightState.ARROW_GO: "green",
}
_LIGHTS, _OBSTACLES, _PROBLEM = 100_000, 200_000, 300_000  # where their ids begin; those of lanelets begin at 1


def commonroad_document(scene: Scene) -> str:
    """Return a scene as CommonRoad XML 2020a: step 0 is its first step, obstacles are all agents but the ego.

    Lanes become lanelets of `LANE_WIDTH`, with their links; an agent is there from its first valid step to its first
    gap. Of the signals of one approach the first one holds for all of its turns. The ego becomes a planning problem.
    """
    bodies = [_obstacle(scene, row) for row in range(len(scene.agents.id)) if row != scene.ego]
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><commonRoad commonRoadVersion="2020a" benchmarkID="ZAM_Made-1_1_T-1" '
        f'timeStepSize="{scene.dt:g}" author="" affiliation="" source="{scene.source}" date="2020-01-01">'
        "<location><geoNameId>-999</geoNameId><gpsLatitude>999</gpsLatitude><gpsLongitude>999</gpsLongitude></location>"
        f"<scenarioTags/>{''.join(_lanelets(scene))}{''.join(_lights(scene))}{''.join(bodies)}{_problem(scene)}"
        "</commonRoad>"
    )


def _lanelets(scene: Scene) -> Iterator[str]:
    map_, links = scene.map, scene.map.links
    number = {int(row): index + 1 for index, row in enumerate(map_.rows(MapKind.LANE))}
    signal = _approaches(scene)
    for row, name in number.items():
        centre = map_.polyline(row)[:, :2]
        along = np.gradient(centre, axis=0)
        left = np.stack([-along[:, 1], along[:, 0]], -1) / np.linalg.norm(along, axis=-1, keepdims=True)
        bounds = [(side, centre + LANE_WIDTH / 2 * sign * left) for side, sign in (("left", 1), ("right", -1))]
        body = "".join(f"<{side}Bound>{''.join(_point(*xy) for xy in line)}</{side}Bound>" for side, line in bounds)
        for tag, others in (("predecessor", links.predecessors[row]), ("successor", links.successors[row])):
            body += "".join(f'<{tag} ref="{number[other]}"/>' for other in others.tolist() if other in number)
        for side, others in (("Left", links.left[row]), ("Right", links.right[row])):
            if len(others) and int(others[0]) in number:
                body += f'<adjacent{side} ref="{number[int(others[0])]}" drivingDir="same"/>'
        if row in signal:
            line = "".join(_point(*bound[-1]) for _, bound in bounds)
            body += f'<stopLine>{line}<lineMarking>solid</lineMarking><trafficLightRef ref="{signal[row]}"/></stopLine>'
        body += "<laneletType>urban</laneletType>"
        body += f'<trafficLightRef ref="{signal[row]}"/>' if row in signal else ""
        yield f'<lanelet id="{name}">{body}</lanelet>'


def _approaches(scene: Scene) -> dict[int, int]:
    """Return the id of the first light of each lane that leads up to a controlled one, by row."""
    row_of = {number: row for row, number in enumerate(scene.map.id.tolist())}
    found: dict[int, int] = {}
    for light, lane in enumerate(scene.lights.lane_id.tolist()):
        for before in scene.map.links.predecessors[row_of[lane]].tolist() if lane in row_of else ():
            found.setdefault(before, _LIGHTS + light)
    return found


def _lights(scene: Scene) -> Iterator[str]:
    for light in sorted(set(_approaches(scene).values())):
        states = scene.lights.state[light - _LIGHTS].tolist()
        runs = [(_COLOURS.get(LightState(state), "inactive"), len(list(run))) for state, run in groupby(states)]
        cycle = "".join(
            f"<cycleElement><duration>{n}</duration><color>{name}</color></cycleElement>" for name, n in runs
        )
        cycle = f"<cycle>{cycle}<timeOffset>0</timeOffset></cycle>"
        yield f'<trafficLight id="{light}">{cycle}<direction>all</direction><active>true</active></trafficLight>'


def _obstacle(scene: Scene, row: int) -> str:
    agents = scene.agents
    first = int(agents.valid[row].argmax())
    gone = np.flatnonzero(~agents.valid[row, first:])
    steps = range(first, first + int(gone[0]) if len(gone) else scene.steps)
    length, width = agents.size[row, first, :2].tolist()
    states = "".join(_state("state", scene, row, step) for step in steps[1:])
    return (
        f'<dynamicObstacle id="{_OBSTACLES + row}"><type>{_TYPES.get(AgentKind(agents.kind[row]), "unknown")}</type>'
        f"<shape><rectangle><length>{length:.4f}</length><width>{width:.4f}</width></rectangle></shape>"
        f"{_state('initialState', scene, row, first)}{f'<trajectory>{states}</trajectory>' if states else ''}"
        "</dynamicObstacle>"
    )


def _problem(scene: Scene) -> str:
    if scene.ego is None:
        return ""
    last = int(np.flatnonzero(scene.agents.valid[scene.ego])[-1])
    x, y = scene.agents.position[scene.ego, last, :2]
    goal = (
        f"<goalState><position><circle><radius>3.0</radius><center><x>{x:.4f}</x><y>{y:.4f}</y></center></circle>"
        f"</position><time><intervalStart>{last}</intervalStart><intervalEnd>{last + 50}</intervalEnd></time>"
        "</goalState>"
    )
    start = _state("initialState", scene, scene.ego, scene.current_index, "<yawRate><exact>0</exact></yawRate>"
                   "<slipAngle><exact>0</exact></slipAngle>")  # fmt: skip
    return f'<planningProblem id="{_PROBLEM}">{start}{goal}</planningProblem>'


def _state(tag: str, scene: Scene, row: int, step: int, more: str = "") -> str:
    agents = scene.agents
    heading = (float(agents.heading[row, step]) + np.pi) % (2 * np.pi) - np.pi
    ahead = float(agents.velocity[row, step] @ [np.cos(heading), np.sin(heading)])
    values = {"orientation": f"{heading:.6f}", "time": str(step), "velocity": f"{ahead:.4f}"}
    body = "".join(f"<{name}><exact>{value}</exact></{name}>" for name, value in values.items())
    return f"<{tag}><position>{_point(*agents.position[row, step, :2])}</position>{body}{more}</{tag}>"


def _point(x: float, y: float) -> str:
    return f"<point><x>{x:.4f}</x><y>{y:.4f}</y></point>"
