"""Fills the gap between the last emitted row of a stream with a cursor and its next run.

    last row ──▶ history ──▶ the method is called ──▶ history ──▶ first live row
                 catch_up                             fill_before

`catch_up` emits the rows that were written before the run; then the method is called. When the
first live row arrives, `fill_before` emits the rows that were written until the method's
subscription took effect.
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
    Meta(description="Most rows that are read from the history for one run; more are left out."),
] = 100_000

HISTORY_WAITS: Annotated[
    tuple[float, ...],
    Meta(
        description="Seconds to wait before the history is asked again, when it does not have the"
        " first live row of a run yet; after the last wait the gap is left."
    ),
] = (0.1, 0.2, 0.5, 1.0, 2.0)


class GapFiller:
    """Emits the rows between the encoder's cursor and the rows of a run.

    After each page it waits until the subscribers can take more (`Channel.pace`). A gap that is
    still there at the first row of the run is left between two cursor ranges, so that exact panels
    fetch its rows; it is logged, counted, and a status of the channel.

    Args:
        read_after: `read_after(cursor, limit, upto)` returns the oldest `limit` rows after a
            cursor. Its exceptions propagate.
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
        self._rows_left = FILL_LIMIT  # that may be read for this run

    async def catch_up(self, channel: Channel) -> None:
        """Emit the rows after the encoder's cursor, up to the newest one or the limit.

        Call it before a run that continues an earlier one. At the limit no row is missing yet: the
        method is called with the cursor of the last emitted row. If it does not continue there, it
        leaves a gap, which `fill_before` reports.
        """
        self._rows_left = FILL_LIMIT
        await self._fill(channel, None)

    def ends_gap(self, item: Any) -> bool:
        """Whether this item is the first new row of the run, or a `Cursor` of the same epoch.

        With such a cursor the author states which row the next ones follow.
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
        for wait in (0.0, *HISTORY_WAITS):
            if wait:
                await anyio.sleep(wait)
            if await self._fill(channel, first):
                return
            if self._rows_left <= 0:
                break
        shown = map(self._encoder.kind.to_author, (self._encoder.last, first))
        between = "those between the cursors {} and {}".format(*shown)
        if self._rows_left > 0:
            self._gap_is_left(channel, f"the history does not have {between}")
        else:
            self._gap_is_left(channel, f"{between} exceed the {FILL_LIMIT} rows that are filled")
        self._encoder.skip_to(first)

    async def _fill(self, channel: Channel, before: int | None) -> bool:
        """Emit rows after the encoder's cursor, page by page; with `before` only those before it.

        Returns whether the history has reached `before`, so that no row is missing.
        """
        filled = 0
        complete = False
        try:
            while not complete and self._rows_left > 0:
                epoch, last = self._encoder.cursor
                with isolate():
                    page = await self._read_after(last, self._limit, before)
                if page.epoch != epoch:
                    return False  # the numbering has restarted: the method will yield a Cursor
                rows, cursors = self._encoder.rows_before(page.rows, before)
                if cursors and has_lost_rows(page, last, cursors):
                    self._gap_is_left(channel, "they are no longer stored")
                    self._encoder.skip_to(cursors[0])
                emitted, _ = channel.emit(*self._encoder.encode([rows]))
                filled += emitted
                self._rows_left -= emitted
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
