"""Joins the rows of a stream with a cursor to those that were emitted before it.

    last row ──▶ history ──▶ the method is called ──▶ history ──▶ first live row
                 catch_up                             fill_before

What was written before a run, `catch_up` emits before the method is called. What was written until
the method's subscription took effect, `fill_before` emits when the first live row arrives.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import anyio
from msgspec import Meta

from aiostream_ds._author_code import isolate
from aiostream_ds._channels.channel import Channel
from aiostream_ds._encoding.cursor_encoder import CursorEncoder, has_lost_rows
from aiostream_ds._loggers import get_logger
from aiostream_ds._telemetry import Counters
from aiostream_ds.rows import Cursor, HistoryPage

__all__ = ["FILL_LIMIT", "HISTORY_WAITS", "GapFiller"]

log = get_logger(__name__)

FILL_LIMIT: Annotated[
    int,
    Meta(description="Most rows that are read from the history for one gap; more are left out."),
] = 100_000

HISTORY_WAITS: Annotated[
    tuple[float, ...],
    Meta(
        description="Seconds to wait before the history is asked again, when it does not have the"
        " first live row of a run yet; after the last one the gap is left."
    ),
] = (0.1, 0.2, 0.5, 1.0, 2.0)


class GapFiller:
    """Emits the rows between the encoder's cursor and the rows of a run.

    After each page it waits for the subscriptions. A gap that cannot be filled is
    left between two cursor ranges, so that exact panels fetch it; it is logged, counted, and a
    status of the channel.

    Args:
        read_after: `read_after(cursor, limit, upto)` returns the oldest `limit` rows after a
            cursor. What it raises, the methods raise.
        limit: the number of rows in a page.
        encoder: the encoder of the channel's rows.
        path: the channel's path, for the log.
        counters: where filled rows and gaps are counted.
    """

    def __init__(
        self,
        read_after: Callable[[int, int, int | None], Awaitable[HistoryPage]],
        limit: int,
        encoder: CursorEncoder,
        path: str,
        counters: Counters,
    ) -> None:
        self._read_after = read_after
        self._limit = limit
        self._encoder = encoder
        self._counters = counters
        self._extra = {"path": path}
        self._rest = 0  # rows that may still be filled

    async def catch_up(self, channel: Channel) -> None:
        """Emit the rows after the encoder's cursor, up to the newest one."""
        self._rest = FILL_LIMIT
        await self._fill(channel, None)

    def is_first(self, item: Any) -> bool:
        """Whether from this yield of a run on, the method misses no row.

        It is the first new row, or a `Cursor` of the same epoch: the author states what the rows
        follow.
        """
        if isinstance(item, Cursor):
            return item.epoch == self._encoder.epoch
        try:
            return self._encoder.first_new(item) is not None
        except TypeError:
            return True  # the encoder reports it

    async def fill_before(self, channel: Channel, item: Any) -> None:
        """Emit the rows between the encoder's cursor and this first yield of a run."""
        try:
            first = None if isinstance(item, Cursor) else self._encoder.first_new(item)
        except TypeError:
            return
        if first is None or first == self._encoder.last + 1:
            return
        self._rest = FILL_LIMIT
        for wait in (0.0, *HISTORY_WAITS):
            if wait:
                await anyio.sleep(wait)
            if await self._fill(channel, first):
                return
            if self._rest <= 0:
                break
        last = self._encoder.last
        self._gap_is_left(
            channel, f"the history does not have those between the cursors {last} and {first}"
        )
        self._encoder.skip_to(first)

    async def _fill(self, channel: Channel, before: int | None) -> bool:
        """Emit rows after the encoder's cursor, page by page; with `before` only those before it.

        Returns whether no row is missing: the history has reached `before`.
        """
        filled = 0
        complete = False
        try:
            while not complete and self._rest > 0:
                epoch, last = self._encoder.cursor
                with isolate():
                    page = await self._read_after(last, self._limit, before)
                if page.epoch != epoch:
                    return False  # the numbering has restarted: the method yields a Cursor
                rows, cursors = self._encoder.rows_before(page.rows, before)
                if cursors and has_lost_rows(page, last, cursors):
                    self._gap_is_left(channel, "they are no longer stored")
                    self._encoder.skip_to(cursors[0])
                emitted, _ = channel.emit(*self._encoder.encode([rows]))
                filled += emitted
                self._rest -= emitted
                await channel.pace()
                if before is not None:
                    reached = [last + 1, self._encoder.last + 1, *cursors[-1:]]
                    if page.last is not None:
                        reached.append(page.last + 1)
                    complete = max(reached) >= before
                if len(cursors) < self._limit or self._encoder.last == last:
                    return complete or before is None
            return complete
        finally:
            if filled:
                self._counters.rows_filled += filled
                log.info("%d missed rows were read from the history", filled, extra=self._extra)

    def _gap_is_left(self, channel: Channel, reason: str) -> None:
        self._counters.gaps += 1
        log.warning("rows are missing: %s", reason, extra=self._extra)
        channel.statuses.rows_missing()
