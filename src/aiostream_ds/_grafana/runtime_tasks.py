"""Tasks of the runtime that run from a plugin's start to its end.

They are tasks of asyncio: anyio's code for its event loop is a sixth of a plugin's start, and is
imported when the first stream needs it.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from aiostream_ds._author_code import cancel
from aiostream_ds._loggers import get_logger

__all__ = ["RuntimeTasks", "runtime_tasks"]

log = get_logger(__name__)


class RuntimeTasks:
    """Runs tasks; `runtime_tasks` creates it. A task that fails cancels the host, which is the task
    that has entered `runtime_tasks`, and the other tasks."""

    def __init__(self, host: "asyncio.Task[Any]") -> None:
        self._host = host
        self._running: set[asyncio.Task[None]] = set()
        self._closing = False
        self.errors: list[Exception] = []

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            if not self.errors and not self._closing:
                cancel(self._host)
            self.errors.append(error)

    async def aclose(self) -> None:
        """Cancel the tasks and wait for all of them, also when the host is cancelled meanwhile."""
        self._closing = True
        for task in tuple(self._running):
            cancel(task)
        interruption: asyncio.CancelledError | None = None
        try:
            while self._running:
                try:
                    await asyncio.wait(self._running)
                except asyncio.CancelledError as error:
                    interruption = error
            if interruption is not None and not self.errors:
                raise interruption
        finally:
            del interruption  # error → traceback → this frame → error would be a cycle


@asynccontextmanager
async def runtime_tasks() -> AsyncGenerator[RuntimeTasks]:
    """Tasks that are cancelled when the block ends.

    Raises an ExceptionGroup of the tasks' errors. An exception of the block itself is raised as it
    is, and theirs are logged.
    """
    host = asyncio.current_task()
    assert host is not None
    tasks = RuntimeTasks(host)
    try:
        try:
            yield tasks
        except asyncio.CancelledError:
            if not tasks.errors or host.uncancel():
                raise
        finally:
            await tasks.aclose()
    except BaseException:
        for error in tasks.errors:
            log.error("a task of the runtime failed", exc_info=error)
        raise
    if tasks.errors:
        raise ExceptionGroup("tasks of the runtime failed", tasks.errors)
