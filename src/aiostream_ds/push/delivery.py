"""Sends rows to one address in the background: batches, repetitions, and what became of them.

    send ──▶ waiting rows ──▶ a thread ──▶ POST, again until the server has answered

One lock guards the state; no call holds it while it waits or while a request is in progress.
"""

import asyncio
import atexit
import os
import random
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from aiostream_ds._loggers import get_logger
from aiostream_ds._loop_calls import resolve, wake
from aiostream_ds._short_repr import short_repr
from aiostream_ds.push.rejections import (
    PushError,
    PushRejected,
    PushUnsent,
    TooLarge,
    TryAgain,
    shortened,
)
from aiostream_ds.push.waiting_rows import PushBatch, RowBlock, WaitingRows

if TYPE_CHECKING:
    from aiostream_ds.push.http_post import HttpPost, PushAnswer

__all__ = ["Delivery", "PushCounts", "PushFull", "SendLimits"]

log = get_logger(__name__)

BATCH_ROWS, BATCH_BYTES, BATCH_AGE = 1_000, 500_000, 0.1
"""Rows, bytes and seconds of a batch."""

BUFFER_ROWS, BUFFER_BYTES = 100_000, 64 << 20
"""Rows and bytes that wait."""

FIRST_DELAY, LONGEST_DELAY = 0.1, 10.0
"""Seconds before the first repetition, and at most between two."""

LOG_INTERVAL = 60.0
"""Seconds between two log lines of one kind."""

CLOSING_DELAY = 0.2
"""Seconds at most between two repetitions of a client that is closed."""

EXIT_LIMIT = 5.0
"""Seconds for the rows of clients that were not closed when the program ends."""

PushFull = Literal["block", "drop_oldest"]
"""What happens when the buffer is full: `send` waits, or the oldest rows are lost and counted."""


