"""The nouns: a `Scene` is what was recorded or simulated, as frozen dataclasses of plain numpy arrays.

Units are metres, seconds and radians, in the frame of the recording (x east, y north, z up). Headings stay as
recorded, outside [-pi, pi) too: official scores depend on them. Map coordinates reach 4e4 m, hence float64.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from traj_diffusion.errors import BadScene
from traj_diffusion.scene.csr import Csr
from traj_diffusion.scene.kinds import MapKind, Origin

Report = tuple[tuple[str, int], ...]
"""What a reader repaired or dropped: (what, how many)."""


@dataclass(frozen=True)
class Agents:
    """Everyone in the scene over all T steps. Where `valid` is False, values mean nothing but stay as recorded."""

    id: Int64[np.ndarray, " N"]
    kind: UInt8[np.ndarray, " N"]  # AgentKind
    position: Float64[np.ndarray, "N T 3"]  # box centre
    heading: Float32[np.ndarray, "N T"]
    velocity: Float32[np.ndarray, "N T 2"]
    size: Float32[np.ndarray, "N T 3"]  # length, width, height
    valid: Bool[np.ndarray, "N T"]
    to_predict: Bool[np.ndarray, " N"]
    source_id: tuple[str, ...] | None = None  # the source's own text ids, where it has them

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class Links:
    """How map features hang together, as row numbers of the map. A link to a feature outside the map is not kept."""

    successors: Csr
    predecessors: Csr
    left: Csr
    right: Csr
    controls: Csr  # stop sign -> the lanes that it stops
    origin: Origin

    @classmethod
    def none(cls, rows: int) -> "Links":
        """Return no links at all among that many features."""
        empty = Csr.empty(rows)
        return cls(empty, empty, empty, empty, empty, Origin.ABSENT)


@dataclass(frozen=True)
class Map:
    """All map features as polylines, in recorded order (ties in distances depend on it)."""

    points: Float64[np.ndarray, "P 3"]
    start: Int64[np.ndarray, " starts"]  # M + 1 of them
    kind: UInt8[np.ndarray, " M"]  # MapKind
    subtype: UInt8[np.ndarray, " M"]  # LaneType, LineType or EdgeType, by kind
    id: Int64[np.ndarray, " M"]
    speed_limit: Float32[np.ndarray, " M"]  # m/s, NaN where not recorded
    links: Links
    edge_origin: Origin = Origin.RECORDED

    def __len__(self) -> int:
        return len(self.kind)

    def polyline(self, row: int) -> Float64[np.ndarray, "p 3"]:
        """Return the points of one feature."""
        return self.points[self.start[row] : self.start[row + 1]]

    def rows(self, kind: MapKind) -> Int64[np.ndarray, " rows"]:
        """Return the row numbers of all features of a kind."""
        return np.flatnonzero(self.kind == kind)

    @classmethod
    def empty(cls) -> "Map":
        """Return a map without features."""
        flat = np.zeros(0, np.uint8)
        return cls(
            points=np.zeros((0, 3)),
            start=np.zeros(1, np.int64),
            kind=flat,
            subtype=flat,
            id=np.zeros(0, np.int64),
            speed_limit=np.zeros(0, np.float32),
            links=Links.none(0),
            edge_origin=Origin.ABSENT,
        )


@dataclass(frozen=True)
class Lights:
    """Signals, one per controlled lane, over all T steps."""

    lane_id: Int64[np.ndarray, " S"]  # the map id of the lane
    stop_point: Float64[np.ndarray, "S T 3"]
    state: UInt8[np.ndarray, "S T"]  # LightState
    observed: Bool[np.ndarray, "S T"]

    def __len__(self) -> int:
        return len(self.lane_id)

    def last_seen(self, now: int) -> tuple[Float64[np.ndarray, "S 3"], UInt8[np.ndarray, " S"], Bool[np.ndarray, " S"]]:
        """Return stop point and state of each light when last observed up to step `now`, and whether it ever was."""
        seen = self.observed[:, : now + 1]
        ever = np.any(seen, axis=1)
        last = now - np.argmax(seen[:, ::-1], axis=1)
        rows = np.arange(len(self))
        stop = np.where(ever[:, None], self.stop_point[rows, last], 0.0)
        return stop, np.where(ever, self.state[rows, last], 0).astype(np.uint8), ever

    @classmethod
    def none(cls, steps: int) -> "Lights":
        """Return no signals over that many steps."""
        return cls(
            np.zeros(0, np.int64), np.zeros((0, steps, 3)), np.zeros((0, steps), np.uint8), np.zeros((0, steps), bool)
        )


@dataclass(frozen=True)
class Routes:
    """Where each agent means to go: rows of the map's lanes, in order. Absent is a state of its own."""

    lanes: Csr
    origin: UInt8[np.ndarray, " N"]  # Origin

    @classmethod
    def absent(cls, agents: int) -> "Routes":
        """Return no route for that many agents."""
        return cls(Csr.empty(agents), np.full(agents, Origin.ABSENT, np.uint8))


