"""Decodes a line of a file to a row: NDJSON, CSV, event times.

All numbers become floats: a server that has read only `7` and one that has read `7.5` then have the
same schema.
"""

import csv
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, Literal, Protocol

import msgspec

from aiostream_ds.settings import Settings

__all__ = ["BadLine", "Csv", "LineReader", "Ndjson", "RecordSettings", "read_time"]

Kind = Literal["number", "text", "boolean"]
TimeUnit = Literal["auto", "s", "ms", "us", "ns"]

EARLIEST, LATEST = -9_223_372_036_854, 9_223_372_036_854
"""Unix ms that frames can hold: the years 1677 to 2262."""

_PER_MS: Mapping[str, float] = {"s": 1e-3, "ms": 1.0, "us": 1e3, "ns": 1e6}

_LIMITS = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
"""The units of `auto`: a number with an absolute value below the limit has the unit."""

_DELIMITERS = ",;\t|"

_TIME_NAMES = frozenset({"time", "timestamp", "@timestamp", "datetime", "date", "ts"})
"""In lower case: keys and columns that can be the time of a line without the key `time`."""

NAMES_SHOWN = 8
"""Maximum number of column names in a message."""

_BOOLEANS = {"true": True, "false": False}


class RecordSettings(Settings):
    """How lines are decoded."""

    time: str = "time"
    """The key or column of the event time: ISO 8601 (UTC without an offset), an HTTP date or a
    number since 1970. Without a key `time`, the only one named like a time (`Time`, `timestamp`,
    `ts` …) has it."""
    time_unit: TimeUnit = "auto"
    """The unit of such a number. auto: s below 1e11, ms below 1e14, µs below 1e17, else ns, which
    is correct for times from 1973 on."""
    columns: dict[str, Kind] = {}
    """Columns of a fixed type, present in each row. A value that is missing or of another type is
    empty."""
    others: bool = True
    """Whether to include the other columns of a line."""


class BadLine(ValueError):
    """The line is not a row; the message is the reason."""


class LineReader(Protocol):
    """Decodes the lines of one file.

    `replaced` counts lines with invalid UTF-8, `left_out` values that do not have the fixed type of
    their column.
    """

    replaced: int
    left_out: int

    def read(self, line: bytes, end: int) -> dict[str, Any] | None:
        """The row of a line (without its newline) that ends at the offset `end`.

        None for an empty line or a header. Raises BadLine.
        """


