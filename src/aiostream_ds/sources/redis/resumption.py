"""What a run that failed leaves for the next one of its stream."""

from collections import OrderedDict
from typing import Generic, TypeVar

import anyio

__all__ = ["Resumption"]

KEPT = 100
"""Maximum number of streams; the oldest is forgotten first."""

SECONDS = 60.0
"""Seconds for which it is kept. A stream with viewers runs again at most 30 s after a failure; one
that starts later is another one, which begins with new rows."""

T = TypeVar("T")


class Resumption(Generic[T]):
    """The states of runs by the paths of their streams."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def keep(self, path: str, state: T) -> None:
        """The run has failed."""
        self._kept[path] = anyio.current_time(), state
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def take(self, path: str) -> T | None:
        """The state of the run that has just failed; None if there is none."""
        since, state = self._kept.pop(path, (0.0, None))
        return state if anyio.current_time() - since <= SECONDS else None
