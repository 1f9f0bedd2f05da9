"""A gRPC service on AlpaSim's wire (`TrafficService`), for hosts in other languages and processes.

What is wrong with a request is INVALID_ARGUMENT, an unknown scene or session NOT_FOUND; more sessions or calls than
were allowed, and messages that are too large, are RESOURCE_EXHAUSTED; a model that fails is FAILED_PRECONDITION, never
a made up answer. A call stops at its deadline between two ticks, and the next one goes on from there. A session whose
client has been silent for `idle_seconds` is closed.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import numpy as np

from traj_diffusion import __version__
from traj_diffusion.errors import BadInput, MissingExtra
from traj_diffusion.scene import Policy, Scene
from traj_diffusion.sim_adapter.history import GRID
from traj_diffusion.sim_adapter.hosts.alpasim_messages import METHODS, SERVICE, message
from traj_diffusion.sim_adapter.hosts.alpasim_session import Session

try:
    import grpc
except ImportError:
    raise MissingExtra("grpcio", "serve") from None

MAX_MESSAGE_BYTES = 64 * 2**20


class TrafficService:
    """AlpaSim's five calls. `scenes` holds the maps by scene id; `without_maps` serves any other scene without one."""

    def __init__(
        self,
        policy: Policy,
        scenes: Mapping[str, Scene],
        *,
        futures: int = 1,
        without_maps: bool = False,
        max_sessions: int = 16,
        idle_seconds: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy, self._scenes, self._futures = policy, scenes, futures
        self._without_maps, self._max_sessions, self._idle = without_maps, max_sessions, idle_seconds
        self._clock = clock
        self._sessions: dict[str, tuple[Session, threading.Lock]] = {}
        self._heard: dict[str, float] = {}
        self._registry = threading.Lock()

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._sessions)

    def start_session(self, request: Any, context: Any) -> Any:
        """Open a session."""
        name = request.session_uuid
        scene = self._scenes.get(request.scene_id)
        if not name or not request.scene_id:
            _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "session_uuid and scene_id are needed")
        if scene is None and not self._without_maps:
            _refuse(context, grpc.StatusCode.NOT_FOUND, f"scene {request.scene_id!r} is not served here")
        self.sweep()
        try:
            session = Session(request, scene, self._policy, self._futures)
        except BadInput as error:
            _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        with self._registry:
            if name in self._sessions:
                _refuse(context, grpc.StatusCode.ALREADY_EXISTS, f"session {name!r} is open")
            if len(self._sessions) >= self._max_sessions:
                _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._max_sessions} sessions are open, no more")
            self._sessions[name] = session, threading.Lock()
            self._heard[name] = self._clock()
        return message("common.SessionRequestStatus")()

    def close_session(self, request: Any, context: Any) -> Any:
        """Close a session."""
        if not self._close(request.session_uuid):
            _refuse(context, grpc.StatusCode.NOT_FOUND, f"there is no session {request.session_uuid!r}")
        return message("common.Empty")()

    def simulate(self, request: Any, context: Any) -> Any:
        """Return everyone at the time that is asked for, and where the driven ones are about to go."""
        name = request.session_uuid
        found = self._sessions.get(name)
        if found is None:
            _refuse(context, grpc.StatusCode.NOT_FOUND, f"there is no session {name!r}")
        session, lock = found
        if not lock.acquire(blocking=False):
            _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"session {name!r} is at work on another call")
        try:
            self._heard[name] = self._clock()
            return self._simulate(session, request, context)
        finally:
            self._heard[name] = self._clock()
            lock.release()

    def get_metadata(self, request: Any, context: Any) -> Any:
        """Return version and needed history."""
        found = message("traffic.TrafficModuleMetadata")()
        found.version_id.version_id = f"traj-diffusion {__version__} {self._policy.name}"
        found.minimum_history_length_us = round((self._policy.history_steps - 1) * GRID * 1e6)
        return found

    def get_available_scenes(self, request: Any, context: Any) -> Any:
        """Return the ids of scenes whose maps are served."""
        return message("common.AvailableScenesReturn")(scene_ids=sorted(self._scenes))

    def sweep(self) -> None:
        """Close the sessions of clients that have been silent for too long."""
        late = self._clock() - self._idle
        for name in [name for name, heard in list(self._heard.items()) if heard < late]:
            self._close(name)

    def _close(self, name: str) -> bool:
        with self._registry:
            found = self._sessions.pop(name, None)
            self._heard.pop(name, None)
        if found is None:
            return False
        with found[1]:
            found[0].traffic.close()
        return True

    def _simulate(self, session: Session, request: Any, context: Any) -> Any:
        query = request.time_query_us / 1e6
        try:
            session.merge(request.object_trajectory_updates)
            for _ in range(session.ticks_until(query)):
                if not context.is_active():
                    _refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, "the caller is gone; ask again to go on")
                seen = session.observe()
                try:
                    session.tick(seen)
                except Exception as error:  # whatever fails in a model is its caller's to know, not to guess
                    _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, f"the model failed: {_one_line(error)}")
            poses = session.poses(query)
        except BadInput as error:
            _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        answer = message("traffic.TrafficReturn")()
        for name, known in poses.items():
            update = answer.object_trajectory_updates.add(object_id=name)
            for index, (at, place, heading) in enumerate(known):
                stamp = request.time_query_us if index == 0 else round(at * 1e6)
                pose = update.trajectory.poses.add(timestamp_us=stamp).pose
                pose.vec.x, pose.vec.y, pose.vec.z = (float(value) for value in place)
                pose.quat.w, pose.quat.z = float(np.cos(heading / 2)), float(np.sin(heading / 2))
        return answer


def _refuse(context: Any, code: Any, why: str) -> NoReturn:
    context.abort(code, why)
    raise AssertionError("grpc's abort raises")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


class Server:
    """A running service; `port` is the one that it got. Closing it gives calls under way a second to end."""

    def __init__(self, service: TrafficService, host: str = "127.0.0.1", port: int = 0, workers: int = 4) -> None:
        self._service = service
        options = (
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
        )
        pool = ThreadPoolExecutor(workers)
        self._server = grpc.server(pool, options=options, maximum_concurrent_rpcs=2 * workers)
        handlers = {
            method: grpc.unary_unary_rpc_method_handler(
                getattr(service, method),
                request_deserializer=message(asked).FromString,
                response_serializer=message(answered).SerializeToString,
            )
            for method, (asked, answered) in METHODS.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise BadInput(f"{host}:{port} cannot be served: {_one_line(error)}") from None
        self._over = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, daemon=True)
        self._server.start()
        self._sweeper.start()

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        self._server.wait_for_termination()

    def close(self) -> None:
        """End."""
        self._over.set()
        self._server.stop(1.0).wait()
        self._sweeper.join()

    def _sweep(self) -> None:
        while not self._over.wait(1.0):
            self._service.sweep()
