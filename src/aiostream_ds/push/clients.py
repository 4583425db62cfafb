"""`Push` and `AsyncPush`: what a program calls."""

import os
import ssl
import time
from collections.abc import Iterator
from typing import Any, Self

from aiostream_ds._frames.dataframes import is_table
from aiostream_ds._installation import install_command
from aiostream_ds._loggers import get_logger
from aiostream_ds.push.addresses import find_address
from aiostream_ds.push.delivery import (
    BATCH_AGE,
    BATCH_BYTES,
    BATCH_ROWS,
    BUFFER_BYTES,
    BUFFER_ROWS,
    Delivery,
    OnRefused,
    PushCounts,
    PushFull,
    SendLimits,
)
from aiostream_ds.push.rejections import PushError, PushRejected
from aiostream_ds.push.row_json import PushTimeUnit, RowJson
from aiostream_ds.push.waiting_rows import ARROW, RowBlock

__all__ = ["AsyncPush", "Push"]

log = get_logger(__name__)

CLOSE_LIMIT = 10.0
"""Seconds that the end of a `with` block waits for the rows that were not yet taken."""


class _Client:
    """What both clients share. See `Push`."""

    def __init__(
        self,
        url: str | None = None,
        path: str | None = None,
        *,
        uid: str | None = None,
        token: str | None = None,
        time: str = "time",
        time_unit: PushTimeUnit = "s",
        add_time: bool = True,
        batch_rows: int = BATCH_ROWS,
        batch_bytes: int = BATCH_BYTES,
        batch_age: float = BATCH_AGE,
        buffer_rows: int = BUFFER_ROWS,
        buffer_bytes: int = BUFFER_BYTES,
        full: PushFull = "block",
        close_limit: float = CLOSE_LIMIT,
        timeout: float | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        on_refused: OnRefused | None = None,
    ) -> None:
        try:
            from aiostream_ds.push.http_post import HttpPost
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"a push needs the package {error.name!r}; run: {install_command('push')}",
                name=error.name,
            ) from None
        self._address = find_address(url, path, uid=uid, token=token)
        self._json = RowJson(time, time_unit, add_time)
        self._time = time
        limits = SendLimits(batch_rows, batch_bytes, batch_age, buffer_rows, buffer_bytes, full)
        self._batch_bytes = batch_bytes
        self._close_limit = _seconds("close_limit", close_limit)
        if timeout is not None:
            _seconds("timeout", timeout, above_zero=True)
        file = None if ca_file is None else _checked_certificates(os.fspath(ca_file))
        address = self._address
        self._delivery = Delivery(
            lambda: HttpPost(address, ca_file=file, timeout=timeout), limits, on_refused
        )

    @property
    def url(self) -> str:
        """The address that rows are posted to."""
        return self._address.url

    @property
    def counts(self) -> PushCounts:
        """The numbers of rows so far. Thread-safe."""
        return self._delivery.counts

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def _is_answered(self, number: int, left: float | None) -> bool:
        """Whether all rows up to this number have an answer. Raises PushUnsent if not, and there is
        no time left."""
        if self._delivery.is_done(number):
            return True
        if left == 0 or self._delivery.is_over:
            raise self._delivery.unsent()
        return False

    def _blocks(self, row: Any) -> Iterator[RowBlock]:
        if is_table(type(row)):
            from aiostream_ds.push.row_tables import table_parts  # imports pyarrow

            for data, rows in table_parts(row, self._time, self._batch_bytes):
                yield RowBlock(data, rows, ARROW)
        else:
            for line in self._json.encode(row):
                yield RowBlock(line)


