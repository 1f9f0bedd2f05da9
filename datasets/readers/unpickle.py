"""A pickle machine that builds builtins and numpy arrays and nothing else: no import, no call of anything named.

Python's own unpickler, even with `find_class` shut, asks for memory that a file merely claims (a memo index of 2**32),
and dies of nested tuples as dictionary keys. Here every size is backed by bytes of the file, keys are text or numbers,
and an array is a view of the pickle's bytes. Protocols 2 to 5. Format: Python's Lib/pickletools.py.
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_STEPS = 3_000_000  # a step makes at most an empty set, 216 bytes


class Unreadable(ValueError):
    """A pickle that is damaged, or wants something that is not built here."""


class _Named:
    """What a pickle calls by name: `build` takes the arguments that it is called with."""

    def __init__(self, name: str, build: Callable[..., Any]) -> None:
        self.name = name
        self.build = build


class _Array:
    """An array whose shape, type and bytes come later."""

    value: np.ndarray | None = None


class _Type:
    """An array element type; its byte order comes later."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or len(name) > 12:
            raise Unreadable(f"an array's element type is {str(name)[:40]!r}, not a name")
        try:
            self.value = np.dtype(name)
        except (TypeError, ValueError, SyntaxError) as error:
            raise Unreadable(f"an array's element type {name!r} is unknown") from error
        if self.value.kind not in "biufUS" or self.value.names or self.value.subdtype:
            raise Unreadable(f"an array of element type {name!r}; only numbers and text are read")


def _scalar(kind: Any, raw: Any) -> Any:
    return _view(kind, raw, ()).item()


def _frombuffer(raw: Any, kind: Any, shape: Any, order: Any = "C") -> _Array:
    array = _Array()
    array.value = _view(kind, raw, shape, order)
    return array


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Return the bytes that protocol 2 spells as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Unreadable("bytes are spelled in an unknown way")
    try:
        return text.encode("latin1")
    except UnicodeEncodeError as error:
        raise Unreadable("bytes are spelled in an unknown way") from error


def _never(*_: Any) -> Any:
    raise Unreadable("it calls a type that only fills a default")


def _elements(items: Any = ()) -> Any:
    if not isinstance(items, list | tuple):
        raise Unreadable("a set is made of something else than a list")
    return {_key(item) for item in items}


_NAMES: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": lambda *_: _Array(),
    "numpy.dtype": _Type,
    "collections.defaultdict": lambda *_: {},
    "collections.OrderedDict": lambda *_: {},
    "builtins.int": _never,
    "__builtin__.long": _never,
    "builtins.set": _elements,
    "builtins.frozenset": _elements,
    "__builtin__.set": _elements,
    "__builtin__.bytes": lambda: b"",  # what protocol 2 has for no bytes at all
    "_codecs.encode": _encode,
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray._reconstruct"] = lambda *_: _Array()
    _NAMES[f"{_core}.multiarray.scalar"] = _scalar
    _NAMES[f"{_core}.numeric._frombuffer"] = _frombuffer


def _view(kind: Any, raw: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(kind, _Type) or not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple):
        raise Unreadable("an array is not made of an element type, a shape and bytes")
    try:
        return np.frombuffer(raw, kind.value).reshape(shape, order="F" if order == "F" else "C")
    except (ValueError, TypeError, OverflowError) as error:
        raise Unreadable(f"an array of shape {str(shape)[:60]} does not fit its {len(raw):,} bytes") from error


def _key(value: Any) -> Any:
    if not isinstance(value, str | int | float | None):
        raise Unreadable(f"a key is {type(value).__name__}; text or a number would fit")
    return value


def _build(target: Any, state: Any) -> None:
    if isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5:
        _, shape, kind, fortran, raw = state
        target.value = _view(kind, raw, shape, "F" if fortran is True else "C")
    elif (
        isinstance(target, _Type) and isinstance(state, tuple) and len(state) >= 2 and state[1] in ("<", ">", "|", "=")
    ):
        target.value = target.value.newbyteorder(state[1]) if state[1] in "<>" else target.value
    else:
        raise Unreadable(f"it sets the inside of {type(target).__name__.strip('_').lower()}")


def load(data: bytes) -> Any:
    """Return what a pickle holds. Raises Unreadable, which names what the pickle asked for."""
    return _plain(_Machine(data).run())


