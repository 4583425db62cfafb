"""`self.tasks`: background tasks of a data source, which run as long as its lifespan.

A task ends as a run of a stream does: UpstreamError runs it again after a delay, another
PluginError ends it until the settings change, and anything else is a bug, which is logged with its
traceback before the task is run again. A task that returns is done.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any, TypeVarTuple, Unpack

import anyio

from aiostream_ds._author_code import cancel, contained, message_of, stack_of
from aiostream_ds._author_threads import runs_in_thread
from aiostream_ds._channels.policy import HEALTHY_AFTER, Retry
from aiostream_ds._loggers import get_logger
from aiostream_ds._redaction import redact_start
from aiostream_ds._telemetry import Counters, use_counters
from aiostream_ds.errors import PluginError, unwrap

__all__ = ["TASKS_CLOSE_TIMEOUT", "TASK_RETRY", "BackgroundTasks"]

log = get_logger(__name__)

TASK_RETRY = Retry(min_delay=0.5, max_delay=30.0)
"""The back-off of a background task that fails."""

TASKS_CLOSE_TIMEOUT = 10.0
"""Seconds that background tasks may take to end before the lifespan is left without them."""

_PROBLEMS = 20
"""Most names of tasks that have ended with an error; the oldest is forgotten first."""

_MESSAGE_LIMIT = 500
"""Most characters of one task's error in Save & test."""

Arguments = TypeVarTuple("Arguments")


class BackgroundTasks:
    """Background tasks of a data source: `self.tasks.start_soon(self.poll)`.

    They start when the lifespan has been entered, and are cancelled once before it is left. A task
    that raises UpstreamError, or has a bug, is run again after a delay, longer after each failure;
    one that raises another PluginError has ended until the settings change. Save & test is red
    meanwhile. A task that returns is done.
    """

    def __init__(
        self,
        uid: str,
        counters: Counters,
        declare: Callable[[Exception], Exception] = lambda error: error,
    ) -> None:
        self._extra = {"datasource": uid}
        self._counters = counters
        self._declare = declare  # see `declared_errors`
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[_Supervised] = []  # for the lifespan
        self._running: dict[asyncio.Task[None], _Supervised] = {}
        self._ended: dict[str, str] = {}  # by name: why it does not run any more
        self._closed = False

    def start_soon(
        self,
        function: Callable[[Unpack[Arguments]], Awaitable[Any]],
        *arguments: *Arguments,
        name: str | None = None,
    ) -> None:
        """Run `await function(*arguments)` as long as the data source is open. Thread-safe.

        It runs in an empty context, and independently of what has started it, as a stream or a
        query.

        Args:
            function: an `async def`; called again after an error.
            arguments: its arguments.
            name: its name in the log and in Save & test; by default that of the function.

        Raises:
            TypeError: `function` is a `def`, which would block the event loop, or a coroutine,
                which could not be called again.
            RuntimeError: the data source has closed.
        """
        if inspect.iscoroutine(function):
            function.close()  # it would be reported as never awaited
            called = function.__qualname__
            raise TypeError(
                f"start_soon takes an `async def`, got a call of {called}; pass the function and"
                " its arguments: self.tasks.start_soon(function, argument)"
            )
        is_method = inspect.isfunction(function) or inspect.ismethod(function)
        if not callable(function) or (is_method and runs_in_thread(function)):
            raise TypeError(
                f"start_soon takes an `async def`, got {function!r}; run blocking code in one, by"
                " `await anyio.to_thread.run_sync(function, limiter=self.threads)`"
            )
        if self._closed:
            raise RuntimeError("the data source has closed: it starts no background tasks")
        shown = name or str(getattr(function, "__qualname__", function))
        work = partial(function, *arguments)
        task = _Supervised(shown, work, self._counters, self._extra, self._declare)
        if self._loop is None:
            self._waiting.append(task)
        else:
            self._loop.call_soon_threadsafe(self._start, task)

    @property
    def problems(self) -> list[str]:
        """The tasks that fail, each with its error."""
        found = [*self._ended.items()]
        found += [(each.name, each.problem) for each in self._running.values()]
        return [f"the background task {name} fails: {text}" for name, text in found if text]

    # For the runtime

    def open(self) -> None:
        """The lifespan has been entered: start the tasks."""
        self._loop = asyncio.get_running_loop()
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            self._start(task)

    def _start(self, supervised: "_Supervised") -> None:
        if self._closed:
            return
        task = asyncio.Task(supervised.run(), name=supervised.name, context=Context())
        self._running[task] = supervised
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        supervised = self._running.pop(task)
        if supervised.problem:
            self._ended[supervised.name] = supervised.problem
            if len(self._ended) > _PROBLEMS:
                del self._ended[next(iter(self._ended))]

    async def aclose(self) -> None:
        """Cancel all tasks, once, and wait for them; report those that do not end in time."""
        self._closed = True
        for task in tuple(self._running):
            self._running[task].is_closing = True
            cancel(task)
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=TASKS_CLOSE_TIMEOUT)
        for task, supervised in self._running.items():
            self._counters.tasks_stuck += 1
            log.error(
                "the background task %s was cancelled %g s ago and has not ended\n%s",
                supervised.name,
                TASKS_CLOSE_TIMEOUT,
                stack_of(task),
                extra=self._extra,
            )


class _Supervised:
    """One task: runs the author's function, again after errors."""

    def __init__(
        self,
        name: str,
        function: Callable[[], Awaitable[Any]],
        counters: Counters,
        extra: dict[str, str],
        declare: Callable[[Exception], Exception],
    ) -> None:
        self.name = name
        self._declare = declare
        self.is_closing = False
        self._function = function
        self._counters = counters
        self._extra = extra
        self._error = ""
        self._healthy_at: float | None = None  # None: it does not run

    @property
    def problem(self) -> str:
        """The last error, until it has run for a while without one."""
        if self._healthy_at is not None and anyio.current_time() >= self._healthy_at:
            return ""
        return self._error

    async def run(self) -> None:
        use_counters(self._counters)
        failures = 0
        while True:
            started = anyio.current_time()
            try:
                if failures:  # here, where a cancellation by the author's code is handled
                    await anyio.sleep(TASK_RETRY.delay(failures))
                    started = anyio.current_time()
                self._healthy_at = started + HEALTHY_AFTER
                await self._function()
            except BaseException as error:
                failure = contained(error, requested=self.is_closing)
                if failure is None:
                    raise
                if self.is_closing:
                    log.error("background task %s: %s", self.name, failure, exc_info=failure)
                    return
                was_long = anyio.current_time() - started > TASK_RETRY.max_delay
                failures = 1 if was_long else failures + 1
                if self._handle(failure, failures):
                    return
            else:
                self._error = ""
                return

    def _handle(self, failure: Exception, failures: int) -> bool:
        """Log and count an error. Returns whether the task has ended."""
        failure = self._declare(failure)
        declared = unwrap(failure)
        self._error = redact_start(message_of(declared), _MESSAGE_LIMIT)
        self._healthy_at = None
        self._counters.task_failures += 1
        if not isinstance(declared, PluginError):
            text = "background task %s failed; it runs again"
            log.error(text, self.name, exc_info=failure, extra=self._extra)
            return False
        if declared.permanent:
            text = "background task %s ended: %s; it runs again when the settings change"
            log.error(text, self.name, declared, exc_info=declared.__cause__, extra=self._extra)
            return True
        cause = declared.__cause__ if failures == 1 else None  # the same traceback each time
        text = "background task %s interrupted: %s; it runs again (attempt %d)"
        log.warning(text, self.name, declared, failures, exc_info=cause, extra=self._extra)
        return False
