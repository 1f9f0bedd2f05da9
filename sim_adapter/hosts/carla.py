"""CARLA: chosen vehicles and walkers of a synchronous world are driven by a TrafficModel."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from traj_diffusion.errors import HostError, MissingExtra, TrajDiffusionError
from traj_diffusion.scene import Observation, Step
from traj_diffusion.sim_adapter.hosts.carla_view import Body, CarlaView
from traj_diffusion.sim_adapter.traffic_model import TrafficModel

try:
    import carla
except ImportError:
    raise MissingExtra("carla", "carla") from None

ABOVE = 0.3  # m over the road at which an actor is spawned, so that it touches nothing


class CarlaTraffic:
    """Drives chosen vehicles and walkers of a synchronous CARLA world; one `step` ticks the world once.

    ```
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.1
    with CarlaTraffic(TrafficModel(policy), client, actors=lambda actor: actor.id != ego.id) as traffic:
        while running:
            step = traffic.step()
    ```

    `actors` are ids to take over, or a function that says of each vehicle and walker whether to; one is taken when it
    appears, until it is destroyed or released. Everyone else stays CARLA's and is context. Whoever is driven has its
    physics switched off and is put at its place before each tick; its target velocity is set too, for sensors and
    scripts that read it. Nobody else may drive it: no autopilot, no controller of a walker. It keeps its height over
    the road below. Signals reach the model as conditioning on the lanes that they control. A move that CARLA refuses
    is a warning in the step. Closing gives everyone back, destroys who was spawned here and closes the traffic model,
    but leaves world and settings.
    """

    def __init__(self, traffic: TrafficModel, client: Any, actors: Callable[[Any], bool] | Iterable[int]) -> None:
        self._client, self.traffic = client, traffic
        wanted = actors if callable(actors) else frozenset(int(actor) for actor in actors)
        self._wanted: Callable[[Any], bool] = wanted if callable(wanted) else lambda actor: int(actor.id) in wanted
        with _carla():
            self._world = client.get_world()
            self._refuse_settings()
            self.view = CarlaView(self._world, carla)
        self._ids: dict[int, int] = {}  # actor -> ours: in order of appearance, for CARLA's differ from run to run
        self._seen: dict[int, Body] = {}
        self._pace: dict[int, tuple[float, float]] = {}  # who is driven: CARLA may report none without physics
        self._given_back: set[int] = set()
        self._spawned: set[int] = set()
        self._began = False

    @property
    def driven(self) -> frozenset[int]:
        """Ids of the actors that are driven now."""
        return frozenset(self._pace)

    def step(self) -> Step:
        """Show the model what is there, place its agents where it says, and tick the world.

        Raises HostError if CARLA stops answering or the model refuses what it shows.
        """
        observation = self.observe()
        if not self._began:
            self.traffic.reset(self.view.map, observation)
            self._began = True
        step = self.traffic.step(observation)
        with _carla():
            refused = self._place(step)
            self._world.tick()
        return replace(step, warnings=(*step.warnings, *refused))

    def observe(self) -> Observation:
        """Return everyone in the world in our terms. Takes over those that are wanted and new."""
        with _carla():
            bodies = {int(body.actor.id): body for body in self.view.bodies()}
            self._take(bodies)
            lanes, stops, states = self.view.signals()
            time = float(self._world.get_snapshot().timestamp.elapsed_seconds)
        for name in self._pace.keys() - bodies.keys():
            self._forget(name)
        self._given_back &= bodies.keys()
        self._seen = {self._ids.setdefault(name, len(self._ids) + 1): body for name, body in bodies.items()}
        return Observation.from_arrays(
            time,
            agent_id=list(self._seen),
            kind=[body.kind for body in bodies.values()],
            position=[body.centre for body in bodies.values()],
            heading=[body.heading for body in bodies.values()],
            velocity=[self._pace.get(name, body.velocity) for name, body in bodies.items()],
            size=[body.size for body in bodies.values()],
            is_controlled=[name in self._pace for name in bodies],
            light_lane=lanes,
            light_stop=stops,
            light_state=states,
        )

    def spawn(self, blueprint: Any, x: float, y: float, heading: float) -> Any:
        """Return a new actor with its origin at x, y of our frame, on the road. HostError if there is no room."""
        with _carla():
            place = self.view.location(x, y, 0.0, heading, carla.Location())
            place.z = self.view.road(place.x, place.y, 0.0) + ABOVE
            turned = carla.Rotation(yaw=-math.degrees(heading))
            actor = self._world.try_spawn_actor(blueprint, carla.Transform(place, turned))
        if actor is None:
            raise HostError(f"CARLA has no room for {blueprint.id} at x {x:.1f}, y {y:.1f}")
        self._spawned.add(int(actor.id))
        return actor

    def destroy(self, actor: int) -> None:
        """Take an actor out of the world."""
        self._send([carla.command.DestroyActor(actor)])
        self._spawned.discard(actor)
        self._forget(actor)

    def release(self, actor: int) -> None:
        """Give an actor back to CARLA's physics, for good, at the velocity that it has; who drives it is up to you."""
        if actor not in self._pace:
            raise ValueError(
                f"actor {actor} is not driven, so it cannot be released; driven: {sorted(self._pace)[:10]}"
            )
        pace = self.view.vector(self._pace[actor])
        self._forget(actor)
        self._given_back.add(actor)
        self._send([carla.command.SetSimulatePhysics(actor, True), carla.command.ApplyTargetVelocity(actor, pace)])

    def close(self) -> None:
        """Give everyone back, destroy who was spawned here, and close the traffic model. CARLA goes on."""
        try:
            for actor in sorted(self._pace):
                self.release(actor)
            if self._spawned:
                self._send([carla.command.DestroyActor(actor) for actor in sorted(self._spawned)])
        except HostError:
            pass  # CARLA has ended, and with it all that there was to give back
        finally:
            self._pace, self._spawned = {}, set()
            self.traffic.close()

    def __enter__(self) -> "CarlaTraffic":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _refuse_settings(self) -> None:
        settings = self._world.get_settings()
        if not settings.synchronous_mode:
            raise HostError("CARLA does not wait for its ticks; set synchronous_mode and fixed_delta_seconds first")
        step = settings.fixed_delta_seconds
        if step is None or abs(step - self.traffic.dt) > 1e-6:
            raise HostError(f"CARLA steps by {step} s and the traffic model by {self.traffic.dt} s; they must be equal")

    def _take(self, bodies: dict[int, Body]) -> None:
        commands = []
        for name, body in bodies.items():
            if name in self._pace or name in self._given_back or not self._wanted(body.actor):
                continue
            commands.append(carla.command.SetSimulatePhysics(name, False))
            self._pace[name] = body.velocity
        if commands:
            self._client.apply_batch_sync(commands, False)

    def _place(self, step: Step) -> list[str]:
        """Put the driven actors at their places in one batch; return what CARLA says of those that it refuses."""
        commands, names = [], []
        rows = zip(step.agent_id.tolist(), step.position.tolist(), step.heading.tolist(), step.velocity, strict=True)
        for agent, place, heading, velocity in rows:
            body = self._seen[agent]
            name = int(body.actor.id)
            transform = self.view.transform(body, place[0], place[1], heading)
            commands += [
                carla.command.ApplyTransform(name, transform),
                carla.command.ApplyTargetVelocity(name, self.view.vector(velocity.tolist())),
            ]
            names += [name, name]
            self._pace[name] = float(velocity[0]), float(velocity[1])
        refused = {}
        for name, answer in zip(names, self._client.apply_batch_sync(commands, False), strict=True):
            if answer.has_error():
                refused[name] = answer.error
                self._pace[name] = next(b.velocity for b in self._seen.values() if int(b.actor.id) == name)
        return [f"CARLA refused to move actor {name}: {error}" for name, error in refused.items()]

    def _send(self, commands: list[Any]) -> None:
        with _carla():
            self._client.apply_batch_sync(commands, False)

    def _forget(self, actor: int) -> None:
        self._pace.pop(actor, None)


@contextmanager
def _carla() -> Iterator[None]:
    """Turn what CARLA's client raises (RuntimeError: time-outs, actors that are gone) into HostError."""
    try:
        yield
    except TrajDiffusionError:
        raise
    except RuntimeError as error:
        raise HostError(f"CARLA refused or stopped: {' '.join(str(error).split())}") from error
