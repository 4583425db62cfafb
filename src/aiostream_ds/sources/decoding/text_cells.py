"""Texts as values: cells of CSV, fields of Redis, plain numbers."""

import re
from collections.abc import Iterable
from math import isfinite

__all__ = ["DELIMITERS", "comma_cell", "distinct", "is_empty", "point", "text_cell", "text_number"]

DELIMITERS = ",;\t|"
"""The delimiters of CSV: the most frequent one in the first line is used."""


_LONGEST = 1_000  # characters of a number: a float has at most 309 digits before the point


def text_number(text: str) -> float | None:
    """A finite number. Unlike `float`, it rejects `1_000` and non-ASCII digits."""
    if len(text) > _LONGEST or "_" in text or not text.isascii():
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def text_cell(text: str) -> float | str | None:
    """A cell as a number if it is one; None if it is empty."""
    number = text_number(text)
    if number is not None:
        return number
    return None if is_empty(text) else text


def is_empty(text: str) -> bool:
    """Whether the cell has no value."""
    return text.strip().lower() in ("", "nan")


_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+(?:[eE][+-]?\d+)?\s*", re.ASCII)


def point(text: str) -> str:
    """`1,5` as `1.5`; any other text unchanged."""
    return text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text) else text


def comma_cell(text: str) -> float | str | None:
    """As `text_cell`, where `1,5` is a number."""
    found = text_cell(point(text))
    return text if isinstance(found, str) else found


def distinct(names: Iterable[str]) -> Iterable[str]:
    """A unique name for each column: `x`, `x 2`, and `column 3` for a column without a name."""
    seen: set[str] = set()
    counts: dict[str, int] = {}  # of names that are repeated: their search goes on where it ended
    for number, name in enumerate(names, 1):
        name = name or f"column {number}"
        found = name
        if found in seen:
            count = counts.get(name, 1)
            while found in seen:
                count += 1
                found = f"{name} {count}"
            counts[name] = count
        seen.add(found)
        yield found
