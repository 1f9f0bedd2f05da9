"""CommonRoad scenarios (XML 2018b and 2020a): lanelets, obstacles, traffic lights, planning problems.

Format: commonroad.in.tum.de. Any time step is resampled to 0.1 s. The current step is that of the planning problem's
initial state, mostly 0, and the ego is there at that step only, for what it does next is what is to be planned; its
route leads to the goal. Scenarios without a planning problem are cut into windows. Lost: signals of vehicles,
accelerations, predictions as areas, all of the goal but the lanes that lead to it, signs other than speed and stop.
"""

from collections.abc import Iterator
from dataclasses import replace
from heapq import heappop, heappush
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import shapely

from traj_diffusion.datasets.readers.assemble import Report, add, check_size, numbers, windows
from traj_diffusion.datasets.readers.commonroad_agents import Track, read_states, read_tracks, shape_corners
from traj_diffusion.datasets.readers.commonroad_lights import read_lights
from traj_diffusion.datasets.readers.commonroad_map import Lanelet, build_map, lane_rows, read_lanelets
from traj_diffusion.datasets.readers.steps import DT, resample_track
from traj_diffusion.datasets.readers.xml_tree import attribute, number, read_tree, root_of, said
from traj_diffusion.errors import BadFile, BadRecord, BadScene
from traj_diffusion.geometry import arc_length, wrap_angle
from traj_diffusion.scene import Agents, Csr, Map, Origin, Routes, Scene, check_scene

NAME = "CommonRoad XML"
PATTERNS = ("*_T-[0-9]*.xml", "*_S-[0-9]*.xml")
VERSIONS = ("2018b", "2020a")
LANE_CHANGE = 20.0  # m of detour that are worth one change of lanes less


def sniff(head: bytes, path: Path) -> bool:
    """Return whether a file is XML whose root is <commonRoad>."""
    return root_of(head) == "commonRoad"


