"""CommonRoad: the obstacles of a scenario are driven by a TrafficModel, step by step, with predictions for a planner.

CommonRoad counts as we do: metres, headings counter-clockwise from x. A position is where the obstacle's shape has its
origin, which need not be the centre of its box; `velocity` points along the heading plus the slip angle.
"""

import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from traj_diffusion.datasets.readers.commonroad_agents import EGO_SIZE
from traj_diffusion.datasets.readers.commonroad_lights import read_lights
from traj_diffusion.datasets.readers.commonroad_map import build_map, lane_rows, read_lanelets
from traj_diffusion.datasets.readers.xml_tree import read_tree
from traj_diffusion.errors import HostError, MissingExtra
from traj_diffusion.geometry import rotate, wrap_angle
from traj_diffusion.scene import AgentKind, GivenFuture, Lights, Observation, Plan, Step
from traj_diffusion.sim_adapter.between import Motion, between
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

try:
    from commonroad.common.file_writer import CommonRoadFileWriter
    from commonroad.common.util import FileFormat, Interval
    from commonroad.common.writer.file_writer_interface import OverwriteExistingFile
    from commonroad.planning.planning_problem import PlanningProblemSet
    from commonroad.prediction.prediction import SetBasedPrediction, TrajectoryPrediction
    from commonroad.scenario.obstacle import DynamicObstacle, ObstacleType, StaticObstacle
    from commonroad.scenario.scenario import Scenario
    from commonroad.scenario.state import CustomState, InitialState, PMState
    from commonroad.scenario.trajectory import Trajectory
except ImportError:
    raise MissingExtra("commonroad-io", "commonroad") from None

KINDS = {
    ObstacleType.PEDESTRIAN: AgentKind.PEDESTRIAN,
    ObstacleType.BICYCLE: AgentKind.CYCLIST,
    **dict.fromkeys(
        (ObstacleType.CAR, ObstacleType.TRUCK, ObstacleType.BUS, ObstacleType.TAXI, ObstacleType.MOTORCYCLE),
        AgentKind.VEHICLE,
    ),
    **dict.fromkeys(
        (ObstacleType.PRIORITY_VEHICLE, ObstacleType.PARKED_VEHICLE, ObstacleType.TRAIN), AgentKind.VEHICLE
    ),
}
HEIGHT = 1.6  # m; CommonRoad has none
EGO = -1  # the ego's agent id; obstacles have their own, which are positive
NOWHERE = np.zeros(2)  # no way off
OUTSIDE = 30.0  # m beyond the network's bounds, where an obstacle leaves


