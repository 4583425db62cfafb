"""Decodes a line of a file to a row: NDJSON, CSV, event times.

All numbers become floats: a server that has read only `7` and one that has read `7.5` then have the
same schema.
"""

import csv
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.event_times import guess_time, read_time
from aiostream_ds.sources.decoding.fixed_values import FIXED, comma_number
from aiostream_ds.sources.decoding.lenient_json import decode_leniently
from aiostream_ds.sources.decoding.row_settings import RowSettings
from aiostream_ds.sources.decoding.text_cells import (
    DELIMITERS,
    comma_cell,
    distinct,
    is_empty,
    point,
    text_cell,
)

__all__ = ["Csv", "LineReader", "Ndjson"]

NAMES_SHOWN = 8
"""Maximum number of column names in a message."""


class LineReader(Protocol):
    """Decodes the lines of one file.

    `replaced` counts lines with invalid UTF-8, `left_out` values that do not have the fixed type of
    their column.
    """

    replaced: int
    left_out: int

    def read(self, line: bytes, end: int) -> dict[str, Any] | None:
        """The row of a line (without its newline) that ends at the offset `end`.

        None for an empty line or a header. Raises BadRecord.
        """


class Ndjson:
    """Decodes lines of one JSON object each."""

    __slots__ = ("_fixed", "_names", "_settings", "left_out", "replaced")

    def __init__(self, settings: RowSettings) -> None:
        self._settings = settings
        self._fixed = {name: FIXED[kind] for name, kind in settings.columns.items()}
        self._names = dict(zip(self._fixed, _own_names(self._fixed), strict=True))
        self.replaced = self.left_out = 0

    def read(self, line: bytes, end: int) -> dict[str, Any] | None:
        """See `LineReader`."""
        try:
            values = msgspec.json.decode(line)
        except (ValueError, RecursionError):
            if not line.strip():
                return None
            values = self._decode_leniently(line)
        if not isinstance(values, dict):
            raise BadRecord(f"expected a JSON object, got a {type(values).__name__}")
        settings = self._settings
        key = settings.time
        if key not in values:
            key = guess_time(values, settings) or key
        row: dict[str, Any] = {
            "time": read_time(values.pop(key, None), settings),
            "offset": end,
        }
        for name, read in self._fixed.items():
            value = values.pop(name, None)
            row[self._names[name]] = found = read(value)
            self.left_out += found is None and value is not None and value != ""
        if settings.others:
            try:
                for name, value in values.items():
                    if name in _RESERVED:
                        name += "_"
                    row[name] = float(value) if type(value) is int else value
            except OverflowError:
                raise BadRecord(f"the number in {name!r} is too large for a float") from None
        return row

    def _decode_leniently(self, line: bytes) -> Any:
        values, is_replaced = decode_leniently(line)
        self.replaced += is_replaced
        return values


class Csv:
    """Decodes CSV lines with a header. Cells cannot contain line breaks: each line is a row.

    The delimiter is the comma, semicolon, tab or bar, whichever is most frequent in the header.
    Between semicolons `1,5` is a number.
    """

    __slots__ = (
        "_columns",
        "_delimiter",
        "_header",
        "_names",
        "_settings",
        "_time",
        "left_out",
        "replaced",
    )

    def __init__(self, settings: RowSettings, header: bytes) -> None:
        self._settings = settings
        self.replaced = self.left_out = 0
        text = header.decode("utf-8-sig", "replace").rstrip("\r")
        self._delimiter = max(DELIMITERS, key=text.count)
        self._header = text
        try:
            names = list(distinct(map(str.strip, self._cells(text))))
        except BadRecord:
            names = [text]
        self._names = names
        time = settings.time if settings.time in names else guess_time(names, settings)
        self._time = None if time is None else names.index(time)
        self._columns = list(self._plan(names))

    def _plan(self, names: list[str]) -> Iterable[tuple[int | None, str, Callable[[str], Any]]]:
        """Index in the line, name in the row and decoder of each column."""
        fixed = self._settings.columns
        has_decimal_commas = self._delimiter == ";"
        for name, kind in fixed.items():
            index = names.index(name) if name in names else None
            read = comma_number if has_decimal_commas and kind == "number" else FIXED[kind]
            yield index, name + "_" * (name in _RESERVED), read
        if self._settings.others:
            for index, name in enumerate(names):
                if name not in fixed and index != self._time:
                    cell = comma_cell if has_decimal_commas else text_cell
                    yield index, name + "_" * (name in _RESERVED), cell

    def read(self, line: bytes, end: int) -> dict[str, Any] | None:
        """See `LineReader`."""
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self.replaced += 1
            text = line.decode("utf-8", "replace")
        text = text.rstrip("\r")
        if not text or text == self._header:
            return None  # some writers repeat the header after a restart
        cells = self._cells(text)
        if len(cells) != len(self._names):
            raise BadRecord(f"expected {len(self._names)} cells as in the header, got {len(cells)}")
        if self._time is None:
            names = ", ".join(self._names[:NAMES_SHOWN])
            raise BadRecord(
                f"expected a column {self._settings.time!r} in the header, got {names}; set `time`"
                " to the column of the time"
            )
        time = cells[self._time].strip()
        row: dict[str, Any] = {
            "time": read_time(point(time) if self._delimiter == ";" else time, self._settings),
            "offset": end,
        }
        for index, name, read in self._columns:
            if index is None:
                row[name] = None
                continue
            cell = cells[index]
            row[name] = found = read(cell)
            self.left_out += found is None and read not in _OPEN_CELLS and not is_empty(cell)
        return row

    def _cells(self, text: str) -> list[str]:
        if '"' not in text:
            return text.split(self._delimiter)
        try:
            return next(csv.reader([text], delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            raise BadRecord(f"invalid CSV: {error}") from None


_OPEN_CELLS = (text_cell, comma_cell)
"""The decoders of columns without a fixed type."""


_RESERVED = ("time", "offset")
"""Columns that every row has. A line's own column of that name gets a trailing `_`."""


def _own_names(names: Iterable[str]) -> Iterable[str]:
    return (name + "_" if name in _RESERVED else name for name in names)
