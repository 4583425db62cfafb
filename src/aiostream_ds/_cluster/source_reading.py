"""Tasks that read a source: their end, and reading it once for the rows of a gap."""

import asyncio
from contextlib import aclosing
from typing import Any

import anyio

from aiostream_ds._author_code import cancel, contained
from aiostream_ds._cluster.follower import LogFollower
from aiostream_ds._cluster.sharing import UpstreamSource
from aiostream_ds._loggers import get_logger

__all__ = ["end_reading", "read_gap"]

log = get_logger(__name__)

_CLOSE = 5.0  # seconds until a source that does not end is cancelled again
_GAP = 10.0  # seconds for reading the rows of a gap from the source


async def read_gap(
    source: UpstreamSource, follower: LogFollower, until: int, seconds: float
) -> None:
    """Read a source on this node for rows that the log does not have any more.

    Args:
        until: the cursor of the last of these rows.
        seconds: for the source to end, see `end_reading`.
    """
    task = asyncio.create_task(_read_until(source, follower, until))
    try:
        await asyncio.wait([task], timeout=_GAP)
    finally:
        await end_reading(task, seconds)


async def _read_until(source: UpstreamSource, follower: LogFollower, until: int) -> None:
    try:
        async with aclosing(source(follower.delivered)) as messages:
            async for outgoing in messages:
                follower.deliver_local(outgoing)
                if follower.has_rows_until(until):
                    return
    except BaseException as caught:
        error = contained(caught)
        if error is None:
            raise
        log.warning("the rows of a gap cannot be read", exc_info=error)


async def end_reading(task: "asyncio.Task[Any]", seconds: float) -> None:
    """Cancel a task once and wait for it; after `seconds` without its end it is left to itself,
    and cancelled again now and then."""
    if not task.done():
        cancel(task)
    interrupted: BaseException | None = None
    with anyio.CancelScope(shield=True):
        try:
            await asyncio.wait([task], timeout=seconds)
        except asyncio.CancelledError as error:
            interrupted = error
    if not task.done():
        log.warning("the source of a channel does not end", extra={"seconds": seconds})
        _cancel_later(task)
    elif not task.cancelled():
        task.exception()
    if interrupted is not None:
        raise interrupted


def _cancel_later(task: "asyncio.Task[Any]") -> None:
    def again() -> None:
        if not task.done():
            cancel(task)
            _cancel_later(task)

    asyncio.get_running_loop().call_later(_CLOSE, again)
