"""OpenDRIVE's curves as functions of s: the reference line of a road, and cubic pieces along it.

ASAM OpenDRIVE 1.4 to 1.8, chapters "Geometry" and "Lanes". Angles are counter-clockwise from +x, t points to the left.
"""

import math
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
from jaxtyping import Float64

from traj_diffusion.datasets.readers.xml_tree import number, place

MAX_PANELS = 200_000  # of one curve's quadrature
MAX_TURN = 16 * math.pi  # rad, of one curve: ground that lies on itself more often is long to unite, and no road
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2


@dataclass(frozen=True)
class Cubics:
    """Pieces a + b ds + c ds² + d ds³, each from its start up to the next one's; 0 without pieces."""

    start: Float64[np.ndarray, " n"]
    abcd: Float64[np.ndarray, "n 4"]

    @classmethod
    def of(cls, elements: list[Element], offset: str = "s") -> "Cubics":
        """Return the pieces of elements with attributes a, b, c, d and a start, sorted. Raises ValueError."""
        rows = sorted((number(e, offset), *(number(e, name, 0.0) for name in "abcd")) for e in elements)
        table = np.array(rows, np.float64).reshape(-1, 5)
        return cls(table[:, 0], table[:, 1:])

    def __call__(self, s: Float64[np.ndarray, " S"]) -> Float64[np.ndarray, " S"]:
        """Return the value at each s; before the first piece, its value at its start."""
        if not len(self.start):
            return np.zeros(len(s))
        piece = np.maximum(np.searchsorted(self.start, s + 1e-9, side="right") - 1, 0)
        ds = np.maximum(s - self.start[piece], 0.0)
        a, b, c, d = self.abcd[piece].T
        return a + ds * (b + ds * (c + ds * d))