def read(path: Path) -> Iterator[Scene]:
    """Yield the scenario, or its windows where it has no planning problem. Raises BadFile, BadRecord."""
    root = read_tree(Path(path), "commonRoad")
    try:
        scene = _scene(root, Path(path).name.removesuffix(".gz").removesuffix(".xml"))
        for part in [scene] if scene.ego is not None else windows(scene):
            yield check_scene(part)
    except (BadScene, LookupError, ValueError, OverflowError, shapely.errors.ShapelyError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadRecord(f"{path}, record 0: {said(error)}") from error


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # absurd values are `check_scene`'s to name
def _scene(root: Element, name: str) -> Scene:
    version = root.get("commonRoadVersion", "none")
    if version not in VERSIONS:
        raise ValueError(f"version {version[:40]!r}; {' and '.join(VERSIONS)} are read")
    dt = number(root, "timeStepSize")
    if not 1e-3 <= dt <= 2.0:
        raise ValueError(f"a time step of {dt:g} s; 0.001 to 2 s are read")
    report: Report = {}
    lanelets = read_lanelets(root, report)
    map_, rows = build_map(lanelets, root, report), lane_rows(lanelets)
    problems = root.findall("planningProblem")
    egos = [_ego(problem, dt, report) for problem in problems]
    tracks = [*egos, *read_tracks(root, dt, report)]
    last = max((float(track.time[-1]) for track in tracks if not track.static), default=0.0)
    if min((float(track.time[0]) for track in tracks), default=0.0) < 0:
        raise ValueError("a state lies before time step 0")
    check_size(len(tracks), int(last / DT) + 1)
    at = np.round(np.arange(int(last / DT + 1e-6) + 1) * DT, 6)
    agents = _agents(tracks, at, dt, report)
    return Scene(
        id=name,
        source="commonroad",
        dt=DT,
        current_index=round(float(egos[0].time[0]) / DT) if egos else 0,
        ego=0 if egos else None,
        agents=agents,
        map=map_,
        lights=read_lights(root, lanelets, map_, rows, at, dt, report),
        routes=_routes(problems, egos, lanelets, rows, map_, len(tracks)),
        report=tuple(report.items()),
    )


def _ego(problem: Element, dt: float, report: Report) -> Track:
    first = problem.find("initialState")
    if first is None:
        raise ValueError(f"planning problem {problem.get('id', '')[:40]!r} has no initial state")
    add(report, "egos of planning problems, whose size is that of CommonRoad's usual vehicle")
    track = read_states(attribute(problem, "id"), [first], dt, report)
    return replace(track, time=np.round(track.time / DT) * DT)  # there at a step, for it is there at one only


def _agents(tracks: list[Track], at: np.ndarray, dt: float, report: Report) -> Agents:
    count, steps = len(tracks), len(at)
    valid = np.zeros((count, steps), bool)
    position, heading = np.zeros((count, steps, 3)), np.zeros((count, steps))
    speed = np.zeros((count, steps))
    for row, track in enumerate(tracks):
        values = np.column_stack([track.centre, track.speed])
        if track.static:
            valid[row], position[row], heading[row] = True, track.centre[0], track.heading[0]
            continue
        found = resample_track(track.time, values, track.heading, at, 1.5 * max(dt, DT))
        valid[row], position[row], heading[row] = found.valid, found.values[:, :3], found.heading
        speed[row] = found.values[:, 3]
        add(report, "states between recorded ones, interpolated", found.between)
    size = np.array([track.size for track in tracks]).reshape(count, 1, 3)
    size = np.where(valid[..., None], size, 0.0)
    position[..., 2] += size[..., 2] / 2  # roads lie at z, boxes stand on them
    names = [track.id for track in tracks]
    return Agents(
        id=numbers(names),
        kind=np.array([int(track.kind) for track in tracks], np.uint8),
        position=position,
        heading=heading.astype(np.float32),
        velocity=(speed[..., None] * np.stack([np.cos(heading), np.sin(heading)], -1)).astype(np.float32),
        size=size.astype(np.float32),
        valid=valid,
        to_predict=np.zeros(count, bool),
        source_id=tuple(names),
    )


def _routes(
    problems: list[Element],
    egos: list[Track],
    lanelets: dict[str, Lanelet],
    rows: dict[str, int],
    map_: Map,
    count: int,
) -> Routes:
    """Return the ways from initial states to goals; absent where no lanes are named or none leads there."""
    grounds = {name: lanelets[name].ground() for name in rows} if problems else {}
    routes: list[list[int]] = [[] for _ in range(count)]
    for row, (problem, ego) in enumerate(zip(problems, egos, strict=True)):
        here = shapely.Point(ego.centre[0, :2])
        start = [name for name in rows if shapely.covers(grounds[name], here)]
        goals = _goals(problem, grounds)
        # Where lanelets cross, the one along the ego's heading comes first.
        for name in sorted(start, key=lambda name: _aside(lanelets[name], ego)):
            routes[row] = routes[row] or [rows[lane] for lane in _way(name, goals, lanelets, rows)]
    origin = [Origin.DERIVED if route else Origin.ABSENT for route in routes]
    return Routes(Csr.from_lists(routes), np.array(origin, np.uint8))


def _aside(lanelet: Lanelet, ego: Track) -> float:
    """Return by how much a lanelet's direction where the ego is differs from the ego's [rad]."""
    away = np.linalg.norm(lanelet.centre[:, :2] - ego.centre[0, :2], axis=1)
    at = min(int(away.argmin()), len(lanelet.centre) - 2)
    dx, dy = (lanelet.centre[at + 1] - lanelet.centre[at])[:2]
    return abs(float(wrap_angle(np.arctan2(dy, dx) - ego.heading[0])))


def _goals(problem: Element, grounds: dict[str, shapely.Geometry]) -> set[str]:
    goals: set[str] = set()
    for position in problem.iterfind("goalState/position"):
        goals |= {child.get("ref", "") for child in position.iterfind("lanelet")}
        for shape in position:
            if shape.tag in ("rectangle", "circle", "polygon"):
                area = shapely.make_valid(shapely.Polygon(shape_corners(shape)))
                goals |= {name for name, ground in grounds.items() if shapely.intersects(ground, area)}
    return goals & set(grounds)


def _way(start: str, goals: set[str], lanelets: dict[str, Lanelet], rows: dict[str, int]) -> list[str]:
    """Return the shortest way over successors and changes of lanes from the start to a goal, or nothing."""
    queue: list[tuple[float, str, tuple[str, ...]]] = [(0.0, start, (start,))]
    seen: set[str] = set()
    while queue and goals:
        cost, name, way = heappop(queue)
        if name in goals:
            return list(way)
        if name in seen:
            continue
        seen.add(name)
        lanelet = lanelets[name]
        steps = [(other, float(arc_length(lanelet.centre)[-1])) for other in lanelet.successors]
        steps += [(other, LANE_CHANGE) for other, same in lanelet.beside.values() if same]
        for other, length in steps:
            if other in rows and other not in seen:
                heappush(queue, (cost + length, other, (*way, other)))
    return []
