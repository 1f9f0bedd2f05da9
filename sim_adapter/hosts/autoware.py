"""autoware_carla_scenario: its NPCs and background traffic are driven by a TrafficModel.

`traffic.backend=traj_diffusion traffic.options.policy=small`, once this package is installed beside it: it is found by
the entry-point group `autoware_carla_scenario.traffic_backends`.
"""

import logging
import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from traj_diffusion.errors import MissingExtra, TrajDiffusionError
from traj_diffusion.policies import load_policy
from traj_diffusion.scene import Observation, Step
from traj_diffusion.sim_adapter.hosts.carla_view import Body, CarlaView
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

try:
    import typesafe_carla.carla as carla
    from autoware_carla_scenario.traffic.base import TrafficBackend, TrafficBackendUnavailable, TrafficContext
    from autoware_carla_scenario.traffic.registry import register_backend
except ImportError:
    raise MissingExtra("autoware-carla-scenario", "autoware") from None

NAME = "traj_diffusion"
OPTIONS: Mapping[str, Any] = {"policy": "small", "futures": 1, "replan_every": 5}
logger = logging.getLogger(__name__)


class TrajDiffusionBackend(TrafficBackend):
    """Drives the scenario's vehicles (those that the run does not keep for itself) and the background it is asked for.

    Each vehicle keeps its physics: before a tick it is put one step before where it shall be and given the velocity
    that carries it there, so that whoever reads its velocity finds it. Walkers are the scenario's. Manoeuvres
    (change_lane and the like) are not available: the base class says so in a warning.
    """

    name: ClassVar[str] = NAME
    _traffic: TrafficModel | None
    _view: CarlaView | None
    _adopted: list[Any]
    _released: list[Any]
    _skipped: set[int]
    _background: dict[str, Any]
    _moving: dict[int, Any]
    _ids: dict[int, int]
    _count: int
    _began: bool

    def __init__(self, options: Mapping[str, Any]) -> None:
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise ValueError(f"{NAME} knows no option {unknown[0]!r}; known: {', '.join(OPTIONS)}")
        self._options = {**OPTIONS, **options}
        self._seed = 0
        self._forget()

    def prepare(self, context: TrafficContext) -> None:
        """Load the policy. Raises TrafficBackendUnavailable where that cannot be."""
        self.close()
        self._seed = context.random_seed
        try:
            self._traffic = TrafficModel(
                load_policy(self._options["policy"]),
                futures=int(self._options["futures"]),
                replan_every=int(self._options["replan_every"]),
                seed=context.random_seed,
                dt=context.fixed_delta_seconds,
            )
        except (TrajDiffusionError, ValueError) as error:
            raise TrafficBackendUnavailable(f"{NAME}: {error}") from error

    def adopt(self, entity: Any) -> None:
        """Drive this vehicle from `start` on, unless it is to be left alone."""
        self._adopted.append(entity)

    def start(self, world: Any, *, skip_actor_ids: Collection[int] = ()) -> None:
        """Read the map, and drive everyone who was adopted and is not in `skip_actor_ids`."""
        self._skipped = {int(actor) for actor in skip_actor_ids}
        self._view = CarlaView(world, carla)
        self.tick(world, 0.0)

    def tick(self, world: Any, elapsed: float) -> None:
        """Show the traffic where everyone is after the world's tick, and send its vehicles on their way to the next."""
        if self._view is None or self._traffic is None:
            return
        try:
            bodies = {int(body.actor.id): body for body in self._view.bodies()}
            seen = self._observe(bodies, elapsed)
            if not self._began:
                self._traffic.reset(self._view.map, seen)
                self._began = True
            self._send(self._traffic.step(seen), bodies)
        except (TrajDiffusionError, RuntimeError) as error:
            logger.warning("%s: no traffic at %.2f s: %s", NAME, elapsed, error)

    def close(self) -> None:
        """Destroy the background, let go of everyone else, and forget the run."""
        for actor in self._background.values():
            if actor.is_alive:
                actor.destroy()
        for actor in self._moving.values():
            if actor.is_alive:
                actor.disable_constant_velocity()
        if self._traffic is not None:
            self._traffic.close()
        self._restore_parameters()
        self._forget()

    def release(self, entity: Any, world: Any) -> None:
        """Leave a vehicle to whoever takes it over."""
        self._released.append(entity)
        actor = getattr(entity, "actor", None)
        if actor is not None and self._moving.pop(int(actor.id), None) is not None:
            actor.disable_constant_velocity()

    def resume(self, entity: Any, world: Any) -> None:
        """Drive a vehicle again."""
        self._released = [one for one in self._released if one is not entity]

    def spawn_background(
        self, world: Any, transform: Any, *, speed_kmh: float, blueprint: str | None = None
    ) -> str | None:
        """Put one more vehicle on the road; how fast it drives is up to the traffic."""
        library = world.get_blueprint_library()
        made = library.find(blueprint) if blueprint else library.filter("vehicle.*")[0]
        handle = f"{NAME}:{self._count}"
        actor = world.try_spawn_actor(made, transform)
        if actor is None:
            return None
        self._count += 1
        self._background[handle] = actor
        return handle

    def background_vehicles(self, world: Any) -> dict[str, tuple[float, float]]:
        """Return where the background is, as CARLA counts."""
        places = {name: actor.get_transform().location for name, actor in self._background.items() if actor.is_alive}
        return {name: (place.x, place.y) for name, place in places.items()}

    def remove_background(self, world: Any, handle: str) -> None:
        """Take a vehicle of the background off the road."""
        actor = self._background.pop(handle, None)
        if actor is not None and actor.is_alive:
            self._moving.pop(int(actor.id), None)
            actor.destroy()

    def background_actors(self, world: Any) -> dict[str, Any]:
        """Return the background's actors."""
        return {name: actor for name, actor in self._background.items() if actor.is_alive}

    def describe(self) -> dict[str, Any]:
        """Return what drove the run."""
        return {**super().describe(), **self._options, "seed": self._seed}

    def _forget(self) -> None:
        self._traffic, self._view = None, None
        self._adopted, self._released = [], []
        self._skipped, self._background, self._moving, self._ids = set(), {}, {}, {}
        self._count, self._began = 0, False

    def _driven(self) -> set[int]:
        actors = [entity.actor for entity in self._adopted if not any(entity is one for one in self._released)]
        actors += list(self._background.values())
        return {int(actor.id) for actor in actors if actor is not None} - self._skipped

    def _observe(self, bodies: Mapping[int, Body], elapsed: float) -> Observation:
        assert self._view is not None
        driven, (lanes, stops, states) = self._driven(), self._view.signals()
        return Observation.from_arrays(
            elapsed,
            agent_id=[self._ids.setdefault(name, len(self._ids) + 1) for name in bodies],
            kind=[body.kind for body in bodies.values()],
            position=[body.centre for body in bodies.values()],
            heading=[body.heading for body in bodies.values()],
            velocity=[body.velocity for body in bodies.values()],
            size=[body.size for body in bodies.values()],
            is_controlled=[name in driven for name in bodies],
            light_lane=lanes,
            light_stop=stops,
            light_state=states,
        )

    def _send(self, step: Step, bodies: Mapping[int, Body]) -> None:
        assert self._view is not None
        assert self._traffic is not None
        actor_of = {number: bodies[name] for name, number in self._ids.items() if name in bodies}
        rows = zip(step.agent_id.tolist(), step.position.tolist(), step.heading.tolist(), step.velocity, strict=True)
        for agent, place, heading, velocity in rows:
            body, dt = actor_of[agent], self._traffic.dt
            # CARLA carries it along its own axis: a velocity aside is left out, and the next tick puts that right.
            speed = float(velocity[0] * math.cos(heading) + velocity[1] * math.sin(heading))
            x, y = place[0] - speed * dt * math.cos(heading), place[1] - speed * dt * math.sin(heading)
            body.actor.set_transform(self._view.transform(body, x, y, heading))
            body.actor.enable_constant_velocity(carla.Vector3D(x=speed, y=0.0, z=0.0))
            self._moving[int(body.actor.id)] = body.actor


def register() -> None:
    """Make the backend known by its name; autoware_carla_scenario calls this."""
    register_backend(NAME, TrajDiffusionBackend)
