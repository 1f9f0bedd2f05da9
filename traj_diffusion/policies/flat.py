"""Nested dataclasses and tuples of tensors as flat lists and back, for runtimes that know arrays only.

It goes by the fields that a class has and names none of them, so a network may change what it hands on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def leaves(value: Any, name: str = "") -> list[tuple[str, Tensor]]:
    """Return the tensors of a value in order, each with the path that leads to it, such as `layers.0.relation`."""
    if isinstance(value, Tensor):
        return [(name, value)]
    parts = (
        [(field.name, getattr(value, field.name)) for field in fields(value)]
        if is_dataclass(value)
        else [(str(index), part) for index, part in enumerate(value)]
    )
    return [leaf for key, part in parts for leaf in leaves(part, f"{name}.{key}" if name else key)]


def tensors(value: Any) -> list[Tensor]:
    """Return the tensors of a value in order."""
    return [tensor for _, tensor in leaves(value)]


def rebuilt(template: Any, flat: Sequence[Tensor]) -> Any:
    """Return a value of the template's structure that holds these tensors. ValueError if they are not as many."""
    count = len(leaves(template))
    if count != len(flat):
        raise ValueError(f"{len(flat)} tensors for a {type(template).__name__} of {count}")
    return _rebuilt(template, iter(flat))


def _rebuilt(template: Any, flat: Iterator[Tensor]) -> Any:
    if isinstance(template, Tensor):
        return next(flat)
    if is_dataclass(template):
        built = {field.name: _rebuilt(getattr(template, field.name), flat) for field in fields(template)}
        kind: Any = type(template)
        return kind(**built)
    return type(template)(_rebuilt(part, flat) for part in template)
