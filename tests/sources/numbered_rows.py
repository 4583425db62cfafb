"""Rows that are written while a test runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def writing(write: Callable[[int], Awaitable[None]]) -> AsyncIterator[None]:
    """Call `write` with 0, 1, 2 … every 20 ms. At the end the last call returns first: a client
    that is cancelled may not be used again."""
    is_done = False

    async def run() -> None:
        number = 0
        while not is_done:
            await write(number)
            number += 1
            await asyncio.sleep(0.02)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        is_done = True
        await task
