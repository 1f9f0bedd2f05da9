"""Blocks of pages that tools write, each between two marks."""


def with_block(page: str, start: str, end: str, block: str) -> str:
    """Return the text of a page with this block between its marks, in place of what stands there.

    Raises SystemExit, for the tools that call it, where a mark is not there.
    """
    before, opened, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise SystemExit(f"the page lacks the lines {start.strip()!r} and {end.strip()!r}, between which to write")
    return before + start + block + end + after
