"""One call of an author's function in a thread."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiostream_ds._author_threads.worker import Job
from aiostream_ds._loggers import get_logger
from aiostream_ds._loop_calls import resolve

__all__ = ["ThreadCall"]

log = get_logger(__name__)


class ThreadCall:
    """A function's result, from a thread to the event loop."""

    __slots__ = ("_error", "_function", "_value", "future", "has_ended", "job", "name")

    is_waiting = False

    future: "asyncio.Future[None]"
    job: Job

    def __init__(self, name: str, function: Callable[[], Any]) -> None:
        self.name = name
        self._function = function
        self._value: Any = None
        self._error: BaseException | None = None
        self.has_ended = False

    def run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error

    def wake(self) -> None:
        resolve(self.future)
        if self.future.cancelled() and self._error is not None:
            log.info("%s failed after its cancellation", self.name, exc_info=self._error)

    async def wait(self) -> None:
        await self.future

    def result(self) -> Any:
        error, self._error = self._error, None
        try:
            if isinstance(error, StopIteration):
                raise RuntimeError(f"{self.name} raised StopIteration") from error
            if error is not None:
                raise error
            return self._value
        finally:
            del error  # error → traceback → this frame → error would be a cycle
