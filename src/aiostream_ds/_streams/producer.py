"""Drives one run of one author's generator: yields → batch → packets → channel.

A batch ends when the author waits. The driver is a plain `async for`, and `_watched` sees each of
its real suspensions: then the batch leaves if some reader has nothing left; else it grows until a
mailbox runs dry, a reader joins, the batch is as large as a packet may be, or the run ends. No
timer, no task and no await for a row; with an `RowOrder` one timer, for all rows that are held.
Imports `channels`, `frames`, its own room and the ground.
"""

import asyncio
import math
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from aiostream_ds._channels.channel import Channel, Runner
from aiostream_ds._channels.policy import (
    BATCH_BYTES,
    BATCH_ROWS,
    FIRST_BATCH,
    HIGH_WATER_ITERATIONS,
    RowOrder,
)
from aiostream_ds._frames.packet import Packet
from aiostream_ds._telemetry import Counters

if TYPE_CHECKING:
    from aiostream_ds._encoding.ordering import Sorter

__all__ = ["Encode", "YieldInScope", "drive", "nobody_cancels"]

Encode = Callable[[list[Any]], list[Packet]]
"""Turns what was yielded into packets: all of it, or it raises and remembers nothing of it."""


class YieldInScope(RuntimeError):
    """The author's generator yields where it must not: in a timeout, or while it is closed."""


def drive(
    open_rows: Callable[[], AsyncGenerator[Any, None]],
    encode: Encode,
    *,
    rows: int = BATCH_ROWS,
    batch_bytes: int = BATCH_BYTES,
    order: RowOrder | None = None,
    counters: Counters | None = None,
) -> Runner:
    """A runner that runs one generator once and emits what it yields.

    Rows leave before an error that follows them, also those that the order holds. What the
    generator raises comes out of the runner unchanged; a yield that cannot be encoded fails the
    channel, for the author cannot catch that. Cancelling the runner's task cancels the author where
    it waits, or closes the generator at its yield; its `finally` runs in the same task, to its end.

    Args:
        open_rows: makes the generator; called at each run of the runner.
        encode: see `Encode`.
        rows: most rows in one packet of single rows.
        batch_bytes: encoded bytes after which an author who never waits gives others a turn.
        order: which rows go out and when, by their own time. What it remembers of rows that have
            gone out outlives the runs of this runner: a stream that is tried again often begins
            with rows that it had sent.
        counters: where rows are counted that the order leaves out.

    Raises:
        ValueError: `rows` or `batch_bytes` is below 1.
    """
    if rows < 1 or batch_bytes < 1:
        raise ValueError(f"rows is {rows} and batch_bytes {batch_bytes}; allowed is 1 and more")

    sorter = None
    if order is not None:
        from aiostream_ds._encoding.ordering import Sorter, is_idle  # few streams have one

    if order is not None and not is_idle(order):
        sorter = Sorter(order, counters if counters is not None else Counters())

    def run(channel: Channel) -> Awaitable[None]:
        pump = _Pump(channel, encode, rows, batch_bytes)
        if sorter is not None:
            pump = _SortingPump(channel, encode, rows, batch_bytes, sorter)
        channel.on_demand = pump.flush
        return _watched(pump.pull(open_rows()), pump.author_waits)

    return run


