"""Reports that all threads of a data source are in use, as when they read a disk that hangs."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import anyio

from aiostream_ds._author_threads import threads_of
from aiostream_ds._loggers import get_logger
from aiostream_ds.datasource import DataSource

__all__ = ["THREADS_CHECK", "ThreadWatch"]

log = get_logger(__name__)

THREADS_CHECK = 5.0
"""Seconds between two checks for what waits for a thread. Two in a row are logged."""


class _Limit(NamedTuple):
    """A limit of threads: of a data source, or of all of them."""

    uid: str
    text: str  # after "all 40 threads"
    advice: str


class ThreadWatch:
    """Remembers for which limits something waited, and logs one line when it begins and ends."""

    __slots__ = ("_reported", "_waited")

    def __init__(self) -> None:
        self._waited: set[_Limit] = set()  # at the last check
        self._reported: set[_Limit] = set()

    def check(self, sources: Iterable[DataSource[Any]]) -> None:
        """Check the limits of these data sources, and anyio's own."""
        waited = set()
        for limit, limiter, source in _limits(sources):
            waiting = limiter.statistics().tasks_waiting
            if not waiting:
                continue
            waited.add(limit)
            if limit in self._waited and limit not in self._reported:
                self._reported.add(limit)
                log.warning(
                    "all %d threads %s are in use%s, and %d more wait for one; %s",
                    limiter.total_tokens,
                    limit.text,
                    "" if source is None else threads_of(source).users(limiter),
                    waiting,
                    limit.advice,
                    extra=_extra(limit),
                )
        for limit in self._reported - waited - self._waited:
            self._reported.discard(limit)
            log.info("nothing waits for threads %s any more", limit.text, extra=_extra(limit))
        self._waited = waited


def _extra(limit: _Limit) -> dict[str, str]:
    return {"datasource": limit.uid} if limit.uid else {}


_SHARED = _Limit("", "of anyio's own limit", "pass limiter=self.threads to the calls of anyio")

_ANYIO_BACKEND = "anyio._backends._asyncio"  # takes long to import, so not only for this check


def _limits(
    sources: Iterable[DataSource[Any]],
) -> "Iterator[tuple[_Limit, anyio.CapacityLimiter, DataSource[Any] | None]]":
    if _ANYIO_BACKEND not in sys.modules:  # nothing has used a limit yet
        return
    import anyio.to_thread

    yield _SHARED, anyio.to_thread.current_default_thread_limiter(), None
    for source in sources:
        for attribute, what, limiter in threads_of(source).limits:
            advice = (
                f"raise self.{attribute}.total_tokens, or write methods that wait as `async def`"
            )
            text = f"of {type(source).__name__} for {what}"
            yield _Limit(source.instance.uid, text, advice), limiter, source
