"""XML for readers: streamed, bounded in bytes, elements and depth, without entities; errors name the element."""

import gzip
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from traj_diffusion.errors import BadFile

MAX_TREE_BYTES = 200 * 2**20
MAX_NODES = 4_000_000  # elements and attributes of a tree, some 150 bytes each
MAX_DEPTH = 100
MAX_TOKEN = 4 * 2**20  # bytes of one tag or comment; expat looks at an unfinished one again with every chunk
MAX_RATIO = 200  # unpacked to packed; repetitive XML reaches about 40, an all-zero bomb 1000
_CHUNK = 256 * 2**10
_FREE = 16 * 2**20  # unpacked bytes for which no ratio is asked

Start = Callable[[str, dict[str, str]], None]


def root_of(head: bytes) -> str | None:
    """Return the name of a document's root element from its first bytes, or None where they are no XML."""
    if head[:64].lstrip(b"\xef\xbb\xbf\xfe\xff\x00 \t\r\n")[:1] != b"<":
        return None
    names: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, attributes: names.append(name) if not names else None
    parser.StartDoctypeDeclHandler = _refuse
    with suppress(expat.ExpatError, ValueError, LookupError):  # damaged further on, or no XML at all
        parser.Parse(head)
    return names[0] if names else None


def read_stream(
    path: Path,
    root: str | None,
    start: Start,
    max_bytes: int,
    comment: Callable[[str], None] | None = None,
    end: Callable[[str], None] | None = None,
    text: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Call `start` with name and attributes of each element of a document, plain or gzip, in order.

    `root` is the name that the first one must have, None for any. Yields after each piece of the file, so that what
    was found can be used up. Raises BadFile, also for what the handlers raise as ValueError.
    """
    depth = 0

    def opened(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        if depth == 0 and root not in (None, name):
            raise ValueError(f"its root is <{name[:40]}>, not <{root}>")
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"elements are nested deeper than {MAX_DEPTH}")
        start(name, attributes)

    def closed(name: str) -> None:
        nonlocal depth
        depth -= 1
        if end is not None:
            end(name)

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = opened
    parser.EndElementHandler = closed
    parser.StartDoctypeDeclHandler = _refuse
    if comment is not None:
        parser.CommentHandler = comment
    if text is not None:
        parser.CharacterDataHandler = text
    pieces = _pieces(path, max_bytes)
    while True:
        try:
            piece, total = next(pieces)
            parser.Parse(piece, not piece)
            if total - parser.CurrentByteIndex > MAX_TOKEN + _CHUNK:
                raise ValueError(f"a tag or comment is longer than {MAX_TOKEN:,} bytes")
        except (OSError, EOFError, zlib.error) as error:
            raise BadFile(f"{path}: cannot be read ({error})") from error
        except expat.ExpatError as error:
            raise BadFile(f"{path}: not readable XML ({error})") from error
        except (ValueError, LookupError) as error:
            raise BadFile(f"{path}, line {parser.CurrentLineNumber}: {said(error)}") from error
        yield
        if not piece:
            return


def _pieces(path: Path, max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield a file unpacked, piece by piece with the bytes so far, and an empty piece at its end."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if zipped else raw
        total, piece = 0, b"-"
        while piece:
            piece = file.read(_CHUNK)
            total += len(piece)
            if total > max_bytes:
                raise ValueError(f"it holds over {max_bytes:,} bytes; at most that many are read")
            if zipped and total > max(_FREE, MAX_RATIO * raw.tell()):
                raise ValueError(f"it unpacks to over {MAX_RATIO} times its size, which no such file does")
            yield piece, total


def read_tree(path: Path, root: str) -> Element:
    """Return the root element of a document, plain or gzip, with text but without white space. Raises BadFile."""
    builder = TreeBuilder()
    nodes = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal nodes
        nodes += 1 + len(attributes)
        if nodes > MAX_NODES:
            raise ValueError(f"it has over {MAX_NODES:,} elements and attributes; at most that many are read")
        builder.start(name, attributes)

    def end(name: str) -> None:
        builder.end(name)

    def text(content: str) -> None:
        if not content.isspace():
            builder.data(content)

    for _ in read_stream(path, root, start, MAX_TREE_BYTES, end=end, text=text):
        pass
    return builder.close()


def _refuse(*_: Any) -> None:
    raise ValueError("it has a document type declaration, which could hold entities; such files have none")


def place(element: Element) -> str:
    """Return how to call an element in a message."""
    name = element.get("id")
    return f"<{element.tag[:40]}>" if name is None else f'<{element.tag[:40]} id="{name[:40]}">'


def attribute(element: Element, name: str) -> str:
    """Return an attribute that must be there. Raises ValueError."""
    value = element.get(name)
    if value is None:
        raise ValueError(f"{place(element)} has no attribute {name!r}")
    return value


def number(element: Element, name: str, default: float | None = None) -> float:
    """Return an attribute as a finite number; without a default it must be there. Raises ValueError."""
    text = element.get(name)
    if text is None and default is not None:
        return default
    try:
        value = float(attribute(element, name))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{place(element)}: {name} is {_short(text)}, wanted is a finite number")
    return value


def integer(element: Element, name: str) -> int:
    """Return an attribute that must be there and a whole number of less than nine digits. Raises ValueError."""
    text = attribute(element, name)
    try:
        value = int(text) if len(text) < 12 else 10**9
    except ValueError:
        value = 10**9
    if abs(value) >= 10**9:
        raise ValueError(f"{place(element)}: {name} is {_short(text)}, wanted is a whole number")
    return value


def text_number(element: Element, name: str) -> float:
    """Return the text of a child element as a finite number. Raises ValueError."""
    text = element.findtext(name)
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        found = "absent" if text is None else _short(text)
        raise ValueError(f"{place(element)}: <{name}> is {found}, wanted is a finite number")
    return value


def said(error: Exception) -> str:
    """Return an error's message on one line."""
    return f"no entry {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:300]


def _short(text: str | None) -> str:
    return "absent" if text is None else repr(text[:40])
