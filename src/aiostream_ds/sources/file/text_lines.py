"""Lines of text as rows: each line is one, with the time that is written in it.

A line without a time, as those of a traceback, has that of the line before it. If there is none in
the 64 KiB before it, it has the time at which the file was last changed.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.event_times import read_time
from aiostream_ds.sources.decoding.row_settings import RowSettings
from aiostream_ds.sources.file.records import Ndjson

__all__ = ["LOOK_BACK", "TextReader", "line_time"]

LOOK_BACK = 1 << 16
"""Maximum bytes before a line in which the time of an earlier line is looked for."""

_BEGINNING = 200
"""The characters of a line in which its time is looked for."""

_MONTHS = {
    name: number
    for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)
}
_MONTH = "|".join(_MONTHS)

_ISO = re.compile(
    r"\b\d{4}([-/])\d\d\1\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?",
    re.ASCII,
)
"""ISO 8601, also with a comma (Python's logging) or slashes (Go's log, nginx)."""

_COMMON = re.compile(
    rf"\b(\d\d)/({_MONTH})/(\d{{4}}):(\d\d:\d\d:\d\d)(?: ([+-]\d{{4}}))?", re.ASCII
)
"""The Common Log Format of web servers: 10/Oct/2026:13:55:36 -0700."""

_SYSLOG = re.compile(rf"(?:<\d+>)?({_MONTH}) ([ \d]\d) (\d\d:\d\d:\d\d)\b", re.ASCII)
"""RFC 3164, 4.1.2, at the beginning of a line: a time without a year."""


class Source(Protocol):
    """The file that the lines are read from."""

    def read(self, size: int, offset: int) -> bytes: ...
    def modified(self) -> int: ...


class TextReader:
    """A `LineReader` of text: the columns `time` (Unix ms), `offset`, `body` and `id`.

    Args:
        settings: how times are read in lines that are JSON objects.
        source: the file, for times of earlier lines.
        contains: only lines that contain this are rows, whatever the case.
    """

    __slots__ = (
        "_contains",
        "_end",
        "_json",
        "_known",
        "_settings",
        "_source",
        "_time",
        "left_out",
        "replaced",
    )

    def __init__(self, settings: RowSettings, source: Source, contains: str = "") -> None:
        self._settings = settings
        self._json = Ndjson(settings)
        self._source = source
        self._contains = contains.casefold()
        self._end = -1  # of the line that was read last
        # the last line with a time of its own before that end, by its beginning; and that time
        self._known: int | None = None
        self._time = 0
        self.replaced = self.left_out = 0

    def read(self, line: bytes, end: int) -> dict[str, Any] | None:
        """See `LineReader`."""
        start = end - len(line) - 1
        text, is_replaced = _decoded(line)
        time = self._time_of(line, text, start)
        self._end = end
        if not text or self._contains not in text.casefold():
            return None
        self.replaced += is_replaced
        # a rotated file's rows lose their offset: the id keeps it
        return {"time": time, "offset": end, "body": text, "id": f"{time}-{end}"}

    def of_all_lines(self) -> "TextReader":
        """A reader of the same lines without a filter."""
        return TextReader(self._settings, self._source)

    def _time_of(self, line: bytes, text: str, start: int) -> int:
        own = self._own_time(line, text)
        if own is not None:
            self._known, self._time = start, own
            return own
        if start != self._end:
            self._look_back(start)
        known = self._known
        if known is None or (known <= start - LOOK_BACK and start > LOOK_BACK):
            return self._source.modified()
        return self._time

    def _look_back(self, start: int) -> None:
        """Find the last line before this one that has a time of its own."""
        self._known = None
        begin = max(0, start - LOOK_BACK)
        data = self._source.read(start - begin, begin)
        # the first line is whole only at the beginning of the file
        first = data.find(b"\n") + 1 if begin else 0
        at = start
        for line in reversed(data[first:].split(b"\n")[:-1]):
            at -= len(line) + 1
            own = self._own_time(line, _decoded(line)[0])
            if own is not None:
                self._known, self._time = at, own
                return

    def _own_time(self, line: bytes, text: str) -> int | None:
        if text.startswith("{"):
            try:
                row = self._json.read(line, 0)
            except BadRecord:
                row = None
            if row is not None:
                time: int = row["time"]
                return time
        return line_time(text)


def _decoded(line: bytes) -> tuple[str, bool]:
    """The text, and whether it has invalid UTF-8, which is replaced."""
    try:
        text, is_replaced = line.decode(), False
    except UnicodeDecodeError:
        text, is_replaced = line.decode("utf-8", "replace"), True
    return text.rstrip("\r"), is_replaced


def line_time(text: str) -> int | None:
    """The time that is written at the beginning of a line, in Unix ms; None if there is none.

    A time without an offset is UTC.
    """
    text = text[:_BEGINNING]
    try:
        if (found := _ISO.search(text)) is not None:
            return read_time(found[0].replace(",", "."), RowSettings())
        if (found := _COMMON.search(text)) is not None:
            day, month, year, clock, offset = found.groups()
            iso = f"{year}-{_MONTHS[month]:02}-{day}T{clock}{offset or 'Z'}"
            return read_time(iso, RowSettings())
    except BadRecord:
        return None
    found = _SYSLOG.match(text)
    return None if found is None else _without_year(*found.groups())


def _without_year(month: str, day: str, clock: str) -> int | None:
    """The last such moment that is not more than a day in the future."""
    now = datetime.now(UTC)
    for year in (now.year + 1, now.year, now.year - 1):
        try:
            iso = f"{year}-{_MONTHS[month]:02}-{int(day):02}T{clock}+00:00"
            moment = datetime.fromisoformat(iso)
        except ValueError:  # 29 February
            continue
        if moment <= now + timedelta(days=1):
            return round(moment.timestamp() * 1000)
    return None