class CommonRoadTraffic:
    """Drives dynamic obstacles of a scenario, in place; one `step` goes from one of its time steps to the next.

    ```
    scenario, problems = CommonRoadFileReader("ZAM_Zip-1_1_T-1.xml").open()
    with CommonRoadTraffic(TrafficModel(policy, futures=8, dt=scenario.dt), scenario) as traffic:
        while running:
            step = traffic.step(ego)                      # the ego's state now, or nothing
            expected = scenario.obstacle_by_id(7).prediction  # the future that is followed, for a planner
            all_of_them = traffic.futures(7)               # the K futures, joint in their order
    ```

    `driven` are ids, or a function that says of each obstacle whether to drive it; None drives all dynamic ones. Each
    follows its recorded trajectory for `log_steps` time steps, so that the traffic has seen it move, and is driven from
    then on; its initial state and prediction are then those of now (`update_initial_state`, `update_prediction`), what
    was before is in its history. Obstacles that are not driven stay recorded, and are gone where their trajectory ends.
    Who drives beyond the network's bounds is taken out of the scenario. Of predictions as areas the first state counts.
    """

    def __init__(
        self,
        traffic: TrafficModel,
        scenario: Scenario,
        driven: Callable[[DynamicObstacle], bool] | Iterable[int] | None = None,
        log_steps: int = 0,
    ) -> None:
        if abs(scenario.dt - traffic.dt) > 1e-9:
            raise HostError(
                f"CommonRoad steps by {scenario.dt} s and the traffic model by {traffic.dt} s; use dt={scenario.dt}"
            )
        self.traffic, self.scenario, self.time_step = traffic, scenario, 0
        ids = None if driven is None or callable(driven) else frozenset(driven)
        self._wanted = driven if callable(driven) else lambda one: ids is None or one.obstacle_id in ids
        self._log_steps = log_steps
        self._roads = _Roads(scenario)
        self._boxes = {one.obstacle_id: _box(one.obstacle_shape) for one in scenario.obstacles}
        self._step: Step | None = None
        self._planned_from: Observation | None = None

    def step(self, ego: Any = None, ego_plan: Trajectory | None = None) -> Step:
        """Show the traffic the scenario at `time_step`, and put its obstacles where it says at the next one.

        `ego` is a CommonRoad state whose position is the centre of its box (a `VehicleModel.KS` counts from the rear
        axle: shift it); `ego_plan` is what it is going to do. Raises what TrafficModel raises; nothing is changed then.
        """
        seen = self.observe(ego, ego_plan)
        if self._step is None:
            self.traffic.reset(self._roads.map, seen)
        step = self.traffic.step(seen)
        if step.replanned:
            self._planned_from = seen
        self._step, self.time_step = step, self.time_step + 1
        for row, number in enumerate(step.agent_id.tolist()):
            self._put(self.scenario.obstacle_by_id(number), step, row)
        return step

    def observe(self, ego: Any = None, ego_plan: Trajectory | None = None) -> Observation:
        """Return everyone in the scenario at this time step in our terms."""
        rows = [
            (one.obstacle_id, KINDS.get(one.obstacle_type, AgentKind.OTHER), *self._centred(one), self._drives(one))
            for one in self.scenario.obstacles
            if self._state(one, self.time_step) is not None
        ]
        if ego is not None:
            rows.append((EGO, AgentKind.VEHICLE, _motion(ego), EGO_SIZE, False))
        given = []
        if ego_plan is not None:
            ahead = ego_plan.state_list
            times = [state.time_step * self.scenario.dt for state in ahead]
            given = [
                GivenFuture.from_arrays(EGO, times, [_place(one) for one in ahead], [_heading(one) for one in ahead])
            ]
        lights = self._roads.lights(self.time_step)
        return Observation.from_arrays(
            self.time_step * self.scenario.dt,
            agent_id=[row[0] for row in rows],
            kind=[row[1] for row in rows],
            position=np.array([row[2].position for row in rows]).reshape(-1, 3),
            heading=[row[2].heading for row in rows],
            velocity=np.array([row[2].velocity for row in rows]).reshape(-1, 2),
            size=np.array([(*row[3], HEIGHT) for row in rows]).reshape(-1, 3),
            is_controlled=[row[4] for row in rows],
            light_lane=lights.lane_id,
            light_stop=lights.stop_point[:, 0],
            light_state=lights.state[:, 0],
            given=given,
        )

    def futures(self, obstacle_id: int) -> tuple[TrajectoryPrediction, ...]:
        """Return the K futures of an obstacle from the next time step on, in the order of `Step.futures`.

        Futures of the same number belong together. Empty where the plan knows nothing of it.
        """
        step, one = self._step, self.scenario.obstacle_by_id(obstacle_id)
        if one is None or step is None or step.futures is None or obstacle_id not in step.futures_id.tolist():
            return ()
        return tuple(self._prediction(one, step, future) for future in range(step.futures.position.shape[1]))

    def close(self) -> None:
        """Close the traffic model. The scenario stays as it is."""
        self.traffic.close()

    def __enter__(self) -> "CommonRoadTraffic":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _drives(self, one: Any) -> bool:
        moves = isinstance(one, DynamicObstacle)
        return moves and self.time_step >= self._log_steps and bool(self._wanted(one))

    def _state(self, one: Any, step: int) -> Any:
        """Return an obstacle's state at a time step, or None where it is not there, or not known."""
        first = one.initial_state.time_step
        if isinstance(one, StaticObstacle) or step == first:
            return one.initial_state
        logged = one.prediction is not None and not isinstance(one.prediction, SetBasedPrediction)
        return one.state_at_time(step) if logged and step > first else None

    def _centred(self, one: Any) -> tuple[Motion, tuple[float, float]]:
        """Return how the centre of an obstacle's box moves now, and its length and width."""
        offset, size = self._boxes[one.obstacle_id]
        now, after = (self._state(one, self.time_step + ahead) for ahead in (0, 1))
        pace = 0.0 if after is None else float(np.linalg.norm(_place(after) - _place(now))) / self.scenario.dt
        return _motion(now, offset, pace), size

    def _put(self, one: DynamicObstacle, step: Step, row: int) -> None:
        if self._roads.outside(step.position[row, :2]):
            self.scenario.remove_obstacle(one)
            return
        logged = range(one.initial_state.time_step + 1, self.time_step)
        states = [self._state(one, index) for index in logged]  # read first: an update takes the trajectory away
        for state in (state for state in states if state is not None):
            one.update_initial_state(_initial(state))
        motion = Motion(step.position[[row]], step.heading[[row]], step.velocity[[row]])
        pose = _written(self._boxes[one.obstacle_id][0], motion)[0]
        last, dt = one.initial_state, self.traffic.dt
        turned, faster = wrap_angle(pose["orientation"] - _heading(last)), pose["velocity"] - _middle(last.velocity)
        rates = {"acceleration": float(faster) / dt, "yaw_rate": float(turned) / dt}
        one.update_initial_state(InitialState(time_step=self.time_step, **pose, **rates))
        one.update_prediction(self._prediction(one, step, step.chosen))

    def _prediction(self, one: Any, step: Step, future: int) -> TrajectoryPrediction:
        assert step.futures is not None
        assert self._planned_from is not None
        row = step.futures_id.tolist().index(one.obstacle_id)
        dt, plan, offset = self.scenario.dt, step.futures, self._boxes[one.obstacle_id][0]
        end = step.futures_time + plan.position.shape[3] * plan.dt
        steps = range(self.time_step + 1, max(int(end / dt + 1e-6), self.time_step + 1) + 1)
        ahead = _ahead(plan, future, row, self._planned_from, one.obstacle_id, np.array(steps) * dt - step.futures_time)
        written = zip(steps, _written(offset, ahead), strict=True)
        states = [CustomState(time_step=index, **pose) for index, pose in written]
        return TrajectoryPrediction(Trajectory(steps[0], states), one.obstacle_shape)