class Ndjson:
    """Decodes lines of one JSON object each."""

    __slots__ = ("_fixed", "_names", "_settings", "left_out", "replaced")

    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._fixed = {name: _FIXED[kind] for name, kind in settings.columns.items()}
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
            raise BadLine(f"expected a JSON object, got a {type(values).__name__}")
        settings = self._settings
        key = settings.time
        if key not in values:
            key = _guess_time(values, settings) or key
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
                raise BadLine(f"the number in {name!r} is too large for a float") from None
        return row

    def _decode_leniently(self, line: bytes) -> Any:
        """Accepts what some writers produce: NaN (as null), a BOM, invalid UTF-8."""
        try:
            values = json.loads(self._text(line))
            return msgspec.json.decode(msgspec.json.encode(values))
        except (ValueError, RecursionError, OverflowError):
            raise BadLine("invalid JSON") from None

    def _text(self, line: bytes) -> str:
        try:
            return line.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.replaced += 1
            return line.decode("utf-8-sig", "replace")


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

    def __init__(self, settings: RecordSettings, header: bytes) -> None:
        self._settings = settings
        self.replaced = self.left_out = 0
        text = header.decode("utf-8-sig", "replace").rstrip("\r")
        self._delimiter = max(_DELIMITERS, key=text.count)
        self._header = text
        try:
            names = list(_distinct(map(str.strip, self._cells(text))))
        except BadLine:
            names = [text]
        self._names = names
        time = settings.time if settings.time in names else _guess_time(names, settings)
        self._time = None if time is None else names.index(time)
        self._columns = list(self._plan(names))

    def _plan(self, names: list[str]) -> Iterable[tuple[int | None, str, Callable[[str], Any]]]:
        """Index in the line, name in the row and decoder of each column."""
        fixed = self._settings.columns
        has_decimal_commas = self._delimiter == ";"
        for name, kind in fixed.items():
            index = names.index(name) if name in names else None
            read = _comma_number if has_decimal_commas and kind == "number" else _FIXED[kind]
            yield index, name + "_" * (name in _RESERVED), read
        if self._settings.others:
            for index, name in enumerate(names):
                if name not in fixed and index != self._time:
                    cell = _comma_cell if has_decimal_commas else _cell
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
            raise BadLine(f"expected {len(self._names)} cells as in the header, got {len(cells)}")
        if self._time is None:
            names = ", ".join(self._names[:NAMES_SHOWN])
            raise BadLine(
                f"expected a column {self._settings.time!r} in the header, got {names}; set `time`"
                " to the column of the time"
            )
        time = cells[self._time].strip()
        row: dict[str, Any] = {
            "time": read_time(_point(time) if self._delimiter == ";" else time, self._settings),
            "offset": end,
        }
        for index, name, read in self._columns:
            if index is None:
                row[name] = None
                continue
            cell = cells[index]
            row[name] = found = read(cell)
            self.left_out += found is None and read not in _OPEN_CELLS and not _is_empty(cell)
        return row

    def _cells(self, text: str) -> list[str]:
        if '"' not in text:
            return text.split(self._delimiter)
        try:
            return next(csv.reader([text], delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            raise BadLine(f"invalid CSV: {error}") from None


def _guess_time(names: Collection[str], settings: RecordSettings) -> str | None:
    """The only key or column that is named like a time, unless the settings name another one."""
    if settings.time != "time":
        return None
    found = [name for name in names if name.lower() in _TIME_NAMES and name not in settings.columns]
    return found[0] if len(found) == 1 else None


def read_time(value: Any, settings: RecordSettings) -> int:
    """An event time in Unix ms. Raises BadLine."""
    kind = type(value)
    ms: float
    if kind is str:
        number = _number(value)
        ms = _iso(value) if number is None else _scaled(number, settings.time_unit)
    elif kind is int or kind is float:
        ms = _scaled(value, settings.time_unit)
    elif value is None:
        raise BadLine(
            f"expected a time in {settings.time!r}, got none; set `time` to the key of the time"
        )
    else:
        raise BadLine(f"the time must be ISO 8601 or a number, got {_shown(value)}")
    if not EARLIEST <= ms <= LATEST:
        raise BadLine(f"the time must be in the years 1677 to 2262, got {_shown(value)}")
    return round(ms)


def _scaled(number: float, unit: TimeUnit) -> float:
    size = abs(number)
    found = unit if unit != "auto" else next((u for limit, u in _LIMITS if size < limit), "ns")
    try:
        if found == "ns" and type(number) is int:
            return number // 1_000_000
        return number / _PER_MS[found]
    except OverflowError:
        raise BadLine(f"the time must be in the years 1677 to 2262, got {_shown(number)}") from None


_ZONE = re.compile(r"\s*(?:(?P<utc>gmt|utc|z)|\s(?P<offset>[+-]\d\d:?\d\d))$", re.ASCII | re.I)
_SLASHES = re.compile(r"\d{4}/\d\d/\d\d\b", re.ASCII)
_HTTP_DATE = re.compile(
    r"(?:[a-z]{3}, ?)?\d\d? [a-z]{3} \d{4} \d\d:\d\d:\d\d (?:gmt|utc|[+-]\d{4})", re.ASCII | re.I
)
"""RFC 9110, 5.6.7, and what RFC 5322 adds."""


def _moment(text: str) -> datetime:
    """A moment as ISO 8601, also with `2026/11/28`, ` UTC` or ` +0100`; or an HTTP date."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        if _HTTP_DATE.fullmatch(text):
            return parsedate_to_datetime(text)
    if _SLASHES.match(text):
        text = text.replace("/", "-", 2)
    zone = _ZONE.search(text)
    if zone is not None:
        text = text[: zone.start()] + (zone["offset"] or "+00:00")
    return datetime.fromisoformat(text)


def _iso(text: str) -> float:
    try:
        moment = _moment(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
    except (ValueError, OverflowError):
        raise BadLine(f"the time must be ISO 8601 or a number, got {_shown(text)}") from None


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not convert an int of thousands of digits
        return "a too large number"
    return text if len(text) <= 60 else text[:57] + "..."


def _number(text: str) -> float | None:
    """A finite number. Unlike `float`, it rejects `1_000` and non-ASCII digits."""
    if "_" in text or not text.isascii():
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def _cell(text: str) -> float | str | None:
    number = _number(text)
    if number is not None:
        return number
    return None if _is_empty(text) else text


def _is_empty(text: str) -> bool:
    return text.strip().lower() in ("", "nan")


_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+(?:[eE][+-]?\d+)?\s*", re.ASCII)


def _point(text: str) -> str:
    """`1,5` as `1.5`; any other text unchanged."""
    return text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text) else text


def _comma_cell(text: str) -> float | str | None:
    found = _cell(_point(text))
    return text if isinstance(found, str) else found


_OPEN_CELLS = (_cell, _comma_cell)
"""The decoders of columns without a fixed type."""


def _comma_number(text: str) -> float | None:
    return _number(_point(text))


def _fixed_number(value: Any) -> float | None:
    if isinstance(value, str):
        return _number(value)
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None


def _fixed_text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _fixed_boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return _BOOLEANS.get(value.strip().lower())
    return value if isinstance(value, bool) else None


_FIXED: Mapping[Kind, Callable[[Any], Any]] = {
    "number": _fixed_number,
    "text": _fixed_text,
    "boolean": _fixed_boolean,
}

_RESERVED = ("time", "offset")
"""Columns that every row has. A line's own column of that name gets a trailing `_`."""


def _own_names(names: Iterable[str]) -> Iterable[str]:
    return (name + "_" if name in _RESERVED else name for name in names)


def _distinct(names: Iterable[str]) -> Iterable[str]:
    """A unique name for each column: `x`, `x 2`, and `column 3` for a column without a name."""
    seen: set[str] = set()
    for number, name in enumerate(names, 1):
        name = name or f"column {number}"
        found, count = name, 1
        while found in seen:
            count += 1
            found = f"{name} {count}"
        seen.add(found)
        yield found