def nobody_cancels() -> bool:
    """Whether nobody has asked the running task to end, though a cancellation arrived in it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() == 0


@types.coroutine
def _watched(
    work: Coroutine[Any, Any, None], waits: Callable[[], None]
) -> Generator[Any, Any, None]:
    """Run `work`; call `waits` each time it truly suspends."""
    try:
        signal = work.send(None)
        while True:
            waits()
            try:
                answer = yield signal
            except BaseException as error:
                signal = work.throw(error)
            else:
                signal = work.send(answer)
    except StopIteration:
        return


async def _close(rows: AsyncGenerator[Any, None]) -> None:
    try:
        await rows.aclose()
    except RuntimeError as error:
        if "ignored GeneratorExit" not in str(error):
            raise
        # Python has marked it closed: nobody can run what follows that yield.
        raise YieldInScope("the stream yields in its finally while it is closed") from error


class _Pump:
    """The batch of one run, and how large it may grow."""

    __slots__ = (
        "_arrivals",
        "_batch",
        "_channel",
        "_encode",
        "_light",
        "_limit",
        "_rows",
        "_size",
        "_batch_bytes",
    )

    def __init__(self, channel: Channel, encode: Encode, rows: int, batch_bytes: int) -> None:
        self._channel = channel
        self._encode = encode
        self._rows = rows
        self._batch_bytes = batch_bytes
        self._batch: list[Any] = []
        self._arrivals = self._batch  # where yields are put: the same list unless they are sorted
        self._size = min(rows, FIRST_BATCH)  # yields that make a packet
        self._limit = self._size  # 0: the next yield must look before the author goes on
        self._light = batch_bytes // self._size  # bytes up to which a single row changes no size

    async def pull(self, rows: AsyncGenerator[Any, None]) -> None:
        """Read the generator to its end, close it in the task that read it, and emit the rest."""
        batch = self._arrivals
        append = batch.append
        in_own_wait = False
        try:
            try:
                async for row in rows:
                    append(row)
                    if len(batch) >= self._limit:
                        if not self._channel.open:
                            return  # the author swallowed the cancellation
                        in_own_wait = True
                        await self._breathe()
                        in_own_wait = False
            finally:
                await _close(rows)
        except asyncio.CancelledError as error:
            if in_own_wait and self._channel.open and nobody_cancels():
                # A scope around a yield threw into us; closing the generator has taken it back.
                raise YieldInScope(
                    "the stream yields inside a timeout or cancel scope; "
                    "put the timeout around the awaits between the yields"
                ) from error
            raise
        finally:
            self._end()
            self._channel.on_demand = None

    def _end(self) -> None:
        """No more rows will come."""
        self.flush()

    def flush(self) -> None:
        """Emit the batch. Never raises: a yield that cannot be encoded fails the channel."""
        if not self._batch:
            return
        rows = self._batch[:]
        self._batch.clear()  # first: emitting may lead back here
        channel = self._channel
        if not channel.open:
            self._limit = 0
            return
        error: Exception | None = None
        try:
            packets = self._encode(rows)
        except Exception:
            packets, error = self._encode_singly(rows)
        count, size = channel.emit(*packets)
        if error is not None:
            channel.fail(error)
            del error  # error → traceback → frames → error would be a cycle
        elif len(rows) > 1 or count > 1 or size > self._light:
            self._measure(len(rows), count, size)  # else: small rows, as most authors yield them
        self._limit = self._size if channel.can_send else 0

    def author_waits(self) -> None:
        """The author awaits something, or the pump itself does."""
        if self._batch and self._channel.has_demand:
            self.flush()

    async def _breathe(self) -> None:
        channel = self._channel
        if self._limit:
            self.flush()
            await asyncio.sleep(0)  # nobody starves, and a reader that keeps up fetches
            for _ in range(HIGH_WATER_ITERATIONS):
                if not channel.above_high_water:
                    break
                await asyncio.sleep(0)
        await channel.drain()
        self._limit = self._size

    def _encode_singly(self, rows: list[Any]) -> tuple[list[Packet], Exception | None]:
        """The packets before the first bad row, and its error."""
        packets: list[Packet] = []
        for row in rows:
            try:
                packets.extend(self._encode([row]))
            except Exception as error:
                return packets, error
        return packets, None

    def _measure(self, yields: int, rows: int, size: int) -> None:
        """A yield may be a row or a whole frame: let the next batch be about one turn's worth."""
        if (
            yields == 1
            and rows * self._size <= self._rows
            and size * self._size <= self._batch_bytes
        ):
            return  # the author waits between small yields
        by_rows = yields * self._rows // max(rows, 1)
        by_bytes = yields * self._batch_bytes // max(size, 1)
        self._size = max(1, min(self._rows, by_rows, by_bytes))
        self._light = self._batch_bytes // self._size


class _SortingPump(_Pump):
    """A pump whose yields pass a `Sorter` before they are the batch.

    They do so whenever the author waits, for what is held counts its time from then. Only a reader
    that has nothing left makes the batch leave, also when the timer has released rows.
    """

    __slots__ = ("_loop", "_rows_before", "_sorter", "_timer", "_yields")

    def __init__(
        self, channel: Channel, encode: Encode, rows: int, batch_bytes: int, sorter: "Sorter"
    ) -> None:
        super().__init__(channel, encode, rows, batch_bytes)
        self._light = -1  # each packet is measured
        self._arrivals = []
        self._sorter = sorter
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._yields = 0  # since the last packet
        self._rows_before = sorter.rows  # that the sorter had seen then

    def _end(self) -> None:
        self._sort()
        self._batch += self._sorter.release(math.inf)
        if self._timer is not None:
            self._timer.cancel()
        super()._end()

    def flush(self) -> None:
        self._sort()
        super().flush()

    def author_waits(self) -> None:
        self._sort()
        self._offer()

    def _offer(self) -> None:
        if self._batch and (self._channel.has_demand or self._yields >= self._size):
            self.flush()

    def _sort(self) -> None:
        if not self._arrivals:
            return
        yields = self._arrivals[:]
        self._arrivals.clear()
        self._yields += len(yields)
        try:
            self._sorter.feed(yields, self._loop.time(), self._batch)
        except Exception as error:
            self._batch += self._sorter.release(math.inf)
            super().flush()
            self._channel.fail(error)
        self._watch()

    def _watch(self) -> None:
        """Rows become due in the order in which they came: a timer that runs is never too late."""
        due = self._sorter.due
        if due is not None and self._timer is None:
            self._timer = self._loop.call_at(due, self._time_is_up, due)

    def _time_is_up(self, due: float) -> None:
        self._timer = None
        self._batch += self._sorter.release(max(due, self._loop.time()))  # it may fire a bit early
        self._watch()
        self._offer()

    def _measure(self, yields: int, rows: int, size: int) -> None:
        """By what was yielded: a packet may hold rows of before, and lack some that came."""
        seen = self._sorter.rows - self._rows_before
        if self._yields and rows:
            super()._measure(self._yields, seen, size * seen // rows)
            self._light = -1
        self._yields, self._rows_before = 0, self._sorter.rows