class _Roads:
    """The lanelets of a scenario as a map, and what its signals show; through the XML that CommonRoad itself writes."""

    def __init__(self, scenario: Scenario) -> None:
        bare = Scenario(scenario.dt, scenario.scenario_id)
        bare.replace_lanelet_network(scenario.lanelet_network)
        said = {"author": "", "affiliation": "", "source": "", "tags": set[Any]()}
        with tempfile.TemporaryDirectory(prefix="traj-diffusion-") as folder:
            path = Path(folder) / "map.xml"
            writer = CommonRoadFileWriter(bare, PlanningProblemSet(), **said, file_format=FileFormat.XML)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # at lanelets of no type, which are plain roads
                writer.write_scenario_to_file(str(path), OverwriteExistingFile.ALWAYS)
            self._root = read_tree(path, "commonRoad")
        self._dt = float(scenario.dt)
        self._lanelets = read_lanelets(self._root, {})
        self.map = build_map(self._lanelets, self._root, {})
        points = self.map.points[:, :2]
        self._low, self._high = points.min(0) - OUTSIDE, points.max(0) + OUTSIDE

    def lights(self, step: int) -> Lights:
        at = np.array([step * self._dt])
        return read_lights(self._root, self._lanelets, self.map, lane_rows(self._lanelets), at, self._dt, {})

    def outside(self, place: np.ndarray) -> bool:
        return bool((place < self._low).any() or (place > self._high).any())