@dataclass(frozen=True)
class Scene:
    """One recording: map, agents, lights and routes over time. `current_index` is the last step generation may see."""

    id: str
    source: str
    dt: float
    current_index: int
    ego: int | None  # row of the agents
    agents: Agents
    map: Map
    lights: Lights
    routes: Routes
    report: Report = field(default=())

    @classmethod
    def from_arrays(
        cls,
        position: Any,
        *,
        dt: float | int,
        heading: Any = None,
        velocity: Any = None,
        valid: Any = None,
        kind: Any = "vehicle",
        size: Any = None,
        agent_id: Any = None,
        ego: int | None = None,
        to_predict: Any = False,
        current_index: int | None = None,
        map_lines: Any = (),
        map_kinds: Any = "lane",
        map_ids: Any = None,
        speed_limits: Any = None,
        lane_links: Any = (),
        light_lanes: Any = (),
        light_stops: Any = (),
        light_states: Any = (),
        scene_id: str = "own",
        source: str = "arrays",
    ) -> "Scene":
        """Return a checked scene of one's own recording, at steps of 0.1 s, from anything that numpy reads as arrays.

        `position` [N, T, 2 or 3] are box centres, T steps of `dt` seconds (up to 1 s; others than 0.1 s are resampled,
        see `resample_scene`). What is left out is filled in and counted in the scene's report:
        `heading` [N, T] and `velocity` [N, T, 2] from the motion; `valid` [N, T]: where positions are finite;
        `kind`: vehicle, pedestrian, cyclist or other, one or [N]; `size` [3], [N, 3] or [N, T, 3]: the usual one of
        the kind; `agent_id` [N], numbers or texts: row numbers; `ego` is a row; `to_predict` [N] marks who is scored
        apart; `current_index`, a step before resampling: the one 1.0 s after the first, or the last one.

        The map is a list of polylines [P, 2 or 3], and for each the name of its kind (`MapKind`, `LaneType`,
        `LineType`, `EdgeType`; drivable ground lies to the left of a road edge), a number (row numbers), and for lanes
        a limit in m/s, NaN for unknown. `lane_links` are pairs (from, to) of those numbers. Lights have the number of
        their lane, a stop point [S, 2 or 3], and a state per step (`LightState` or its name, None: not seen).

        Raises BadScene in one line that says what was found and what would fit.
        """
        from traj_diffusion.scene import arrays, invariants, motion  # they build on this module

        where, report = f"scene {scene_id}", dict[str, int]()
        if not (np.isfinite(dt) and 0 < dt <= motion.MAX_STEP):
            raise BadScene(f"{where}: dt is {dt} s; above 0 and at most {motion.MAX_STEP:g} s would fit")
        agents = arrays.agents_from_arrays(
            where,
            float(dt),
            position=position,
            heading=heading,
            velocity=velocity,
            valid=valid,
            kind=kind,
            size=size,
            agent_id=agent_id,
            to_predict=to_predict,
            report=report,
        )
        steps = agents.valid.shape[1]
        features = arrays.map_from_lines(where, map_lines, map_kinds, map_ids, speed_limits, lane_links)
        scene = cls(
            id=scene_id,
            source=source,
            dt=float(dt),
            current_index=min(round(1.0 / dt), steps - 1) if current_index is None else current_index,
            ego=ego,
            agents=agents,
            map=features,
            lights=arrays.lights_from_arrays(where, steps, light_lanes, light_stops, light_states, features),
            routes=Routes.absent(len(agents)),
            report=tuple(report.items()),
        )
        return motion.resample_scene(invariants.check_scene(scene))

    @property
    def steps(self) -> int:
        """Number of steps T, history and future together."""
        return self.agents.valid.shape[1]

    @property
    def sim_agents(self) -> Int64[np.ndarray, " A"]:
        """Rows of the agents that are valid at the current index, in recorded order: those that are simulated."""
        return np.flatnonzero(self.agents.valid[:, self.current_index])

    def history_only(self) -> "Scene":
        """Return the scene as it was known at the current index: no later state, no later light, no later agent.

        Agents that were never valid up to now are dropped, for their mere presence tells of the future.
        """
        now = self.current_index + 1
        seen = np.any(self.agents.valid[:, :now], axis=1)
        kept = np.flatnonzero(seen)
        agents = Agents(
            id=self.agents.id[kept],
            kind=self.agents.kind[kept],
            position=self.agents.position[kept, :now],
            heading=self.agents.heading[kept, :now],
            velocity=self.agents.velocity[kept, :now],
            size=self.agents.size[kept, :now],
            valid=self.agents.valid[kept, :now],
            to_predict=self.agents.to_predict[kept],
            source_id=None if self.agents.source_id is None else tuple(self.agents.source_id[row] for row in kept),
        )
        light_seen = np.flatnonzero(np.any(self.lights.observed[:, :now], axis=1))
        lights = Lights(
            lane_id=self.lights.lane_id[light_seen],
            stop_point=self.lights.stop_point[light_seen, :now],
            state=self.lights.state[light_seen, :now],
            observed=self.lights.observed[light_seen, :now],
        )
        routes = Routes(
            lanes=Csr.from_lists([self.routes.lanes[int(row)].tolist() for row in kept]),
            origin=self.routes.origin[kept],
        )
        ego = None if self.ego is None or not seen[self.ego] else int(np.searchsorted(kept, self.ego))
        return replace(self, ego=ego, agents=agents, lights=lights, routes=routes)
