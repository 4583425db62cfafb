"""Finds times that are probably Unix seconds: as milliseconds they are in the spring of 1970."""

from operator import index
from typing import Any

from aiostream_ds._frames.config import Notice
from aiostream_ds._loggers import get_logger

__all__ = ["TimeCheck"]

log = get_logger(__name__)

_SECONDS = range(10**9, 10**10)  # Unix seconds of the years 2001 to 2286


class TimeCheck:
    """Looks at the first time of a batch. `is_done` after the first call for live rows."""

    __slots__ = ("_has_warned", "is_done")

    def __init__(self) -> None:
        self._has_warned = self.is_done = False

    def notice(self, name: str, times: Any) -> Notice | None:
        """A notice, if the first time is in seconds; the first one is also logged as a warning."""
        self.is_done = True
        first: Any = times[0] if len(times) else None
        if not hasattr(first, "__index__") or index(first) not in _SECONDS:
            return None
        text = (
            f"column {name!r} must be Unix milliseconds or datetimes, got {first!r}, which is in"
            " the year 1970; if it is seconds, multiply it by 1000"
        )
        if not self._has_warned:
            self._has_warned = True
            log.warning("%s", text)
        return Notice(severity="warning", text=text)
