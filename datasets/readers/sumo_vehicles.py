"""What SUMO's vehicles are: kinds and sizes by class, and the vehicle types of route files."""

import math
import re
from collections.abc import Iterable
from pathlib import Path

from traj_diffusion.datasets.readers.xml_tree import read_stream
from traj_diffusion.scene import AgentKind

Size = tuple[float, float, float]
MAX_BYTES = 256 * 2**20  # of one route file
MAX_TYPES = 100_000
_CAR: Size = (5.0, 1.8, 1.5)
# SUMO's default length, width, height [m] of a class (1.28, as `vehicletype.getLength` and its like return them).
_SIZES: dict[str, Size] = {
    **dict.fromkeys(("passenger", "private", "authority", "army", "vip", "hov", "taxi", "evehicle"), _CAR),
    "emergency": (6.5, 2.16, 2.86),
    "bus": (12.0, 2.5, 3.4),
    "coach": (14.0, 2.6, 4.0),
    "delivery": (6.5, 2.16, 2.86),
    "truck": (7.1, 2.4, 2.4),
    "trailer": (16.5, 2.55, 4.0),
    "motorcycle": (2.2, 0.9, 1.5),
    "moped": (2.1, 0.78, 1.7),
    "bicycle": (1.6, 0.65, 1.7),
    "scooter": (1.2, 0.5, 1.7),
    "pedestrian": (0.215, 0.478, 1.719),
    "wheelchair": (1.2, 0.72, 1.2),
    "tram": (22.0, 2.4, 3.2),
    "rail_urban": (109.5, 3.0, 3.6),
    "rail": (135.0, 2.84, 3.75),
    "ship": (17.0, 4.0, 4.0),
    "container": (6.096, 2.438, 2.591),
    "drone": (0.5, 0.5, 1.5),
}
_KINDS = {
    "bicycle": AgentKind.CYCLIST,
    "scooter": AgentKind.CYCLIST,
    "pedestrian": AgentKind.PEDESTRIAN,
    "wheelchair": AgentKind.PEDESTRIAN,
    "ship": AgentKind.OTHER,
    "container": AgentKind.OTHER,
    "drone": AgentKind.OTHER,
}
_DEFAULT_TYPES = {
    "DEFAULT_VEHTYPE": "passenger",
    "DEFAULT_TAXITYPE": "taxi",
    "DEFAULT_BIKETYPE": "bicycle",
    "DEFAULT_PEDTYPE": "pedestrian",
    "DEFAULT_RAILTYPE": "rail",
    "DEFAULT_CONTAINERTYPE": "container",
}
_OF_ELEMENT = {"vehicle": "passenger", "person": "pedestrian", "container": "container"}


class VehicleTypes:
    """Vehicle types by id, as route files state them."""

    def __init__(self, files: Iterable[Path] = ()) -> None:
        """Read the <vType> elements of route or additional files. Raises BadFile."""
        self._stated: dict[str, dict[str, str]] = {}
        for file in files:
            for _ in read_stream(file, None, self._start, MAX_BYTES):
                pass

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "vType" and "id" in attributes and len(self._stated) < MAX_TYPES:
            for key in ("length", "width", "height"):
                if key in attributes and not 0 < _number(attributes[key]) < 1000:
                    raise ValueError(f"vType {attributes['id'][:40]!r}: {key} is {attributes[key][:40]!r} m")
            self._stated[attributes["id"]] = attributes

    def look_up(self, type_id: str, element: str) -> tuple[AgentKind, Size, bool]:
        """Return kind, size, and whether the size is stated, of a type used in a <vehicle>, <person> or <container>.

        A type that no file states is judged by a class in its name, as in SUMO's own tools (`truck_truck`), or else
        has the default class of the element.
        """
        name = type_id.split("@")[0]  # SUMO writes type@vehicle where one vehicle's type was changed
        stated = self._stated.get(name)
        if stated is not None:
            kind = stated.get("vClass", _OF_ELEMENT.get(element, "passenger"))
        else:
            words = re.split(r"[^a-z]+", name.lower())
            named = next((word for word in words if word in _SIZES), None)
            kind = _DEFAULT_TYPES.get(name) or named or _OF_ELEMENT.get(element, "passenger")
        usual = _SIZES.get(kind, _SIZES["rail"] if kind.startswith(("rail", "subway")) else _CAR)
        given = stated or {}
        size = tuple(
            float(given.get(key, value)) for key, value in zip(("length", "width", "height"), usual, strict=True)
        )
        return _KINDS.get(kind, AgentKind.VEHICLE), (size[0], size[1], size[2]), "length" in given and "width" in given


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
