"""The worker threads of one data source."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from contextvars import Context, copy_context
from functools import cached_property, partial
from typing import Any, Protocol, TypeVar
from weakref import ref

import anyio

from aiostream_ds._author_threads.iterator_reader import IteratorReader
from aiostream_ds._author_threads.thread_call import ThreadCall
from aiostream_ds._author_threads.worker import Job, Worker
from aiostream_ds._loggers import get_logger
from aiostream_ds._telemetry import Counters
from aiostream_ds._thread_limits import count_active_calls_of
from aiostream_ds.errors import UpstreamError

__all__ = [
    "ABANDONED_AFTER",
    "CALL_WAIT",
    "CLOSE_WAIT",
    "READ_AHEAD",
    "AuthorThreads",
    "ThreadedSource",
]

log = get_logger(__name__)

CALL_WAIT = 10.0
"""Seconds that a call of a `def` method waits for a free thread of its data source."""

CLOSE_WAIT = 0.8
"""Seconds that the end of a stream waits for its thread to reach the next `yield`: less than the
time after which a closing stream is cancelled again."""

ABANDONED_AFTER = 10.0
"""Seconds after its cancellation from which a `def` method that still runs counts as abandoned, and
is reported with its stack."""

READ_AHEAD = 1_000
"""Maximum number of rows that the thread of a stream holds while the event loop is busy."""

_IDLE_THREADS = 8
"""Most threads of a data source that are kept for the next call."""

_SHOWN = 5
"""Most methods that a message about a limit names."""

_LIMITED = {"threads": "calls", "stream_threads": "streams"}
"""What counts against the limit that is in this attribute of a data source."""

T = TypeVar("T")


class ThreadedSource(Protocol):
    """What `threads_of` needs of a data source."""

    @property
    def threads(self) -> "anyio.CapacityLimiter":
        """The limit of calls."""

    @property
    def stream_threads(self) -> "anyio.CapacityLimiter":
        """The limit of streams."""


class AuthorThreads:
    """The worker threads of one data source. Not thread-safe: use it in the event loop's thread.

    Attributes:
        abandoned: cancelled calls and streams whose threads still run.
    """

    def __init__(self, source: ThreadedSource, counters: Counters) -> None:
        self._source_ref = ref(source)  # which refers to this: not a cycle
        self._counters = counters
        instance = getattr(source, "instance", None)
        self._label = type(source).__name__
        self._extra = {"datasource": getattr(instance, "uid", "")}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[Worker] = []
        self._running: dict[Job, ThreadCall | IteratorReader] = {}
        self._closed = False
        self.abandoned: dict[Job, None] = {}
        count_active_calls_of(self)

    def __del__(self) -> None:
        self.close()  # of a data source that the runtime has not opened

    @property
    def _source(self) -> ThreadedSource:
        source = self._source_ref()
        assert source is not None  # who calls this has found it through the data source
        return source

    @property
    def active_calls(self) -> int:
        """The number of threads that run an author's code for the running event loop."""
        if self._loop is not asyncio.get_running_loop():
            return 0
        return sum(not each.is_waiting for each in self._running.values())

    @property
    def limits(self) -> "list[tuple[str, str, anyio.CapacityLimiter]]":
        """The limits that are in use: the attribute, what counts against it, and the limit."""
        found = ((name, what, _made(self._source, name)) for name, what in _LIMITED.items())
        return [(name, what, limit) for name, what, limit in found if limit is not None]

    @property
    def problem(self) -> str:
        """What an admin should know: which limit is reached, which calls do not end. Or ""."""
        found = [
            f"all {_count(limiter)} threads for {what} are in use"
            for _, what, limiter in self.limits
            if limiter.borrowed_tokens >= limiter.total_tokens
        ]
        if self.abandoned:
            noun = "a thread does" if len(self.abandoned) == 1 else "threads do"
            found.append(f"{noun} not end: {_names(self.abandoned)}")
        return "; ".join(found)

    def users(self, limiter: "anyio.CapacityLimiter") -> str:
        """The methods whose threads count against a limit, as in `" by a (3 s), b (1 s)"`; "" where
        only the author's own calls of anyio do."""
        found = [job for job in self._running if job.limiter is limiter]
        return f" by {_names(found)}" if found else ""

    def close(self) -> None:
        """End the idle threads, and each other one when its call has returned."""
        self._closed = True
        for worker in self._idle:
            worker.jobs.put(None)
        self._idle.clear()

    # Calls

    async def call(self, name: str, function: Callable[[], T], *, limited: bool = True) -> T:
        """Run a function of the author in a thread, in a copy of this task's context.

        Cancellation passes at once, and the thread runs to its end. Raises what the function raises
        (a StopIteration, which no coroutine can raise, as the cause of a RuntimeError).

        Args:
            name: the author's method, for messages.
            function: what to call.
            limited: whether it counts against the limit of calls.

        Raises:
            UpstreamError: no thread was free for CALL_WAIT seconds.
        """
        job = ThreadCall(name, function)
        limiter = self._source.threads if limited else None
        if limiter is not None:
            await self._borrow(limiter, job, name)
        self._start(job, name, job.run, copy_context(), limiter)
        try:
            await job.wait()
        except BaseException:
            self._leave(job)
            raise
        result: T = job.result()
        return result

    async def _borrow(self, limiter: "anyio.CapacityLimiter", borrower: object, name: str) -> None:
        """Wait for a free thread."""
        if self._borrow_nowait(limiter, borrower):
            return
        with anyio.move_on_after(CALL_WAIT):
            return await limiter.acquire_on_behalf_of(borrower)
        raise UpstreamError(
            f"no thread was free for {name} in {CALL_WAIT:g} s: all {_count(limiter)} are in use"
            f"{self.users(limiter)}"
        )

    def _borrow_nowait(self, limiter: "anyio.CapacityLimiter", borrower: object) -> bool:
        try:
            limiter.acquire_on_behalf_of_nowait(borrower)
            return True
        except anyio.WouldBlock:
            self._counters.thread_waits += 1
            return False

    # Threads

    def _start(
        self,
        borrower: ThreadCall | IteratorReader,
        name: str,
        work: Callable[[], None],
        context: Context,
        limiter: "anyio.CapacityLimiter | None",
    ) -> None:
        loop = self._loop = asyncio.get_running_loop()
        worker = self._idle.pop() if self._idle else Worker(f"{self._label}.{name}")
        borrower.future = loop.create_future()

        def in_loop() -> None:
            del self._running[job]
            if limiter is not None:
                limiter.release_on_behalf_of(borrower)
            if self.abandoned.pop(job, self) is None:
                log.info("%s.%s has ended", self._label, name, extra=self._extra)
            if self._closed or len(self._idle) >= _IDLE_THREADS:
                worker.jobs.put(None)
            else:
                self._idle.append(worker)
            borrower.has_ended = True
            borrower.wake()

        def in_thread() -> None:
            try:
                loop.call_soon_threadsafe(in_loop)
            except RuntimeError:  # the loop is closed: the process ends
                worker.jobs.put(None)

        job = borrower.job = Job(name, work, in_thread, context, limiter)
        self._running[job] = borrower
        worker.name = f"{self._label}.{name}"
        worker.jobs.put(job)
        if not worker.is_alive():
            try:
                worker.start()
            except RuntimeError:  # the system has no more threads
                del self._running[job]
                if limiter is not None:
                    limiter.release_on_behalf_of(borrower)
                raise

    def _leave(self, borrower: ThreadCall | IteratorReader) -> None:
        """Nothing waits for this job any more: report it if it does not end soon."""
        job = borrower.job
        if job in self._running and self._loop is not None:
            self._loop.call_later(ABANDONED_AFTER, self._abandon, job)

    def _abandon(self, job: Job) -> None:
        if job not in self._running or job in self.abandoned:
            return
        self.abandoned[job] = None
        self._counters.threads_abandoned += 1
        log.error(
            "%s.%s was cancelled and does not end; its thread counts against the limit until it"
            " does\n%s",
            self._label,
            job.name,
            job.stack,
            extra=self._extra,
        )

    # Streams

    async def iterate(
        self,
        name: str,
        open_rows: Callable[[], Any],
        *,
        reader: Callable[[type], Callable[[Any], Any] | None] | None = None,
        status: Callable[[str], Any] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Iterate over what a function of the author returns, in one thread and an empty context.

        Rows leave at once. The iterator is advanced while rows are asked for, and by one row more;
        a fast one is read in batches. Closing this generator closes the author's at its next
        `yield`, and waits CLOSE_WAIT seconds for that.

        Args:
            name: the author's method, for messages.
            open_rows: returns an iterator.
            reader: finds what reads a row of a class in the thread, before the author can change
                it. A row that it cannot read is left as it is.
            status: makes what a stream yields while it waits for a thread, and "" when it has one.
                Left out for what is not a stream: it counts against the limit of calls.
        """
        source = self._source
        limiter = source.threads if status is None else source.stream_threads
        source_rows = IteratorReader(name, open_rows, reader, 1 if status is None else READ_AHEAD)
        has_waited = False
        if status is None:
            await self._borrow(limiter, source_rows, name)
        elif not self._borrow_nowait(limiter, source_rows):
            has_waited = True
            yield status(f"waits for a thread: all {_count(limiter)} for streams are in use")
            await limiter.acquire_on_behalf_of(source_rows)
        # the thread is started first: a generator that is closed at a `yield` starts none
        self._start(source_rows, name, source_rows.run, Context(), limiter)
        try:
            if has_waited and status is not None:
                yield status("")
            while rows := await source_rows.take():
                for row in rows:
                    yield row
        finally:
            await self._end(source_rows)
        if source_rows.other is not None:  # a `def` that has returned an async iterator
            async with _closing(source_rows.other) as others:
                async for row in others:
                    yield row

    async def _end(self, reader: IteratorReader) -> None:
        """Let the iterator end; raise what it has raised."""
        reader.stop()
        try:
            await reader.join(CLOSE_WAIT)
        finally:
            self._leave(reader)  # does nothing if it has ended
        error, reader.error = reader.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # error → traceback → this frame → error would be a cycle

    # Lifespans

    def enter(self, manager: AbstractContextManager[T]) -> AbstractAsyncContextManager[T]:
        """A `with` statement as an `async with` statement, entered and left in threads.

        It does not count against the limit of calls: they cannot keep it from closing.
        """
        return self._enter(manager)

    @asynccontextmanager
    async def _enter(self, manager: AbstractContextManager[T]) -> AsyncGenerator[T]:
        lock, is_entered, is_left = threading.Lock(), False, False

        def enter() -> T:
            nonlocal is_entered
            value = manager.__enter__()
            with lock:
                is_entered = not is_left
            if not is_entered:  # it was given up meanwhile: nothing else would close it
                manager.__exit__(None, None, None)
            return value

        async def leave(*error: Any) -> bool | None:
            function = partial(manager.__exit__, *error)
            return await self.call("lifespan", function, limited=False)

        try:
            value = await self.call("lifespan", enter, limited=False)
        except BaseException:
            with lock:
                is_left = True
            if is_entered:  # just before the cancellation
                with anyio.CancelScope(shield=True):
                    await leave(None, None, None)
            raise
        try:
            yield value
        except BaseException as error:
            if not await leave(type(error), error, error.__traceback__):
                raise
        else:
            await leave(None, None, None)


@asynccontextmanager
async def _closing(rows: Any) -> AsyncGenerator[Any]:
    try:
        yield rows
    finally:
        if hasattr(rows, "aclose"):
            await rows.aclose()


def _made(source: ThreadedSource, name: str) -> "anyio.CapacityLimiter | None":
    """A limiter; None for one that is made at its first use, and has none yet."""
    if isinstance(getattr(type(source), name, None), cached_property):
        return vars(source).get(name)
    found: anyio.CapacityLimiter = getattr(source, name)
    return found


def _count(limiter: "anyio.CapacityLimiter") -> str:
    return f"{limiter.total_tokens:g}"


def _names(jobs: Iterable[Job]) -> str:
    """The methods that run, the longest running first."""
    oldest = sorted(jobs, key=lambda job: job.began)
    more = f" and {len(oldest) - _SHOWN} more" if len(oldest) > _SHOWN else ""
    return ", ".join(map(str, oldest[:_SHOWN])) + more
