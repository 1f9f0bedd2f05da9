"""How the kernels are compiled."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function compiled by numba, without its lock, from the cache on disk where one can be kept.

    Numba keeps compiled code beside each file and looks only at that file's own date: after a change to a kernel that
    another file calls, delete `__pycache__`.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True)(function)
