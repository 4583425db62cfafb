"""Finds out which open transaction keeps rows back, for the panel."""

from typing import Any, NamedTuple

import anyio

from aiostream_ds._channels.status import Status
from aiostream_ds.sources.postgres.database import Database

__all__ = ["HELD_AFTER", "OpenTransactions"]

HELD_AFTER = 5.0
"""Seconds for which rows wait for a transaction before panels say so."""

_SESSION = """
SELECT pid, usename, datname, state, extract(epoch FROM now() - xact_start)::float8
FROM pg_stat_activity WHERE backend_xid = ($1::int8 & 4294967295)::text::xid
"""

_PREPARED = """
SELECT gid, owner, database, extract(epoch FROM now() - prepared)::float8
FROM pg_prepared_xacts WHERE transaction = ($1::int8 & 4294967295)::text::xid
"""


class _Waiting(NamedTuple):
    transaction: int
    since: float


class OpenTransactions:
    """Follows the oldest open transaction of one table, from check to check."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: _Waiting | None = None

    async def status(self, transaction: int, has_waiting_rows: bool) -> Status | None:
        """The status of the table's streams; None: no row waits for long.

        Raises:
            PluginError: the server does not answer.
        """
        now = anyio.current_time()
        if not has_waiting_rows:
            self._waiting = None
            return None
        if self._waiting is None or self._waiting.transaction != transaction:
            self._waiting = _Waiting(transaction, now)
        seconds = now - self._waiting.since
        if seconds < HELD_AFTER:
            return None
        return Status("warning", await self._text(transaction, seconds))

    async def _text(self, transaction: int, seconds: float) -> str:
        text = "new rows wait until an open transaction ends"
        sessions = await self._database.fetch(_SESSION, transaction)
        if sessions:
            return f"{text}: {_session(sessions[0])}"
        prepared = await self._database.fetch(_PREPARED, transaction)
        if prepared:
            gid, owner, database, age = prepared[0]
            return f"{text}: the prepared one {gid!r} of {owner} in {database}, {age:.0f} s old"
        return f"{text}, number {transaction}, for {seconds:.0f} s"


def _session(session: Any) -> str:
    pid, user, database, state, age = session
    text = f"process {pid} of {user} in {database}"
    if state is None:
        return f"{text}; GRANT pg_read_all_stats to see what it does"
    return f"{text}, {state}, {age:.0f} s old"
