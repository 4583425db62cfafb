"""The task that enters and leaves an author's lifespan.

It is cancelled once, and again, at growing intervals, only if it does not end: a lifespan that
swallows its cancellation is reported and left alone, and costs nothing but its memory.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from aiostream_ds._author_code import cancel, stack_of
from aiostream_ds._loggers import get_logger
from aiostream_ds._telemetry import Counters

__all__ = ["CANCEL_AGAIN", "LifespanTask"]

log = get_logger(__name__)

CANCEL_AGAIN = 5.0
"""Seconds after which a lifespan that does not end is cancelled again; then after twice as long."""

_LONGEST_WAIT = 12
"""A lifespan is cancelled again after 1, 2, 4, 8, 12, 12, … times CANCEL_AGAIN."""


class LifespanTask:
    """Runs `work`, in an empty context. `uid` is that of the data source, for the log.

    Attributes:
        cancelled: whether it has been cancelled.
        task: the asyncio task.
    """

    __slots__ = ("_cancellations", "_counters", "_extra", "_timer", "cancelled", "task")

    def __init__(self, work: Coroutine[Any, Any, None], uid: str, counters: Counters) -> None:
        self._counters = counters
        self._extra = {"datasource": uid}
        self._timer: asyncio.TimerHandle | None = None
        self._cancellations = 0
        self.cancelled = False
        # not by the loop's factory, which may be one of eager tasks: it begins after this call
        self.task: asyncio.Task[None] = asyncio.Task(
            work, name=f"lifespan {uid}", context=contextvars.Context()
        )
        self.task.add_done_callback(self._ended)

    def call_after(self, seconds: float, expired: Callable[[], None]) -> None:
        """Call `expired` after so long, unless the task ends or `unlimited` is called before."""
        self.unlimited()
        if not self.task.done():
            self._timer = self.task.get_loop().call_later(seconds, expired)

    def unlimited(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def report(self, message: str) -> None:
        """Log an error with the stack of the task, and count it."""
        self._counters.lifespans_stuck += 1
        log.error("%s\n%s", message, stack_of(self.task), extra=self._extra)

    def cancel(self) -> None:
        """Cancel the task; again, as long as it does not end."""
        if self.task.done():
            return
        self.cancelled = True
        if self._cancellations == 1:
            self.report(
                f"the data source's lifespan was cancelled {CANCEL_AGAIN:g} s ago and has not ended"
            )
        wait = CANCEL_AGAIN * min(2**self._cancellations, _LONGEST_WAIT)
        self._cancellations += 1
        cancel(self.task)
        self.call_after(wait, self.cancel)

    def _ended(self, _: "asyncio.Task[None]") -> None:
        self.unlimited()
