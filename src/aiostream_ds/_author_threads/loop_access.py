"""What a stream that is a `def` does in the event loop, from its thread."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextvars import copy_context
from typing import Any, TypeVar

__all__ = ["LoopAccess", "in_event_loop", "in_stream_thread", "next_in_thread"]

T = TypeVar("T")

_thread = threading.local()


class LoopAccess:
    """The way from the thread of one stream to the event loop. Made in the event loop, in the
    context of the run: what is opened through it is closed with the run.

    Attributes:
        is_waiting: whether the event loop has not answered yet. Set and cleared in the event loop,
            so that the thread counts as active until its question has begun, and from its answer
            on.
    """

    __slots__ = ("_answer", "_context", "_is_stopped", "_loop", "is_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._answer: Future[tuple[Any, BaseException | None]] | None = None
        self._is_stopped = False
        self.is_waiting = False

    # In the thread

    def enter(self) -> None:
        """Make this the access of the running thread."""
        _thread.access = self

    def leave(self) -> None:
        """The stream has ended."""
        _thread.access = None

    def ask(self, make: Callable[[], Awaitable[T]]) -> T:
        """The result of an awaitable that is made and awaited in the event loop.

        Raises:
            GeneratorExit: the stream is closed, as at a `yield`.
        """
        question = self._ask(make)
        try:
            self._answer = self._context.run(asyncio.run_coroutine_threadsafe, question, self._loop)
        except RuntimeError:  # the loop is closed: the process ends
            question.close()
            raise GeneratorExit from None
        if self._is_stopped:
            self._answer.cancel()
        error: BaseException | None = None
        try:
            result, error = self._answer.result()
            if error is not None:
                raise error
            found: T = result
            return found
        except CancelledError:
            if not self._is_stopped:
                raise RuntimeError("what the stream waited for was cancelled") from None
            raise GeneratorExit from None
        finally:
            self._answer = None
            del error  # error → traceback → this frame → error would be a cycle

    async def _ask(self, make: Callable[[], Awaitable[T]]) -> tuple[Any, BaseException | None]:
        self.is_waiting = True
        try:
            return await make(), None
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a task that raises SystemExit ends the event loop
            return None, error
        finally:
            self.is_waiting = False

    # In the event loop

    def stop(self) -> None:
        """Close the stream where it waits for the event loop, now or later."""
        self._is_stopped = True
        answer = self._answer
        if answer is not None:
            answer.cancel()


def in_event_loop(name: str, function: Callable[[], T]) -> T:
    """Call a function: directly in an event loop, and from the thread of a stream in the event loop
    of that stream.

    Raises:
        RuntimeError: this is another thread; with the name of what the author called.
        GeneratorExit: the stream is closed.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return function()
    access = _access()
    if access is None:
        raise RuntimeError(
            f"{name} must be called in an event loop or in a stream, got a thread of another kind;"
            " read the rows in a stream"
        )

    async def call() -> T:
        return function()

    return access.ask(call)


def in_stream_thread() -> bool:
    """Whether this is the thread of a stream that is a `def`."""
    return _access() is not None


def next_in_thread(rows: AsyncIterator[T]) -> T:
    """The `__next__` of an async iterator: waits for its next row in the thread of a stream.

    Raises:
        StopIteration: it has ended.
        RuntimeError: this is not the thread of a stream that is a `def`.
        GeneratorExit: the stream is closed.
        Exception: what the iterator raises.
    """
    access = _access()
    if access is None:
        raise RuntimeError(
            "expected `for` in a stream that is a `def`, got it elsewhere; use `async for` in an"
            " `async def`, and no `for` in other threads"
        )
    try:
        return access.ask(rows.__anext__)
    except StopAsyncIteration:
        raise StopIteration from None


def _access() -> LoopAccess | None:
    return getattr(_thread, "access", None)
