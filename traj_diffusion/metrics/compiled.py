"""How this room compiles its loops."""

import inspect
from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Return the function as machine code, kept on disk for the next process.

    Tests wrap every function to check its shapes; numba needs the function underneath.
    """
    return cast(Function, numba.njit(cache=True, error_model="numpy")(inspect.unwrap(function)))
