"""Scenes shared out over processes. Results come in the order of the scenes, whatever the number of workers."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import torch

from traj_diffusion.errors import BadRecord, BadScene, TrajDiffusionError
from traj_diffusion.scene import Scene

Shared = TypeVar("Shared")
Result = TypeVar("Result")
# What is done with a scene; of module level, so that it can be sent to a process.
Job = Callable[[Shared, Scene], Result]
_shared: Any = None


def over_scenes(
    scenes: Iterable[tuple[Path, Scene]], shared: Shared, job: Job[Shared, Result], workers: int | None = None
) -> Iterator[tuple[Scene, Result]]:
    """Yield each scene with what `job` makes of it, in order; `workers` None takes a process per core.

    A single scene, or one worker, needs no process. Otherwise each process has a copy of `shared` (a policy, say) and
    one thread of torch. Raises BadRecord naming the file of a scene that cannot be simulated.
    """
    count = workers or os.cpu_count() or 1
    several, everything = (False, iter(scenes)) if count == 1 else _several(iter(scenes))
    if not several:
        for file, scene in everything:
            with naming(file):
                yield scene, job(shared, scene)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(shared,))
    try:
        waiting: deque[tuple[Path, Scene, Future[Result]]] = deque()
        unreadable: TrajDiffusionError | None = None
        while unreadable is None:
            try:
                file, scene = next(everything)
            except StopIteration:
                break
            except TrajDiffusionError as error:
                unreadable = error
            else:
                waiting.append((file, scene, pool.submit(_work, job, scene)))
                if len(waiting) > 2 * count:
                    yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
        if unreadable is not None:  # what could be read before it is whole by now
            raise unreadable
    finally:
        pool.shutdown(cancel_futures=True)


def _several(scenes: Iterator[tuple[Path, Scene]]) -> tuple[bool, Iterator[tuple[Path, Scene]]]:
    """Return whether there is more than one scene, and all of them; an error on the way keeps its place."""
    first: list[tuple[Path, Scene]] = []

    def failing(error: TrajDiffusionError) -> Iterator[tuple[Path, Scene]]:
        raise error
        yield

    try:
        first += islice(scenes, 1)
        first += islice(scenes, 1)
    except TrajDiffusionError as error:
        scenes = failing(error)
    return len(first) == 2, chain(first, scenes)


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Name the file in the error of a scene that cannot be simulated; its message names the scene."""
    try:
        yield
    except BadScene as error:
        raise BadRecord(f"{file}: {error}") from error


def _finished(file: Path, scene: Scene, future: "Future[Result]") -> tuple[Scene, Result]:
    with naming(file):
        return scene, future.result()


def _begin(shared: Any) -> None:
    global _shared
    _shared = shared
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """Leave when the parent is gone: a worker holds both ends of its queue, and would wait for ever after a kill."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _work(job: Callable[[Any, Scene], Any], scene: Scene) -> Any:
    return job(_shared, scene)
