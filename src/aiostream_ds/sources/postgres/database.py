"""Connections to the server: how they are opened, a bounded pool of them, errors in words."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import anyio
import anyio.to_thread
import asyncpg
from anyio.abc import TaskGroup

from aiostream_ds._connection_errors import connection_error
from aiostream_ds._tls import ssl_context
from aiostream_ds.errors import BadQuery, ConfigError, NotFound, PluginError, UpstreamError
from aiostream_ds.sources.postgres.column_sql import SourceColumn
from aiostream_ds.sources.postgres.postgres_settings import PostgresSettings
from aiostream_ds.sources.postgres.table_error import TableError

__all__ = ["CLIENT_ERRORS", "Database", "close", "server_error"]

APPLICATION_NAME = "aiostream-ds"
"""What `pg_stat_activity` shows."""

RECOVERY = 2.0
"""Seconds after which a connection whose statement was cancelled is closed."""

IDLE = 60.0
"""Seconds after which a connection that is not needed is closed."""

LEAVE_TIMEOUT = 1.0
"""Seconds that a connection may take to close."""

GRACE = 5.0
"""Seconds that an answer may be later than the server's own limit for a statement."""

CONNECTION_ERRORS = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)

CLIENT_ERRORS = (*CONNECTION_ERRORS, asyncpg.PostgresError)

T = TypeVar("T")

_BAD_VALUES = ("22P02", "22003", "22007", "22008")
"""A text that is not of the type, a number out of range, an invalid time."""


def server_error(error: BaseException, settings: PostgresSettings) -> PluginError:
    """The error for viewers and Save & test, for an exception of asyncpg."""
    server = f"PostgreSQL {settings.host}:{settings.port}"
    code = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.PostgresError) and code:
        found = _explain(code, error, server, settings)
    elif isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        found = UpstreamError(f"{server}: {error}")
    else:
        return connection_error(error, settings.host, settings.port, "PostgreSQL")
    found.__cause__ = error
    return found


def _explain(
    code: str, error: asyncpg.PostgresError, server: str, settings: PostgresSettings
) -> PluginError:
    """By SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html"""
    text = " ".join(str(error.args[0]).split())  # without DETAIL, which may have values of rows
    if code == "28P01":
        return ConfigError(f"{server} refuses the login: {text}")
    if code.startswith("28"):  # pg_hba.conf: no such role or address, or without TLS
        return ConfigError(f"{server} refuses the connection: {text}")
    if code == "3D000":
        return ConfigError(f"{server}: {text}; set database")
    if code == "25006":  # a SELECT that writes; LISTEN on a standby
        return ConfigError(f"{server}: {text}")
    if code == "08P01" and "startup parameter" in text:
        return ConfigError(f"{server}: {text}; for PgBouncer set pooler to true")
    if code == "42501":
        return TableError(f"{server}: {text}; GRANT it to {settings.user!r}")
    if code in ("42P01", "3F000"):
        return NotFound(f"{server}: {text}")
    if code == "57014":
        return UpstreamError(
            f"{server} cancelled a statement after {settings.statement_timeout:g} s: {text}"
        )
    if code in _BAD_VALUES:
        return BadQuery(f"{server}: {text}")
    if code.startswith(("42", "0A")) or code == "22023":  # an unknown time zone
        return TableError(f"{server}: {text}")
    return UpstreamError(f"{server}: {text}")


class _Idle(NamedTuple):
    connection: asyncpg.Connection
    since: float


async def close(connection: asyncpg.Connection) -> None:
    """Take leave of the server; one that does not answer in time is left without a word."""
    try:
        with anyio.fail_after(LEAVE_TIMEOUT):
            await connection.close()
    except CLIENT_ERRORS:
        connection.terminate()
    except BaseException:
        connection.terminate()
        raise