class Push(_Client):
    """Pushes rows to a path of a data source `push`, from scripts, threads and callbacks.

        with Push("https://grafana.example.org", "lab/run-1", uid="push") as push:
            push.send({"loss": 0.1, "accuracy": 0.9})

    `send` puts a row into a buffer; a thread sends what is there in batches. While the server is
    away, or asks to wait, a batch is repeated with the same idempotency key: each row is stored
    once. The end of the block waits for the rest, at most `close_limit` seconds; without a block
    call `close`. Rows of a client that was not closed are sent when the program ends.

    All methods are thread-safe. After a fork the child's rows are sent by a thread of its own, and
    those that were buffered before by the parent only. A child of `multiprocessing` must close what
    it has sent with.

    Args:
        url: that of Grafana, with `uid`; that of the data source's page or resource in Grafana; or
            that of the console. By default AIOSTREAM_DS_PUSH_URL, or the console of `aiostream-ds
            dev` on this machine.
        path: the channel: segments of letters, digits and _ - = . separated by slashes.
        uid: that of the data source.
        token: that of a service account; by default AIOSTREAM_DS_PUSH_TOKEN.
        time: the key of a row's time. Without a key `time`, the only one named like a time
            (`timestamp`, `ts` …) has it.
        time_unit: the unit of times that are numbers: "s", "ms", "us", "ns", or "auto": by size.
        add_time: whether rows without a time get that of `send`; otherwise the server's.
        batch_rows, batch_bytes: how much is sent at once; a larger row is sent alone.
        batch_age: seconds that a row waits for others.
        buffer_rows, buffer_bytes: how much may wait; one block of a table may be more.
        full: when it is full, `send` waits ("block"), or the oldest rows are lost ("drop_oldest")
            and counted.
        close_limit: seconds that `close` waits.
        timeout: seconds to wait for an answer; by default 30.
        ca_file: the certificates that sign the server's; by default those of the system.
        on_refused: called with each row that the server refuses and the reason, in the client's
            thread, which sends nothing meanwhile.

    Raises:
        ModuleNotFoundError: the extra `push` is not installed.
        ValueError: an argument is not valid, or no path is given.
    """

    def send(self, row: Any, *, timeout: float | None = None) -> None:
        """Send a row, a list of rows, or a table of pandas, polars, pyarrow or DuckDB.

        A row is what a stream may yield. It is encoded at once: it may be changed afterwards.
        Returns at once, unless the buffer is full.

        Raises:
            TypeError, ValueError: it is not a row, or one of its values cannot be sent.
            PushRejected: the server refuses what this client sends.
            PushError: the client is closed.
            TimeoutError: the buffer was full for `timeout` seconds. Rows of a list or a table
                before that are sent.
        """
        ends_at = _end(timeout)
        for block in self._blocks(row):
            while True:
                seen = self._delivery.changes
                if self._delivery.add(block):
                    break
                left = _left(ends_at)
                if left == 0:
                    raise TimeoutError(f"the buffer was full for {timeout:g} s")
                self._delivery.wait_for_change(seen, left)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until the server has answered for all rows so far.

        Raises:
            PushRejected: the server refuses what this client sends.
            PushUnsent: some had no answer within `timeout` seconds. They are not lost: they are
                sent later.
        """
        self._wait(self._delivery.begin_flush(), timeout)

    def close(self, timeout: float | None = None) -> None:
        """Send the rest, and end; waits at most `timeout` seconds, by default `close_limit`.

        Raises:
            PushRejected: the server refuses what this client sends.
            PushUnsent: some rows had no answer in time.
        """
        limit = self._close_limit if timeout is None else timeout
        self._wait(self._delivery.begin_close(limit), limit)

    def _wait(self, number: int, timeout: float | None) -> None:
        ends_at = _end(timeout)
        while True:
            seen = self._delivery.changes
            if self._is_answered(number, left := _left(ends_at)):
                return
            self._delivery.wait_for_change(seen, left)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except PushError as error:
            if kind is None:
                raise
            if not isinstance(error, PushRejected):  # which is logged
                log.error("%s", error)  # the error of the block is the one that matters


class AsyncPush(_Client):
    """`Push` for asyncio: `async with`, and `await` where the buffer is full.

        async with AsyncPush(path="lab/run-1") as push:
            await push.send({"loss": 0.1})

    The arguments and errors are those of `Push`. Rows are sent by a thread, so a busy event loop
    does not delay them. All methods are safe to cancel: a row is sent, or not at all.
    """

    async def send(self, row: Any) -> None:
        """Send a row, a list of rows or a table. Waits only when the buffer is full.

        Raises as `Push.send`; use `asyncio.timeout` to limit it. Of a list or a table the first
        rows may be sent then.
        """
        for block in self._blocks(row):
            while True:
                seen = self._delivery.changes
                if self._delivery.add(block):
                    break
                await self._delivery.wait_for_change_async(seen, None)

    async def flush(self) -> None:
        """Wait until the server has answered for all rows so far; use `asyncio.timeout` to limit
        it: rows are sent later then.

        Raises:
            PushRejected: the server refuses what this client sends.
        """
        await self._wait(self._delivery.begin_flush(), None)

    async def close(self) -> None:
        """Send the rest, and end; waits at most `close_limit` seconds.

        Cancelled, it stops waiting: the rest is sent within that time if the program goes on.

        Raises:
            PushRejected: the server refuses what this client sends.
            PushUnsent: some rows had no answer in time.
        """
        await self._wait(self._delivery.begin_close(self._close_limit), self._close_limit)

    async def _wait(self, number: int, limit: float | None) -> None:
        ends_at = _end(limit)
        while True:
            seen = self._delivery.changes
            if self._is_answered(number, left := _left(ends_at)):
                return
            await self._delivery.wait_for_change_async(seen, left)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self.close()
        except PushError as error:
            if kind is None:
                raise
            if not isinstance(error, PushRejected):
                log.error("%s", error)


def _checked_certificates(file: str) -> str:
    try:
        ssl.create_default_context(cafile=file)
    except OSError:  # SSLError is one
        raise ValueError(f"ca_file must be a file of certificates, got {file!r}") from None
    return file


def _end(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(ends_at: float | None) -> float | None:
    """The seconds until then, at least 0; None: there is no limit."""
    return None if ends_at is None else max(0.0, ends_at - time.monotonic())


def _seconds(name: str, value: Any, *, above_zero: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise ValueError(f"{name} must be seconds of at least 0, got {value!r}")
    if above_zero and value == 0:
        raise ValueError(f"{name} must be seconds above 0, got {value!r}")
    return float(value)