@dataclass(frozen=True)
class Curve:
    """One <geometry>: where it starts, and its shape in the frame there."""

    s: float
    x: float
    y: float
    heading: float
    length: float
    shape: str
    parameters: dict[str, float]

    def local(self, ds: Float64[np.ndarray, " S"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return u, v and the direction at distances along the curve, in the frame at its start."""
        p = self.parameters
        if self.shape == "spiral":
            return _clothoid(ds, p["curvStart"], (p["curvEnd"] - p["curvStart"]) / max(self.length, 1e-9))
        if self.shape == "arc":
            turn = ds * p["curvature"]
            _check_turn("an arc", float(np.abs(turn).max(initial=0.0)))
            # sinc keeps its digits where the curvature is next to none.
            chord = ds * np.sinc(turn / (2 * math.pi))
            return chord * np.cos(turn / 2), chord * np.sin(turn / 2), turn
        if self.shape == "poly3":
            u = _along_poly3(ds, self.length, p)
            slope = p["b"] + u * (2 * p["c"] + 3 * u * p["d"])
            return u, p["a"] + u * (p["b"] + u * (p["c"] + u * p["d"])), np.arctan(slope)
        if self.shape == "paramPoly3":
            q = ds / max(self.length, 1e-9) if p["normalized"] else ds
            u, v = (p[f"a{w}"] + q * (p[f"b{w}"] + q * (p[f"c{w}"] + q * p[f"d{w}"])) for w in "UV")
            du, dv = (p[f"b{w}"] + q * (2 * p[f"c{w}"] + 3 * q * p[f"d{w}"]) for w in "UV")
            return u, v, np.arctan2(dv, du)
        return ds, np.zeros(len(ds)), np.zeros(len(ds))


_PARAMETERS = {
    "line": (),
    "arc": ("curvature",),
    "spiral": ("curvStart", "curvEnd"),
    "poly3": ("a", "b", "c", "d"),
    "paramPoly3": tuple(f"{letter}{w}" for w in "UV" for letter in "abcd"),
}


def read_curve(element: Element) -> Curve:
    """Return the curve of a <geometry> element. Raises ValueError."""
    shape = next((child for child in element if child.tag in _PARAMETERS), None)
    if shape is None:
        raise ValueError(f"{place(element)} has no shape; known are {', '.join(_PARAMETERS)}")
    parameters = {name: number(shape, name) for name in _PARAMETERS[shape.tag]}
    if shape.tag == "paramPoly3":
        parameters["normalized"] = float(shape.get("pRange", "normalized") != "arcLength")
    s, x, y, heading, length = (number(element, name) for name in ("s", "x", "y", "hdg", "length"))
    return Curve(s, x, y, heading, length, shape.tag, parameters)


@dataclass(frozen=True)
class ReferenceLine:
    """A road's reference line: curves in order of s."""

    curves: tuple[Curve, ...]

    def __call__(self, s: Float64[np.ndarray, " S"]) -> tuple[Float64[np.ndarray, "S 2"], Float64[np.ndarray, " S"]]:
        """Return positions and directions at each s."""
        starts = np.array([curve.s for curve in self.curves])
        piece = np.maximum(np.searchsorted(starts, s + 1e-9, side="right") - 1, 0)
        xy, heading = np.zeros((len(s), 2)), np.zeros(len(s))
        for index in np.unique(piece):
            here = piece == index
            curve = self.curves[index]
            u, v, turn = curve.local(np.clip(s[here] - curve.s, 0.0, None))
            cos, sin = math.cos(curve.heading), math.sin(curve.heading)
            xy[here] = np.stack([curve.x + cos * u - sin * v, curve.y + sin * u + cos * v], -1)
            heading[here] = curve.heading + turn
        return xy, heading


def _check_turn(what: str, turn: float) -> None:
    if not turn < MAX_TURN:
        raise ValueError(f"{what} turns by {turn:.3g} rad; a curve of a road turns by less than {MAX_TURN:.0f}")


def _clothoid(ds: np.ndarray, start: float, rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return u, v and direction along a curve of curvature start + rate s.

    u and v are the integrals of cos and sin of the direction: Gauss-Legendre with 8 nodes on panels in which the
    direction turns by at most half a radian, which leaves rounding errors only.
    """
    longest = float(ds.max(initial=0.0))
    turning = (abs(start) + abs(rate) * longest) * longest
    _check_turn("a spiral", turning)
    panels = max(math.ceil(2 * turning), 1)
    edge = np.linspace(0.0, longest, panels + 1)

    def integral(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = low[:, None] + (high - low)[:, None] * _NODES
        angle = at * (start + rate * at / 2)
        return (high - low) * (np.cos(angle) @ _WEIGHTS), (high - low) * (np.sin(angle) @ _WEIGHTS)

    whole = [np.concatenate([[0.0], np.cumsum(part)]) for part in integral(edge[:-1], edge[1:])]
    panel = np.clip(np.searchsorted(edge, ds, side="right") - 1, 0, panels - 1)
    rest = integral(edge[panel], ds)
    return whole[0][panel] + rest[0], whole[1][panel] + rest[1], ds * (start + rate * ds / 2)


def _along_poly3(ds: np.ndarray, length: float, p: dict[str, float]) -> np.ndarray:
    """Return the u at which the curve v(u) is ds long: a table of arc lengths, read backwards."""
    panels = int(min(max(math.ceil(length / 0.1), 16), MAX_PANELS))
    edge = np.linspace(0.0, max(length, 1e-9), panels + 1)
    at = edge[:-1, None] + np.diff(edge)[:, None] * _NODES
    slope = p["b"] + at * (2 * p["c"] + 3 * at * p["d"])
    along = np.concatenate([[0.0], np.cumsum(np.diff(edge) * (np.hypot(1.0, slope) @ _WEIGHTS))])
    u = np.interp(ds, along, edge)
    for _ in range(2):  # Newton's method, for the table is read linearly
        panel = np.clip(np.searchsorted(edge, u, side="right") - 1, 0, panels - 1)
        at = edge[panel, None] + (u - edge[panel])[:, None] * _NODES
        inner = p["b"] + at * (2 * p["c"] + 3 * at * p["d"])
        so_far = along[panel] + (u - edge[panel]) * (np.hypot(1.0, inner) @ _WEIGHTS)
        u = u - (so_far - ds) / np.hypot(1.0, p["b"] + u * (2 * p["c"] + 3 * u * p["d"]))
    return u
