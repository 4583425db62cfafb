"""Drives one run of an author's generator: yields → batch → packets → channel.

A batch ends when the author waits. The generator is read by `async for`, and `_observe_waits` sees
each time that the task suspends: then the batch is emitted if a subscriber has demand. Otherwise it
grows until a subscriber has taken everything, a subscriber joins, it is as large as a packet may
be, or the run ends. There is no timer, task or await for a single row; a `RowOrder` with held rows
needs one timer for all of them.
"""

import asyncio
import math
import time
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from functools import partial
from sys import getrefcount
from types import FrameType
from typing import TYPE_CHECKING, Any

from aiostream_ds._channels.channel import Channel, Runner
from aiostream_ds._channels.policy import (
    BATCH_BYTES,
    BATCH_ROWS,
    BROWSER_QUEUE,
    FIRST_BATCH,
    HIGH_WATER_ITERATIONS,
    RowOrder,
)
from aiostream_ds._encoding.table_rows import live_rows
from aiostream_ds._encoding.yielded import reader, references_without_copy
from aiostream_ds._frames.dataframes import is_query
from aiostream_ds._frames.packet import Packet
from aiostream_ds._telemetry import Counters
from aiostream_ds._thread_limits import run_in_thread
from aiostream_ds.rows import Cursor

if TYPE_CHECKING:
    from aiostream_ds._encoding.ordering import Sorter
    from aiostream_ds._streams.gap_filling import GapFiller

__all__ = ["Encode", "MakeProducer", "ReadInThread", "YieldInScope", "drive", "pause_generator"]

Encode = Callable[..., list[Packet]]
"""Encodes a list of yields as packets. If it raises, it has no effect on later calls. With `stamps`
it also gets, as a second argument, the times of yields that have waited, in milliseconds."""


ReadInThread = Callable[[Callable[[Any], Any], Any], Awaitable[Any]]
"""Calls a function with a table in a thread."""


MakeProducer = Callable[[Channel, Encode, int, int, Any], "_Producer"]
"""Makes the producer of a run: from the arguments of `_Producer`."""


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
    filler: "GapFiller | None" = None,
    stamps: bool = False,
    read_in_thread: ReadInThread = run_in_thread,
    make_producer: "MakeProducer | None" = None,
) -> Runner:
    """A runner that runs one generator once and emits what it yields.

    Rows before an error are emitted, held ones too. The runner raises what the generator raises. A
    yield that cannot be encoded fails the channel, because the author cannot catch that error.
    Cancelling the runner's task cancels the author's await, or closes the generator at its yield;
    its `finally` runs to the end in the same task.

    Args:
        open_rows: creates the generator; called for each run.
        encode: see `Encode`.
        rows: maximum number of rows in one packet of single rows.
        batch_bytes: encoded bytes after which an author who never waits yields to the event loop.
        order: the order of rows by their own time. It remembers sent rows for longer than one run:
            a stream that is retried often begins with rows that it has already sent.
        counters: where rows are counted that the order leaves out.
        filler: emits the rows between those of earlier runs and the first row of a run.
        stamps: see `Encode`.
        read_in_thread: reads a table that is a query.
        make_producer: makes the producer of a run, in place of this module's.

    Raises:
        ValueError: `rows` or `batch_bytes` is below 1.
    """
    if rows < 1 or batch_bytes < 1:
        raise ValueError(f"rows and batch_bytes must be at least 1, got {rows} and {batch_bytes}")

    sorter = None
    if order is not None:
        from aiostream_ds._encoding.ordering import Sorter, passes_all_rows  # rarely used

    if order is not None and not passes_all_rows(order):
        sorter = Sorter(order, counters if counters is not None else Counters())

    make = make_producer or _Producer
    if sorter is not None:
        make = partial(_SortingProducer, sorter)
    # not a closure: thousands of channels have one, and each cell of a closure is an object
    return partial(_run, open_rows, make, encode, rows, batch_bytes, filler, stamps, read_in_thread)


