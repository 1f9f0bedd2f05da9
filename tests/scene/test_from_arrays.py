"""`Scene.from_arrays`: what is given is kept, what is missing is filled in and counted, what does not fit is named."""

from typing import Any

import numpy as np
import pytest

from traj_diffusion.errors import BadScene
from traj_diffusion.scene import AgentKind, LaneType, LightState, MapKind, Origin, Scene, resample_scene
from traj_diffusion.testing import crossing

TIME = np.arange(91) * 0.1
EAST = np.stack([8.0 * TIME, np.zeros(91)], -1)  # 8 m/s
NORTH = np.stack([np.full(91, 5.0), 2.0 + 0.5 * 3.0 * TIME**2], -1)  # from rest, 3 m/s^2


def test_positions_alone_make_a_scene_whose_motion_is_known_on_paper() -> None:
    scene = Scene.from_arrays([EAST, NORTH], dt=0.1)
    agents = scene.agents
    assert (scene.steps, scene.dt, scene.current_index, scene.ego) == (91, 0.1, 10, None)
    assert agents.valid.all()
    assert np.array_equal(agents.position[..., :2], [EAST, NORTH])
    assert agents.velocity[0] == pytest.approx(np.tile([8.0, 0.0], (91, 1)))
    assert agents.velocity[1, 1:-1, 1] == pytest.approx(3.0 * TIME[1:-1])
    assert agents.heading[0] == pytest.approx(0.0)
    assert agents.heading[1] == pytest.approx(np.pi / 2)  # also before it moves
    assert agents.size[0, 0].tolist() == pytest.approx([4.5, 2.0, 1.6])
    assert dict(scene.report) == {
        "agents without velocities, taken from their motion": 2,
        "agents without headings, taken from their motion": 2,
        "agents without a size, the usual one of their kind assumed": 2,
    }


def test_an_agent_is_valid_where_its_position_is_finite_and_gaps_are_not_bridged() -> None:
    position = np.stack([EAST, NORTH])
    position[0, 20:30] = np.nan
    agents = Scene.from_arrays(position, dt=0.1).agents
    assert np.flatnonzero(~agents.valid[0]).tolist() == list(range(20, 30))
    assert not agents.position[0, 20:30].any()
    assert agents.velocity[0, [19, 30], 0] == pytest.approx(8.0)


def test_what_is_given_is_kept() -> None:
    scene = Scene.from_arrays(
        np.tile([[[1.0, 2, 3]], [[4, 5, 6]]], (1, 5, 1)),
        dt=0.1,
        heading=[[7.0] * 5, [0.5] * 5],
        velocity=np.ones((2, 5, 2)),
        kind=["pedestrian", AgentKind.CYCLIST],
        size=[[1, 2, 3], [4, 5, 6]],
        agent_id=["a", "b"],
        ego=1,
        to_predict=[True, False],
        current_index=0,
        scene_id="mine",
    )
    agents = scene.agents
    assert agents.heading[:, 0].tolist() == [7.0, 0.5]
    assert agents.kind.tolist() == [AgentKind.PEDESTRIAN, AgentKind.CYCLIST]
    assert agents.size[1, 4].tolist() == [4, 5, 6]
    assert (agents.source_id, agents.id.tolist()) == (("a", "b"), [0, 1])
    assert (scene.id, scene.ego, scene.current_index, scene.report) == ("mine", 1, 0, ())
    assert agents.to_predict.tolist() == [True, False]


def test_a_map_has_kinds_links_limits_and_lights() -> None:
    scene = Scene.from_arrays(
        EAST[None],
        dt=0.1,
        map_lines=[[[0, 0], [40, 0]], [[40, 0], [80, 0, ]], [[0, -4, 1], [80, -4, 1]], [[9, 1]]],
        map_kinds=["lane", "bike_lane", "road_edge", MapKind.STOP_SIGN],
        map_ids=[10, 11, 12, 13],
        speed_limits=[13.9, np.nan, np.nan, np.nan],
        lane_links=[(10, 11)],
        light_lanes=[11],
        light_stops=[[40, 0]],
        light_states=[["stop"] * 50 + ["go"] * 40 + [None]],
    )  # fmt: skip
    features, lights = scene.map, scene.lights
    assert features.kind.tolist() == [MapKind.LANE, MapKind.LANE, MapKind.ROAD_EDGE, MapKind.STOP_SIGN]
    assert features.subtype.tolist()[:2] == [LaneType.SURFACE_STREET, LaneType.BIKE_LANE]
    assert features.polyline(2).tolist() == [[0, -4, 1], [80, -4, 1]]
    assert features.links.successors[0].tolist() == [1]
    assert features.links.predecessors[1].tolist() == [0]
    assert (features.links.origin, features.edge_origin) == (Origin.RECORDED, Origin.RECORDED)
    assert lights.state[0, [49, 50]].tolist() == [LightState.STOP, LightState.GO]
    assert np.flatnonzero(~lights.observed[0]).tolist() == [90]


