"""Calls into an event loop from any thread."""

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["call_in", "resolve", "wake"]


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function in an event loop soon. Thread-safe; does nothing if the loop is closed."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        pass  # the loop is closed: nobody waits any more


def wake(waiter: "asyncio.Future[None]") -> None:
    """Resolve a future of any event loop. Thread-safe."""
    loop = waiter.get_loop()
    try:
        runs_here = asyncio.get_running_loop() is loop
    except RuntimeError:
        runs_here = False
    if runs_here:
        resolve(waiter)
    else:
        call_in(loop, resolve, waiter)


def resolve(waiter: "asyncio.Future[None]") -> None:
    """Resolve a future of this event loop, if it is not done."""
    if not waiter.done():
        waiter.set_result(None)
