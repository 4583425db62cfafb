"""Aware datetimes as Grafana's times: Unix milliseconds, and the nanoseconds below them."""

from datetime import UTC, datetime, timedelta
from itertools import repeat
from operator import attrgetter, sub

from aiostream_ds._short_repr import short_repr

__all__ = ["DAY", "EPOCH", "MILLISECOND", "TIME_LIMIT", "TIME_RANGE", "read_datetimes", "time_text"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

DAY = 86_400_000
"""Milliseconds of a day."""

TIME_LIMIT = (2**63 - 1) // 1_000_000 - 1
"""The largest time in ms: Grafana has 64 bits of nanoseconds, 1677-09-21 to 2262-04-11."""

TIME_RANGE = "a time from 1677-09-21 to 2262-04-11"
"""What is expected of a time outside the limit."""

_DAYS_LIMIT = TIME_LIMIT // DAY
_get_day, _get_second, _get_microsecond = map(attrgetter, ("days", "seconds", "microseconds"))
_below_millisecond = (1000).__rmod__  # x % 1000 in C: no Python call for each value


def time_text(ms: int) -> str:
    """A time in an error message: its date, if it is in the years 1 to 9999, and the number."""
    try:
        return f"{(EPOCH + timedelta(milliseconds=ms)).date()} ({ms} in Unix milliseconds)"
    except OverflowError:
        return f"{short_repr(ms)} in Unix milliseconds"


def read_datetimes(values: list[datetime]) -> tuple[list[int], list[int] | None] | None:
    """Milliseconds, and the nanoseconds below them if there are any. None if a datetime is naive or
    outside the limit."""
    try:
        first = (values[0] - EPOCH).days if values else 0
        if not -_DAYS_LIMIT < first < _DAYS_LIMIT:
            return None
        midnight = EPOCH + timedelta(first)
        since = list(map(sub, values, repeat(midnight)))
    except TypeError:
        return None
    start = first * DAY
    micros = list(map(_get_microsecond, since))
    if any(map(_get_day, since)):
        times = [start + delta // MILLISECOND for delta in since]
        if min(times) < -TIME_LIMIT or max(times) > TIME_LIMIT:
            return None
    else:  # all on one day, the common case; dividing timedeltas takes three times as long
        seconds = map(_get_second, since)
        times = [
            start + second * 1000 + micro // 1000
            for second, micro in zip(seconds, micros, strict=True)
        ]
    if any(map(_below_millisecond, micros)):
        return times, [micro % 1000 * 1000 for micro in micros]
    return times, None
