"""Aware datetimes as Grafana has times: Unix milliseconds, and nanoseconds below them."""

from datetime import UTC, datetime, timedelta
from operator import attrgetter

__all__ = ["EPOCH", "MILLISECOND", "read_datetimes"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
_get_microsecond = attrgetter("microsecond")


def read_datetimes(values: list[datetime]) -> tuple[list[int], list[int] | None] | None:
    """Milliseconds, and nanoseconds below them if there are any; None when one is naive."""
    try:
        times = [(value - EPOCH) // MILLISECOND for value in values]
    except TypeError:
        return None
    if not any(part % 1000 for part in set(map(_get_microsecond, values))):
        return times, None
    return times, [value.microsecond % 1000 * 1000 for value in values]