class _Machine:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        data = self.data
        if data[:1] != b"\x80" or len(data) < 2 or not 2 <= data[1] <= 5:
            raise Unreadable("it is no pickle of protocol 2 to 5")
        for _ in range(MAX_STEPS):
            code = self.take(1)[0]
            if code == 0x2E:  # STOP
                return self.pop()
            step = _STEPS.get(code)
            if step is None:
                raise Unreadable(f"byte {self.at - 1} is no step that a scene's pickle has ({bytes([code])!r})")
            step(self)
        raise Unreadable(f"it has more than {MAX_STEPS:,} steps, too many for one scene")

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if len(part) < count:
            raise Unreadable("it ends inside a value")
        self.at += count
        return part

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 200)
        if end < 0:
            raise Unreadable("it ends inside a name")
        return self.take(end + 1 - self.at)[:-1].decode("utf-8", "replace")

    def text(self, form: str) -> str:
        return self.take(self.number(form)).decode("utf-8", "surrogatepass")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Unreadable("it takes a value that is not there")
        return self.stack.pop()

    def top(self) -> Any:
        value = self.pop()
        self.push(value)
        return value

    def to_mark(self) -> list[Any]:
        if not self.marks:
            raise Unreadable("it ends a list that never began")
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def group(self, count: int) -> None:
        items = tuple(_filled(self.pop()) for _ in range(count))
        self.push(items[::-1])

    def named(self, module: Any, name: Any) -> None:
        full = f"{module}.{name}"
        if full not in _NAMES:
            raise Unreadable(f"it wants to load {full[:100]!r}; only numpy arrays and plain values are read")
        self.push(_Named(full, _NAMES[full]))

    def call(self) -> None:
        arguments, target = self.pop(), self.pop()
        if not isinstance(target, _Named) or not isinstance(arguments, tuple):
            raise Unreadable("it calls something that is no array's maker")
        try:
            self.push(target.build(*arguments))
        except TypeError as error:
            raise Unreadable(f"it calls {target.name} with the wrong arguments") from error

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            raise Unreadable("it sets entries of something that has none")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = _plain(value)

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise Unreadable("it appends to something that is no list")
        target.extend(_plain(item) for item in items)

    def add(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, set):
            raise Unreadable("it adds to something that is no set")
        target.update(_key(item) for item in items)

    def remember(self, index: int) -> None:
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Unreadable("it recalls a value that was never kept")
        self.push(self.memo[index])

    def build(self) -> None:
        state = self.pop()
        _build(self.top(), state)


def _filled(value: Any) -> Any:
    """Return an array for what became one."""
    if isinstance(value, _Array):
        if value.value is None:
            raise Unreadable("an array was never filled")
        return value.value
    return value


def _plain(value: Any) -> Any:
    """Return what may stand in a list or dictionary; types may only in tuples, as parts of an array's state."""
    if isinstance(value, _Type | _Named):
        raise Unreadable("a type stands where a value should")
    return _filled(value)


def _mark(machine: _Machine) -> None:
    machine.marks.append(len(machine.stack))


def _pair(machine: _Machine) -> list[Any]:
    value, key = machine.pop(), machine.pop()
    return [key, value]


def _global_from_stack(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.named(module, name)


def _long(machine: _Machine) -> None:
    machine.push(int.from_bytes(machine.take(machine.take(1)[0]), "little", signed=True))


_STEPS: dict[int, Callable[[_Machine], Any]] = {
    ord(code): step
    for code, step in {
        "\x80": lambda m: m.take(1),  # PROTO
        "\x95": lambda m: m.take(8),  # FRAME
        "(": _mark,
        "0": lambda m: m.pop(),
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "J": lambda m: m.push(m.number("<i")),
        "K": lambda m: m.push(m.number("<B")),
        "M": lambda m: m.push(m.number("<H")),
        "\x8a": _long,
        "G": lambda m: m.push(m.number(">d")),
        "\x8c": lambda m: m.push(m.text("<B")),
        "X": lambda m: m.push(m.text("<I")),
        "\x8d": lambda m: m.push(m.text("<Q")),
        "C": lambda m: m.push(m.take(m.number("<B"))),
        "B": lambda m: m.push(m.take(m.number("<I"))),
        "\x8e": lambda m: m.push(m.take(m.number("<Q"))),
        "\x96": lambda m: m.push(m.take(m.number("<Q"))),  # BYTEARRAY8
        "}": lambda m: m.push({}),
        "]": lambda m: m.push([]),
        ")": lambda m: m.push(()),
        "\x8f": lambda m: m.push(set()),
        "t": lambda m: m.push(tuple(_filled(item) for item in m.to_mark())),
        "\x85": lambda m: m.group(1),
        "\x86": lambda m: m.group(2),
        "\x87": lambda m: m.group(3),
        "\x91": lambda m: m.push(_elements(m.to_mark())),  # FROZENSET
        "s": lambda m: m.set_items(_pair(m)),
        "u": lambda m: m.set_items(m.to_mark()),
        "a": lambda m: m.append([m.pop()]),
        "e": lambda m: m.append(m.to_mark()),
        "\x90": lambda m: m.add(m.to_mark()),
        "q": lambda m: m.remember(m.number("<B")),
        "r": lambda m: m.remember(m.number("<I")),
        "\x94": lambda m: m.remember(len(m.memo)),
        "h": lambda m: m.recall(m.number("<B")),
        "j": lambda m: m.recall(m.number("<I")),
        "c": lambda m: m.named(m.line(), m.line()),
        "\x93": _global_from_stack,
        "R": lambda m: m.call(),
        "b": lambda m: m.build(),
    }.items()
}
