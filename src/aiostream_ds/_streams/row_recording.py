"""Records what a stream yields: rows are committed to a store before they are emitted.

    generator ─▶ batch ─▶ store ─▶ cursors ─▶ packets ─▶ channel

While a batch is committed, the next one grows. A store that fails holds the author back: the same
rows are tried again until they are stored, or the stream ends.
"""

import asyncio
import time
from typing import Any

import anyio

from aiostream_ds._author_code import contained
from aiostream_ds._channels.channel import Channel
from aiostream_ds._channels.policy import BATCH_ROWS
from aiostream_ds._channels.status import Status
from aiostream_ds._encoding.cursor_encoder import CursorEncoder
from aiostream_ds._encoding.recorded_rows import recorded_rows
from aiostream_ds._frames.packet import Packet
from aiostream_ds._loggers import get_logger
from aiostream_ds._streams.producer import Encode, _Producer
from aiostream_ds._telemetry import Counters
from aiostream_ds.rows import Cursor
from aiostream_ds.stores import CURSOR_COLUMN, AppendResult, Store, StoreError

__all__ = ["RowRecorder", "RecordingProducer"]

log = get_logger(__name__)

RETRY_DELAYS = (0.5, 1.0, 2.0, 5.0)
"""Seconds after which rows that could not be stored are tried again; then after the last one."""


class RowRecorder:
    """Where the rows of one channel are stored, for all its runs.

    Args:
        store: where they are stored.
        path: the channel's path, which is also that in the store.
        encoder: the encoder of the channel's rows.
        counters: where rows are counted that could not be stored.
    """

    def __init__(self, store: Store, path: str, encoder: CursorEncoder, counters: Counters) -> None:
        self.store = store
        self.path = path
        self.encoder = encoder
        self.counters = counters

    def encode(self, rows: list[dict[str, Any]], first: int) -> list[Packet]:
        """The packets of rows whose first one has this cursor."""
        with_cursors = [{**row, CURSOR_COLUMN: n} for n, row in enumerate(rows, first)]
        return self.encoder.encode(with_cursors)

    async def packets(
        self,
        rows: list[dict[str, Any]],
        packets: list[Packet],
        before: Cursor,
        result: AppendResult,
    ) -> list[Packet]:
        """The packets of rows that were stored: those that were made for the cursors after
        `before`, unless something else was stored in the channel, or it was deleted."""
        if result.first == before.value + 1:
            return packets
        newest = await self.store.newest(self.path)
        encoder = self.encoder
        encoder.epoch, encoder.last = before
        start = Cursor(newest.epoch, result.first - 1)
        encoder.begin(start)
        return [encoder.cursor_packet, *self.encode(rows, result.first)]


