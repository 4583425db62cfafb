"""Reads the sources of an operator: each in a task of its own, into one bounded queue."""

import asyncio
import math
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from aiostream_ds._author_code import contained
from aiostream_ds._author_threads import next_in_thread
from aiostream_ds._frames.dataframes import is_table
from aiostream_ds._loggers import get_logger
from aiostream_ds._run_scope import close_with_run
from aiostream_ds._short_repr import short_repr

__all__ = ["READ_AHEAD", "Operator", "Source", "SourceReader", "positive"]

log = get_logger(__name__)

READ_AHEAD = 1_000
"""Rows that an operator reads ahead of the stream that it is for."""

T = TypeVar("T")
Out = TypeVar("Out")

Source = AsyncIterable[T] | Iterable[T]


class SourceReader:
    """Reads several sources, each in a task of its own, into one bounded queue."""

    def __init__(self, sources: "Sequence[AsyncIterable[Any]]") -> None:
        self._sources = sources
        self._tasks: list[asyncio.Task[None]] = []
        self._rows: deque[tuple[int, Any]] = deque()
        self._open = len(sources)
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._space = asyncio.Event()
        self.is_closed = False

    def start(self) -> None:
        """Create the tasks."""
        for index, source in enumerate(self._sources):
            self._tasks.append(asyncio.create_task(self._read(index, source)))
        self._sources = ()

    async def _read(self, index: int, source: AsyncIterable[Any]) -> None:
        try:
            iterator = aiter(source)
            try:
                async for row in iterator:
                    self._rows.append((index, row))
                    self._wake()
                    while len(self._rows) >= READ_AHEAD:
                        self._space.clear()
                        await self._space.wait()
            finally:
                aclose = getattr(iterator, "aclose", None)
                if aclose is not None:
                    await aclose()
        except BaseException as error:  # a task that raises SystemExit ends the event loop
            failure = contained(error, requested=self.is_closed)
            if failure is None:
                raise
            if self.is_closed:
                log.error("a source of an operator failed while it closed", exc_info=failure)
            elif self._error is None:
                self._error = failure
        finally:
            self._open -= 1
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self, seconds: float) -> tuple[int, Any]:
        """The next row and the number of its source.

        Raises:
            TimeoutError: there was none for so many seconds.
            StopAsyncIteration: all sources have ended.
            Exception: the error of a source.
        """
        if not self._rows and self._open and self._error is None:
            await self._wait(seconds)
        if self._rows:
            found = self._rows.popleft()
            if len(self._rows) <= READ_AHEAD // 2:
                self._space.set()
            return found
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None
        if not self._open:
            raise StopAsyncIteration
        raise TimeoutError

    async def _wait(self, seconds: float) -> None:
        if self._waiter is not None:
            raise RuntimeError("expected one task to read an operator, got a second one")
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = None if seconds == math.inf else loop.call_later(seconds, self._wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def cancel(self) -> None:
        """Cancel the tasks."""
        self.is_closed = True
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        """Cancel the tasks and wait until the sources have ended.

        A cancellation meanwhile is passed on to them: none outlives the run of its stream.
        """
        self.cancel()
        cancelled: asyncio.CancelledError | None = None
        while tasks := [task for task in self._tasks if not task.done()]:
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError as error:
                cancelled = error
                self.cancel()
        if cancelled is not None:
            raise cancelled


class Operator(Generic[Out]):
    """The rows of an operator: an async iterator, or an iterator in the thread of a stream that is
    a `def`."""

    def __init__(self, sources: "Sequence[Source[Any]]") -> None:
        self._reader: SourceReader | None = None  # first: `__del__` reads it
        self._sources = [async_iterable(source) for source in sources]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._results: deque[Out] = deque()
        self._has_ended = False
        self._wait = math.inf  # seconds of silence after which `_timed_out` is called

    def __aiter__(self) -> "Operator[Out]":
        return self

    def __iter__(self) -> "Operator[Out]":
        return self

    def __next__(self) -> Out:
        return next_in_thread(self)

    async def __anext__(self) -> Out:
        while not self._results:
            if self._has_ended:
                raise StopAsyncIteration
            reader = self._reader or self._start()
            try:
                index, row = await reader.next(self._wait)
            except TimeoutError:
                if reader.is_closed:
                    raise StopAsyncIteration from None
                self._timed_out()
            except StopAsyncIteration:
                self._has_ended = True
                self._finish()
                await self.aclose()
            except asyncio.CancelledError:
                raise
            except BaseException:
                self._has_ended = True
                await self.aclose()
                raise
            else:
                self._receive(index, row)
        return self._results.popleft()

    def _start(self) -> SourceReader:
        self._loop = asyncio.get_running_loop()
        self._reader = reader = SourceReader(self._sources)
        self._sources = []
        reader.start()
        close_with_run(reader)  # not self: it may be gone while its sources still close
        return reader

    async def aclose(self) -> None:
        """Close the sources: their `finally` has run when it returns. A later call does nothing."""
        self._has_ended = True
        if self._reader is not None:
            await self._reader.aclose()

    def __del__(self) -> None:
        if self._reader is not None and not self._reader.is_closed and self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._reader.cancel)
            except RuntimeError:
                pass  # the event loop is closed, and its tasks with it

    @abstractmethod
    def _receive(self, index: int, row: Any) -> None:
        """A row of the source with this number."""

    def _timed_out(self) -> None:
        """No row has arrived for `_wait` seconds."""

    def _finish(self) -> None:
        """All sources have ended."""


def async_iterable(source: Any) -> AsyncIterable[Any]:
    if isinstance(source, AsyncIterable):
        return source
    is_rows = isinstance(source, Iterable) and not isinstance(source, str | bytes | Mapping)
    if is_rows and not is_table(type(source)):
        return _iterate(source)
    hint = ""
    if hasattr(source, "subscribe"):
        hint = "; call its subscribe()"
    elif is_table(type(source)):
        hint = "; pass its rows as a list of dicts"
    shown = short_repr(source)
    raise TypeError(f"a source must be an async iterable or a list of rows, got {shown}{hint}")


async def _iterate(rows: Iterable[T]) -> AsyncGenerator[T, None]:
    for row in rows:
        yield row


def positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0, got {value!r}")
    return value
