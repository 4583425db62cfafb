"""Event times of lines and messages: formats, units, and keys that are named like times."""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from aiostream_ds.sources.decoding.bad_record import BadRecord, shown
from aiostream_ds.sources.decoding.row_settings import RowSettings, TimeUnit
from aiostream_ds.sources.decoding.text_cells import text_number

__all__ = ["EARLIEST_MS", "LATEST_MS", "guess_time", "read_time"]

EARLIEST_MS, LATEST_MS = -9_223_372_036_854, 9_223_372_036_854
"""Unix ms that frames can hold: the years 1677 to 2262."""

_PER_MS: Mapping[str, float] = {"s": 1e-3, "ms": 1.0, "us": 1e3, "ns": 1e6}

_LIMITS = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
"""The units of `auto`: a number with an absolute value below the limit has the unit."""

_LONGEST = 100  # characters of a text that may be a time

_TIME_NAMES = frozenset({"time", "timestamp", "@timestamp", "datetime", "date", "ts"})
"""In lower case: keys and columns that can be the time of a row without the key `time`."""

_LONGEST_NAME = max(map(len, _TIME_NAMES))


def guess_time(names: Collection[str], settings: RowSettings) -> str | None:
    """The only key or column that is named like a time, unless the settings name another one."""
    if settings.time != "time":
        return None
    found = [
        name
        for name in names
        if len(name) <= _LONGEST_NAME  # a long one would be copied for each row
        and name.lower() in _TIME_NAMES
        and name not in settings.columns
    ]
    return found[0] if len(found) == 1 else None


def read_time(value: Any, settings: RowSettings) -> int:
    """An event time in Unix ms. Raises BadRecord."""
    kind = type(value)
    ms: float
    if kind is str:
        if len(value) > _LONGEST:
            raise BadRecord(f"the time must be ISO 8601 or a number, got {shown(value)}")
        number = text_number(value)
        ms = _iso(value) if number is None else _scaled(number, settings.time_unit)
    elif kind is int or kind is float:
        ms = _scaled(value, settings.time_unit)
    elif value is None:
        raise BadRecord(
            f"expected a time in {settings.time!r}, got none; set `time` to the key of the time"
        )
    else:
        raise BadRecord(f"the time must be ISO 8601 or a number, got {shown(value)}")
    if not EARLIEST_MS <= ms <= LATEST_MS:
        raise BadRecord(f"the time must be in the years 1677 to 2262, got {shown(value)}")
    return round(ms)


def _scaled(number: float, unit: TimeUnit) -> float:
    size = abs(number)
    found = unit if unit != "auto" else next((u for limit, u in _LIMITS if size < limit), "ns")
    try:
        if found == "ns" and type(number) is int:
            return number // 1_000_000
        return number / _PER_MS[found]
    except OverflowError:
        raise BadRecord(
            f"the time must be in the years 1677 to 2262, got {shown(number)}"
        ) from None


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
        raise BadRecord(f"the time must be ISO 8601 or a number, got {shown(text)}") from None
