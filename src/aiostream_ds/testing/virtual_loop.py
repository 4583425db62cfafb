"""Virtual time: an event loop whose clock jumps to the next timer instead of waiting.

Async tests need nothing else. Synchronous code drives the loop itself:

    loop.step()        run exactly one iteration
    loop.settle()      run until nothing is ready; the time does not change
    loop.advance(s)    run, and fire all timers of the next s seconds in their order
"""

import asyncio
import selectors
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from anyio import NoEventLoopError

from aiostream_ds._thread_limits import active_calls

__all__ = ["Deadlock", "VirtualLoop"]

_WAIT = 2.0  # real seconds in which another thread or process may still wake the loop
_PAUSE = 0.02  # real seconds in which a call that hangs may go on, as when a test has fed it
_START = 1_000.0

_Result = TypeVar("_Result")
_Args = TypeVarTuple("_Args")


class Deadlock(RuntimeError):
    """The loop would wait for ever: nothing is ready and there is no timer."""


class _Selector(selectors.DefaultSelector):
    """Polls. The loop decides what to do instead of waiting."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        self.loop._forget_ended_calls()
        if events or (timeout is not None and timeout <= 0):
            return events
        return self.loop._would_wait(timeout, super().select)


def _active_calls() -> int:
    """The number of calls in threads in the running loop."""
    try:
        return active_calls()
    except (NoEventLoopError, RuntimeError):
        return 0


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in virtual time.

    It waits in real time, 2 seconds at most, while a `def` method of a data source runs, or a call
    in its executor or in one of anyio's worker threads, with anyio's default limiter or that of
    `DataSource.threads`. If such calls go on to wake the loop, as a stream does that yields `[]`,
    its clock then runs as fast as real time. A call with another limiter is not detected: the clock
    may jump meanwhile.
    """

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self._now = _START
        self._until: float | None = None  # where step, settle or advance ends
        self._calls_in_threads = 0
        self._hanging = 0  # calls in threads that are hardly waited for any more
        self._waited = 0.0  # real seconds during calls in threads that this clock has not counted
        super().__init__(selector)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def step(self) -> None:
        """Run one iteration: the callbacks that are ready now."""
        self._drive(self._now, once=True)

    def settle(self) -> None:
        """Run until nothing is ready. The time does not change."""
        self._drive(self._now)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass; timers fire in their order, each at its time."""
        self._drive(self._now + seconds)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Args], _Result], *args: *_Args
    ) -> asyncio.Future[_Result]:
        """As in asyncio. The clock does not move until the call has returned."""
        future = super().run_in_executor(executor, func, *args)
        self._calls_in_threads += 1
        future.add_done_callback(self._call_done)
        return future

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  (asyncio's signature)
    ) -> None:
        """As in asyncio, but without a timeout: in virtual time it would expire at once."""
        await super().shutdown_default_executor()

    def _call_done(self, _: asyncio.Future[Any]) -> None:
        self._calls_in_threads -= 1

    def _drive(self, until: float, *, once: bool = False) -> None:
        self._until = until
        try:
            if once:
                self.stop()
            self.run_forever()
        finally:
            self._until = None

    def _would_wait(self, timeout: float | None, wait: Callable[[float], list[Any]]) -> list[Any]:
        delay = timeout
        if self._until is not None:
            remaining = max(self._until - self._now, 0.0)
            delay = remaining if timeout is None else min(timeout, remaining)
        calls = self._calls_in_threads + _active_calls()
        self._hanging = min(self._hanging, calls)
        if calls and not self._is_due(delay):
            hanging = calls == self._hanging
            events = self._wait_for_calls(wait, _PAUSE if hanging else _WAIT)
            if events:
                return events
            if not hanging:
                self._hanging = calls
                return []
        if delay is None:
            events = wait(_WAIT)
            if not events:
                raise Deadlock("the loop would wait for ever: nothing is ready, there is no timer")
            return events
        self._waited = max(self._waited - delay, 0.0)
        if self._until is not None and (timeout is None or timeout > delay):
            self._now = max(self._now, self._until)
            self.stop()
        else:
            self._now += delay
        return []

    def _forget_ended_calls(self) -> None:
        """Do not count the time of earlier calls, as those of another test on this loop, for later
        ones."""
        if (self._waited or self._hanging) and not self._calls_in_threads + _active_calls():
            self._waited, self._hanging = 0.0, 0

    def _is_due(self, delay: float | None) -> bool:
        """Whether so much real time has passed during calls that the clock follows it: calls that
        wake the loop again and again would stop it for ever."""
        return delay is not None and self._waited >= _WAIT + delay

    def _wait_for_calls(self, wait: Callable[[float], list[Any]], seconds: float) -> list[Any]:
        began = time.monotonic()
        try:
            return wait(seconds)
        finally:
            self._waited += time.monotonic() - began