def _box(shape: Any) -> tuple[np.ndarray, tuple[float, float]]:
    """Return where the centre of the box around a shape lies, in the obstacle's own frame, and its length and width."""
    here = InitialState(time_step=0, position=np.zeros(2), orientation=0.0)
    low_x, low_y, high_x, high_y = shape.compute_occupancy(here).shapely_object.bounds
    return np.array([low_x + high_x, low_y + high_y]) / 2, (high_x - low_x, high_y - low_y)


def _motion(state: Any, offset: np.ndarray = NOWHERE, pace: float = 0.0) -> Motion:
    """Return a state in our terms; `pace` [m/s] is taken where it says no velocity."""
    heading = _heading(state)
    speed = pace if getattr(state, "velocity", None) is None else _middle(state.velocity)
    course = heading + _middle(getattr(state, "slip_angle", None))
    velocity = speed * np.array([np.cos(course), np.sin(course)])
    if isinstance(state, PMState):  # says how fast it goes along x and y
        velocity = np.array([_middle(state.velocity), _middle(state.velocity_y)])
    centre = _place(state) + rotate(offset[None], np.array([heading]))[0]
    return Motion(np.append(centre, 0.0), np.array(heading, np.float32), velocity.astype(np.float32))


def _place(state: Any) -> np.ndarray:
    """Return a position, or the middle of the area in which it lies."""
    where = getattr(state.position, "center", state.position)
    return np.array((where.x, where.y) if isinstance(where, shapely.Point) else where[:2], np.float64)


def _heading(state: Any) -> float:
    return _middle(state.orientation)


def _middle(value: Any) -> float:
    """Return a value, exact or the middle of its interval; 0 where there is none."""
    if value is None:
        return 0.0
    return float((value.start + value.end) / 2 if isinstance(value, Interval) else value)


def _initial(state: Any) -> InitialState:
    names = ("velocity", "acceleration", "yaw_rate", "slip_angle")
    rest = {name: _middle(getattr(state, name, None)) for name in names}
    return InitialState(time_step=state.time_step, position=_place(state), orientation=_heading(state), **rest)


def _written(offset: np.ndarray, motion: Motion) -> list[dict[str, Any]]:
    """Return states of ours in CommonRoad's terms; `offset` is where the centre lies in the obstacle's own frame."""
    angle, velocity = wrap_angle(motion.heading.astype(np.float64)), motion.velocity.astype(np.float64)
    ahead = velocity[:, 0] * np.cos(angle) + velocity[:, 1] * np.sin(angle)
    way = np.where(ahead >= 0, 1.0, -1.0)  # or it drives backwards
    slip = wrap_angle(np.arctan2(way * velocity[:, 1], way * velocity[:, 0]) - angle)
    values = {
        "position": motion.position[:, :2] - rotate(np.tile(offset, (len(angle), 1)), angle),
        "orientation": angle.tolist(),
        "velocity": (way * np.hypot(velocity[:, 0], velocity[:, 1])).tolist(),
        "slip_angle": np.where(velocity.any(-1), slip, 0.0).tolist(),
    }
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _ahead(plan: Plan, future: int, row: int, start: Observation, agent: int, age: np.ndarray) -> Motion:
    """Return the states of an agent of a plan, [n], at moments [s] since it was made; beyond its end the last one."""
    begin = start.agent_id.tolist().index(agent)
    position = np.concatenate([start.position[begin][None], plan.position[0, future, row]])
    heading = np.append(start.heading[begin], plan.heading[0, future, row]).astype(np.float32)
    velocity = np.concatenate([start.velocity[begin][None], plan.velocity[0, future, row]]).astype(np.float32)
    whole = np.clip(np.floor(age / plan.dt + 1e-6).astype(np.int64), 0, len(position) - 2)
    first, last = (Motion(position[at], heading[at], velocity[at]) for at in (whole, whole + 1))
    return between(first, last, plan.dt, np.clip(age / plan.dt - whole, 0.0, 1.0))
