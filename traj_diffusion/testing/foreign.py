"""Scenes as files of other formats have them, for tests of readers where no recordings are at hand."""

from typing import Any

import numpy as np

from traj_diffusion.scene import AgentKind, EdgeType, LaneType, LightState, LineType, MapKind, Scene

_LANES = {
    LaneType.UNDEFINED: "LANE_UNKNOWN",
    LaneType.FREEWAY: "LANE_FREEWAY",
    LaneType.SURFACE_STREET: "LANE_SURFACE_STREET",
    LaneType.BIKE_LANE: "LANE_BIKE_LANE",
}


def scenarionet_document(scene: Scene) -> dict[str, Any]:
    """Return a scene as ScenarioNet pickles it, in the layout of its Waymo converter."""
    agents = scene.agents
    tracks = {}
    for row, number in enumerate(agents.id.tolist()):
        length, width, height = agents.size[row].T
        state = {
            "position": agents.position[row],
            "heading": agents.heading[row],
            "velocity": agents.velocity[row],
            "length": length,
            "width": width,
            "height": height,
            "valid": agents.valid[row],
        }
        tracks[str(number)] = {"type": AgentKind(agents.kind[row]).name, "state": state, "metadata": {}}
    lights = {
        str(lane): {
            "type": "TRAFFIC_LIGHT",
            "lane": lane,
            "state": {
                "object_state": [
                    f"LANE_STATE_{LightState(int(value)).name}" if seen else None
                    for value, seen in zip(scene.lights.state[row], scene.lights.observed[row], strict=True)
                ]
            },
            "stop_point": scene.lights.stop_point[row, int(scene.lights.observed[row].argmax())],
        }
        for row, lane in enumerate(scene.lights.lane_id.tolist())
    }
    predicted = agents.id[agents.to_predict].tolist()
    metadata = {
        "dataset": "waymo",
        "scenario_id": scene.id,
        "ts": np.arange(scene.steps) * scene.dt,
        "sdc_id": None if scene.ego is None else str(agents.id[scene.ego]),
        "current_time_index": scene.current_index,
        "tracks_to_predict": {str(number): {"track_id": str(number)} for number in predicted},
    }
    return {
        "id": scene.id,
        "version": "v1.2",
        "length": scene.steps,
        "tracks": tracks,
        "dynamic_map_states": lights,
        "map_features": _map_features(scene),
        "metadata": metadata,
    }


def _map_features(scene: Scene) -> dict[str, dict[str, Any]]:
    features, ids = {}, scene.map.id.tolist()
    links = scene.map.links
    for row, number in enumerate(ids):
        kind, subtype = MapKind(scene.map.kind[row]), int(scene.map.subtype[row])
        points = scene.map.polyline(row)
        if kind == MapKind.LANE:
            feature = {
                "type": _LANES[LaneType(subtype)],
                "polyline": points,
                "exit_lanes": [ids[lane] for lane in links.successors[row]],
                "entry_lanes": [ids[lane] for lane in links.predecessors[row]],
                "left_neighbor": [{"feature_id": str(ids[lane])} for lane in links.left[row]],
                "right_neighbor": [{"feature_id": str(ids[lane])} for lane in links.right[row]],
            }
            if np.isfinite(scene.map.speed_limit[row]):
                feature["speed_limit_mph"] = float(scene.map.speed_limit[row]) / 0.44704
        elif kind == MapKind.STOP_SIGN:
            feature = {"type": kind.name, "position": points[0], "lane": [ids[lane] for lane in links.controls[row]]}
        elif kind in (MapKind.ROAD_LINE, MapKind.ROAD_EDGE):
            name = LineType(subtype).name if kind == MapKind.ROAD_LINE else EdgeType(subtype).name
            feature = {"type": f"{kind.name}_{name}", "polyline": points}
        else:
            feature = {"type": kind.name, "polygon": points}
        features[str(number)] = feature
    return features