class Database:
    """A bounded pool of connections that only read. Enter it in `lifespan`.

    A connection whose statement was cancelled, or timed out, is used again once the server has
    confirmed it; one that does not answer is closed. Safe to cancel.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._slots = anyio.Semaphore(settings.connections)
        self._idle: list[_Idle] = []  # the one that is used next is the last one
        self._tls: object = False  # or an SSLContext
        self._tasks: TaskGroup | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator["Database"]:
        """Read the certificates; close all connections at the end.

        Raises:
            ConfigError: a certificate or key is invalid.
        """
        if self._settings.tls:
            self._tls = await anyio.to_thread.run_sync(ssl_context, self._settings)
        try:
            async with anyio.create_task_group() as self._tasks:
                yield self
                self._tasks.cancel_scope.cancel()
        finally:
            idle, self._idle = self._idle, []
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as tasks:
                    for connection, _ in idle:
                        tasks.start_soon(close, connection)

    async def connect(self) -> asyncpg.Connection:
        """A new connection, outside of the pool.

        Raises:
            PluginError: why there is none.
        """
        settings = self._settings
        options = {"application_name": APPLICATION_NAME}
        if not settings.pooler:  # PgBouncer refuses what it does not know
            options |= {
                "default_transaction_read_only": "on",
                "statement_timeout": str(round(settings.statement_timeout * 1000)),
            }
        arguments: dict[str, Any] = {
            "host": settings.host,
            "port": settings.port,
            "user": settings.user,
            "password": settings.password.reveal(),
            "database": settings.database,
            "ssl": self._tls,
            "timeout": settings.connect_timeout,
            "command_timeout": settings.statement_timeout + GRACE,
            "statement_cache_size": 0 if settings.pooler else 100,
            "server_settings": options,
        }
        try:
            connection: asyncpg.Connection = await asyncpg.connect(**arguments)
        except (*CLIENT_ERRORS, UnicodeError) as error:  # a host that no name can be
            raise server_error(error, settings) from error
        return connection

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        """The records of a statement.

        Raises:
            PluginError: why there are none.
        """

        async def run(connection: asyncpg.Connection) -> list[Any]:
            records: list[Any] = await connection.fetch(sql, *arguments)
            return records

        return await self._run(run)

    async def describe(self, sql: str) -> list[SourceColumn]:
        """The columns of a SELECT. Raises PluginError."""

        async def run(connection: asyncpg.Connection) -> list[SourceColumn]:
            prepared = await connection.prepare(sql)
            found = prepared.get_attributes()
            names = await connection.fetch(
                # with NULL in place of -1, char(5) would become char, which is char(1)
                "SELECT format_type(oid, -1) FROM unnest($1::oid[]) WITH ORDINALITY"
                " AS t (oid, n) ORDER BY n",
                [each.type.oid for each in found],
            )
            return [
                SourceColumn(each.name, each.type.name, each.type.kind, name)
                for each, (name,) in zip(found, names, strict=True)
            ]

        return await self._run(run)

    async def _run(self, use: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Use a connection; again with a new one, if an idle one was closed by the server."""
        try:
            async with self._slots:
                while self._idle:
                    connection, _ = self._idle.pop()
                    if connection.is_closed():
                        continue
                    try:
                        return await self._use(connection, use)
                    except CONNECTION_ERRORS as error:
                        if isinstance(error, TimeoutError) or not connection.is_closed():
                            raise
                return await self._use(await self.connect(), use)
        except CLIENT_ERRORS as error:
            raise server_error(error, self._settings) from error

    async def _use(
        self,
        connection: asyncpg.Connection,
        use: Callable[[asyncpg.Connection], Awaitable[T]],
    ) -> T:
        try:
            if self._settings.pooler:
                async with connection.transaction(readonly=True):
                    limit = round(self._settings.statement_timeout * 1000)
                    await connection.execute(f"SET LOCAL statement_timeout = {limit}")
                    result = await use(connection)
            else:
                result = await use(connection)
        except asyncpg.PostgresError:
            self._give_back(connection)
            raise
        except BaseException:
            self._recover(connection)
            raise
        self._give_back(connection)
        return result

    def _give_back(self, connection: asyncpg.Connection) -> None:
        if connection.is_in_transaction():  # a cancelled one of a pooler
            connection.terminate()
        elif not connection.is_closed():
            now = anyio.current_time()
            self._idle.append(_Idle(connection, now))
            if self._idle[0].since < now - IDLE and self._tasks is not None:
                self._tasks.start_soon(close, self._idle.pop(0).connection)

    def _recover(self, connection: asyncpg.Connection) -> None:
        tasks = self._tasks
        if connection.is_closed() or tasks is None or tasks.cancel_scope.cancel_called:
            connection.terminate()
        else:
            tasks.start_soon(self._wait_for_cancellation, connection)

    async def _wait_for_cancellation(self, connection: asyncpg.Connection) -> None:
        """asyncpg asks the server to cancel the statement, and waits for it before the next one."""
        try:
            with anyio.fail_after(RECOVERY):
                await connection.execute("SELECT 1")
        except CLIENT_ERRORS:
            connection.terminate()
        except BaseException:
            connection.terminate()
            raise
        else:
            self._give_back(connection)
