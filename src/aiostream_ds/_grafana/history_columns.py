"""The columns of streams of dicts, read from their histories before a live row has them."""

from collections.abc import Awaitable, Callable

import anyio

from aiostream_ds._author_code import isolate, message_of
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._loggers import get_logger

__all__ = ["COLUMNS_AGAIN", "COLUMNS_ROWS", "COLUMNS_WAIT", "HistoryColumns"]

log = get_logger(__name__)

COLUMNS_ROWS = 100
"""Newest rows of a history that are read for the columns of a stream of dicts: one row need not
have all columns."""

COLUMNS_WAIT = 2.0
"""Seconds for which a subscription and the start of a stream wait for the rows that have the
columns: the rows that come do not need them."""

COLUMNS_AGAIN = 10.0
"""Seconds after which a history that had no row, or that could not be read, is asked for columns
again."""


class HistoryColumns:
    """Reads the columns of channels: once for all that join meanwhile."""

    def __init__(self, registry: ChannelRegistry) -> None:
        self._registry = registry
        self._locks: dict[ChannelKey, anyio.Lock] = {}  # of those that are read now
        self._given_up: set[ChannelKey] = set()

    async def read(
        self,
        key: ChannelKey,
        read_rows: Callable[[], Awaitable[object]],
        is_known: Callable[[], bool],
    ) -> None:
        """Call `read_rows`, unless the columns are known or were not found a moment ago.

        That it raises, or takes longer than `COLUMNS_WAIT`, is logged: the next row has the
        columns, too. Safe to cancel.
        """
        if key in self._given_up or is_known():
            return
        lock = self._locks.setdefault(key, anyio.Lock())
        try:
            async with lock:
                if key in self._given_up or is_known():
                    return
                problem = await _problem_of(read_rows)
                if problem:
                    log.warning("%s: the columns are unknown: %s", key.path, problem)
                if not is_known():
                    self._given_up.add(key)
                    self._registry.loop.call_later(COLUMNS_AGAIN, self._given_up.discard, key)
        finally:
            if not lock.locked():
                self._locks.pop(key, None)


async def _problem_of(read_rows: Callable[[], Awaitable[object]]) -> str:
    """Why the rows could not be read; "" if they were."""
    try:
        with anyio.move_on_after(COLUMNS_WAIT) as scope, isolate():
            await read_rows()
    except Exception as error:
        return message_of(error)
    if scope.cancelled_caught:
        return f"its newest rows were not read within {COLUMNS_WAIT:g} s"
    return ""
