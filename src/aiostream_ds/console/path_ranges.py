"""Several paths in one text, such as `walk/10/{1..6}`, which the page expands (`expandRanges`)."""

import re
from collections.abc import Callable

__all__ = ["expand_ranges", "followed_text"]

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}", re.ASCII)
_MOST = 5_000  # of one range


def expand_ranges(text: str) -> list[str]:
    """The paths of a text: itself without a range."""
    found = _RANGE.search(text)
    if found is None:
        return [text]
    first, last = int(found[1]), int(found[2])
    numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
    start, end = text[: found.start()], text[found.end() :]
    return [path for n in numbers[:_MOST] for path in expand_ranges(f"{start}{n}{end}")]


def followed_text(text: str, read: Callable[[str], str]) -> str:
    """What the page follows for a text that a person wrote: the path that `read` makes of it, or
    the text itself if `read` accepts each of the several paths in it.

    Raises what `read` raises.
    """
    try:
        return read(text)
    except Exception:
        paths = expand_ranges(text)
        if paths == [text]:
            raise
    for path in paths:
        read(path)
    return text