class SendLimits(msgspec.Struct, frozen=True):
    """The bounds of a client."""

    batch_rows: int = BATCH_ROWS
    batch_bytes: int = BATCH_BYTES
    batch_age: float = BATCH_AGE
    buffer_rows: int = BUFFER_ROWS
    buffer_bytes: int = BUFFER_BYTES
    full: PushFull = "block"

    def __post_init__(self) -> None:
        for name in ("batch_rows", "batch_bytes", "buffer_rows", "buffer_bytes"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        age = self.batch_age
        if isinstance(age, bool) or not isinstance(age, int | float) or not 0 <= age <= 3_600:
            raise ValueError(f"batch_age must be seconds from 0 to 3600, got {age!r}")
        if self.full not in ("block", "drop_oldest"):
            raise ValueError(f"full must be 'block' or 'drop_oldest', got {self.full!r}")


class PushCounts(msgspec.Struct, frozen=True):
    """The rows of a client so far.

    `sent` rows were given to `send`. Of these the server has `taken` some and `refused` others,
    `dropped` ones were lost because the buffer was full, and `waiting` ones have no answer yet.
    `retries` is the number of requests that were repeated, `last_error` why the last one was. Of
    rows that were taken, `values_left_out` values were not: they do not fit their columns.
    """

    sent: int
    taken: int
    refused: int
    dropped: int
    waiting: int
    retries: int
    last_error: str = ""
    values_left_out: int = 0


OnRefused = Callable[[Any, str], None]


class Delivery:
    """The rows of one client on their way to one address. All methods are thread-safe.

    After a fork, the child has none of the rows: the parent sends them. The child's own rows are
    sent by a thread and over a connection of its own.
    """

    def __init__(
        self,
        make_post: "Callable[[], HttpPost]",
        limits: SendLimits,
        on_refused: OnRefused | None = None,
    ) -> None:
        self._make_post = make_post
        self._limits = limits
        self._on_refused = on_refused
        self.error: PushRejected | None = None
        self._reset()
        _open.add(self)

    def _reset(self) -> None:
        """The state without any rows."""
        # re-entrant: a handler of signals or of the log, which may run in `add`, may send a row
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)  # for the thread
        self._change = threading.Condition(self._lock)  # for who waits for space or an answer
        self.changes = 0  # grows with each answer, and when there is space
        self._waiters: set[asyncio.Future[None]] = set()
        self._waiting = WaitingRows()
        self._batches: deque[PushBatch] = deque()  # without an answer; the first is being sent
        self._thread: threading.Thread | None = None
        self._last = 0  # the number of the newest block
        self._flushed = 0  # blocks up to this number are sent at once
        self._ends_at: float | None = None  # closed: until then the thread goes on
        self._closed_at = 0.0
        self._client = uuid.uuid4().hex
        self._key = 0
        self._max_bytes = self._limits.batch_bytes
        self._sent = self._taken = self._refused = self._dropped = self._retries = 0
        self._values_left_out = 0
        self._last_error = ""
        self._log_after: dict[str, float] = {}

    # -- for the program -----------------------------------------------------------------------

    @property
    def counts(self) -> PushCounts:
        """The numbers of rows."""
        with self._lock:
            return PushCounts(
                self._sent,
                self._taken,
                self._refused,
                self._dropped,
                self._rows_without_answer(),
                self._retries,
                self._last_error,
                self._values_left_out,
            )

    def add(self, block: RowBlock) -> bool:
        """Take a block. False: the buffer is full, and a block must wait.

        Raises:
            PushRejected: the server refuses what this client sends.
            PushError: the client is closed.
        """
        with self._lock:
            self._check_open()
            limits, waiting = self._limits, self._waiting
            while waiting and (
                waiting.rows + block.rows > limits.buffer_rows
                or waiting.bytes + len(block.data) > limits.buffer_bytes
            ):
                if limits.full == "block":
                    self._flushed = max(self._flushed, waiting.first.number)
                    self._work.notify()
                    return False
                self._dropped += waiting.drop_oldest().rows
                self._warn("dropped", "the buffer is full: %d rows were dropped", self._dropped)
            self._last += 1
            data, rows, content_type, *_ = block
            waiting.add(RowBlock(data, rows, content_type, time.monotonic(), self._last))
            self._sent += block.rows
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="aiostream-ds push", daemon=True
                )
                self._thread.start()
            elif waiting.rows == block.rows or self._is_full_batch():
                self._work.notify()
            return True

    def wait_for_change(self, seen: int, timeout: float | None) -> None:
        """Wait until `changes` is no longer `seen`, at most so long: an answer, or space."""
        with self._lock:
            self._change.wait_for(lambda: self.changes != seen, timeout)

    async def wait_for_change_async(self, seen: int, limit: float | None) -> None:
        """The same in an event loop. Safe to cancel."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        with self._lock:
            if self.changes != seen:
                return
            self._waiters.add(waiter)
        timer = None if limit is None else loop.call_later(limit, resolve, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            with self._lock:
                self._waiters.discard(waiter)

    def begin_flush(self) -> int:
        """Send all rows without waiting for more. Returns what `is_done` takes."""
        with self._lock:
            self._flushed = self._last
            self._work.notify()
            return self._last

    def is_done(self, number: int) -> bool:
        """Whether all rows up to a `begin_flush` have an answer.

        Raises:
            PushRejected: the server refuses them.
        """
        with self._lock:
            if self._batches and self._batches[0].blocks[0].number <= number:
                return self._raise_error()
            if self._waiting and self._waiting.first.number <= number:
                return self._raise_error()
            return True

    def begin_close(self, limit: float) -> int:
        """Take no more rows, and end within so many seconds. Returns what `is_done` takes."""
        with self._lock:
            if self._ends_at is None:
                self._closed_at = time.monotonic()
                self._ends_at = self._closed_at + limit
            self._flushed = self._last
            self._work.notify()
            return self._last

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._ends_at is not None

    @property
    def is_over(self) -> bool:
        """Whether it was closed, and the time to end is over."""
        return self._ends_at is not None and time.monotonic() >= self._ends_at

    def unsent(self) -> PushUnsent:
        """The error for rows without an answer in time."""
        with self._lock:
            rows = self._rows_without_answer()
            reason = f"; the last error was: {self._last_error}" if self._last_error else ""
        count = "1 row has" if rows == 1 else f"{rows:,} rows have"
        return PushUnsent(f"{count} no answer yet: not sent, or not acknowledged{reason}", rows)

    def _check_open(self) -> None:
        if self._ends_at is not None:
            raise PushError("the client is closed; no more rows can be sent")
        self._raise_error()

    def _raise_error(self) -> Literal[False]:
        if self.error is not None:
            raise PushRejected(str(self.error), self.error.status)
        return False

    def _is_full_batch(self) -> bool:
        waiting = self._waiting
        return waiting.rows >= self._limits.batch_rows or waiting.bytes >= self._max_bytes

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        post = self._make_post()
        try:
            while (batch := self._next_batch()) is not None:
                self._deliver(post, batch)
        except PushRejected as error:
            self._reject(error)
        except Exception as error:  # a fault of the client: nobody must wait for ever
            log.exception("the client of a push has failed")
            self._reject(PushRejected(f"the client has failed: {error!r}"))
        finally:
            post.close()

    def _next_batch(self) -> PushBatch | None:
        """Wait for the next batch; None: the client is closed, and there is none or no more time.

        The batch stays in `_batches` until it has an answer.
        """
        with self._lock:
            while True:
                now = time.monotonic()
                has_rows = bool(self._batches or self._waiting)
                if self._ends_at is not None and (not has_rows or now >= self._ends_at):
                    return None
                if self._batches:  # the second part of one
                    return self._batches[0]
                if self._waiting:
                    first = self._waiting.first
                    due = first.since + self._limits.batch_age
                    if first.number <= self._flushed or now >= due or self._is_full_batch():
                        break
                    self._work.wait(due - now)
                else:
                    self._work.wait()
            blocks = self._waiting.take(self._limits.batch_rows, self._max_bytes)
            self._key += 1
            batch = PushBatch(blocks, f"{self._client}-{self._key}")
            self._batches.append(batch)
            self._notify()  # there is space
            return batch

    def _deliver(self, post: "HttpPost", batch: PushBatch) -> None:
        """Send a batch until it has an answer, or the time to close is over."""
        body, delay = batch.body(), FIRST_DELAY
        while True:
            try:
                answer = post.post(body, batch.content_type, batch.key)
            except TryAgain as error:
                seconds = _jittered(delay) if error.after is None else max(error.after, FIRST_DELAY)
                delay = min(delay * 2, LONGEST_DELAY)
                self._note_retry(post.url, str(error), seconds)
                if not self._pause(seconds, obey=error.after is not None):
                    return
            except TooLarge as error:
                self._split(batch, len(body), str(error))
                return
            else:
                self._report_values(answer)
                refused = [(each.row, each.reason) for each in answer.refused]
                self._settle(batch, answer.taken, refused)
                return

    def _pause(self, seconds: float, *, obey: bool) -> bool:
        """Wait before a repetition. False: the time to close is over. A client that is closed tries
        again soon, unless the server has named a time."""
        until = time.monotonic() + seconds
        with self._lock:
            while True:
                now, end = time.monotonic(), until
                if self._ends_at is not None:
                    if now >= self._ends_at:
                        return False
                    soon = until if obey else max(self._closed_at, until - seconds) + CLOSING_DELAY
                    end = min(until, soon)
                if now >= end:
                    return True
                self._work.wait(min(end, self._ends_at or end) - now)

    def _split(self, batch: PushBatch, size: int, reason: str) -> None:
        """Halve a batch that the server refuses for its size; a row alone is refused."""
        parts = batch.halves()
        if not parts:
            self._settle(batch, 0, [(0, f"the row is too large{f': {reason}' if reason else ''}")])
            return
        with self._lock:
            self._max_bytes = max(1, min(self._max_bytes, size // 2))
            self._batches.popleft()
            self._batches.extendleft(reversed(parts))

    def _settle(self, batch: PushBatch, taken: int, refused: list[tuple[int, str]]) -> None:
        """Report the rows of a batch that were refused, and count the batch."""
        for number, reason in refused:
            self._report(batch.row(number), reason)
        with self._lock:
            self._batches.popleft()
            taken = min(max(taken, 0), batch.rows)
            self._taken += taken
            self._refused += batch.rows - taken
            self._last_error = ""
            self._notify()

    def _report(self, row: Any, reason: str) -> None:
        self._warn("refused", "the server has refused a row: %s: %s", reason, short_repr(row))
        if self._on_refused is not None:
            try:
                self._on_refused(row, reason)
            except Exception:
                log.exception("on_refused has failed")

    def _report_values(self, answer: "PushAnswer") -> None:
        """Count and log what the server has taken in another way than it was sent."""
        if answer.values_left_out > 0:
            with self._lock:
                self._values_left_out += answer.values_left_out
            self._warn(
                "values",
                "the server has left out %d values, which do not fit their columns or are beyond a"
                " limit",
                self._values_left_out,
            )
        if answer.warnings:
            self._warn("warning", "the server warns: %s", shortened("; ".join(answer.warnings)))

    def _note_retry(self, url: str, reason: str, seconds: float) -> None:
        with self._lock:
            self._retries += 1
            self._last_error = reason
            rows = self._rows_without_answer()
        self._warn(
            "retry",
            "%s: %s; trying again in %.1f s, rows that wait: %d",
            url,
            reason,
            seconds,
            rows,
        )

    def _reject(self, error: PushRejected) -> None:
        log.error("%s", error)
        with self._lock:
            self.error = error
            self._last_error = str(error)
            self._notify()

    def _notify(self) -> None:
        """Wake all that wait for space or an answer. With the lock."""
        self.changes += 1
        self._change.notify_all()
        for waiter in self._waiters:
            wake(waiter)
        self._waiters.clear()

    def _rows_without_answer(self) -> int:
        return self._waiting.rows + sum(batch.rows for batch in self._batches)

    def _warn(self, kind: str, message: str, *arguments: Any) -> None:
        """Log a line, at most one of a kind each LOG_INTERVAL."""
        now = time.monotonic()
        if now >= self._log_after.get(kind, 0.0):
            self._log_after[kind] = now + LOG_INTERVAL
            log.warning(message, *arguments)


def _jittered(delay: float) -> float:
    return delay * random.uniform(0.5, 1.0)  # clients of one server do not return together


# -- the end of the process, and its children ------------------------------------------------------

_open: "weakref.WeakSet[Delivery]" = weakref.WeakSet()


def _forget_rows() -> None:
    for delivery in tuple(_open):
        ends_at = delivery._ends_at
        delivery._reset()
        delivery._ends_at = ends_at


def _close_all() -> None:
    """Send what is left when the program ends, within the limit of each client."""
    deliveries = [each for each in tuple(_open) if not each.is_closed]
    ends = [(each, each.begin_close(EXIT_LIMIT)) for each in deliveries]
    for delivery, number in ends:
        try:
            while not delivery.is_done(number) and not delivery.is_over:
                delivery.wait_for_change(delivery.changes, 0.1)
        except PushRejected:
            pass  # logged
        rows = delivery.counts.waiting
        if rows:
            log.error("%s", delivery.unsent())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_rows)
atexit.register(_close_all)
