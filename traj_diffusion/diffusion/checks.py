"""What the functions of this room refuse, in words that say what would fit."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor

T = TypeVar("T")


MAX_STEPS = 10**6  # of a table or a grid


def tensor(value: object, name: str) -> Tensor:
    """Return the value, or raise ValueError where it is no tensor of real numbers."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        found = f"dtype {value.dtype}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
        raise ValueError(f"{name} has {found}: a torch tensor of real numbers is wanted")
    return value


def whole(value: object, name: str, low: int, high: int = MAX_STEPS) -> int:
    """Return the value, or raise ValueError unless it is an integer from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is a whole number from {low} to {high}, got {value!r}")
    return value


def number(value: object, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return the value, or raise ValueError unless it is a finite number from `low` to `high`."""
    if not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        span = "" if math.isinf(low) else f" of at least {low:g}" if math.isinf(high) else f" in [{low:g}, {high:g}]"
        raise ValueError(f"{name} is a finite number{span}, got {value!r}")
    return value


def align(level: Shaped[Tensor, "..."], x: Shaped[Tensor, "..."], name: str = "t") -> Shaped[Tensor, "..."]:
    """Return `level` with axes of size 1 appended, so that it multiplies `x`.

    The shape of `level` must be that of the leading axes of `x`, where 1 stands for any size. torch would line up
    the *trailing* axes instead, and a level [B] would silently fall on the wrong axis of an x [B, B, D].
    """
    if not isinstance(level, Tensor):
        raise ValueError(f"{name} has type {type(level).__name__}: a torch tensor is wanted, such as torch.tensor(0.5)")
    fits = level.ndim <= x.ndim and all(a in (1, b) for a, b in zip(level.shape, x.shape, strict=False))
    if not fits:
        raise ValueError(
            f"{name} has shape {list(level.shape)}, x has shape {list(x.shape)}: the shape of {name} must equal the "
            f"leading axes of x, {list(x.shape[: level.ndim])} here, with 1 allowed for any of them"
        )
    return level.reshape(*level.shape, *[1] * (x.ndim - level.ndim))


def same_shape(value: Shaped[Tensor, "..."], x: Shaped[Tensor, "..."], name: str, other: str) -> None:
    """Raise ValueError unless both have one shape; broadcasting one into the other hides a mistake."""
    if value.shape != x.shape:
        raise ValueError(
            f"{name} has shape {list(value.shape)}, {other} has shape {list(x.shape)}: both need the same shape"
        )


def all_finite(value: Shaped[Tensor, "..."], name: str) -> None:
    """Raise ValueError where a value is NaN or infinite, with the place of the first one."""
    bad = ~torch.isfinite(value)
    if bad.any():
        where = bad.nonzero()[0].tolist()
        raise ValueError(f"{name} holds {int(bad.sum())} values that are NaN or infinite, the first at index {where}")


def known(name: str, names: Iterable[str], what: str) -> str:
    """Return the name, or raise ValueError with the nearest known one."""
    names = list(names)
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {what} {name!r}; {hint}Known: {', '.join(names)}")
    return name


def make(name: str, makers: Mapping[str, Callable[..., T]], what: str, options: Mapping[str, Any]) -> T:
    """Return what the maker of that name makes; ValueError for an unknown name or option."""
    maker = makers[known(name, makers, what)]
    try:
        return maker(**options)
    except TypeError as error:
        raise ValueError(f"{what} {name!r}: {str(error).splitlines()[0]}") from error