@pytest.mark.parametrize("dt", [0.04, 0.2, 0.5])
def test_another_step_becomes_a_tenth_of_a_second_and_constant_acceleration_survives(dt: float) -> None:
    # Catmull-Rom curves are exact for parabolas between inner states; the outer pieces know one side only.
    time = np.arange(round(9 / dt) + 1) * dt
    position = np.stack([3.0 * time + 0.5 * 1.2 * time**2, 7.0 - 2.0 * time], -1)
    scene = Scene.from_arrays(position[None], dt=dt, current_index=round(2 / dt))
    assert (scene.dt, scene.current_index, scene.steps) == (0.1, 20, 91)
    fine = np.arange(91) * 0.1
    inner = (fine > dt) & (fine < 9 - dt)
    assert scene.agents.position[0, inner, 0] == pytest.approx(3.0 * fine[inner] + 0.6 * fine[inner] ** 2)
    assert scene.agents.position[0, :, 1] == pytest.approx(7.0 - 2.0 * fine)
    assert scene.agents.velocity[0, inner, 0] == pytest.approx(3.0 + 1.2 * fine[inner], abs=1e-5)
    assert dict(scene.report)["steps recorded, resampled to 0.1 s"] == len(time)


def test_resampling_keeps_the_current_step_turns_the_short_way_and_holds_lights() -> None:
    heading = np.array([[3.0, -3.0, -3.0, -3.0]])
    scene = Scene.from_arrays(
        np.zeros((1, 4, 2)),
        dt=0.3,
        heading=heading,
        valid=[[True, True, True, False]],
        current_index=1,
        light_lanes=[0],
        light_stops=[[0, 0]],
        light_states=[["stop", "go", "go", "go"]],
    )
    assert (scene.current_index, scene.steps) == (3, 10)
    turned = 3.0 + (2 * np.pi - 6.0) * np.array([0, 1, 2]) / 3
    assert scene.agents.heading[0, :3] == pytest.approx(turned)
    assert scene.agents.heading[0, 3] == pytest.approx(-3.0)
    assert scene.agents.valid[0].tolist() == [True] * 7 + [False] * 3
    assert scene.lights.state[0, :4].tolist() == [LightState.STOP] * 3 + [LightState.GO]


def test_a_scene_of_the_wanted_step_is_left_alone() -> None:
    scene = crossing()
    assert resample_scene(scene) is scene


def test_nobody_at_all_is_a_scene() -> None:
    assert len(Scene.from_arrays(np.zeros((0, 91, 2)), dt=0.1).agents) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": EAST}, r"position has shape \[91, 2\]; \[agents, steps, 2 or 3\]"),
        ({"position": [[["here", "there"]]]}, "position is no array of numbers"),
        ({"position": np.full((1, 91, 2), 1e9)}, "position is .*at most 1e\\+07"),
        ({"valid": np.ones((1, 90), bool)}, r"valid does not fit \[1 91\]: its shape is \[1, 90\]"),
        ({"position": np.full((1, 91, 2), np.nan), "valid": True}, "step 0: position is .nan"),
        ({"heading": np.zeros(7)}, r"heading does not fit \[1 91\]"),
        ({"velocity": "fast"}, r"velocity does not fit"),
        ({"kind": "bus"}, "kind 0 is 'bus'; known are vehicle, pedestrian, cyclist, other"),
        ({"kind": ["vehicle"] * 2}, "kind has 2 entries; one, or 1 would fit"),
        ({"size": [4.0, 2.0]}, r"size does not fit \[1 91 3\]"),
        ({"size": [-4.0, 2.0, 1.0]}, "size is negative"),
        ({"agent_id": [1.5]}, "agent_id does not fit"),
        ({"position": np.stack([EAST, EAST]), "agent_id": [7, 7]}, "agent id .7. is used more than once"),
        ({"position": np.stack([EAST, EAST]), "agent_id": ["a", "a"]}, "agent_id holds a name twice"),
        ({"ego": 1}, "ego row 1 of 1 agents"),
        ({"current_index": 91}, "current index 91 lies outside its 91 steps"),
        ({"dt": 0.0}, "dt is 0.0 s; above 0 and at most 1 s would fit"),
        ({"dt": 100}, "dt is 100 s"),
        ({"map_lines": [[1, 2]]}, r"map line 0 has shape \[2\]; \[points, 2 or 3\]"),
        ({"map_lines": [EAST], "map_kinds": ["river"]}, "map_kinds 0 is 'river'; known are lane, road_line"),
        ({"map_lines": [EAST, EAST], "map_ids": [1, 1]}, "map_ids holds a number twice"),
        ({"map_lines": [EAST], "lane_links": [(0, 1)]}, r"lane link \(0, 1\); a pair"),
        ({"map_lines": [EAST * np.nan]}, "a map point is not finite"),
        ({"map_lines": [EAST], "light_lanes": [3], "light_stops": [[0, 0]], "light_states": [[]]}, "names 3, which is"),
        ({"light_lanes": [3], "light_stops": [[0, 0]], "light_states": [["go"]]}, "1 rows of 91 states"),
        ({"light_lanes": [3], "light_stops": [[0, 0]], "light_states": [["blue"] * 91]}, "0 is 'blue'; known are"),
    ],
)
def test_what_does_not_fit_is_one_line_that_says_what_would(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"position": EAST[None], "dt": 0.1, "scene_id": "mine"} | change
    with pytest.raises(BadScene, match=rf"^scene mine: .*{message}") as raised:
        Scene.from_arrays(**arguments)
    assert "\n" not in str(raised.value)
