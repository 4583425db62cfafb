"""Calls an author's method: a `def` in a thread of its data source."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from aiostream_ds._author_threads.pool import AuthorThreads
from aiostream_ds._declared_errors import declaring
from aiostream_ds._telemetry import current_counters

__all__ = ["call_method", "runs_in_thread", "threads_of"]

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
"""Flags of the code of an `async def`; `inspect` also knows partials, and takes longer."""


def runs_in_thread(function: Callable[..., Any]) -> bool:
    """Whether a method of an author is a `def`, which may block, and not an `async def`."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is not None and code.co_flags & _ASYNC:
        return False
    return not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function))


def threads_of(source: Any) -> AuthorThreads:
    """The worker threads of a data source."""
    found: AuthorThreads | None = vars(source).get("_author_threads")
    if found is None:
        found = source._author_threads = AuthorThreads(source, current_counters())
    return found


async def call_method(source: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call a method of a data source: an `async def` in the event loop, a `def` in a thread.

    An awaitable that a `def` returns, as one that wraps an `async def` does, is awaited here.
    Raises what the method raises, as `declared_errors` states it.
    """
    method = getattr(source, name)
    with declaring(type(source)):
        if not runs_in_thread(method):
            return await method(*args, **kwargs)
        result = await threads_of(source).call(name, partial(method, *args, **kwargs))
        return await result if inspect.isawaitable(result) else result
