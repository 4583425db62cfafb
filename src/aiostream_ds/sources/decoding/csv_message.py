"""Messages of CSV: rows of cells with a header, or with names from the settings."""

import csv
import io
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.decoding_settings import DecodingSettings
from aiostream_ds.sources.decoding.text_cells import (
    DELIMITERS,
    comma_cell,
    distinct,
    point,
    text_cell,
    text_number,
)

__all__ = ["csv_rows", "is_csv"]


def csv_rows(text: str, settings: DecodingSettings) -> Iterator[dict[str, Any] | BadRecord]:
    """The rows, and for each line that is not one, why. Raises BadRecord for a bad header."""
    delimiter = _delimiter(text, len(settings.names))
    lines = _lines(text, delimiter)
    names = settings.names or [name.strip() for name in _next(lines) or []]
    return _rows(lines, list(distinct(names)), delimiter == ";", settings)


def is_csv(text: str) -> bool:
    """Whether the first two lines have as many cells, at least two, and the first is a header."""
    try:
        head = list(islice(_lines(text, _delimiter(text, 0)), 2))
    except csv.Error:
        return False
    if len(head) < 2 or len(head[0]) < 2 or len(head[0]) != len(head[1]):
        return False
    return all(name.strip() and text_number(name) is None for name in head[0])


def _delimiter(text: str, cells: int) -> str:
    """The one that makes so many cells of the first line, else the most frequent. Between
    semicolons, commas may be decimal."""
    line = text.split("\n", 1)[0]
    by_rank = sorted(DELIMITERS, key=",".__eq__)
    fitting = [each for each in by_rank if line.count(each) == cells - 1]
    return fitting[0] if fitting else max(by_rank, key=line.count)


def _lines(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


def _next(lines: Iterator[list[str]]) -> list[str] | None:
    try:
        return next(lines, None)
    except csv.Error as error:
        raise BadRecord(f"invalid CSV: {error}") from None


def _rows(
    lines: Iterator[list[str]], names: list[str], has_commas: bool, settings: DecodingSettings
) -> Iterator[dict[str, Any] | BadRecord]:
    read: Callable[[str], Any] = comma_cell if has_commas else text_cell
    readers = [_fixed(settings, name, has_commas) or read for name in names]
    while True:
        try:
            cells = _next(lines)
        except BadRecord as error:
            yield error  # of one line; at the end of the text, of all lines in an open quote
            continue
        if cells is None:
            return
        if len(cells) == len(names):
            yield {n: r(c) for n, r, c in zip(names, readers, cells, strict=True)}
        elif cells:
            yield BadRecord(f"expected {len(names)} cells, got {len(cells)}")


def _fixed(settings: DecodingSettings, name: str, has_commas: bool) -> Callable[[str], str] | None:
    """A cell of the time, or of a column of fixed type, is read later: it stays a text."""
    if name == settings.time or settings.columns.get(name) == "number":
        return point if has_commas else str
    return str if name in settings.columns or name in settings.labels else None
