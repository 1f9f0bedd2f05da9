"""How this room compiles its loops."""

import inspect
from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Return the function as machine code that lets go of the interpreter's lock, kept on disk for the next process.

    Tests wrap every function to check its shapes; numba needs the function underneath. Numba looks only at the date of
    the function's own file: after a change to a function that another file's calls, delete `__pycache__`.
    """
    plain = inspect.unwrap(function)
    try:
        return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(plain))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cast(Function, numba.njit(nogil=True, error_model="numpy")(plain))
