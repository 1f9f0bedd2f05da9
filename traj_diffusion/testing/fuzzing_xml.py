"""Broken OpenDRIVE, SUMO and CommonRoad files, for fuzzing their readers."""

import gzip
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

from traj_diffusion.testing.foreign_xml import (
    commonroad_xml,
    opendrive_xml,
    sumo_fcd_xml,
    sumo_net_xml,
    sumo_routes_xml,
)
from traj_diffusion.testing.mutations import mutate

_ODD = (
    "",
    "x",
    "-1",
    "0",
    "nan",
    "inf",
    "1e9",
    "-1e300",
    "1e999",
    "7",
    "0.5",
    "99999999999999999999",
    "é",
    "1 2,3",
    "1:2",
)
_BOMB = '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY c "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
_VALUE = re.compile(r'="[^"]*"|>[^<>\s][^<>]*<')
_ELEMENT = re.compile(r"<(\w+)[^<>]*/>|<(\w+)[^<>]*>[^<>]*</\2>")
_NAME = re.compile(r"(?<=<)\w+|(?<= )\w+(?==)")


def mutate_xml(text: str, rng: np.random.Generator) -> str:
    """Return a document in which values, names or elements were changed, dropped or doubled."""
    for _ in range(int(rng.integers(1, 4))):
        kind = int(rng.integers(0, 10))
        pattern = _VALUE if kind < 6 else _NAME if kind < 7 else _ELEMENT
        found = list(pattern.finditer(text))
        if not found:
            continue
        hit = found[int(rng.integers(0, len(found)))]
        odd = _ODD[int(rng.integers(0, len(_ODD)))]
        if pattern is _VALUE:
            old = hit.group()
            new = f'="{odd}"' if old.startswith("=") else f">{odd}<"
            if rng.random() < 0.3:  # another value of the same document, of the right kind perhaps
                other = found[int(rng.integers(0, len(found)))].group()
                new = other if other[0] == old[0] else new
        elif pattern is _NAME:
            new = found[int(rng.integers(0, len(found)))].group()
        else:
            new = ("", hit.group() * 2, f"<a>{hit.group()}</a>" * int(rng.integers(1, 200)))[int(rng.integers(0, 3))]
        text = text[: hit.start()] + new + text[hit.end() :]
    if rng.random() < 0.02:
        text = text.replace("?>", "?>" + _BOMB, 1)
    if rng.random() < 0.02:
        deep = int(rng.integers(50, 20_000))
        text = text.replace("</", "<a>" * deep + "</a>" * deep + "</", 1)
    return text


@cache
def _documents(reader: str) -> tuple[str, ...]:
    return {
        "opendrive": lambda: (opendrive_xml(),),
        "sumo_net": lambda: (sumo_net_xml(),),
        "sumo_fcd": lambda: (sumo_fcd_xml(25), sumo_fcd_xml(12, 1.0), sumo_fcd_xml(110, 0.1, 5.0)),
        "commonroad": lambda: (commonroad_xml(), commonroad_xml("2018b", 0.2), commonroad_xml(problem=False)),
    }[reader]()


def _write(reader: str, rng: np.random.Generator, path: Path) -> None:
    """Write a broken file: its values, its elements or its bytes; plain or gzip."""
    documents = _documents(reader)
    text = documents[int(rng.integers(0, len(documents)))]
    if reader == "sumo_fcd":
        net, routes = sumo_net_xml(), sumo_routes_xml()
        path.with_name("made.net.xml").write_text(mutate_xml(net, rng) if rng.random() < 0.1 else net, "utf-8")
        path.with_name("made.rou.xml").write_text(mutate_xml(routes, rng) if rng.random() < 0.1 else routes, "utf-8")
    content = (mutate_xml(text, rng) if rng.random() < 0.8 else text).encode()
    if rng.random() < 0.25:
        content = mutate(content, rng, text=True)
    content = gzip.compress(content, 1) if rng.random() < 0.1 else content
    path.write_bytes(mutate(content, rng) if rng.random() < 0.05 else content)


XML_READERS: dict[str, Callable[[np.random.Generator, Path], None]] = {
    name: partial(_write, name) for name in ("opendrive", "sumo_net", "sumo_fcd", "commonroad")
}
