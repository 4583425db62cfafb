"""Waiting for what another process or thread does; there is no event of the loop for it."""

import inspect
from collections.abc import Callable
from typing import Any

import anyio

__all__ = ["until"]


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    """Wait for a condition, which may be a coroutine function."""
    with anyio.fail_after(seconds):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await anyio.sleep(0.01)
