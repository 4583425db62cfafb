"""One request for all who ask the same at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from aiostream_ds._cluster.engine import EngineError

__all__ = ["SharedCall"]

_Result = TypeVar("_Result")


class SharedCall(Generic[_Result]):
    """A call whose result is the same for all callers, as the list of leases.

    Each caller gets the result of a call that began after its own: an earlier one may have been
    answered before. So two calls at most wait at a time, whatever the number of callers. An error
    is raised for each of them.

    Args:
        call: sends the request.
        name: of the tasks.
    """

    def __init__(self, call: Callable[[], Awaitable[_Result]], name: str) -> None:
        self._call, self._name = call, name
        self._running: asyncio.Task[_Result] | None = None
        self._next: asyncio.Task[_Result] | None = None

    async def __call__(self) -> _Result:
        """The result. When a caller is cancelled, the others get it still. Raises EngineError
        when `aclose` is called, and what the call raises."""
        if self._next is None:
            task = asyncio.create_task(self._call_after(self._running), name=self._name)
            task.add_done_callback(_forget_error)
            self._next = task
        task = self._next
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and caller is not None and not caller.cancelling():
                raise EngineError("NATS: the engine is closed") from None
            raise

    async def _call_after(self, earlier: "asyncio.Task[_Result] | None") -> _Result:
        if earlier is not None and not earlier.done():
            await asyncio.wait([earlier])
        self._running, self._next = self._next, None
        return await self._call()

    async def aclose(self) -> None:
        """End what runs."""
        tasks = [each for each in (self._running, self._next) if each is not None]
        self._running = self._next = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _forget_error(task: "asyncio.Task[_Result]") -> None:
    """Those who have waited for the task may all be cancelled."""
    if not task.cancelled():
        task.exception()
