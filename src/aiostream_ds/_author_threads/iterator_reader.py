"""An author's iterator, read in a thread."""

import asyncio
from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from typing import Any

import anyio

from aiostream_ds._author_threads.loop_access import LoopAccess
from aiostream_ds._author_threads.worker import Job
from aiostream_ds._loop_calls import resolve
from aiostream_ds._short_repr import short_repr

__all__ = ["IteratorReader"]


class IteratorReader:
    """Rows from an iterator in a thread, to the event loop.

    The event loop allows a number of rows. The thread counts what it has read, and waits when that
    is reached; it wakes the loop when the loop sleeps. Each writes only its own attributes, and the
    list, whose methods are atomic.
    """

    __slots__ = (
        "_access",
        "_count",
        "_find_copy",
        "_gate",
        "_is_at_gate",
        "_is_asleep",
        "_limit",
        "_loop",
        "_name",
        "_open_rows",
        "_read_ahead",
        "_rows",
        "_stopped",
        "error",
        "future",
        "has_ended",
        "job",
        "other",
    )

    future: "asyncio.Future[None]"
    job: Job

    def __init__(
        self,
        name: str,
        open_rows: Callable[[], Any],
        find_copy: Callable[[type], Callable[[Any], Any] | None] | None,
        read_ahead: int,
    ) -> None:
        self._name = name
        self._open_rows = open_rows
        self._find_copy = find_copy
        self._read_ahead = read_ahead
        self._loop = asyncio.get_running_loop()
        self._access = LoopAccess()
        self._gate: SimpleQueue[None] = SimpleQueue()
        self._rows: list[Any] = []
        self._count = 0  # rows that were read
        self._limit = 0
        self._stopped = False
        self._is_at_gate = False  # set by the thread
        self._is_asleep = False  # set by the event loop, cleared by the thread
        self.error: BaseException | None = None
        self.other: Any = None
        self.has_ended = False

    # In the thread

    def run(self) -> None:
        self._access.enter()
        try:
            self._wait(0)
            rows = None if self._stopped else self._open()
            if rows is not None:
                try:
                    self._read(rows)
                finally:
                    self._close(rows)
        except BaseException as error:
            if not (self._stopped and isinstance(error, GeneratorExit)):
                self.error = error
        finally:
            self._access.leave()

    def _open(self) -> Iterator[Any] | None:
        rows = self._open_rows()
        if hasattr(rows, "__anext__"):
            self.other = rows
            return None
        if not hasattr(rows, "__next__"):
            raise TypeError(
                f"{self._name} must yield, or return an iterator, got {short_repr(rows)}"
            )
        found: Iterator[Any] = rows
        return found

    def _close(self, rows: Any) -> None:
        if isinstance(rows, Generator):  # another iterator may be a client that others share
            try:
                rows.close()
            except RuntimeError as error:
                if "ignored GeneratorExit" not in str(error):
                    raise
                text = f"{self._name} yields in its finally while it is closed"
                raise RuntimeError(text) from error

    def _read(self, rows: Iterator[Any]) -> None:
        append, find_copy = self._rows.append, self._find_copy
        count = 0
        kind: type | None = None
        copy: Callable[[Any], Any] | None = None
        for row in rows:
            try:
                if row.__class__ is not kind and find_copy is not None:
                    kind = row.__class__
                    copy = find_copy(kind)
                append(row if copy is None else copy(row))
            except BaseException:
                append(row)  # the event loop reads it again, and reports the error
            count += max(1, len(row)) if kind is list else 1
            self._count = count
            if self._is_asleep:
                self._is_asleep = False
                self._loop.call_soon_threadsafe(self.wake)
            if count >= self._limit:
                self._wait(count)
                if self._stopped:
                    return

    def _wait(self, count: int) -> None:
        """Wait until more rows are allowed than were read, or until the end."""
        while count >= self._limit and not self._stopped:
            self._is_at_gate = True
            if count >= self._limit and not self._stopped:  # still, now that the loop sees it
                self._gate.get()
            self._is_at_gate = False

    # In the event loop

    @property
    def is_waiting(self) -> bool:
        """Whether the thread waits for the event loop."""
        return self._is_at_gate or self._access.is_waiting

    def wake(self) -> None:
        resolve(self.future)

    async def take(self) -> list[Any]:
        """The rows that were read, at least one; none after the end."""
        rows = self._rows
        self._limit = self._count + self._read_ahead
        if self._is_at_gate:
            self._open_gate()
        while not rows and not self.has_ended:
            self.future = self._loop.create_future()
            self._is_asleep = True
            if rows or self.has_ended:
                break
            await self.future
        self._is_asleep = False
        found = rows[:]
        del rows[: len(found)]
        self._limit = 0  # until more is asked for
        return found

    def stop(self) -> None:
        """Let the thread end at the next `yield`."""
        self._stopped = True
        self._limit = 0
        self._access.stop()
        self._open_gate()

    def _open_gate(self) -> None:
        self._is_at_gate = False
        self._gate.put(None)

    async def join(self, seconds: float) -> None:
        """Wait for the end of the thread, up to so many seconds."""
        with anyio.move_on_after(seconds):
            while not self.has_ended:
                self.future = self._loop.create_future()
                await self.future
