"""Parts of a work shared out over processes of this machine, or over many machines by Ray."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from traj_diffusion.errors import BadInput, HostError, MissingExtra

Part = TypeVar("Part")
Result = TypeVar("Result")
ATTEMPTS = 3  # at a part after a worker died


def over_parts(
    job: Callable[[Part], Result], parts: Sequence[Part], workers: int = 1, ray: str | None = None
) -> Iterator[Result]:
    """Yield what `job` makes of each part, as they get ready.

    `workers` processes do it, one of them in this process; or the machines of the Ray cluster at the address `ray`.
    Raises HostError if workers keep dying.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1: {workers}")
    if ray is not None:
        yield from _over_machines(job, parts, ray)
    elif workers == 1 or len(parts) < 2:
        yield from map(job, parts)
    else:
        yield from _over_processes(job, parts, workers)


def _over_processes(job: Callable[[Part], Result], parts: Sequence[Part], workers: int) -> Iterator[Result]:
    left = dict(enumerate(parts))
    context = multiprocessing.get_context("spawn")
    for attempt in range(ATTEMPTS):
        pool = ProcessPoolExecutor(min(workers, len(left)), context, initializer=_end_with_parent)
        try:
            waiting = {pool.submit(job, part): number for number, part in left.items()}
            for done in as_completed(waiting):
                result = done.result()
                del left[waiting[done]]
                yield result
            return
        except BrokenProcessPool:
            if attempt + 1 == ATTEMPTS:
                raise HostError(
                    f"a worker died {ATTEMPTS} times, with {len(left)} of {len(parts)} parts to do (memory ran out, "
                    "say); what was finished is kept, and fewer workers need less memory"
                ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process when its parent dies: a killed parent says nothing, and its workers would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _over_machines(job: Callable[[Part], Result], parts: Sequence[Part], address: str) -> Iterator[Result]:
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "ray") from None
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    except Exception as error:  # Ray raises that very class where a cluster does not answer in time
        raise BadInput(f"no Ray cluster answers at {address!r}: {error}") from error
    try:
        remote = ray.remote(max_retries=ATTEMPTS)(job)
        most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: list[Any] = []
        for part in parts:
            if len(waiting) >= most:
                done, waiting = ray.wait(waiting)
                yield from ray.get(done)
            waiting.append(remote.remote(part))
        while waiting:
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    finally:
        ray.shutdown()
