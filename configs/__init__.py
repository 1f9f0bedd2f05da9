"""Named settings: YAML that holds only what differs from the defaults of the dataclass that it configures."""

import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import yaml

from traj_diffusion.errors import BadConfig


def read_config(room: str, name: str) -> dict[str, Any]:
    """Return the settings `configs/<room>/<name>.yaml`."""
    folder = resources.files("traj_diffusion.configs") / room
    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
        raise BadConfig(f"no {room} config is called {name!r}; known: {', '.join(known)}")
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    return dict(settings or {})


def override(settings: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return the settings with `key=value` texts applied; values are read as YAML.

    >>> override({"steps": 10}, ["steps=20", "seed=1"])
    {'steps': 20, 'seed': 1}
    """
    settled = dict(settings)
    for assignment in assignments:
        key, sign, value = assignment.partition("=")
        if not sign or not key:
            raise BadConfig(f"{assignment!r} is no setting; write key=value, such as steps=2000")
        try:
            settled[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise BadConfig(f"{assignment!r}: the value is no YAML; write key=value, such as steps=2000") from error
    return settled


def checked(settings: Mapping[str, Any], types: Mapping[str, type], where: str) -> dict[str, Any]:
    """Return the settings with each value of the type that its key wants. Raises BadConfig for what does not fit.

    YAML reads 8e-4 as text; where a number is wanted, it is one.

    >>> checked({"rate": "8e-4"}, {"rate": float}, "train")
    {'rate': 0.0008}
    """
    settled = {}
    for key, value in settings.items():
        if key not in types:
            near = difflib.get_close_matches(key, types, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(types)}"
            raise BadConfig(f"{where} has no setting {key!r}{hint}")
        wanted = types[key]
        try:
            fits = wanted(value) if wanted is float and not isinstance(value, bool) else value
        except (TypeError, ValueError):
            fits = value
        if type(fits) is not wanted:
            raise BadConfig(f"{where}: {key} wants {wanted.__name__}, found {value!r}")
        settled[key] = fits
    return settled