class RecordingProducer(_Producer):
    """A producer whose rows are stored before they are emitted."""

    __slots__ = ("_commit", "_is_ended", "_recorder")

    def __init__(
        self,
        recorder: RowRecorder,
        channel: Channel,
        encode: Encode,
        rows: int,
        batch_bytes: int,
        filler: Any = None,
    ) -> None:
        super().__init__(channel, encode, min(rows, BATCH_ROWS), batch_bytes)
        self._recorder = recorder
        self._commit: asyncio.Task[None] | None = None
        self._is_ended = asyncio.Event()

    async def read(self, rows: Any) -> None:
        """Read the generator to its end; then wait until all its rows are stored."""
        try:
            await super().read(rows)
        finally:
            self._is_ended.set()
            await self._finish_commits()

    def author_waits(self) -> None:
        """The task suspends. Rows are stored whether or not a subscriber has demand."""
        if self._batch and self._commit is None:
            self.flush()

    def flush(self) -> None:
        """Begin to store the batch, unless a former one is still being stored."""
        if not self._batch or self._commit is not None:
            return
        rows = self._batch[:]
        self._batch.clear()
        self._commit = asyncio.get_running_loop().create_task(self._store(rows))

    async def _pause(self) -> None:
        self._is_pausing = True
        if self._limit:
            self.flush()
            while self._commit is not None:  # the next batch may be committed meanwhile
                await asyncio.wait([self._commit])
        await super()._pause()

    async def _finish_commits(self) -> None:
        """Wait for the commits, also when this is cancelled again: rows would be lost."""
        cancelled: asyncio.CancelledError | None = None
        while self._commit is not None or self._batch:
            self.flush()
            commit = self._commit
            if commit is None:
                continue
            try:
                await asyncio.wait([commit])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    # -- in a task of its own ------------------------------------------------------------------

    async def _store(self, yields: list[Any]) -> None:
        error: BaseException | None = None
        count = size = 0
        try:
            groups, error = self._groups(yields)
            for group in groups:
                if isinstance(group, Status):
                    self._emit(self._encode([group]))
                    continue
                packets, failure = await self._store_rows(group)
                emitted = self._emit(packets)
                count, size = count + emitted[0], size + emitted[1]
                if failure is not None:
                    error = failure
                    break
        except BaseException as caught:
            error = caught
        finally:
            self._commit = None
        channel = self._channel
        if error is not None:
            if contained(error, requested=False) is not None:
                channel.fail(error)
            del error
        elif len(yields) > 1 or count > 1 or size > self._small:
            self._measure(len(yields), count, size)
        self._limit = self._size if channel.can_send else 0
        if self._batch:
            self.flush()

    def _groups(
        self, yields: list[Any]
    ) -> tuple[list[Status | list[dict[str, Any]]], BaseException | None]:
        """The rows before the first one that is none, and its error."""
        stamp = time.time_ns() // 1_000_000
        try:
            return list(recorded_rows(yields, stamp)), None
        except BaseException:  # the author's objects and compiled libraries may raise anything
            pass
        found: list[Status | list[dict[str, Any]]] = []
        for item in yields:
            try:
                found += recorded_rows([item], stamp)
            except BaseException as error:
                return found, error
        return found, None

    async def _store_rows(
        self, rows: list[dict[str, Any]]
    ) -> tuple[list[Packet], BaseException | None]:
        """Store rows, those before the first one that cannot be stored or encoded; with its
        error."""
        try:
            return await self._store_all(rows), None
        except StoreError:
            raise
        except BaseException as error:
            if contained(error, requested=False) is None or len(rows) == 1:
                return [], error
        packets: list[Packet] = []
        for row in rows:
            try:
                packets += await self._store_all([row])
            except BaseException as error:
                return packets, error
        return packets, None

    async def _store_all(self, rows: list[dict[str, Any]]) -> list[Packet]:
        """Store rows that can be encoded, and return their packets."""
        recorder = self._recorder
        encoder = recorder.encoder
        before = encoder.cursor
        packets = recorder.encode(rows, before.value + 1)
        try:
            result = await self._append(rows)
        except BaseException:
            encoder.epoch, encoder.last = before
            raise
        return await recorder.packets(rows, packets, before, result)

    async def _append(self, rows: list[dict[str, Any]]) -> AppendResult:
        recorder, attempt = self._recorder, 0
        while True:
            try:
                result = await recorder.store.append(recorder.path, rows)
            except StoreError as error:
                if self._is_ended.is_set():
                    recorder.counters.count_dropped("store", len(rows))
                    log.error(
                        "%d rows are lost: %s", len(rows), error, extra={"path": recorder.path}
                    )
                    raise
                self._channel.statuses.set("store", Status("error", f"not stored: {error}"))
                delay = RETRY_DELAYS[min(attempt, len(RETRY_DELAYS) - 1)]
                attempt += 1
                await self._wait_until_ended(delay)
            else:
                if attempt:
                    self._channel.statuses.clear("store")
                return result

    async def _wait_until_ended(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._is_ended.wait()

    def _emit(self, packets: list[Packet]) -> tuple[int, int]:
        channel = self._channel
        return channel.emit(*packets) if packets and channel.open else (0, 0)
