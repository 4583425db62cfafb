"""One run of a table's stream: what is read next, and what its viewers see of it."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, NamedTuple, TypeVar

from aiostream_ds._channels.status import Status
from aiostream_ds.rows import Cursor
from aiostream_ds.sources.postgres.keys import Pair
from aiostream_ds.sources.postgres.table_error import retried
from aiostream_ds.sources.postgres.table_reader import BEGINNING, TableReader, TableState

__all__ = ["TableRun"]

T = TypeVar("T")

Row = dict[str, Any]

_OLDER = Status(
    "warning",
    "the newest row of the table is older than rows that were read before: new rows are shown when"
    " their key is greater",
)


class _Found(NamedTuple):
    begins: Cursor[Pair] | None
    rows: list[Row]
    status: Status | None


class _Read(Generic[T]):
    """A read that runs in a task of its own, so that its caller can report that it takes long."""

    def __init__(self, task: "asyncio.Task[T]") -> None:
        self._task = task

    async def answered(self, seconds: float) -> bool:
        """Wait for the answer, for so many seconds at most."""
        done, _ = await asyncio.wait({self._task}, timeout=seconds)
        return bool(done)

    def result(self) -> T:
        """The answer. Raises what the read has raised."""
        return self._task.result()


class TableRun:
    """The position of one run of a stream in its table."""

    def __init__(
        self, reader: TableReader, filters: Mapping[str, str], after: Cursor[Pair]
    ) -> None:
        self._reader = reader
        self._filters = filters
        self._epoch, self._last = after
        self._state: TableState | None = None
        self._status: Status | None = None
        self._table_status: Status | None = None
        self._waited = 0.0
        self.has_more = False
        """Whether the last read was full, so that there may be more rows."""

    @asynccontextmanager
    async def started_read(self) -> AsyncGenerator[_Read[_Found]]:
        """Read the next rows, in a task that ends with the block."""
        self._waited = 0.0
        task = asyncio.ensure_future(self._read())
        try:
            yield _Read(task)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # was read: else asyncio reports an error that nobody waits for

    def waiting(self, seconds: float) -> Status:
        """The status while a read takes long."""
        self._waited += seconds
        self._status = Status("warning", f"PostgreSQL has not answered for {self._waited:g} s")
        return self._status

    def items(self, found: _Found) -> Iterator[Cursor[Pair] | list[Row] | Status]:
        """What the stream yields for the result of a read."""
        if found.begins is not None:
            yield found.begins
        if found.rows:
            yield found.rows
        if found.status != self._status:
            self._status = found.status
            yield found.status or Status()

    async def _read(self) -> _Found:
        with retried(has_filters=bool(self._filters)):
            begins = await self._check()
            rows, self._last, self.has_more = await self._reader.new_rows(self._last, self._filters)
        return _Found(begins, rows, self._table_status)

    async def _check(self) -> Cursor[Pair] | None:
        """Notice a table that was replaced or emptied. Returns where its numbering begins."""
        state = await self._reader.state()
        if state is self._state:
            return None
        self._state, self._table_status = state, state.status
        newest = state.newest
        if newest < self._last:  # rows may have been read since the check
            _, newest = await self._reader.newest()
        is_older = newest < self._last
        if state.epoch != self._epoch:
            # a table that was rewritten goes on; one that was emptied begins again
            self._epoch = state.epoch
            self._last = BEGINNING if is_older else self._last
            return Cursor(self._epoch, self._last)
        if is_older and newest != BEGINNING and not state.statements.has_transaction:
            self._table_status = state.status or _OLDER
        return None
