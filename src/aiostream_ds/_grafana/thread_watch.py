"""Reports that all threads of a data source are busy, as when they read a disk that hangs."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import anyio
import anyio.to_thread

from aiostream_ds._loggers import get_logger
from aiostream_ds.datasource import DataSource

__all__ = ["THREADS_CHECK", "ThreadWatch"]

log = get_logger(__name__)

THREADS_CHECK = 5.0
"""Seconds between two checks for calls that wait for a thread. Two in a row are logged."""


class _Owner(NamedTuple):
    """What a limiter is for: a data source, or all of them."""

    uid: str
    text: str


class ThreadWatch:
    """Remembers which limiters had calls that wait, and logs one line when it begins and ends."""

    __slots__ = ("_reported", "_waited")

    def __init__(self) -> None:
        self._waited: set[_Owner] = set()  # at the last check
        self._reported: set[_Owner] = set()

    def check(self, sources: Iterable[DataSource[Any]]) -> None:
        """Check the limiters of these data sources, and anyio's own."""
        waited = set()
        for owner, limiter in _limiters(sources):
            waiting = limiter.statistics().tasks_waiting
            if not waiting:
                continue
            waited.add(owner)
            if owner in self._waited and owner not in self._reported:
                self._reported.add(owner)
                text = "all %d threads of %s are busy, and %d calls wait for one"
                log.warning(text, limiter.total_tokens, owner.text, waiting, extra=_extra(owner))
        for owner in self._reported - waited - self._waited:
            self._reported.discard(owner)
            log.info("no call waits for a thread of %s any more", owner.text, extra=_extra(owner))
        self._waited = waited


def _extra(owner: _Owner) -> dict[str, str]:
    return {"datasource": owner.uid} if owner.uid else {}


def _limiters(
    sources: Iterable[DataSource[Any]],
) -> Iterable[tuple[_Owner, anyio.CapacityLimiter]]:
    default = anyio.to_thread.current_default_thread_limiter()
    yield _Owner("", "anyio's limiter, which calls without `limiter=self.threads` share,"), default
    for source in sources:
        limiter = vars(source).get("threads")  # made at its first use
        if isinstance(limiter, anyio.CapacityLimiter):
            yield _Owner(source.instance.uid, "the data source"), limiter
