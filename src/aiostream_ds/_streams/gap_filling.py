"""Emits the rows that were written while a stream with a cursor was interrupted."""

from collections.abc import Awaitable, Callable

from aiostream_ds._channels.channel import Channel
from aiostream_ds._encoding.cursor_encoder import CursorEncoder
from aiostream_ds._loggers import get_logger
from aiostream_ds._telemetry import Counters
from aiostream_ds.rows import HistoryPage

__all__ = ["fill_gap"]

log = get_logger(__name__)


async def fill_gap(
    read_after: Callable[[int, int], Awaitable[HistoryPage]],
    limit: int,
    channel: Channel,
    encoder: CursorEncoder,
    path: str,
    counters: Counters,
) -> None:
    """Emit the rows after the encoder's cursor, page by page, up to the newest, as fast as the
    subscribers receive them.

    `read_after(cursor, limit)` returns the oldest `limit` rows after a cursor. Raises what it
    raises.
    """
    filled = 0
    while True:
        epoch, cursor = encoder.cursor
        page = await read_after(cursor, limit)
        if page.epoch != epoch:
            break  # the numbering has restarted: the stream method begins with its first row
        if page.truncated:
            log.warning(
                "rows of an outage are lost: they are no longer stored", extra={"path": path}
            )
            encoder.skip_to_first(page.rows)
        rows, _ = channel.emit(*encoder.encode([page.rows]))
        filled += rows
        await channel.pace()
        if rows < limit:
            break
    if filled:
        counters.rows_filled += filled
        log.info("%d rows of an outage were read from the history", filled, extra={"path": path})
