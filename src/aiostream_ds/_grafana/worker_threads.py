"""Threads for the runtime's own work.

An author's calls use anyio's 40 threads. When they hang, as on a network disk, the runtime must
still encode frames and render metrics: its calls count against a limiter of their own.
"""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

__all__ = ["THREADS", "run_in_thread"]

THREADS = 8
"""Calls that the runtime runs in threads at once; the next waits."""

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_limiter: RunVar[anyio.CapacityLimiter] = RunVar("aiostream_ds_threads")


async def run_in_thread(function: Callable[[Unpack[Arguments]], T], *arguments: *Arguments) -> T:
    """Run the runtime's own function in a thread. Cancellation waits for its end."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *arguments, limiter=limiter)
