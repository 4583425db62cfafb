"""Virtual time: an event loop whose clock jumps instead of waiting, for tests of anything timed.

Inside `async` tests nothing is needed: when every task waits for a timer, the clock jumps to it.
From plain code the loop is driven by hand, and calls to the tested objects are made outside it:

    loop.step()        exactly one turn
    loop.settle()      until nothing is ready; the time stands still
    loop.advance(s)    the same, and every timer of the next s seconds fires in its order
"""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from anyio import NoEventLoopError
from anyio.to_thread import current_default_thread_limiter

__all__ = ["Deadlock", "VirtualLoop"]

_PATIENCE = 2.0  # real seconds in which another thread or process may still wake the loop
_START = 1_000.0

_Result = TypeVar("_Result")
_Args = TypeVarTuple("_Args")


class Deadlock(RuntimeError):
    """The loop would wait for ever: nothing is ready, no timer runs, nothing came from outside."""


class _Selector(selectors.DefaultSelector):
    """Polls; what to do instead of waiting is the loop's to say."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        return self.loop._would_wait(timeout, super().select)


def _anyio_calls_in_threads() -> int:
    """Calls of `anyio.to_thread.run_sync` that are under way in the running loop."""
    try:
        return int(current_default_thread_limiter().borrowed_tokens)
    except (NoEventLoopError, RuntimeError):
        return 0


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time.

    It waits really while a call in the loop's executor is under way, or one of anyio's in a thread.
    A thread that was given a capacity limiter of its own is not seen: the clock may jump meanwhile.
    """

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self._now = _START
        self._until: float | None = None  # driven by hand, up to this time
        self._calls_in_threads = 0
        super().__init__(selector)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def step(self) -> None:
        """One turn: what is ready now runs once, what it makes ready does not."""
        self._drive(self._now, one_turn=True)

    def settle(self) -> None:
        """Turns until nothing is ready. The time stands still."""
        self._drive(self._now)

    def advance(self, seconds: float) -> None:
        """Let so much time pass; timers fire in their order, each at its own time."""
        self._drive(self._now + seconds)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Args], _Result], *args: *_Args
    ) -> asyncio.Future[_Result]:
        """As in asyncio; the clock stands still until the call is done."""
        future = super().run_in_executor(executor, func, *args)
        self._calls_in_threads += 1
        future.add_done_callback(self._call_done)
        return future

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  (asyncio's signature)
    ) -> None:
        """As in asyncio, but without its time limit, which would be over at once."""
        await super().shutdown_default_executor()

    def _call_done(self, _: asyncio.Future[Any]) -> None:
        self._calls_in_threads -= 1

    def _drive(self, until: float, *, one_turn: bool = False) -> None:
        self._until = until
        try:
            if one_turn:
                self.stop()
            self.run_forever()
        finally:
            self._until = None

    def _would_wait(self, timeout: float | None, wait: Callable[[float], list[Any]]) -> list[Any]:
        if self._calls_in_threads or _anyio_calls_in_threads():
            return wait(_PATIENCE)
        if self._until is not None:
            if timeout is None or self._now + timeout > self._until:
                self._now = max(self._now, self._until)
                self.stop()
            else:
                self._now += timeout
            return []
        if timeout is not None:
            self._now += timeout
            return []
        events = wait(_PATIENCE)
        if not events:
            raise Deadlock("nothing is ready, no timer runs, and nothing came from outside")
        return events
