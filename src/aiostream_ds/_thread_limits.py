"""Limits of the calls that run in threads: of the runtime, and of each data source.

anyio has one limit for all calls. When those of one data source hang, as on a network disk, the
others and the runtime must still get threads: each counts against a limiter of its own.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeVar, TypeVarTuple, Unpack
from weakref import WeakSet

import anyio

if TYPE_CHECKING:
    from anyio.lowlevel import RunVar

__all__ = [
    "AUTHOR_THREADS",
    "STREAM_THREADS",
    "THREADS",
    "active_calls",
    "count_active_calls_of",
    "new_limiter",
    "run_in_thread",
]

THREADS = 8
"""Calls that the runtime runs in threads at once; the next waits."""

AUTHOR_THREADS = 40
"""Calls that one data source runs in threads of `DataSource.threads` at once; the next waits."""

STREAM_THREADS = 100
"""Streams that are a `def` that one data source runs at once; the next waits."""

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_limiters: "WeakSet[anyio.CapacityLimiter]" = WeakSet()
_others: "WeakSet[HasActiveCalls]" = WeakSet()


class HasActiveCalls(Protocol):
    """Runs calls in threads of its own."""

    @property
    def active_calls(self) -> int:
        """The number of calls that run."""


def count_active_calls_of(other: HasActiveCalls) -> None:
    """Let `active_calls` count its calls too, as long as the object exists."""
    _others.add(other)


def new_limiter(threads: int = AUTHOR_THREADS) -> "anyio.CapacityLimiter":
    """A limiter whose calls `active_calls` counts."""
    limiter = anyio.CapacityLimiter(threads)
    _limiters.add(limiter)
    return limiter


@cache
def _shared_limiter() -> "RunVar[anyio.CapacityLimiter]":
    """The limiter of the runtime's own calls, of each event loop."""
    from anyio.lowlevel import RunVar

    return RunVar("aiostream_ds_threads")


def active_calls() -> int:
    """The number of calls that run in threads of these limiters, of anyio's own and of others."""
    import anyio.to_thread

    default = anyio.to_thread.current_default_thread_limiter()
    borrowed = sum(each.borrowed_tokens for each in (default, *_limiters))
    return int(borrowed + sum(each.active_calls for each in _others))


async def run_in_thread(function: Callable[[Unpack[Arguments]], T], *arguments: *Arguments) -> T:
    """Run the runtime's own function in a thread. Cancellation by a scope waits for its end;
    that of a task by asyncio does not, and the function goes on."""
    import anyio.to_thread  # with its event loop, which a start does without

    shared = _shared_limiter()
    try:
        limiter = shared.get()
    except LookupError:
        limiter = new_limiter(THREADS)
        shared.set(limiter)
    return await anyio.to_thread.run_sync(function, *arguments, limiter=limiter)
