"""A line of a file as a row: NDJSON and CSV, event times, types that two readers agree on.

Numbers are floats always: a server that has read only the half with `7` and one that has read the
half with `7.5` send one schema. Nothing here reads a file.
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
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
"""How `auto` tells the unit: a number below the limit, whatever its sign, has this unit."""

_DELIMITERS = ",;\t|"

_BOOLEANS = {"true": True, "false": False}


class RecordSettings(Settings):
    """How lines are read."""

    time: str = "time"
    """The key or column with the event time: ISO 8601 (UTC unless it says otherwise) or a number
    since 1970."""
    time_unit: TimeUnit = "auto"
    """Of such a number; auto takes it for seconds below 1e11, for ms below 1e14, for µs below 1e17,
    else for ns, which is right from 1973 on."""
    columns: dict[str, Kind] = {}
    """Columns of a fixed type, there in each row whether or not the line has them; what does not
    fit is empty."""
    others: bool = True
    """Whether the line's other columns are shown too."""


class BadLine(ValueError):
    """This line is no row; the message says why."""


class LineReader(Protocol):
    """Reads the lines of one file. `replaced` counts those with bytes that are no UTF-8."""

    replaced: int

    def read(self, line: bytes, end: int) -> dict[str, Any] | None:
        """The row of a line, without its newline, that ends at the offset `end`.

        None for a line that says nothing: an empty one, a header. Raises BadLine.
        """


class Ndjson:
    """One JSON object a line."""

    __slots__ = ("_fixed", "_names", "_settings", "replaced")

    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._fixed = {name: _FIXED[kind] for name, kind in settings.columns.items()}
        self._names = dict(zip(self._fixed, _own_names(self._fixed), strict=True))
        self.replaced = 0

    def read(self, line: bytes, end: int) -> dict[str, Any] | None:
        """See `LineReader`."""
        try:
            values = msgspec.json.decode(line)
        except (ValueError, RecursionError):
            if not line.strip():
                return None
            values = self._decode_oddly(line)
        if not isinstance(values, dict):
            raise BadLine(f"{type(values).__name__} where a JSON object is allowed")
        settings = self._settings
        row: dict[str, Any] = {
            "time": read_time(values.pop(settings.time, None), settings),
            "offset": end,
        }
        for name, read in self._fixed.items():
            row[self._names[name]] = read(values.pop(name, None))
        if settings.others:
            try:
                for name, value in values.items():
                    if name in _RESERVED:
                        name += "_"
                    row[name] = float(value) if type(value) is int else value
            except OverflowError:
                raise BadLine(f"a number in {name!r} is too large") from None
        return row

    def _decode_oddly(self, line: bytes) -> Any:
        """What others write for JSON: NaN (which becomes null), a byte order mark, half UTF-8."""
        try:
            values = json.loads(self._text(line))
            return msgspec.json.decode(msgspec.json.encode(values))
        except (ValueError, RecursionError, OverflowError):
            raise BadLine("no JSON") from None

    def _text(self, line: bytes) -> str:
        try:
            return line.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.replaced += 1
            return line.decode("utf-8-sig", "replace")


class Csv:
    """Cells under a header line. A cell with a line break in it is not possible: a line is a row.

    The delimiter is the one of comma, semicolon, tab and bar that the header has most of.
    """

    __slots__ = ("_columns", "_delimiter", "_header", "_names", "_settings", "_time", "replaced")

    def __init__(self, settings: RecordSettings, header: bytes) -> None:
        self._settings = settings
        self.replaced = 0
        text = header.decode("utf-8-sig", "replace").rstrip("\r")
        self._delimiter = max(_DELIMITERS, key=text.count)
        self._header = text
        try:
            names = list(_distinct(map(str.strip, self._cells(text))))
        except BadLine:
            names = [text]
        self._names = names
        self._time = names.index(settings.time) if settings.time in names else None
        self._columns = list(self._plan(names))

    def _plan(self, names: list[str]) -> Iterable[tuple[int | None, str, Callable[[str], Any]]]:
        """Position in the line, name in the row and reader of each column."""
        fixed = self._settings.columns
        for name, kind in fixed.items():
            place = names.index(name) if name in names else None
            yield place, name + "_" * (name in _RESERVED), _FIXED[kind]
        if self._settings.others:
            for place, name in enumerate(names):
                if name not in fixed and place != self._time:
                    yield place, name + "_" * (name in _RESERVED), _cell

    def read(self, line: bytes, end: int) -> dict[str, Any] | None:
        """See `LineReader`."""
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self.replaced += 1
            text = line.decode("utf-8", "replace")
        text = text.rstrip("\r")
        if not text or text == self._header:
            return None  # writers repeat the header when they start again
        cells = self._cells(text)
        if len(cells) != len(self._names):
            raise BadLine(f"{len(cells)} cells under a header of {len(self._names)}")
        if self._time is None:
            raise BadLine(f"the header has no column {self._settings.time!r}")
        row: dict[str, Any] = {
            "time": read_time(cells[self._time].strip(), self._settings),
            "offset": end,
        }
        for place, name, read in self._columns:
            row[name] = read(cells[place]) if place is not None else None
        return row

    def _cells(self, text: str) -> list[str]:
        if '"' not in text:
            return text.split(self._delimiter)
        try:
            return next(csv.reader([text], delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            raise BadLine(f"no CSV: {error}") from None


def read_time(value: Any, settings: RecordSettings) -> int:
    """Unix ms of an event time. Raises BadLine for what is none."""
    kind = type(value)
    ms: float
    if kind is str:
        number = _number(value)
        ms = _iso(value) if number is None else _scaled(number, settings.time_unit)
    elif kind is int or kind is float:
        ms = _scaled(value, settings.time_unit)
    elif value is None:
        raise BadLine(f"no {settings.time!r} in it")
    else:
        raise BadLine(f"the time is {_shown(value)}; allowed is ISO 8601 or a number")
    if not EARLIEST <= ms <= LATEST:
        raise BadLine(f"the time {_shown(value)} is outside the years 1677 to 2262")
    return round(ms)


def _scaled(number: float, unit: TimeUnit) -> float:
    size = abs(number)
    found = unit if unit != "auto" else next((u for limit, u in _LIMITS if size < limit), "ns")
    try:
        if found == "ns" and type(number) is int:
            return number // 1_000_000
        return number / _PER_MS[found]
    except OverflowError:
        raise BadLine(f"the time {_shown(number)} is outside the years 1677 to 2262") from None


def _iso(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
    except (ValueError, OverflowError):
        raise BadLine(f"the time {_shown(text)} is neither ISO 8601 nor a number") from None


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not spell out numbers of thousands of digits
        return "a number"
    return text if len(text) <= 60 else text[:57] + "..."


def _number(text: str) -> float | None:
    """A finite number as people write one: Python also takes `1_000` and other scripts' digits."""
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
    return None if text.strip().lower() in ("", "nan") else text


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
"""Columns that every row has; a line's own of that name get a `_` behind it."""


def _own_names(names: Iterable[str]) -> Iterable[str]:
    return (name + "_" if name in _RESERVED else name for name in names)


def _distinct(names: Iterable[str]) -> Iterable[str]:
    """A name for each column: `x`, `x 2`; a column without one is called by its place."""
    seen: set[str] = set()
    for place, name in enumerate(names, 1):
        name = name or f"column {place}"
        found, count = name, 1
        while found in seen:
            count += 1
            found = f"{name} {count}"
        seen.add(found)
        yield found