def _run(
    open_rows: Callable[[], AsyncGenerator[Any, None]],
    make: "MakeProducer",
    encode: Encode,
    rows: int,
    batch_bytes: int,
    filler: "GapFiller | None",
    stamps: bool,
    read_in_thread: ReadInThread,
    channel: Channel,
) -> Awaitable[None]:
    producer = make(channel, encode, rows, batch_bytes, filler)
    producer.stamps = [] if stamps else None
    producer.read_in_thread = read_in_thread
    channel.on_demand = producer.flush
    return _observe_waits(producer.read(open_rows()), producer.author_waits)


def pause_generator(frame: FrameType | None) -> None:
    """Let the event loop run at the next `yield` of the generator that a stack belongs to. Thread
    safe: a generator that blocks, and never awaits, is seen from another thread only."""
    reading = (_Producer.read.__code__, _Producer._read_first.__code__)
    while frame is not None:
        if frame.f_code in reading:
            return frame.f_locals["self"].pause_at_next_yield()  # type: ignore[no-any-return]
        frame = frame.f_back


def _is_stray_cancellation() -> bool:
    """Whether a CancelledError in the running task does not come from a cancellation of the task:
    the task awaited a task or future that was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() == 0


@types.coroutine
def _observe_waits(
    work: Coroutine[Any, Any, None], on_wait: Callable[[], None]
) -> Generator[Any, Any, None]:
    """Run `work`; call `on_wait` each time it suspends."""
    try:
        signal = work.send(None)
        while True:
            on_wait()
            try:
                answer = yield signal
            except BaseException as error:
                signal = work.throw(error)
            else:
                signal = work.send(answer)
    except StopIteration:
        return


def _try_to_read(table: Any) -> tuple[Any, BaseException | None]:
    try:
        return live_rows(table), None
    except BaseException as error:  # libraries are compiled: one may panic
        return [], error


async def _close(rows: AsyncGenerator[Any, None]) -> None:
    try:
        await rows.aclose()
    except RuntimeError as error:
        if "ignored GeneratorExit" not in str(error):
            raise
        # Python regards the generator as closed: what follows that yield can never run.
        raise YieldInScope("the stream yields in its finally while it is closed") from error


_BLOCKS = -1
"""The limit of a generator that blocks the event loop: other calls take several iterations."""


class _Producer:
    """The batch of one run, and the size to which it may grow."""

    __slots__ = (
        "_arrivals",
        "_batch",
        "_batch_bytes",
        "_channel",
        "_encode",
        "_filler",
        "_is_pausing",
        "_limit",
        "_rows",
        "_size",
        "_small",
        "read_in_thread",
        "stamps",
    )

    def __init__(
        self,
        channel: Channel,
        encode: Encode,
        rows: int,
        batch_bytes: int,
        filler: "GapFiller | None" = None,
    ) -> None:
        self._channel = channel
        self._filler = filler
        self._is_pausing = False  # the generator waits at a yield
        self._encode = encode
        self._rows = rows
        self._batch_bytes = batch_bytes
        self._batch: list[Any] = []
        self._arrivals = self._batch  # gets the yields: the same list unless they are sorted
        self.stamps: list[int] | None = None  # of yields that wait; None: they are not needed
        self.read_in_thread: ReadInThread = run_in_thread
        self._size = min(rows, FIRST_BATCH)  # yields in a packet
        self._limit = self._size  # 0 or below: pause at the next yield
        self._small = batch_bytes // self._size  # bytes up to which a single row needs no measuring

    async def read(self, rows: AsyncGenerator[Any, None]) -> None:
        """Read the generator to its end, close it in the same task, and emit the rest."""
        batch = self._arrivals
        try:
            try:
                if self._filler is not None:
                    await self._read_first(rows, self._filler)
                kind: type | None = None
                read: Callable[[Any], Any] | None = None
                references = 0  # of a row that needs no copy
                async for row in rows:
                    if row.__class__ is not kind:
                        kind = row.__class__
                        read = self._reader(kind)
                        references = references_without_copy(kind, read)
                        if read is live_rows and is_query(kind):
                            row = await self._read_query(row)
                            kind = read = None
                    try:  # read now: the author may change it after the `yield`
                        if read is not None and getrefcount(row) > references:
                            row = read(row)
                        batch.append(row)
                    except BaseException as error:  # libraries are compiled: one may panic
                        self._refuse(error)
                    if len(batch) >= self._limit:
                        if not self._channel.open:
                            return  # the author suppressed the cancellation
                        await self._pause()
            finally:
                await _close(rows)
        except asyncio.CancelledError as error:
            if self._is_pausing and self._channel.open and _is_stray_cancellation():
                # A scope around the yield cancelled our own wait; closing the generator undid it.
                raise YieldInScope(
                    "the stream yields inside a timeout or cancel scope; "
                    "put the timeout around the awaits between the yields"
                ) from error
            raise
        finally:
            self._finish()
            self._channel.on_demand = None

    async def _read_first(self, rows: AsyncGenerator[Any, None], filler: "GapFiller") -> None:
        """Read the generator up to its first row, and let `filler` emit what lies before it."""
        channel = self._channel
        async for row in rows:
            read = self._reader(row.__class__)
            if read is live_rows and is_query(row.__class__):
                row = await self._read_query(row)
                read = None
            try:
                row = row if read is None else read(row)
            except BaseException as error:
                self._refuse(error)
            if not channel.open:
                return
            if filler.ends_gap(row):
                self.flush()  # statuses that were yielded before
                self._is_pausing = True
                await filler.fill_before(channel, row)
                self._is_pausing = False
                self._batch.append(row)
                return
            self._batch.append(row)
            if isinstance(row, Cursor):
                self.flush()  # the rows that follow have another numbering
            if len(self._batch) >= self._limit:
                await self._pause()

    def _reader(self, kind: type) -> Callable[[Any], Any] | None:
        try:
            return reader(kind)
        except BaseException as error:  # `hasattr` runs the code of a metaclass
            self._refuse(error)
            return None

    async def _read_query(self, table: Any) -> Any:
        """The rows of a table that is a query: it runs in a thread of the data source."""
        self._is_pausing = True
        rows, error = await self.read_in_thread(_try_to_read, table)
        self._is_pausing = False
        if error is not None:
            self._refuse(error)
        return rows

    def _refuse(self, error: BaseException) -> None:
        """What the author has yielded cannot be read: fail the channel, after the rows before. The
        author cannot catch that error."""
        self._finish()
        self._channel.fail(error)
        self._limit = 0

    def _finish(self) -> None:
        """The generator has ended."""
        self.flush()

    def flush(self) -> None:
        """Emit the batch. Never raises: a yield that cannot be encoded fails the channel."""
        if not self._batch:
            return
        rows = self._batch[:]
        self._batch.clear()  # first: emit may call this method again
        channel = self._channel
        if not channel.open:
            self._limit = 0
            return
        stamps: list[int] | None = None
        if self.stamps:
            self._stamp(len(rows))
            stamps, self.stamps = self.stamps, []
        error: BaseException | None = None
        try:
            packets = self._encode(rows) if stamps is None else self._encode(rows, stamps)
        except BaseException:  # the encoders are compiled: one may panic
            packets = None
        if packets is None:  # not in the handler: the error would be logged twice, as its context
            packets, error = self._encode_singly(rows, stamps)
        count, size = channel.emit(*packets)
        if error is not None:
            channel.fail(error)
            del error  # error → traceback → frames → error would be a cycle
        elif len(rows) > 1 or count > 1 or size > self._small:
            if size > BROWSER_QUEUE:
                channel.warn_of_large_rows(packets)
            self._measure(len(rows), count, size)  # rare: most authors yield single small rows
        self._limit = self._size if channel.can_send else 0

    def author_waits(self) -> None:
        """The task suspends: the author awaits something, or this producer pauses."""
        if self._batch:
            if self._channel.has_demand:
                self.flush()
            elif self.stamps is not None:
                self._stamp(len(self._batch))

    def pause_at_next_yield(self) -> None:
        """Emit what has been yielded, and let the event loop run. Thread safe."""
        if self._limit > 0:
            self._limit = _BLOCKS

    def _stamp(self, yields: int) -> None:
        """Note the time of what was yielded since the last call."""
        stamps = self.stamps
        if stamps is not None and len(stamps) < yields:
            stamps += [time.time_ns() // 1_000_000] * (yields - len(stamps))

    async def _pause(self) -> None:
        """Yield to the event loop, and wait for subscribers that the policy does not let lag."""
        channel = self._channel
        self._is_pausing = True
        if self._limit:
            is_blocking = self._limit == _BLOCKS  # before `flush`, which sets the limit
            if channel.has_queued:  # perhaps by a join just now: then nobody had time to receive it
                await asyncio.sleep(0)
            self.flush()
            await asyncio.sleep(0)  # other tasks run, and a subscriber that keeps up receives
            for _ in range(HIGH_WATER_ITERATIONS):
                if not (is_blocking or channel.above_high_water):
                    break
                await asyncio.sleep(0)
            await channel.wait_for_demand()
        await channel.drain()
        self._is_pausing = False
        self._limit = self._size

    def _encode_singly(
        self, rows: list[Any], stamps: list[int] | None
    ) -> tuple[list[Packet], BaseException | None]:
        """The packets before the first bad row, and its error."""
        packets: list[Packet] = []
        for index, row in enumerate(rows):
            more = () if stamps is None else (stamps[index : index + 1],)
            try:
                packets.extend(self._encode([row], *more))
            except BaseException as error:
                return packets, error
        return packets, None

    def _measure(self, yields: int, rows: int, size: int) -> None:
        """Set the size of the next batch: a yield may be a row or a whole frame."""
        if (
            yields == 1
            and rows * self._size <= self._rows
            and size * self._size <= self._batch_bytes
        ):
            return  # the author waits between small yields
        by_rows = yields * self._rows // max(rows, 1)
        by_bytes = yields * self._batch_bytes // max(size, 1)
        self._size = max(1, min(self._rows, by_rows, by_bytes))
        self._small = self._batch_bytes // self._size


class _SortingProducer(_Producer):
    """A producer whose yields pass a `Sorter` before they are in the batch.

    They are sorted whenever the author waits, because a held row is delayed from then on. Rows that
    the timer releases are emitted under the same conditions as others.
    """

    __slots__ = ("_loop", "_rows_before", "_sorter", "_timer", "_yields")

    def __init__(
        self,
        sorter: "Sorter",
        channel: Channel,
        encode: Encode,
        rows: int,
        batch_bytes: int,
        filler: "GapFiller | None" = None,
    ) -> None:
        super().__init__(channel, encode, rows, batch_bytes)
        self._small = -1  # each packet is measured
        self._arrivals = []
        self._sorter = sorter
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._yields = 0  # since the last packet
        self._rows_before = sorter.rows  # that the sorter had seen at the last packet

    def _finish(self) -> None:
        self._sort()
        self._batch += self._sorter.release(math.inf)
        if self._timer is not None:
            self._timer.cancel()
        super()._finish()

    def flush(self) -> None:
        self._sort()
        super().flush()

    def author_waits(self) -> None:
        self._sort()
        self._flush_if_needed()

    def _flush_if_needed(self) -> None:
        if self._batch and (self._channel.has_demand or self._yields >= self._size):
            self.flush()
        else:
            self._stamp(len(self._batch))

    def _sort(self) -> None:
        if not self._arrivals:
            return
        yields = self._arrivals[:]
        self._arrivals.clear()
        self._yields += len(yields)
        try:
            self._sorter.feed(yields, self._loop.time(), self._batch)
        except BaseException as error:
            self._batch += self._sorter.release(math.inf)
            super().flush()
            self._channel.fail(error)
        self._start_timer()

    def _start_timer(self) -> None:
        """Held rows are released in the order in which they came: a started timer stays right."""
        due = self._sorter.due
        if due is not None and self._timer is None:
            self._timer = self._loop.call_at(due, self._release, due)

    def _release(self, due: float) -> None:
        self._timer = None
        self._batch += self._sorter.release(max(due, self._loop.time()))  # timers may be early
        self._start_timer()
        self._flush_if_needed()

    def _measure(self, yields: int, rows: int, size: int) -> None:
        """By what was yielded: a packet has rows that came before, and lacks some that are held."""
        seen = self._sorter.rows - self._rows_before
        if self._yields and rows:
            super()._measure(self._yields, seen, size * seen // rows)
            self._small = -1
        self._yields, self._rows_before = 0, self._sorter.rows
