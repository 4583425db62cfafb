"""Reads one table for all of its channels, and notices when the table changes."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from math import inf
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
import msgspec
from msgspec.structs import replace

from aiostream_ds._channels.status import Status
from aiostream_ds._frames.config import Notice
from aiostream_ds._telemetry import DropReason, current_counters
from aiostream_ds.errors import ConfigError, NotFound, PluginError, copy_error
from aiostream_ds.rows import HistoryPage, HistoryRange
from aiostream_ds.sources.postgres.column_sql import SourceColumn, quoted
from aiostream_ds.sources.postgres.database import Database
from aiostream_ds.sources.postgres.keys import Pair
from aiostream_ds.sources.postgres.open_transactions import OpenTransactions
from aiostream_ds.sources.postgres.postgres_settings import PostgresSettings, TableSettings
from aiostream_ds.sources.postgres.statements import RowsRead, Statement, TableStatements
from aiostream_ds.sources.postgres.table_error import TableError

__all__ = ["BEGINNING", "CHECK_INTERVAL", "PAGE", "TableReader", "TableState"]

BEGINNING: Pair = (-1, -1)

PAGE = 1_000
"""Most rows of one read of new rows."""

SAMPLED_ROWS = 200_000
"""Rows of a time range, as the server estimates them, from which only some are read: the newest of
each interval."""

INLINE_ROWS = 2_000
"""Rows that are made of records in the event loop, in some 5 ms; more are made in a thread."""

CHECK_INTERVAL = 5.0
"""Seconds after which a stream asks whether its table has changed, and whether rows wait."""

_RELATION = """
SELECT c.oid, n.nspname, c.relname, c.relfilenode
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)
"""

_COLUMNS = """
SELECT attname FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
AND has_column_privilege(attrelid, attnum, 'SELECT') ORDER BY attnum
"""

_TIME_INDEX = """
SELECT EXISTS (
    SELECT 1 FROM pg_index AS i
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    JOIN pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_am AS m ON m.oid = c.relam
    WHERE i.indrelid = $1 AND a.attname = $2 AND i.indisvalid AND i.indpred IS NULL
        AND m.amname = 'btree'
)
"""

_SIMILAR = """
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE lower(c.relname) = lower($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') LIMIT 3
"""


class TableState(NamedTuple):
    """What a check has found.

    `epoch` changes when the table is replaced, or truncated; `newest` is the cursor of its newest
    row; a `status` is shown by all panels of the table. `has_time_index`: an index is ordered by
    the time.
    """

    statements: TableStatements
    epoch: str
    newest: Pair
    status: Status | None
    has_time_index: bool


class TableReader:
    """Reads one table, view or SELECT. Create it in `lifespan`: it counts in the plugin's counters.

    At most half of the pool's connections serve one table: a slow one leaves some to the others.
    """

    def __init__(
        self,
        name: str,
        table: TableSettings,
        database: Database,
        settings: PostgresSettings,
        threads: anyio.CapacityLimiter,
    ) -> None:
        if bool(table.table) == bool(table.select):
            raise ConfigError(f"tables.{name}: expected either table or select, got both or none")
        self.name = name
        self.table = table
        self._database = database
        self._settings = settings
        self._threads = threads
        self._slots = anyio.Semaphore(settings.connections // 2)
        self._check_lock = anyio.Lock()
        self._newest_lock = anyio.Lock()
        self._newest_read: tuple[float, Pair] | None = None  # when it began, and its result
        self._state: TableState | None = None
        self._checked = self._failed = -inf
        self._error: PluginError | None = None
        self._transactions = OpenTransactions(database)
        self._counters = current_counters()
        self.left_out: Counter[str] = Counter()
        """As the metric counts it: "message" are rows without a time, "value" long values."""

    # -- the table -----------------------------------------------------------------------------

    async def state(self) -> TableState:
        """The state of the last check, which is at most `CHECK_INTERVAL` old.

        Raises:
            PluginError: the server cannot be read, the table or one of its columns does not exist.
        """
        called = anyio.current_time()
        async with self._check_lock:
            if self._state is not None and anyio.current_time() < self._checked + CHECK_INTERVAL:
                return self._state
            if self._error is not None and self._failed >= called:
                raise copy_error(self._error)  # of the check that this call has waited for
            self._state = self._error = None
            try:
                self._state = await self._check()
            except PluginError as error:
                self._error, self._failed = error, anyio.current_time()
                raise
            self._checked = anyio.current_time()
            return self._state

    async def _check(self) -> TableState:
        source, columns, epoch = await self._describe()
        table, settings = self.table, self._settings
        statements = TableStatements(
            self.name, source, columns, table, settings.time_zone, settings.max_value
        )
        newest = await self._newest(statements)
        status = await self._status(statements) if statements.has_transaction else None
        # the id of a transaction increases also in a table that was truncated
        shown = epoch[:1] if statements.has_transaction else epoch
        has_index = False
        if epoch:
            ((has_index,),) = await self._database.fetch(
                _TIME_INDEX, int(epoch[0]), statements.time.name
            )
        return TableState(statements, ".".join(shown), newest, status, has_index)

    async def _describe(self) -> tuple[str, list[SourceColumn], tuple[str, ...]]:
        if self.table.select:
            # a line break: the SELECT may end with a comment
            source = f"({self.table.select.rstrip().rstrip(';')}\n)"
            return source, await self._database.describe(f"SELECT * FROM {source} AS q"), ()
        relations = await self._database.fetch(_RELATION, self.table.table)
        if not relations:
            raise await self._no_table()
        oid, schema, name, filenode = relations[0]
        source = f"{quoted(schema)}.{quoted(name)}"
        names = [f"q.{quoted(name)}" for (name,) in await self._database.fetch(_COLUMNS, oid)]
        if not names:
            raise TableError(
                f"{self.table.table} cannot be read: GRANT SELECT ON {source}"
                f" TO {quoted(self._settings.user)}"
            )
        columns = await self._database.describe(f"SELECT {', '.join(names)} FROM {source} AS q")
        return source, columns, (str(oid), str(filenode))

    async def _no_table(self) -> NotFound:
        last_name = self.table.table.rpartition(".")[2].strip('"')
        similar = [name for (name,) in await self._database.fetch(_SIMILAR, last_name)]
        hint = f"; there is {', '.join(similar)}" if similar else ""
        database = self._settings.database
        return NotFound(f"the database {database!r} has no table {self.table.table!r}{hint}")

    async def _status(self, statements: TableStatements) -> Status | None:
        ((transaction, has_waiting, has_unknown),) = await self._fetch(statements.waiting())
        if has_unknown:
            column = statements.key.columns[0].name
            return Status(
                "error",
                f"rows are not shown: their {column} is not a transaction of this server, as after"
                f" a restore from a dump; set their {column} to 0",
            )
        return await self._transactions.status(transaction, has_waiting)

    async def try_read(self) -> None:
        """Read a row, with all of its columns. Raises PluginError."""
        statements = (await self.state()).statements
        statements.rows(await self._fetch(statements.after(None, None, 1, {})))

    # -- rows ----------------------------------------------------------------------------------

    async def new_rows(
        self, after: Pair, filters: Mapping[str, str], limit: int = PAGE
    ) -> tuple[list[dict[str, Any]], Pair, bool]:
        """The oldest rows after a cursor, the cursor up to which nothing is left, and whether there
        may be more."""
        statements = (await self.state()).statements
        upto = None
        if filters:
            # rows that do not match are read once, not again at each read until one matches
            upto = await self._shared_newest(statements)
            if upto <= after:
                return [], after, False
        read = await self._read(
            statements, statements.after(_or_none(after), upto, limit, filters), limit
        )
        if read.is_full and read.last is not None:
            return read.rows, read.last, True
        return read.rows, upto or read.last or after, False

    async def newest(self) -> tuple[str, Pair]:
        """The epoch, and the cursor of the newest row."""
        state = await self.state()
        return state.epoch, await self._newest(state.statements)

    async def _shared_newest(self, statements: TableStatements) -> Pair:
        """The cursor of the newest row, read after this call: a notification wakes all channels of
        the table at once, and one read is for all."""
        called = anyio.current_time()
        async with self._newest_lock:
            if self._newest_read is not None and self._newest_read[0] >= called:
                return self._newest_read[1]
            started = anyio.current_time()
            found = await self._newest(statements)
            self._newest_read = started, found
            return found

    async def _newest(self, statements: TableStatements) -> Pair:
        found = await self._fetch(statements.newest())
        return statements.key.cursor(found[0]) if found else BEGINNING

    async def history(
        self, wanted: HistoryRange[Pair], filters: Mapping[str, str]
    ) -> HistoryPage[Pair]:
        """The rows of a range, as a history hook returns them."""
        state = await self.state()
        statements = state.statements
        if wanted.after is None:
            return await self._range(state, wanted, filters)
        after = _or_none(wanted.after)
        statement = statements.after(after, wanted.upto, wanted.limit, filters)
        read = await self._read(statements, statement, wanted.limit)
        truncated = False
        if after is not None and read.rows:
            ((exists,),) = await self._fetch(statements.has_rows_until(after))
            truncated = not exists  # the row of this cursor was deleted, as by a retention
        return HistoryPage(read.rows, epoch=state.epoch, last=read.last, truncated=truncated)

    async def _range(
        self, state: TableState, wanted: HistoryRange[Pair], filters: Mapping[str, str]
    ) -> HistoryPage[Pair]:
        statements, last = state.statements, None
        if wanted.end > datetime.now(UTC):
            # read first: all rows up to this one are in the range, or before it. Rows of old times
            # may have been inserted after the newest row of the range
            last = await self._newest(statements)
        statement = statements.between(wanted.start, wanted.end, wanted.limit, filters)
        read = await self._read(statements, statement, wanted.limit)
        page: HistoryPage[Pair] | None = None
        if read.is_full and read.rows and wanted.points < wanted.limit:
            page = await self._sampled(state, wanted, filters, read.rows)
        if page is None:
            read.rows.sort(key=_cursor_of)
            page = HistoryPage(read.rows)
        notices = page.notices + self._notices(state, read.counts)
        return replace(page, epoch=state.epoch, last=last, notices=notices)

    async def _sampled(
        self,
        state: TableState,
        wanted: HistoryRange[Pair],
        filters: Mapping[str, str],
        newest: list[dict[str, Any]],
    ) -> HistoryPage[Pair] | None:
        """One row of each interval of a range with too many rows to read; None for other ranges.

        `newest` are the newest rows of the range, the newest first.
        """
        statements, end = state.statements, newest[0]["time"]
        if not (state.has_time_index and statements.has_numbers):
            return None
        ((plan,),) = await self._fetch(statements.count(wanted.start, end, filters))
        estimate = int(msgspec.json.decode(plan)[0]["Plan"]["Plan Rows"])
        if estimate < SAMPLED_ROWS:
            return None
        # less than `points` steps, and the newest row of all
        step = max(wanted.interval, (end - wanted.start) / max(wanted.points - 3, 1))
        statement = statements.sampled(wanted.start, end, step, filters)
        read = await self._read(statements, statement, wanted.limit)
        found = {_cursor_of(row): row for row in [*read.rows, newest[0]]}
        rows = [found[cursor] for cursor in sorted(found)]
        text = (
            f"The newest row of each {step.total_seconds():,.3g} s is drawn, of about"
            f" {estimate:,} rows: peaks between them are not."
        )
        notice = Notice(severity="info", text=text)
        return HistoryPage(rows, total=estimate, notices=(notice,))

    async def examples(self, column: str, rows: int) -> list[str]:
        """The values of a filter in the newest rows."""
        statements = (await self.state()).statements
        return [value for (value,) in await self._fetch(statements.examples(column, rows))]

    async def _fetch(self, statement: Statement) -> list[Any]:
        async with self._slots:
            return await self._database.fetch(statement.sql, *statement.arguments)

    async def _read(self, statements: TableStatements, statement: Statement, limit: int) -> "_Read":
        records = await self._fetch(statement)
        if len(records) <= INLINE_ROWS:
            read = statements.rows(records)
        else:
            read = await anyio.to_thread.run_sync(statements.rows, records, limiter=self._threads)
        left_out: dict[DropReason, int] = {"message": read.no_time, "value": read.too_long}
        for reason, number in left_out.items():
            if number:
                self.left_out[reason] += number
                self._counters.count_dropped(reason, number)
        return _Read(read.rows, read.last, len(records) >= limit, read)

    def _notices(self, state: TableState, read: RowsRead) -> tuple[Notice, ...]:
        texts = []
        if read.no_time:
            time = state.statements.time.name
            texts.append(f"{read.no_time:,} rows have no {time}, or one that cannot be drawn")
        if read.too_long:
            most = self._settings.max_value
            texts.append(f"{read.too_long:,} values of more than {most:,} bytes are left out")
        if state.status is not None:
            texts.append(state.status.text)
        found = [Notice(severity="warning", text=text) for text in texts]
        if not (state.statements.has_transaction or self.table.single_writer):
            text = "rows that commit late are missing in live panels: the table has no transaction"
            found.append(Notice(severity="info", text=text))
        return tuple(found)


class _Read(NamedTuple):
    rows: list[dict[str, Any]]
    last: Pair | None
    is_full: bool
    counts: RowsRead


def _or_none(cursor: Pair) -> Pair | None:
    return None if cursor == BEGINNING else cursor


def _cursor_of(row: dict[str, Any]) -> Pair:
    return row["cursor_1"], row["cursor_2"]
